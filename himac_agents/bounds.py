"""What each setting of a run may be, told before anything is trained."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from himac_agents.methods import METHODS

if TYPE_CHECKING:
    from himac_agents.config import TrainConfig

_AT_LEAST_1 = (
    "tasks", "blueprints", "executions", "minibatches", "epochs", "lanes", "least_minibatch",
    "planner_every", "executor_updates", "checkpoint_every", "eval_episodes", "micro_tokens",
    "warm_tokens", "warm_planner_repeats", "hidden", "layers", "heads", "feedforward",
    "max_command_tokens", "max_blueprint_tokens",
)  # fmt: skip
_AT_LEAST_0 = (
    "subgoal_budget", "replans", "max_env_steps", "max_tokens", "eval_at_tokens", "resample_dead",
    "iterations", "warm_steps", "flat_warm_steps", "demos", "threads", "lr", "warm_lr", "kl",
    "clip", "clip_high", "format_penalty", "step_cost", "gigpo_weight", "lora_rank",
)  # fmt: skip
_ABOVE_0 = ("temperature", "max_grad_norm", "lora_alpha")
_SHARES = ("demo_noise", "plan_noise", "warm_planner_share", "gigpo_discount")


def check(config: TrainConfig) -> None:
    """Refuses settings that mean nothing, or not what they say.

    Raises:
        ValueError: The message names the setting, its value and what it may be.
    """
    for name, choices in _choices().items():
        _check_choice(name, getattr(config, name), choices)
    for names, least in ((_AT_LEAST_1, 1), (_AT_LEAST_0, 0)):
        for name in names:
            value = getattr(config, name)
            if not (value >= least and math.isfinite(value)):
                raise ValueError(f"{name}={value}: must be at least {least}")
    for name in _ABOVE_0:
        value = getattr(config, name)
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name}={value}: must be above 0")
    check_shares(**{name: getattr(config, name) for name in _SHARES})
    check_seeds(config.seed)
    _check_together(config)


def check_shares(**values: float) -> None:
    """Refuses shares and chances, given by name, that are none.

    Raises:
        ValueError: One does not lie between 0 and 1.
    """
    for name, value in values.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}={value}: it lies between 0 and 1")


def check_seeds(*seeds: int) -> None:
    """Refuses seeds that some generator does not take.

    Raises:
        ValueError: A seed is below 0, or needs more than 63 bits.
    """
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed {seed}: it lies between 0 and 2^63 - 1")


@cache
def _choices() -> dict[str, tuple[Any, ...]]:
    """The values that may be chosen among, by setting."""
    from himac_agents.config import TrainConfig

    found = {}
    for name, hint in get_type_hints(TrainConfig).items():
        if get_origin(hint) is tuple:
            hint = get_args(hint)[0]
        if get_origin(hint) is Literal:
            found[name] = get_args(hint)
    return found


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    for one in value if isinstance(value, tuple) else (value,):
        if one not in choices:
            raise ValueError(f"{name}={one!r}: choose among {', '.join(map(str, choices))}")


def _check_together(config: TrainConfig) -> None:
    if config.history != "episode" and (isinstance(config.history, str) or config.history < 0):
        raise ValueError(f'history={config.history!r}: "episode", or a number of steps')
    if not METHODS[config.method].sub_done and not config.subgoal_budget:
        raise ValueError(
            f"method={config.method!r} ends sub-goals after a fixed number of steps: set it with "
            "subgoal_budget"
        )
    if config.policy == "tiny" and config.hidden % (2 * config.heads):
        raise ValueError(
            f"hidden={config.hidden}, heads={config.heads}: each head needs an even width"
        )
    if not config.lora_targets:
        raise ValueError("lora_targets is empty: name the modules that get an adapter")
    if config.lora_rank and config.policy != "hf":
        raise ValueError("lora_rank > 0 needs policy='hf': the tiny model learns as a whole")
    if config.separate_adapters and not config.lora_rank:
        raise ValueError("separate_adapters needs lora_rank > 0")
    if config.supervised_steps and not (config.demos or config.demo_file):
        raise ValueError("demos=0: a warm start of warm_steps > 0 needs demonstrations")
    if "supervised" in config.baselines and not config.supervised_steps:
        raise ValueError(
            "baselines: 'supervised' trains the warm start on, and warm_steps=0 makes none"
        )
