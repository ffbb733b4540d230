"""The register of kinds of policies: how a new one is made, and how a saved one is read.

Nothing here loads torch: settings are checked without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from himac_agents.config import TrainConfig
from himac_agents.distributed import team
from himac_agents.files import reading
from himac_agents.policies.base import Learnable
from himac_agents.register import Register

#: Gives samples of all that a policy is to read and write.
Texts = Callable[[], Iterable[str]]


@dataclass(frozen=True, slots=True)
class PolicyKind:
    """A kind of policy that can be trained.

    Attributes:
        make: A new policy, from a run's settings and a function that gives samples of all that is
            to be read and written. It is to depend on `config.seed` alone.
        load: A policy from a folder that its `save_pretrained` wrote (None where no settings come
            with it).
    """

    make: Callable[[TrainConfig, Texts], Learnable]
    load: Callable[[Path, TrainConfig | None], Learnable]


def _make_tiny(config: TrainConfig, texts: Texts) -> Learnable:
    from himac_agents.policies.tiny import TinyPolicy, TinySize

    shape = (config.hidden, config.layers, config.heads, config.feedforward)
    size = TinySize(*shape, match=config.match)
    return TinyPolicy.build(vocabulary(texts), size, seed=config.seed)


@lru_cache(maxsize=1)
def vocabulary(texts: Texts) -> Any:
    """A tokenizer, built once for all policies of a run: it takes seconds."""
    from himac_agents.policies.tiny import build_tokenizer

    return build_tokenizer(texts())


def _load_tiny(folder: Path, config: TrainConfig | None) -> Learnable:
    from himac_agents.policies.tiny import TinyPolicy

    return TinyPolicy.load(folder)


def shards_models(config: TrainConfig) -> bool:
    """Whether models are sharded over processes: it is asked for, and there are several."""
    return config.shard and team().size > 1


def _load_hf(path: str | Path, config: TrainConfig | None) -> Learnable:
    from himac_agents.policies.hf import Loading, load
    from himac_agents.policies.lora import Lora

    how = Loading()
    if config is not None:
        lora = Lora(config.lora_rank, config.lora_alpha, config.lora_targets)
        how = Loading(
            dtype=config.dtype,
            lora=lora if config.lora_rank else None,
            gradient_checkpointing=config.gradient_checkpointing,
            template_options=config.template_options,
            shard=shards_models(config),
        )
    with reading(Path(path)):
        return load(path, how, seed=0 if config is None else config.seed)


#: The kinds of policies by name.
POLICIES: Register[PolicyKind] = Register(
    "kind of policy",
    "himac.policies",
    {
        "tiny": PolicyKind(_make_tiny, _load_tiny),
        "hf": PolicyKind(lambda config, texts: _load_hf(config.model, config), _load_hf),
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
