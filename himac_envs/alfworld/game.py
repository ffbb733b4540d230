"""A game's fixed tables: built once from its problem, shared by every environment that plays it.

Entities are numbered in the order of their raw ids, since the original lists things in that order.
A set of objects or receptacles is an ``int`` with one bit each: contents of a receptacle, objects
with a property, open receptacles. A set's strings are looked up, so playing allocates little.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Final

import numpy as np

from himac_envs.alfworld.dialect import Dialect, DialectName, find_dialect
from himac_envs.alfworld.errors import GameFileError
from himac_envs.alfworld.goals import Condition, GoalTables, compile_goal
from himac_envs.alfworld.names import bits, entity_names, listing
from himac_envs.alfworld.problem import Problem
from himac_envs.alfworld.records import (
    CACHE_LIMIT,
    FRIDGE,
    MICROWAVE,
    NO_TOOL,
    SINK,
    GameRecord,
    SavedState,
)

INTRO: Final = "-= Welcome to TextWorld, ALFRED! =-\n\n"
ROOM: Final = "You are in the middle of a room. Looking quickly around you, you see "
TASK: Final = "\n\nYour task is to: "

_OBJECT_PROPERTIES: Final = (
    "pickupable", "cleanable", "heatable", "coolable", "toggleable", "sliceable",
    "isreceptacleobject", "isclean", "ishot", "iscool", "issliced", "istoggled",
)  # fmt: skip
_KNIVES: Final = ("knifetype", "butterknifetype")
#: All that a game consists of.
FIELDS: Final = (*GameRecord.__slots__, "conditions")


class Game(GameRecord):
    """The fixed part of one game. Use :meth:`from_problem`; treat instances as read-only.

    Attributes:
        conditions: What must hold for the game to be won.
    """

    __slots__ = ("conditions",)

    conditions: tuple[Condition, ...]

    @classmethod
    def from_problem(
        cls,
        problem: Problem,
        goal_text: str,
        dialect: DialectName | Dialect = "2.1.2",
        task_id: str = "",
        *,
        sinks: frozenset[str] = frozenset({"sinkbasintype"}),
    ) -> Game:
        """Build a game.

        Args:
            problem: Objects, facts at the start, and goal.
            goal_text: The goal's sentence as printed, with the full stop where there is one.
            dialect: The strings.
            task_id: Kept for error messages and ``info``.
            sinks: Types of receptacles in which objects can be cleaned.

        Returns:
            The game.

        Raises:
            GameFileError: The facts do not make a game, or the goal is of an unknown form.
            UnsolvableGameError: The goal wants what the game lacks.
        """
        game = cls()
        game.task_id = task_id
        game.goal_text = goal_text
        game.dialect = find_dialect(dialect)
        facts: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
        for predicate, *arguments in problem.init:
            facts[predicate].append(tuple(arguments))
        ids = sorted({id_ for arguments in facts.values() for fact in arguments for id_ in fact})
        undeclared = [id_ for id_ in ids if id_ not in problem.objects]
        if undeclared:
            raise GameFileError(f"{task_id or problem.name}: undeclared object {undeclared[0]!r}")
        numbers: dict[str, dict[str, int]] = {
            kind: {
                id_: number
                for number, id_ in enumerate(i for i in ids if problem.objects[i] == kind)
            }
            for kind in ("object", "receptacle", "location")
        }
        try:
            game._build(problem, facts, numbers, entity_names(ids), sinks)
        except (KeyError, ValueError, IndexError) as error:
            if isinstance(error, GameFileError):
                raise type(error)(f"{task_id or problem.name}: {error}") from None
            raise GameFileError(
                f"{task_id or problem.name}: the facts do not make a game "
                f"({type(error).__name__}: {error})"
            ) from error
        return game

    def _build(
        self,
        problem: Problem,
        facts: defaultdict[str, list[tuple[str, ...]]],
        numbers: dict[str, dict[str, int]],
        names: dict[str, str],
        sinks: frozenset[str],
    ) -> None:
        objects, receptacles, locations = (
            numbers[kind] for kind in ("object", "receptacle", "location")
        )
        self.object_names = tuple(names[id_] for id_ in objects)
        self.receptacle_names = tuple(names[id_] for id_ in receptacles)
        self.location_names = tuple(names[id_] for id_ in locations)
        self.object_index = {name: i for i, name in enumerate(self.object_names)}
        self.receptacle_index = {name: i for i, name in enumerate(self.receptacle_names)}

        where = {r: location for r, location in facts["receptacleatlocation"]}
        if len(where) != len(set(facts["receptacleatlocation"])):
            raise GameFileError("a receptacle has two locations, which no official game has")
        self.location_of = tuple(locations[where[r]] if r in where else -1 for r in receptacles)
        at: list[list[int]] = [[] for _ in locations]
        for r, location in enumerate(self.location_of):
            if location >= 0:
                at[location].append(r)
        self.at = tuple(map(tuple, at))

        object_types = {id_: kind for id_, kind in facts["objecttype"]}
        receptacle_types = {id_: kind for id_, kind in facts["receptacletype"]}
        self.object_types = tuple(object_types.get(id_, "") for id_ in objects)
        self.receptacle_types = tuple(receptacle_types.get(id_, "") for id_ in receptacles)
        by_type: defaultdict[str, int] = defaultdict(int)
        for o, kind in enumerate(self.object_types):
            by_type[kind] |= 1 << o
        fits: defaultdict[str, int] = defaultdict(int)
        self.permits = tuple((kind, object_kind) for kind, object_kind in facts["cancontain"])
        for kind, object_kind in self.permits:
            fits[kind] |= by_type.get(object_kind, 0)
        self.accepts = tuple(fits.get(kind, 0) for kind in self.receptacle_types)
        tools = {"microwavetype": MICROWAVE, "fridgetype": FRIDGE} | dict.fromkeys(sinks, SINK)
        self.tools = tuple(tools.get(kind, NO_TOOL) for kind in self.receptacle_types)
        self.openable = _mask(receptacles, facts["openable"])
        property_ = {name: _mask(objects, facts[name]) for name in _OBJECT_PROPERTIES}
        self.pickupable = property_["pickupable"]
        self.cleanable = property_["cleanable"]
        self.heatable = property_["heatable"]
        self.coolable = property_["coolable"]
        self.toggleable = property_["toggleable"]
        self.sliceable = property_["sliceable"]
        self.holders = property_["isreceptacleobject"]
        self.knives = sum(by_type.get(kind, 0) for kind in _KNIVES)
        inner: defaultdict[int, list[int]] = defaultdict(list)
        for id_, outer in sorted(set(facts["inreceptacleobject"])):
            inner[objects[outer]].append(objects[id_])
        self.inner = {outer: tuple(inside) for outer, inside in inner.items()}

        contents = [0] * len(receptacles)
        for id_, holder in facts["inreceptacle"]:
            contents[receptacles[holder]] |= 1 << objects[id_]
        lying = [0] * len(locations)
        for id_, place in facts["objectatlocation"]:
            lying[locations[place]] |= 1 << objects[id_]
        (agent,) = set(facts["atlocation"])
        held = {objects[id_] for _, id_ in facts["holds"]}
        self.start = SavedState(
            locations[agent[1]],
            held.pop() if held else -1,
            _mask(receptacles, facts["opened"]),
            tuple(contents),
            tuple(lying),
            (0,) * len(receptacles),
            property_["isclean"],
            property_["ishot"],
            property_["iscool"],
            property_["issliced"],
            property_["istoggled"],
            (),
            0,
            0,
        )
        self._write_texts()
        kinds: defaultdict[str, list[int]] = defaultdict(list)
        for r, kind in enumerate(self.receptacle_types):
            kinds[kind].append(r)
        self.conditions = compile_goal(
            problem.goal,
            GoalTables(by_type, {kind: tuple(rs) for kind, rs in kinds.items()}, property_),
        )

    def _write_texts(self) -> None:
        commands = [
            (f"go to {name}", self.location_of[r]) for r, name in enumerate(self.receptacle_names)
        ]
        commands = sorted(command for command in commands if command[1] >= 0)
        self.goto = tuple(
            [command for command, there in commands if there != location]
            for location in range(len(self.location_names))
        )
        self.facing = tuple(
            f"You are facing the {listing([self.receptacle_names[r] for r in here])}. "
            "Next to it, you see "
            for here in self.at
        )
        around = [
            f"a {name}" for r, name in enumerate(self.receptacle_names) if self.location_of[r] >= 0
        ]
        location = self.start.location
        # Only here is the whole room listed: `look` binds the location and finds nothing.
        look = f"{self.facing[location]}nothing." if self.at[location] else None
        self.intro = INTRO + (look or f"{ROOM}{listing(around)}.") + TASK + self.goal_text
        self._described = [{} for _ in self.receptacle_names]
        self._takes = [{} for _ in self.receptacle_names]

    def with_goal_text(self, text: str) -> Game:
        """The same game with another goal sentence."""
        game = self._copy()
        game.goal_text = text
        game._write_texts()
        return game

    def renumbered(self, rng: np.random.Generator) -> Game:
        """The same game with the numbers in names shuffled within each class.

        This is the original's "domain randomization", which draws from Python's global generator.
        What is listed where, and in which order, stays as it is.
        """
        game = self._copy()
        names = [*self.object_names, *self.receptacle_names, *self.location_names]
        classes: defaultdict[str, list[int]] = defaultdict(list)
        for position, name in enumerate(names):
            class_, _, number = name.rpartition(" ")
            if number:
                classes[class_].append(position)
        for positions in classes.values():
            shuffled = [names[positions[i]] for i in rng.permutation(len(positions))]
            for position, name in zip(positions, shuffled, strict=True):
                names[position] = name
        objects, receptacles = len(self.object_names), len(self.receptacle_names)
        game.object_names = tuple(names[:objects])
        game.receptacle_names = tuple(names[objects : objects + receptacles])
        game.location_names = tuple(names[objects + receptacles :])
        game.object_index = {name: i for i, name in enumerate(game.object_names)}
        game.receptacle_index = {name: i for i, name in enumerate(game.receptacle_names)}
        game._write_texts()
        return game

    def _copy(self) -> Game:
        game = Game()
        for name in FIELDS:
            setattr(game, name, getattr(self, name))
        return game

    def __deepcopy__(self, memo: dict[int, object]) -> Game:
        """Nothing in a game changes, so a copy of an environment may share it."""
        return self

    def beside(self, r: int) -> int:
        """The objects that may be put into another receptacle at the place of this one."""
        others = (o for o in self.at[self.location_of[r]] if o != r)
        return reduce(or_, (self.accepts[o] for o in others), 0)

    def describe(self, r: int, contents: int, opened: int) -> str:
        """What the original prints of a receptacle: its door's state and what it holds."""
        if self.openable >> r & 1 and not opened >> r & 1:
            return f"The {self.receptacle_names[r]} is closed."
        known = self._described[r]
        text = known.get(contents)
        if text is None:
            things = listing([f"a {self.object_names[o]}" for o in bits(contents)])
            name = self.receptacle_names[r]
            if self.openable >> r & 1:
                text = f"The {name} is open. In it, you see {things}."
            else:
                text = f"On the {name}, you see {things}."
            if len(known) >= CACHE_LIMIT:
                known.clear()
            known[contents] = text
        return text

    def __getstate__(self) -> tuple[None, dict[str, object]]:
        """Pickle without the remembered texts."""
        slots = {name: getattr(self, name) for name in FIELDS}
        slots["_described"] = [{} for _ in self.receptacle_names]
        slots["_takes"] = [{} for _ in self.receptacle_names]
        return None, slots


def _mask(numbers: dict[str, int], facts: Iterable[tuple[str, ...]]) -> int:
    mask = 0
    for (id_,) in facts:
        mask |= 1 << numbers[id_]
    return mask
