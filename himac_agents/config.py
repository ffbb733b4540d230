"""Every setting of a training run, one documented field each, and the presets that fill them in.

A preset is a TOML file in `registry/presets`; its keys are the fields below. `himac train` shows
the same fields as command-line options.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from himac_agents.pairs import Pairs
from himac_envs import data, registry

Baseline = Literal["supervised", "grpo", "demonstrator", "oracle"]


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run. Work is counted in steps and tokens, never in seconds."""

    # -- what is learned -------------------------------------------------------------------------

    # "himac" is the paper's (its formulas are reconstructed), "himac-option" this project's; then
    # there are ablations of the paper's, flat agents ("grpo", "rloo", "gigpo"), and what was
    # registered from outside: see himac_agents/algorithms/methods.py.
    method: str = "himac"
    # The hierarchical environment.
    env: str = "HiMAC-ALFWorld-v0"
    # The same tasks without a hierarchy: for the flat methods and the flat baseline.
    flat_env: str = "HiMAC-ALFWorld-Flat-v0"
    # Further keyword arguments of both environments; a value "$HIMAC_DATA/..." reads the variable.
    env_kwargs: Pairs = field(default_factory=dict)
    # Seed of everything: weights, demonstrations, task choice, sampling.
    seed: int = 0
    # Steps after which the environment ends a sub-goal by itself; 0 leaves that to the executor.
    subgoal_budget: int = 0
    # How often the planner is asked again once its last sub-goal has ended and the task is not
    # solved. The further blueprints are part of the world; only "himac-joint" learns from them.
    replans: int = 0
    # What a flat agent reads at each step: the "episode" so far as one conversation, or the
    # instruction and its last so many steps (each step is then a training sequence of its own).
    history: Literal["episode"] | int = "episode"

    # -- the policy ------------------------------------------------------------------------------

    # "tiny" (built from scratch) or "hf" (a local transformers model).
    policy: Literal["tiny", "hf"] = "tiny"
    # Name or folder of the model; policy = "hf" needs one.
    model: str = ""
    # One model in both roles, as in the paper; false gives each role its own.
    share_parameters: bool = True
    # Width of the tiny model.
    hidden: int = 64
    # Layers of the tiny model.
    layers: int = 3
    # Attention heads of the tiny model.
    heads: int = 4
    # Feed-forward width of the tiny model.
    feedforward: int = 192
    # The tiny model's queries and keys begin equal, so that equal words attend to each other from
    # the first step: it learns to copy with fewer demonstrations.
    match: bool = False
    # Commands are chosen among the admissible ones (in every arm alike), or written freely.
    constrained: bool = False
    # The longest command, in tokens.
    max_command_tokens: int = 16
    # The longest blueprint, in tokens.
    max_blueprint_tokens: int = 64

    # -- prompts ---------------------------------------------------------------------------------

    # Style: "compact" (few words), "compact-gather" (what matches the task is repeated behind each
    # observation, not marked in it), "chat", "verl-agent" (that project's flat prompt), or "auto":
    # compact for tiny models, chat for all others.
    prompt: str = "auto"
    # What the executor remembers on a hierarchical environment: its sub-goal's "segment", which is
    # the paper's mask, or the whole "episode".
    executor_history: Literal["segment", "episode"] = "segment"
    # Ask for reasoning in <think> tags before each answer (chat prompts).
    think: bool = False

    # -- models of Hugging Face (policy = "hf") ----------------------------------------------------

    # Learn an adapter (LoRA) of this rank instead of the model's own weights; 0: the whole model.
    lora_rank: int = 0
    # The adapter's update is scaled by lora_alpha / lora_rank.
    lora_alpha: int = 32
    # Modules that get an adapter: names, or "all-linear".
    lora_targets: tuple[str, ...] = ("all-linear",)
    # An adapter for the planner and one for the executor on one base model (needs lora_rank; sets
    # share_parameters to false).
    separate_adapters: bool = False
    # What is computed in: "float32", "bfloat16", or "auto" (bfloat16 on a GPU).
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    # Compute activations twice instead of keeping them: slower, and much less memory.
    gradient_checkpointing: bool = False
    # Whether the executor reads, at its next step, what it thought (<think>) at this one. False: as
    # reasoning models are used; each step with a thought is then a training sequence of its own.
    keep_thoughts: bool = False
    # Arguments for the model's chat template, such as { enable_thinking = false }.
    template_options: Pairs = field(default_factory=dict)

    # -- warm start: supervision on demonstrations -------------------------------------------------

    # Demonstrated tasks of the training split.
    demos: int = 500
    # A file of demonstrations (`himac demos`) to start from instead of making them: then `demos`,
    # `expert` and the noise are without effect.
    demo_file: str = ""
    # Who demonstrates: "explorer" searches honestly, "oracle" knows where everything is.
    expert: Literal["explorer", "oracle"] = "explorer"
    # Chance that a demonstrated command is a random admissible one: the demonstrator errs.
    demo_noise: float = 0.1
    # Chance that a demonstrated blueprint has a sub-goal dropped, doubled or swapped.
    plan_noise: float = 0.1
    # Optimiser steps of the warm start; 0 skips it.
    warm_steps: int = 1500
    # The same for a flat agent; 0: as many. One model is to be shown what planner and executor see
    # together, where each of them is a model.
    flat_warm_steps: int = 0
    # Peak learning rate of the warm start, decayed to a tenth along a cosine.
    warm_lr: float = 3e-3
    # How often a demonstrated blueprint is seen for each time that a sub-goal's execution is.
    warm_planner_repeats: int = 2
    # With separate parameters: the planner's supervised steps for each of the executor's. Its texts
    # are few and short: at 1 it may learn them by heart, their mistakes included.
    warm_planner_share: float = 1.0
    # Padded tokens in a supervised step.
    warm_tokens: int = 2048

    # -- reinforcement learning --------------------------------------------------------------------

    # Iterations at most: each is phase A, then phase B (flat and joint methods: one phase).
    iterations: int = 20
    # Learning ends with the iteration in which so many steps of tasks were taken; 0 sets no bound.
    max_env_steps: int = 0
    # Learning ends with the iteration in which so many tokens were written; 0 sets no bound.
    max_tokens: int = 0
    # Held-out success at temperature 1 is measured once more, after the iteration in which so many
    # tokens were written: methods can then be compared at equal tokens too. 0: it is not.
    eval_at_tokens: int = 0
    # Tasks drawn for an iteration.
    tasks: int = 16
    # M: blueprints sampled a task in phase A (and in "himac-joint").
    blueprints: int = 8
    # N: executions of z* sampled a task in phase B; episodes a task in flat methods.
    executions: int = 8
    # The executor is greedy in phase A, as in the paper: one execution then tells what a blueprint
    # is worth with this executor, and equal blueprints are executed once. False: it samples.
    greedy_execution: bool = True
    # Phase A comes with every k-th iteration; in between, the executor practises on the planner's
    # most likely blueprints.
    planner_every: int = 1
    # Executor updates an iteration, each on fresh executions of z*.
    executor_updates: int = 1
    # Up to so many times, groups without any credit ("dead") are replaced by groups of newly drawn
    # tasks; what they cost counts as work.
    resample_dead: int = 0
    # The executor's credit: "trajectory" (the paper's), "option" (a sub-goal at a time) or "both".
    # None: the method's own.
    executor_advantage: Literal["trajectory", "option", "both"] | None = None
    # While learning, end an execution with its first failed sub-goal, as not solved: what follows
    # is seldom worth its time. Evaluation always plays to the end. None: the method's own.
    stop_at_failure: bool | None = None
    # What a step takes off an achieved sub-goal's value, for the option-level advantage. Above 0,
    # search luck looks like skill wherever all executions succeed and the deviation is divided by.
    step_cost: float = 0.0
    # Divide advantages by the group's standard deviation ("rloo" never does).
    advantage_std: bool = True
    # GiGPO: what a reward one step later is worth.
    gigpo_discount: float = 0.95
    # GiGPO: the weight of a step's advantage beside its episode's.
    gigpo_weight: float = 1.0
    # What an unparsable blueprint loses.
    format_penalty: float = 0.1
    # Learning rate.
    lr: float = 5e-4
    # Lower clip of the probability ratio. None: the method's own.
    clip: float | None = None
    # Upper clip of the probability ratio. None: the method's own.
    clip_high: float | None = None
    # Weight of the KL penalty to the warm start; 0 keeps no reference model. None: the method's.
    kl: float | None = None
    # Whose mean the loss is: every "sequence" weighs the same, every "token" does, or "constant".
    loss_mean: Literal["sequence", "token", "constant"] = "sequence"
    # With loss_mean = "constant": what the sum over a sequence's tokens is divided by.
    loss_constant: float = 512.0
    # Optimiser steps a phase, at most.
    minibatches: int = 2
    # A phase is cut into mini-batches of at least so many sequences that carry an advantage. One
    # with fewer makes a single step, which is as much smaller as that mini-batch is less full than
    # those of a phase in which all carry one.
    least_minibatch: int = 32
    # Passes over a phase's samples.
    epochs: int = 1
    # Padded tokens in a micro-batch (memory and speed only; the gradient is the same). Small ones
    # hold sequences of nearly equal length; a GPU wants more.
    micro_tokens: int = 2048
    # The gradient's norm is clipped here.
    max_grad_norm: float = 1.0
    # Sampling temperature while learning.
    temperature: float = 1.0

    # -- evaluation and housekeeping ---------------------------------------------------------------

    # The split that evaluation plays; training never does.
    eval_split: str = "test"
    # Held-out tasks.
    eval_episodes: int = 500
    # Environments that play at the same time.
    lanes: int = 128
    # What is measured beside the result: "supervised" (the warm start trained on for the same CPU
    # time), "grpo" (flat, as many environment steps), "demonstrator", "oracle".
    baselines: tuple[Baseline, ...] = ()
    # Iterations between checkpoints.
    checkpoint_every: int = 5
    # CPU threads of torch; 0 leaves torch's own choice.
    threads: int = 0
    # What a reader should know before comparing this run's figures.
    note: str = ""

    def __post_init__(self) -> None:
        check(self)
        if self.separate_adapters:
            object.__setattr__(self, "share_parameters", False)

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "the configuration") -> TrainConfig:
        """Settings from plain values.

        Raises:
            ValueError: A key is unknown (the message names near ones) or a value has a wrong type.
        """
        known = {f.name: f for f in dataclasses.fields(cls)}
        defaults = cls()
        for key, value in values.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=2)
                hint = f" Did you mean {' or '.join(near)}?" if near else ""
                raise ValueError(f"{where}: unknown setting {key!r}.{hint}")
            default = getattr(defaults, key)
            if key == "history" and isinstance(value, int) and not isinstance(value, bool):
                continue
            if default is None:
                _own(key, value, where)
                continue
            if isinstance(default, float) and isinstance(value, int):
                continue
            if isinstance(default, tuple) and isinstance(value, list):
                continue
            if not isinstance(value, type(default)) or isinstance(value, bool) != isinstance(
                default, bool
            ):
                kind = type(default).__name__
                raise ValueError(f"{where}: {key}={value!r} should be of type {kind}")
        tidy: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**tidy)

    @classmethod
    def from_toml(cls, path: str | Path) -> TrainConfig:
        """Settings from a TOML file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not TOML, or a setting is wrong.
        """
        path = Path(path)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: not valid TOML: {error}") from error
        return cls.from_dict(values, str(path))

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> TrainConfig:
        """Settings of a preset in `registry/presets`, with some replaced."""
        values = {**registry.read("presets", name), **overrides}
        return cls.from_dict(values, f"preset {name!r}")

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with some settings changed."""
        return dataclasses.replace(self, **changes)

    def to_toml(self) -> str:
        """The settings as TOML; `from_toml` reads them back."""
        lines = []
        for item in dataclasses.fields(self):
            # What is left to the method has no value yet.
            if (value := getattr(self, item.name)) is not None:
                lines.append(f"{item.name} = {_toml(value)}")
        return "\n".join(lines) + "\n"

    def env_arguments(self) -> dict[str, Any]:
        """`env_kwargs` with `$HIMAC_DATA` filled in, or the installed data set in its place.

        Raises:
            FileNotFoundError: Data is needed that is neither installed nor where the variable says.
        """
        found: dict[str, Any] = {}
        for key, value in self.env_kwargs.items():
            if isinstance(value, str) and value.startswith("$HIMAC_DATA"):
                value = _official(value.removeprefix("$HIMAC_DATA").strip("/"))
            found[key] = value
        return found


def _own(key: str, value: Any, where: str) -> None:
    """Refuses a value of another type where None stands for the method's own."""
    kind = next(k for k in get_args(get_type_hints(TrainConfig)[key]) if k is not type(None))
    kind = str if get_origin(kind) is Literal else kind
    allowed = (int, float) if kind is float else kind
    right = isinstance(value, allowed) and isinstance(value, bool) == (kind is bool)
    if value is not None and not right:
        raise ValueError(f"{where}: {key}={value!r} should be of type {kind.__name__}")


