"""The household's facts, read from ``registry/worlds/alfworld.toml``.

The card says what each number means and where it was counted. Kinds keep ALFRED's spelling
("SaltShaker") here; games use them in lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from himac_envs import registry
from himac_envs.alfworld.archive import TASK_TYPES

ROOMS = ("kitchen", "livingroom", "bedroom", "bathroom")
FORMAT = 1


@dataclass(frozen=True)
class ReceptacleFacts:
    """How many receptacles of a kind a room has, and how often they have doors (percent)."""

    kind: str
    counts: tuple[int, ...]
    openable: int


@dataclass(frozen=True)
class ObjectFacts:
    """How many objects of a kind a room has, and on which receptacle kinds they lie (shares)."""

    kind: str
    counts: tuple[int, ...]
    on: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class TaskFacts:
    """What a task asks for in a room: objects and targets with their shares.

    Attributes:
        share: Number of official training games with this task in this room.
        objects: Object kinds with shares.
        targets: Receptacle kinds (for ``look_at_obj_in_light``: lamp kinds) with shares.
    """

    share: int
    objects: tuple[tuple[str, int], ...]
    targets: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class RoomFacts:
    """One kind of room."""

    name: str
    receptacles: tuple[ReceptacleFacts, ...]
    objects: Mapping[str, ObjectFacts]
    together: tuple[tuple[str, str, int], ...]
    tasks: Mapping[str, TaskFacts]


@dataclass(frozen=True)
class Household:
    """Everything that the worlds are drawn from.

    Attributes:
        rooms: The room kinds by name.
        holds: The object kinds that each receptacle kind may be given.
        can: The object kinds by affordance (clean, heat, cool, slice, toggle, contain).
        fixed: Object kinds that cannot be picked up.
        cold_in_fridge: Percent of coolable objects in a fridge that are cold from the start.
        sentences: Forms of the goal sentence by task type (and by chained preparations).
    """

    rooms: Mapping[str, RoomFacts]
    holds: Mapping[str, frozenset[str]]
    can: Mapping[str, frozenset[str]]
    fixed: frozenset[str]
    cold_in_fridge: int
    sentences: Mapping[str, tuple[str, ...]]


def _room(name: str, card: Mapping[str, Any]) -> RoomFacts:
    return RoomFacts(
        name=name,
        receptacles=tuple(
            ReceptacleFacts(kind, tuple(row["counts"]), int(row.get("openable", 0)))
            for kind, row in card["receptacles"].items()
        ),
        objects={
            kind: ObjectFacts(kind, tuple(row["counts"]), tuple(row["on"].items()))
            for kind, row in card["objects"].items()
        },
        together=tuple((a, b, int(percent)) for a, b, percent in card["together"]),
        tasks={
            kind: TaskFacts(
                int(row["share"]), tuple(row["objects"].items()), tuple(row["targets"].items())
            )
            for kind, row in card["tasks"].items()
        },
    )


@lru_cache(maxsize=1)
def household() -> Household:
    """Return the facts in ``registry/worlds/alfworld.toml``.

    Raises:
        ValueError: The card is of another format, or names kinds that it does not describe.
    """
    card = registry.read("worlds", "alfworld")
    if card.get("format") != FORMAT:
        raise ValueError(
            f"registry/worlds/alfworld.toml has format {card.get('format')!r}, expected {FORMAT}: "
            "the card and the package are of different versions; reinstall himac"
        )
    out = Household(
        rooms={name: _room(name, card["rooms"][name]) for name in ROOMS},
        holds={kind: frozenset(held) for kind, held in card["holds"].items()},
        can={verb: frozenset(kinds) for verb, kinds in card["can"].items()},
        fixed=frozenset(card["fixed"]),
        cold_in_fridge=int(card["cold_in_fridge"]),
        sentences={kind: tuple(forms) for kind, forms in card["sentences"].items()},
    )
    _check(out)
    return out


def _check(facts: Household) -> None:
    """Refuse a card whose parts do not fit together: an edited card must fail at once."""
    for room in facts.rooms.values():
        standing = {row.kind for row in room.receptacles}
        for row in room.objects.values():
            _known("on", f"{room.name}.objects.{row.kind}", (k for k, _ in row.on), standing)
        for a, b, _ in room.together:
            _known("together", room.name, (a, b), standing)
        for kind, task in room.tasks.items():
            where = f"{room.name}.tasks.{kind}"
            _known("objects", where, (k for k, _ in task.objects), set(room.objects))
            lamps = kind == "look_at_obj_in_light"
            known = set(room.objects) & facts.can["toggle"] if lamps else standing
            _known("targets", where, (k for k, _ in task.targets), known)
            if kind not in TASK_TYPES:
                raise ValueError(f"registry/worlds/alfworld.toml: unknown task type {kind!r}")


def _known(key: str, where: str, kinds: Any, known: set[str]) -> None:
    unknown = sorted(set(kinds) - known)
    if unknown:
        raise ValueError(
            f"registry/worlds/alfworld.toml: {where}.{key} names {', '.join(unknown)}, "
            "which the room does not have"
        )
