"""From settings and folders to environments, policies and agents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import gymnasium as gym

import himac_envs  # noqa: F401  (registers the environments)
from himac_agents import checkpoint
from himac_agents import prompts as styles
from himac_agents.agent import Executor, HiMACAgent, Planner
from himac_agents.config import TrainConfig
from himac_agents.policies.causal import CausalPolicy
from himac_agents.policies.tiny import TinyPolicy, TinySize, is_tiny
from himac_agents.policy import Role, Sampling
from himac_agents.prompts import Prompts
from himac_agents.rollout import EnvPool
from himac_envs import registry

Part = TypeVar("Part")


def make_pool(config: TrainConfig, *, flat: bool) -> EnvPool:
    """The environments of a run.

    Raises:
        ValueError: The id is not registered, or is of the other kind.
    """
    name = config.flat_env if flat else config.env
    wanted, card = "flat" if flat else "hierarchical", registry.env_cards().get(name)
    if card is not None and card.kind != wanted:
        setting = "flat_env" if flat else "env"
        raise ValueError(
            f"{setting}={name!r} is {card.kind}, and {config.method!r} plays a {wanted} one: "
            "`himac list` shows them"
        )
    if card is None and name.startswith("HiMAC-"):
        raise ValueError(f"no environment {name!r}: `himac list` shows them")
    arguments = config.env_arguments()
    if not flat:
        arguments.update(hierarchy_arguments(config))
    return EnvPool(lambda: gym.make(name, **arguments), config.lanes)


def hierarchy_arguments(config: TrainConfig) -> dict[str, Any]:
    """What a run's settings ask of the hierarchical environment, where they differ from its own.

    An agent is to be evaluated with what it was trained with.
    """
    found: dict[str, Any] = {}
    if config.subgoal_budget:
        found["subgoal_budget"] = config.subgoal_budget
    if config.replans:
        found["replans"] = config.replans
    if not config.traits.sub_done:
        found["sub_done"] = False
    return found


def make_prompts(config: TrainConfig) -> Prompts:
    """The style of prompts that a run's model reads."""
    return styles.make(
        config.prompt,
        config.env,
        tiny=config.policy == "tiny",
        think=config.think,
        pixels=bool(config.env_kwargs.get("image")),
        sub_done=config.traits.sub_done,
    )


def make_policies(
    config: TrainConfig, newest: Path | None, texts: Callable[[], Iterable[str]]
) -> dict[str, Any]:
    """A run's policies by name: one that is shared ("policy"), or one for each role.

    Args:
        config: The run's settings.
        newest: The checkpoint that holds them; None begins with new ones.
        texts: Asked for what a new tiny model is to read and write.
    """
    names = policy_names(config)
    if newest is not None:
        return load_policies(newest, config)
    if config.policy == "hf":
        return {
            name: load_policy(config.model, "hf", seed=config.seed, config=config)
            for name in names
        }
    words = list(texts())
    shape = (config.hidden, config.layers, config.heads, config.feedforward)
    size = TinySize(*shape, match=config.match)
    return {name: TinyPolicy.build(words, size, seed=config.seed) for name in names}


def policy_names(config: TrainConfig) -> list[str]:
    """A run's policies: one for all roles, or one for each."""
    shared = config.share_parameters or not config.traits.hierarchical
    return ["policy"] if shared else ["planner", "executor"]


def load_policy(
    path: str | Path, kind: str, *, seed: int = 0, config: TrainConfig | None = None
) -> Any:
    """A policy from a folder.

    Args:
        path: The folder, or for "hf" a model's name.
        kind: "tiny" or "hf".
        seed: Seeds sampling, and the weights of a new adapter.
        config: How a model of Hugging Face is loaded.

    Raises:
        CheckpointError: It cannot be loaded: missing, damaged, or no such model.
    """
    with checkpoint.reading(Path(path)):
        if kind == "tiny":
            return TinyPolicy.load(path, seed=seed)
        return _load_hf(path, seed, config)


