"""From settings and folders to policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from himac_agents.config import TrainConfig
from himac_agents.files import reading
from himac_agents.policies.hf import Loading, load
from himac_agents.policies.lora import Lora
from himac_agents.policies.tiny import TinyPolicy, TinySize, build_tokenizer


def make_policies(
    config: TrainConfig,
    hierarchical: bool,
    newest: Path | None,
    texts: Callable[[], Iterable[str]],
) -> dict[str, Any]:
    """A run's policies by name: one that is shared ("policy"), or one for each role.

    Args:
        config: The run's settings.
        hierarchical: Whether there is a planner.
        newest: The checkpoint that holds them; None begins with new ones.
        texts: Asked for what a new tiny model is to read and write.
    """
    names = policy_names(config, hierarchical)
    if newest is not None:
        return load_policies(newest, config, hierarchical)
    if config.policy == "hf":
        return {
            name: load_policy(config.model, "hf", seed=config.seed, config=config) for name in names
        }
    words = build_tokenizer(texts())  # once for all policies: it takes seconds
    shape = (config.hidden, config.layers, config.heads, config.feedforward)
    size = TinySize(*shape, match=config.match)
    return {name: TinyPolicy.build(words, size, seed=config.seed) for name in names}


def policy_names(config: TrainConfig, hierarchical: bool) -> list[str]:
    """A run's policies: one for all roles, or one for each."""
    shared = config.share_parameters or not hierarchical
    return ["policy"] if shared else ["planner", "executor"]


def load_policy(
    path: str | Path, kind: str, *, seed: int = 0, config: TrainConfig | None = None
) -> Any:
    """A policy from a folder.

    Args:
        path: The folder, or for "hf" a model's name.
        kind: "tiny" or "hf".
        seed: Seeds the weights of a new adapter.
        config: How a model of Hugging Face is loaded.

    Raises:
        CheckpointError: It cannot be loaded: missing, damaged, or no such model.
    """
    with reading(Path(path)):
        if kind == "tiny":
            return TinyPolicy.load(path)
        return _load_hf(path, seed, config)


def load_policies(
    folder: Path, config: TrainConfig, hierarchical: bool, *, seed: int = 0
) -> dict[str, Any]:
    """A run's policies by name, from one of its folders: a checkpoint, or its warm start.

    Raises:
        CheckpointError: One is missing or damaged.
    """
    return {
        name: load_policy(folder / name, config.policy, seed=seed, config=config)
        for name in policy_names(config, hierarchical)
    }


def _load_hf(path: str | Path, seed: int, config: TrainConfig | None) -> Any:

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


def load_reference(policy: Any, folder: Path, config: TrainConfig, *, fresh: bool) -> Any:
    """What a KL penalty holds a policy on to: the warm start, frozen.

    Under an adapter this is no second model: the warm start's adapter on the same base or, where
    there was no warm start, the base without one.
    """
    if config.lora_rank and fresh and hasattr(policy, "without_adapter"):
        return policy.without_adapter()
    return load_policy(folder, config.policy, config=config)