def _official(name: str) -> str:
    """Where an official data set lies: below HIMAC_DATA if that is set, else as installed."""
    root = os.environ.get("HIMAC_DATA")
    found = Path(root) / name if root else data.installed(name)
    if found is None:
        raise FileNotFoundError(
            f"this preset plays {name}'s published data: `himac data get {name}` installs it, or "
            f"set HIMAC_DATA to a folder that holds it as {name}/; `himac train quickstart` "
            "generates its own"
        )
    return str(found)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


# -- what each setting may be ---

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
_ABOVE_0 = ("temperature", "max_grad_norm", "lora_alpha", "loss_constant")
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
            if value is not None and not (value >= least and math.isfinite(value)):
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
    found = {}
    for name, hint in get_type_hints(TrainConfig).items():
        if get_origin(hint) is tuple:
            hint = get_args(hint)[0]
        own = [k for k in get_args(hint) if k is not type(None)]
        if type(None) in get_args(hint) and get_origin(own[0]) is Literal:
            found[name] = (*get_args(own[0]), None)  # None: the method's own
        elif get_origin(hint) is Literal:
            found[name] = get_args(hint)
    return found


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    for one in value if isinstance(value, tuple) else (value,):
        if one not in choices:
            raise ValueError(f"{name}={one!r}: choose among {', '.join(map(str, choices))}")


def _check_together(config: TrainConfig) -> None:
    if config.history != "episode" and (isinstance(config.history, str) or config.history < 0):
        raise ValueError(f'history={config.history!r}: "episode", or a number of steps')
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