def load_policies(folder: Path, config: TrainConfig, *, seed: int = 0) -> dict[str, Any]:
    """A run's policies by name, from one of its folders: a checkpoint, or its warm start.

    Raises:
        CheckpointError: One is missing or damaged.
    """
    return {
        name: load_policy(folder / name, config.policy, seed=seed, config=config)
        for name in policy_names(config)
    }


def _load_hf(path: str | Path, seed: int, config: TrainConfig | None) -> Any:
    from himac_agents.policies.adapters import Lora
    from himac_agents.policies.hf import Loading, load

    how = Loading()
    if config is not None:
        lora = Lora(config.lora_rank, config.lora_alpha, config.lora_targets)
        how = Loading(
            dtype=config.dtype,
            lora=lora if config.lora_rank else None,
            gradient_checkpointing=config.gradient_checkpointing,
            template_options=config.template_options,
        )
    return load(path, how, seed=seed)


def load_reference(policy: Any, folder: Path, config: TrainConfig) -> Any:
    """What a KL penalty holds a policy on to: the warm start, frozen.

    Under an adapter this is no second model: the warm start's adapter on the same base or, where
    there was no warm start, the base without one.
    """
    if config.lora_rank and not config.supervised_steps and hasattr(policy, "without_adapter"):
        return policy.without_adapter()
    return load_policy(folder, config.policy, config=config)


def assemble(config: TrainConfig, policies: dict[str, Any], prompts: Prompts) -> HiMACAgent:
    """Planner and executor over one policy or over one each; a flat agent for a flat method."""
    command = Sampling(config.temperature, config.max_command_tokens)
    executor = Executor(
        in_role("executor", policies),
        prompts,
        command,
        config.constrained,
        history=config.memory,
        sees=config.executor_history,
        keep_thoughts=config.keep_thoughts,
    )
    if not config.traits.hierarchical:
        return HiMACAgent(None, executor)
    plan = Sampling(config.temperature, config.max_blueprint_tokens)
    return HiMACAgent(Planner(in_role("planner", policies), prompts, plan), executor)


def in_role(role: Role, parts: Mapping[str, Part]) -> Part:
    """Of policies (or what belongs to each) by name, the role's own or the one all roles share."""
    return parts["policy"] if "policy" in parts else parts[role]


def load_agent(
    folder: str | Path, *, flat: bool = False, seed: int = 0, **settings: Any
) -> HiMACAgent:
    """An agent to play with, from a run or from a saved policy.

    Args:
        folder: A run's folder (its newest checkpoint is taken), or a folder that `save_pretrained`
            wrote.
        flat: For a flat environment: no planner.
        seed: Seeds sampling.
        **settings: Settings of the run (see `TrainConfig`) in place of its own, such as `prompt`.

    Raises:
        FileNotFoundError: The folder holds neither.
        CheckpointError: The run has no whole checkpoint.
    """
    folder = Path(folder)
    if (folder / "config.toml").is_file():
        config = TrainConfig.from_toml(folder / "config.toml")
        newest = checkpoint.latest(folder / "checkpoints")
        policies = load_policies(newest, config, seed=seed)
    elif (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
        kind: Literal["tiny", "hf"] = "tiny" if is_tiny(folder) else "hf"
        config = TrainConfig(policy=kind, model=str(folder))
        policies = {"policy": load_policy(folder, kind, seed=seed)}
    else:
        raise FileNotFoundError(
            f"{folder} is neither a run (config.toml, checkpoints/) nor a saved policy "
            "(config.json): give the folder that `himac train` printed at its end"
        )
    config = config.replace(**settings)
    if flat == config.traits.hierarchical:
        # One policy plays both roles, so that it can be tried in the other kind of environment.
        config = config.replace(method="grpo" if flat else "himac")
    return assemble(config, policies, make_prompts(config))


def forget(agent: HiMACAgent) -> None:
    """Drops what local models have cached: their weights have changed, or other lanes come."""
    for policy in agent.policies():
        if isinstance(policy, CausalPolicy):
            policy.forget()
