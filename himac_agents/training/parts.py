"""What a trainer works with where it is not made from settings: one's own agent, tasks and method.

An agent of one's own learns through its policies: "policy" where one plays both roles (or there is
one role), "planner" and "executor" otherwise. They are saved with `save_pretrained(folder)`. A run
goes on with `load_weights(folder)`, which reads them back into the same policy; a policy that has a
`model` (a torch module) and wrote it as `model.safetensors` needs none.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym

from himac_agents.agents.agent import HiMACAgent
from himac_agents.algorithms.methods import METHODS, Method, register_method, supervised_steps
from himac_agents.config import TrainConfig
from himac_agents.files import CheckpointError, reading
from himac_agents.policies.base import Learnable
from himac_agents.policies.loading import load_reference
from himac_agents.rollouts.pool import EnvPool, make_pool

#: An environment's id, what makes one, or a pool of them.
Envs = str | Callable[[], gym.Env[Any, Any]] | EnvPool


def name_of(method: Method) -> str:
    """What the settings call a method; one that has no name yet is registered by its title.

    Raises:
        ValueError: Another method has that name.
    """
    for name, known in METHODS.items():
        if known is method:
            return name
    name = "-".join(method.title.lower().split())
    register_method(name, method)
    return name


def with_envs(config: TrainConfig, envs: Envs, *, flat: bool) -> tuple[TrainConfig, EnvPool]:
    """The environments that were given, and the settings with their name.

    Args:
        config: The settings; `env_kwargs` and the hierarchy's go to an id's environments, not to
            those that are made by a function.
        envs: See `Envs`.
        flat: Whether a flat agent plays.
    """
    if isinstance(envs, str):
        config = config.replace(**{"flat_env" if flat else "env": envs})
        sub_done = METHODS[config.method].sub_done
        return config, make_pool(config, flat=flat, sub_done=sub_done)
    pool = envs if isinstance(envs, EnvPool) else EnvPool(envs, config.lanes)
    env = pool[0]
    name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    return config.replace(**{"flat_env" if flat else "env": name}), pool


def policies_of(agent: HiMACAgent, *, flat: bool) -> dict[str, Any]:
    """The policies that learn, by name.

    Raises:
        ValueError: The agent is of the other kind than the method, or a policy cannot learn.
    """
    if (agent.planner is None) != flat:
        wanted = "has no planner" if flat else "needs a planner"
        raise ValueError(f"the method plays an agent that {wanted}")
    below = agent.executor.policy
    above = below if agent.planner is None else agent.planner.policy
    found = {"policy": below} if above is below else {"planner": above, "executor": below}
    for name, policy in found.items():
        if not isinstance(policy, Learnable):
            raise ValueError(
                f"the agent's {name} ({type(policy).__name__}) cannot learn: it lacks what "
                "himac_agents.policies.base.Learnable asks for"
            )
    return found


def check_own_agent(config: TrainConfig) -> None:
    """Refuses what settings alone would have to make again beside an agent of one's own.

    Raises:
        ValueError: A baseline trains an agent that only the settings describe, or servers are to
            sample for an agent that samples itself.
    """
    if config.shard:
        raise ValueError("shard: an agent of your own keeps its policies as they are: leave it out")
    if config.rollout != "local":
        raise ValueError(
            f"rollout={config.rollout!r}: an agent of your own samples with its own policies"
        )
    made = [name for name in ("supervised", "grpo") if name in config.baselines]
    if made:
        raise ValueError(
            f"baselines={made}: these train another agent, made from settings; with an agent of "
            "your own, run them by themselves"
        )


def check_shard(config: TrainConfig, method: Method, processes: int, *, resume: bool) -> str:
    """Refuses `shard` where there is nothing to shard over, or where it would not do.

    Args:
        config: The settings.
        method: The method.
        processes: How many there are.
        resume: Whether a run goes on: it may do so in one process.

    Returns:
        What a user should know; "" where that is nothing.

    Raises:
        ValueError: The message says what to do.
    """
    if not config.shard:
        return ""
    if method.critic is not None:
        raise ValueError(
            f"shard: method {config.method!r} has a critic, which cannot be used with a sharded "
            "model: leave it out"
        )
    if processes > 1:
        return ""
    if not resume:
        raise ValueError(
            "shard: this run has one process, so there is nothing to shard over. Start several "
            "(`himac train ... --processes 4 --shard`), or leave it out"
        )
    return "note: the run goes on in one process, which holds the whole model"


def load_weights(policies: Mapping[str, Any], folder: Path) -> None:
    """Reads saved policies back into those of an agent.

    Raises:
        CheckpointError: A policy cannot be read back, or what was saved is damaged.
    """
    for name, policy in policies.items():
        saved = folder / name / "model.safetensors"
        if hasattr(policy, "load_weights"):
            with reading(folder / name):
                policy.load_weights(folder / name)
        elif hasattr(policy, "model") and saved.is_file():
            from safetensors.torch import load_model

            with reading(saved):
                load_model(policy.model, str(saved))
        else:
            raise CheckpointError(
                f"{type(policy).__name__} ({name}) cannot continue from {folder}: give it a method "
                "load_weights(folder) that reads what its save_pretrained(folder) wrote"
            )
        policy.forget()


def frozen_copy(policy: Any, folder: Path | None) -> Any:
    """What a KL penalty holds an own policy on to: itself, as it was after the warm start.

    Args:
        policy: The policy.
        folder: Where the warm start's weights are; None: they are those it has.
    """
    twin = copy.deepcopy(policy)
    if folder is not None:
        load_weights({folder.name: twin}, folder.parent)
    return twin


def reference(policy: Any, folder: Path, config: TrainConfig, *, begun: bool | None) -> Any:
    """What a KL penalty holds a policy on to: the warm start, frozen.

    Args:
        policy: The policy that learns.
        folder: The warm start.
        config: The run's settings.
        begun: Of an agent that was given: whether it has learned already. None: the run made it.
    """
    if begun is not None:
        return frozen_copy(policy, folder if begun else None)
    return load_reference(policy, folder, config, fresh=not supervised_steps(config))
