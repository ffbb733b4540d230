"""A generated world: the room, what lies in it, what is asked for; drawn, and told as PDDL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

from himac_envs.alfworld.generate.goals import Goal, whole_expression, whole_sentence
from himac_envs.alfworld.generate.layout import Receptacle
from himac_envs.alfworld.generate.tables import Household, household
from himac_envs.alfworld.problem import Fact, Problem

# Types that the planning domain names; every problem must declare them.
_OTYPES = ("sinktype", "knifetype", "butterknifetype")
_RTYPES = ("sinkbasintype", "microwavetype", "fridgetype")
_START = "loc_bar_000"


class Thing(NamedTuple):
    """One object.

    Attributes:
        kind: "Mug", ...
        number: 1, 2, ... within its kind.
        place: Index of the receptacle that it lies in or on.
        cold: Whether it is cold from the start.
    """

    kind: str
    number: int
    place: int
    cold: bool


@dataclass(frozen=True)
class GeneratedWorld:
    """One world. Equal worlds have equal fields.

    Attributes:
        split: "train", "valid" or "test".
        index: Its number in the split.
        room: Kind of room.
        receptacles: What stands in it.
        things: What lies in it.
        goals: What is asked for; all goals are to hold at the end.
        sentences: Each goal in words, without a full stop.
    """

    split: str
    index: int
    room: str
    receptacles: tuple[Receptacle, ...]
    things: tuple[Thing, ...]
    goals: tuple[Goal, ...]
    sentences: tuple[str, ...]

    @property
    def task_id(self) -> str:
        """``generated/<split>/<six digits>``."""
        return f"generated/{self.split}/{self.index:06d}"

    @property
    def goal_text(self) -> str:
        """The instruction, with its full stop."""
        return whole_sentence(self.sentences)

    @property
    def task_type(self) -> str:
        """The first goal's task type."""
        return self.goals[0].task_type

    @cached_property
    def receptacle_ids(self) -> tuple[str, ...]:
        """The id of each receptacle in the raw form of the official files."""
        return tuple(_receptacle_id(row) for row in self.receptacles)

    @cached_property
    def thing_ids(self) -> tuple[str, ...]:
        """The id of each object in the raw form of the official files."""
        return tuple(f"{row.kind.lower()}_bar_{row.number:03d}" for row in self.things)

    @cached_property
    def receptacle_names(self) -> tuple[str, ...]:
        """The name of each receptacle in the game ("sinkbasin 1")."""
        return _names([row.kind for row in self.receptacles])

    @cached_property
    def thing_names(self) -> tuple[str, ...]:
        """The name of each object in the game ("mug 2")."""
        return _names([row.kind for row in self.things])

    def problem(self) -> Problem:
        """Return the world as a planning problem, as if read from a game file."""
        facts = household()
        objects = {"agent1": "agent"}
        objects |= {f"{kind}type".lower(): "otype" for kind in {t.kind for t in self.things}}
        objects |= dict.fromkeys(_OTYPES, "otype")
        objects |= {f"{kind}type".lower(): "rtype" for kind in {r.kind for r in self.receptacles}}
        objects |= dict.fromkeys(_RTYPES, "rtype")
        objects |= dict.fromkeys(self.thing_ids, "object")
        objects |= dict.fromkeys(self.receptacle_ids, "receptacle")
        objects[_START] = "location"
        objects |= {_location(row.spot): "location" for row in self.receptacles}
        name = "plan_" + self.task_id.replace("/", "_")
        return Problem(
            name,
            MappingProxyType(dict(sorted(objects.items()))),
            tuple(self._facts(facts)),
            whole_expression(self.goals),
        )

    def _facts(self, facts: Household) -> Iterator[Fact]:
        yield ("atlocation", "agent1", _START)
        for row, ident in zip(self.receptacles, self.receptacle_ids, strict=True):
            yield ("receptacletype", ident, f"{row.kind}type".lower())
            yield ("receptacleatlocation", ident, _location(row.spot))
            if row.door:
                yield ("openable", ident)
        present = {row.kind for row in self.things}
        for holder in sorted({row.kind for row in self.receptacles}):
            for kind in sorted(present & facts.holds.get(holder, frozenset())):
                yield ("cancontain", f"{holder}type".lower(), f"{kind}type".lower())
        affordances = {kind: _affordances(facts, kind) for kind in present}
        for thing, ident in zip(self.things, self.thing_ids, strict=True):
            yield ("objecttype", ident, f"{thing.kind}type".lower())
            for predicate in affordances[thing.kind]:
                yield (predicate, ident)
            yield ("inreceptacle", ident, self.receptacle_ids[thing.place])
            yield ("objectatlocation", ident, _location(self.receptacles[thing.place].spot))
            if thing.cold:
                yield ("iscool", ident)


def _affordances(facts: Household, kind: str) -> tuple[str, ...]:
    can = facts.can
    out = [] if kind in facts.fixed else ["pickupable"]
    for verb, predicate in (
        ("clean", "cleanable"),
        ("heat", "heatable"),
        ("cool", "coolable"),
        ("slice", "sliceable"),
        ("toggle", "toggleable"),
        ("contain", "isreceptacleobject"),
    ):
        if kind in can[verb]:
            out.append(predicate)
    return tuple(out)


def _location(spot: int) -> str:
    return f"loc_bar_{spot + 1:03d}"


def _receptacle_id(row: Receptacle) -> str:
    # The official files name a basin after its furniture ("sink|...|SinkBasin"), and the engine's
    # naming rule puts both together again.
    kind = row.kind.lower()
    if kind.endswith("basin"):
        return f"{kind.removesuffix('basin')}_bar_{row.number:03d}_bar_{kind}"
    return f"{kind}_bar_{row.number:03d}"


def _names(kinds: list[str]) -> tuple[str, ...]:
    """Return the names in the game: numbers count down in the order of the ids."""
    left = {kind: kinds.count(kind) for kind in set(kinds)}
    out = []
    for kind in kinds:
        out.append(f"{kind.lower()} {left[kind]}")
        left[kind] -= 1
    return tuple(out)
