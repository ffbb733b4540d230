"""From settings and folders to policies."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from himac_agents.config import TrainConfig
from himac_agents.files import reading
from himac_agents.policies.kinds import POLICIES, Texts, shards_models, vocabulary


def make_policies(
    config: TrainConfig, hierarchical: bool, newest: Path | None, texts: Texts
) -> dict[str, Any]:
    """A run's policies by name: one that is shared ("policy"), or one for each role.

    Args:
        config: The run's settings.
        hierarchical: Whether there is a planner.
        newest: The checkpoint that holds them; None begins with new ones.
        texts: Asked, once at most, for what a new model is to read and write.

    Raises:
        CheckpointError: A model is missing or damaged.
        ValueError: There is no such kind of policy.
    """
    names = policy_names(config, hierarchical)
    if newest is not None:
        return load_policies(newest, config, hierarchical)
    kind, words = POLICIES.find(config.policy), cache(lambda: list(texts()))
    try:
        return shard_policies({name: kind.make(config, words) for name in names}, config)
    finally:
        vocabulary.cache_clear()


def shard_policies(policies: dict[str, Any], config: TrainConfig) -> dict[str, Any]:
    """The policies, sharded where the settings ask for that and there are several processes.

    Raises:
        ValueError: A policy cannot be sharded.
    """
    if shards_models(config):
        for policy in policies.values():
            if not hasattr(policy, "shard"):
                raise ValueError(f"shard: {type(policy).__name__} cannot be sharded: leave it out")
            policy.shard()
    return policies


def policy_names(config: TrainConfig, hierarchical: bool) -> list[str]:
    """A run's policies: one for all roles, or one for each."""
    shared = config.share_parameters or not hierarchical
    return ["policy"] if shared else ["planner", "executor"]


def load_policy(path: str | Path, kind: str, config: TrainConfig | None = None) -> Any:
    """A policy from a folder.

    Args:
        path: The folder, or for "hf" a model's name.
        kind: A name of `POLICIES`.
        config: How a model of Hugging Face is loaded.

    Raises:
        CheckpointError: It cannot be loaded: missing, damaged, or no such model.
        ValueError: There is no such kind of policy.
    """
    load = POLICIES.find(kind).load
    with reading(Path(path)):
        return load(Path(path), config)


def load_policies(folder: Path, config: TrainConfig, hierarchical: bool) -> dict[str, Any]:
    """A run's policies by name, from one of its folders: a checkpoint, or its warm start.

    Raises:
        CheckpointError: One is missing or damaged.
    """
    names = policy_names(config, hierarchical)
    found = {name: load_policy(folder / name, config.policy, config) for name in names}
    return shard_policies(found, config)


def load_reference(policy: Any, folder: Path, config: TrainConfig, *, fresh: bool) -> Any:
    """What a KL penalty holds a policy on to: the warm start, frozen.

    Under an adapter this is no second model: the warm start's adapter on the same base or, where
    there was no warm start, the base without one.
    """
    if config.lora_rank and fresh and hasattr(policy, "without_adapter"):
        return policy.without_adapter()
    policies = {"reference": load_policy(folder, config.policy, config)}
    return shard_policies(policies, config)["reference"]


def sampled(config: TrainConfig, policies: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """Who samples, and the policies as they are sampled: themselves, where nobody else does.

    Raises:
        RolloutError: A server cannot be reached, or does not fit.
        ValueError: The settings or the policies do not fit.
    """
    if config.rollout == "local":
        return None, policies
    from himac_agents.policies.served.rollouts import make_rollouts

    rollouts = make_rollouts(config, policies)
    return rollouts, rollouts.serve(policies)
