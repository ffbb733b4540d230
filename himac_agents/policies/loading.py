"""From settings and folders to policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from himac_agents.config import TrainConfig
from himac_agents.files import reading
from himac_agents.policies.base import Learnable
from himac_agents.policies.hf import Loading, load
from himac_agents.policies.lora import Lora
from himac_agents.policies.tiny import TinyPolicy, TinySize, build_tokenizer
from himac_agents.register import Register

Texts = Callable[[], Iterable[str]]


@dataclass(frozen=True, slots=True)
class PolicyKind:
    """A kind of policy that can be trained: how a new one is made, and how a saved one is read.

    Attributes:
        make: A new policy, from a run's settings and a function that gives samples of all that is
            to be read and written. It is to depend on `config.seed` alone.
        load: A policy from a folder that its `save_pretrained` wrote (None where no settings come
            with it).
    """

    make: Callable[[TrainConfig, Texts], Learnable]
    load: Callable[[Path, TrainConfig | None], Learnable]


def _make_tiny(config: TrainConfig, texts: Texts) -> Learnable:
    shape = (config.hidden, config.layers, config.heads, config.feedforward)
    size = TinySize(*shape, match=config.match)
    return TinyPolicy.build(_vocabulary(texts), size, seed=config.seed)


@lru_cache(maxsize=1)
def _vocabulary(texts: Texts) -> Any:
    """A tokenizer, built once for all policies of a run: it takes seconds."""
    return build_tokenizer(texts())


#: The kinds of policies by name.
POLICIES: Register[PolicyKind] = Register(
    "kind of policy",
    "himac.policies",
    {
        "tiny": PolicyKind(_make_tiny, lambda folder, config: TinyPolicy.load(folder)),
        "hf": PolicyKind(
            lambda config, texts: _load_hf(config.model, config),
            lambda folder, config: _load_hf(folder, config),
        ),
    },
    PolicyKind,
)


def register_policy(
    name: str,
    make: Callable[[TrainConfig, Texts], Learnable],
    load: Callable[[Path, TrainConfig | None], Learnable],
    *,
    replace: bool = False,
) -> None:
    """Makes a kind of policy available by name: `policy = NAME` in settings and commands.

    The same by a package's entry point, which names a `PolicyKind`:
    `[project.entry-points."himac.policies"]`.

    Args:
        name: The kind's name.
        make: See `PolicyKind`.
        load: See `PolicyKind`.
        replace: Take the place of a kind that has the name.

    Raises:
        ValueError: The name is taken, or no word.
    """
    POLICIES.add(name, PolicyKind(make, load), replace=replace)


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
        return {name: kind.make(config, words) for name in names}
    finally:
        _vocabulary.cache_clear()


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
    return {
        name: load_policy(folder / name, config.policy, config)
        for name in policy_names(config, hierarchical)
    }


def _load_hf(path: str | Path, config: TrainConfig | None) -> Any:

    how = Loading()
    if config is not None:
        lora = Lora(config.lora_rank, config.lora_alpha, config.lora_targets)
        how = Loading(
            dtype=config.dtype,
            lora=lora if config.lora_rank else None,
            gradient_checkpointing=config.gradient_checkpointing,
            template_options=config.template_options,
        )
    with reading(Path(path)):
        return load(path, how, seed=0 if config is None else config.seed)


def load_reference(policy: Any, folder: Path, config: TrainConfig, *, fresh: bool) -> Any:
    """What a KL penalty holds a policy on to: the warm start, frozen.

    Under an adapter this is no second model: the warm start's adapter on the same base or, where
    there was no warm start, the base without one.
    """
    if config.lora_rank and fresh and hasattr(policy, "without_adapter"):
        return policy.without_adapter()
    return load_policy(folder, config.policy, config)
