"""The registry: TOML cards that say what exists. No Python lives there.

Cards are looked for in ``himac_envs/_registry`` (a wheel) and else in ``registry/`` beside the
package (a checkout or an editable install).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym

_HERE = Path(__file__).resolve().parent


def root() -> Path:
    """Return the folder of cards.

    Raises:
        FileNotFoundError: The installation holds none.
    """
    for folder in (_HERE / "_registry", _HERE.parent / "registry"):
        if (folder / "envs").is_dir():
            return folder
    raise FileNotFoundError(
        f"no registry cards at {_HERE / '_registry'} nor {_HERE.parent / 'registry'}: "
        "the installation is incomplete; reinstall with `pip install --force-reinstall himac`"
    )


def names(kind: str) -> list[str]:
    """Return the names of a kind's cards, sorted, e.g. ``names("presets")``."""
    return sorted(path.stem for path in (root() / kind).glob("*.toml"))


def read(kind: str, name: str) -> dict[str, Any]:
    """Return one card, e.g. ``read("worlds", "alfworld")``.

    Raises:
        FileNotFoundError: There is no such card; the message lists those that exist.
        ValueError: The card is not valid TOML.
    """
    path = root() / kind / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(names(kind)) or "none"
        raise FileNotFoundError(f"no card {name!r} in registry/{kind} (there are: {known})")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error


@dataclass(frozen=True)
class EnvCard:
    """One registered environment.

    Attributes:
        id: Its Gymnasium id.
        entry_point: "module:attribute" of what builds it.
        summary: One line for ``himac list``.
        benchmark: "alfworld", "webshop" or "sokoban".
        kind: "hierarchical", "flat", "pixels" or "browser".
        kwargs: Default keyword arguments.
        vector_entry_point: "module:attribute" of a batch engine, if any.
        extra: The optional dependency group that it needs, if any.
    """

    id: str
    entry_point: str
    summary: str
    benchmark: str
    kind: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    vector_entry_point: str | None = None
    extra: str | None = None


@lru_cache(maxsize=1)
def env_cards() -> dict[str, EnvCard]:
    """Return the cards of every environment by id, sorted by file, then as written."""
    return {card.id: card for card in _read_env_cards()}


def _read_env_cards() -> Iterator[EnvCard]:
    for path in sorted((root() / "envs").glob("*.toml")):
        for row in read("envs", path.stem).get("env", []):
            try:
                yield EnvCard(**row)
            except TypeError as error:
                raise ValueError(f"{path}: a card with wrong keys: {error}") from error


def find_id(name: str) -> str:
    """Return the registered id that a name means.

    Args:
        name: An id, registered here or by anyone else, or a benchmark's name ("webshop"): then its
            hierarchical environment.

    Raises:
        ValueError: No such id or benchmark; the message lists what there is.
    """
    if name in gym.registry:
        return name
    for card in env_cards().values():
        if card.benchmark == name.lower() and card.kind == "hierarchical":
            return card.id
    known = sorted({card.benchmark for card in env_cards().values()})
    raise ValueError(
        f"no environment {name!r}: give a benchmark ({', '.join(known)}) or an id of `himac list`"
    )


def register_all() -> None:
    """Register every card's id with Gymnasium; ids already registered are left alone."""
    for card in env_cards().values():
        if card.id not in gym.registry:
            gym.register(
                id=card.id,
                entry_point=card.entry_point,
                vector_entry_point=card.vector_entry_point,
                kwargs=dict(card.kwargs),
                order_enforce=True,
                disable_env_checker=False,
            )
