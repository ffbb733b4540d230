"""Managers as verl-agent's own configuration asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from himac_envs.adapters.errors import MissingStackError
from himac_envs.adapters.session import Session
from himac_envs.adapters.verl_agent.manager import EnvironmentManager
from himac_envs.adapters.verl_agent.prompt import family_templates
from himac_envs.errors import UnknownSplitError
from himac_envs.registry import benchmark_of, benchmarks, env_cards, partner_of

#: Splits that a validation may mean, the benchmark's own names first.
_VALIDATION: dict[str, tuple[str, ...]] = {
    "eval_in_distribution": ("valid_seen", "valid"),
    "eval_out_of_distribution": ("valid_unseen", "test"),
    "webshop": ("test",),
    "": ("valid", "test"),
}


def make_envs(config: Any) -> tuple[EnvironmentManager, EnvironmentManager]:
    """Return the managers that verl-agent's configuration asks for, in training and validation.

    Read are ``env.env_name`` (any name with alfworld, webshop or sokoban in it: the flat
    environment; or an id), ``env.seed``, ``env.max_steps``, ``env.history_length``,
    ``env.rollout.n``, ``data.train_batch_size``, ``data.val_batch_size``,
    ``env.alfworld.eval_dataset`` and ``env.sokoban.{dim_room, num_boxes, search_depth, mode}``.
    ``env.himac``, which verl-agent does not have, is a mapping of further arguments of the
    environment (``data`` above all). Prompts are the checkout's where there is one, else ours.

    Args:
        config: verl-agent's configuration (OmegaConf), or nested mappings.

    Raises:
        ValueError: ``env.env_name`` names none of the environments.
    """
    env_id = _env_id(str(_read(config, "env.env_name", "")))
    benchmark = benchmark_of(env_id)
    kwargs = dict(_read(config, "env.himac", {}))
    kwargs.setdefault("max_steps", _read(config, "env.max_steps", None))
    validation = benchmark if benchmark in _VALIDATION else ""
    if benchmark == "alfworld":
        validation = str(_read(config, "env.alfworld.eval_dataset", "eval_in_distribution"))
    if benchmark == "sokoban":
        kwargs.setdefault("room", list(_read(config, "env.sokoban.dim_room", (6, 6))))
        kwargs.setdefault("boxes", _read(config, "env.sokoban.num_boxes", 1))
        kwargs.setdefault("search_depth", _read(config, "env.sokoban.search_depth", None))
        kwargs.setdefault("image", _read(config, "env.sokoban.mode", "") == "rgb_array")
    try:
        templates = family_templates(benchmark)
    except MissingStackError:
        templates = None
    history = int(_read(config, "env.history_length", 2))
    seed = int(_read(config, "env.seed", 0))
    train = EnvironmentManager(
        env_id,
        groups=int(_read(config, "data.train_batch_size", 1)),
        group_size=max(1, int(_read(config, "env.rollout.n", 1))),
        seed=seed,
        history=history,
        templates=templates,
        **kwargs,
    )
    val = EnvironmentManager(
        env_id,
        groups=int(_read(config, "data.val_batch_size", 1)),
        seed=seed + 1_000,
        split=_split(train.sessions[0], _VALIDATION.get(validation, _VALIDATION[""])),
        history=history,
        templates=templates,
        **kwargs,
    )
    return train, val


def _env_id(name: str) -> str:
    """The id that a name of verl-agent's means; an id is itself."""
    if name in env_cards() or ":" in name:
        return name
    for benchmark in benchmarks():
        if benchmark in name.lower():
            cards = env_cards().values()
            return next(
                card.id
                for card in cards
                if card.benchmark == benchmark and card.kind == "flat" and partner_of(card.id)
            )
    known = ", ".join(benchmarks())
    raise ValueError(f"env.env_name={name!r}: himac has {known}, by name or by id")


def _split(session: Session, names: Sequence[str]) -> str:
    """The first of these splits that the data has."""
    for name in names[:-1]:
        try:
            session.task_ids(name)
        except UnknownSplitError:
            continue
        return name
    return names[-1]


def _read(config: Any, path: str, default: Any) -> Any:
    """A value of nested mappings or attributes; the default where it is not there."""
    for name in path.split("."):
        found = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
        if found is None:
            return default
        config = found
    return config
