"""Goals, compiled from PDDL to tests on bit masks.

Every official goal is a conjunction of existential statements of three kinds: one or two objects
of a type stand in one receptacle of a type (perhaps clean, hot or cool); a toggled lamp stands
where the agent is; an object of a type is held. A statement compiles to a :class:`Condition`; the
goal holds when all do. Objects are numbered, and a set of objects is an ``int`` with one bit each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from himac_envs.alfworld.errors import GameFileError, UnsolvableGameError
from himac_envs.alfworld.problem import Expression, parse_typed_list
from himac_envs.alfworld.records import StateRecord

CLEAN: Final = 1
HOT: Final = 2
COOL: Final = 4
SLICED: Final = 8
FLAGS: Final = {"isclean": CLEAN, "ishot": HOT, "iscool": COOL, "issliced": SLICED}


@dataclass(frozen=True)
class Wanted:
    """What an object must be: one of ``objects`` (a mask), with every flag of ``flags``."""

    objects: int
    flags: int = 0

    def ready(self, state: StateRecord) -> int:
        """The objects that fit now, as a mask."""
        objects = self.objects
        if self.flags:
            if self.flags & CLEAN:
                objects &= state.clean
            if self.flags & HOT:
                objects &= state.hot
            if self.flags & COOL:
                objects &= state.cool
            if self.flags & SLICED:
                objects &= state.sliced
        return objects


@dataclass(frozen=True)
class Placed:
    """Distinct objects, one for each of ``wanted``, stand in one of ``receptacles``.

    All entries of ``wanted`` are equal where there are more than two.
    """

    wanted: tuple[Wanted, ...]
    receptacles: tuple[int, ...]

    def met(self, state: StateRecord) -> bool:
        """Whether the condition holds now."""
        contents = state.contents
        first = self.wanted[0].ready(state)
        if not first:
            return False
        if len(self.wanted) == 1:
            return any(contents[r] & first for r in self.receptacles)
        second = self.wanted[1].ready(state)
        need = len(self.wanted)
        for r in self.receptacles:
            one, two = contents[r] & first, contents[r] & second
            if one and two and (one | two).bit_count() >= need:
                return True
        return False


@dataclass(frozen=True)
class Lit:
    """A toggled one of ``lamps`` (a mask) stands in a receptacle where the agent is.

    The lamp may have been turned on at any time before; whether the receptacle is open does not
    matter.
    """

    lamps: int

    def met(self, state: StateRecord) -> bool:
        """Whether the condition holds now."""
        lit = self.lamps & state.toggled
        if not lit:
            return False
        contents = state.contents
        return any(contents[r] & lit for r in state.game.at[state.location])


@dataclass(frozen=True)
class Held:
    """The agent holds an object as ``wanted``."""

    wanted: Wanted

    def met(self, state: StateRecord) -> bool:
        """Whether the condition holds now."""
        return state.held >= 0 and bool(self.wanted.ready(state) >> state.held & 1)


@dataclass(frozen=True)
class Made:
    """An object as ``wanted`` exists, wherever it is (no official goal has this kind)."""

    wanted: Wanted

    def met(self, state: StateRecord) -> bool:
        """Whether the condition holds now."""
        return bool(self.wanted.ready(state))


Condition: TypeAlias = Placed | Lit | Held | Made


@dataclass(frozen=True)
class GoalTables:
    """What compiling a goal needs to know of a game.

    Attributes:
        object_types: Mask of the objects of each type (``"mugtype"``).
        receptacle_types: The receptacles of each type.
        static: Masks of the objects with a fixed property (``"cleanable"``).
    """

    object_types: Mapping[str, int]
    receptacle_types: Mapping[str, tuple[int, ...]]
    static: Mapping[str, int]


def compile_goal(goal: Expression, tables: GoalTables) -> tuple[Condition, ...]:
    """Compile a goal.

    Args:
        goal: The goal of a :class:`~himac_envs.alfworld.problem.Problem`.
        tables: The game's objects and receptacles by type.

    Returns:
        Conditions that must hold at the same time.

    Raises:
        GameFileError: The goal is of a form that no official game has.
        UnsolvableGameError: No object or receptacle of a wanted type exists.
    """
    parts = goal[1:] if isinstance(goal, tuple) and goal[:1] == ("and",) else (goal,)
    if not parts:
        raise GameFileError("the goal is empty")
    return tuple(_Statement(part, tables).compile() for part in parts)


class _Statement:
    """One existential statement: its variables and literals."""

    def __init__(self, expression: Expression, tables: GoalTables) -> None:
        self.tables = tables
        self.kinds: dict[str, str] = {}
        self.literals = list(self._flatten(expression))

    def _flatten(self, expression: Expression) -> Iterator[tuple[str, ...]]:
        """Yield the literals; ``("!=", a, b)`` stands for a negated equality."""
        match expression:
            case ("and", *parts):
                for part in parts:
                    yield from self._flatten(part)
            case ("exists", tuple(variables), part):
                self.kinds.update(parse_typed_list(variables))
                yield from self._flatten(part)
            case ("not", ("=", str(a), str(b))):
                yield ("!=", a, b)
            case (str(predicate), *arguments) if predicate not in ("or", "not", "forall", "imply"):
                yield (predicate, *map(str, arguments))
            case _:
                raise GameFileError(f"the goal holds a form that cannot be played: {expression!r}")

    def compile(self) -> Condition:
        names = [name for name, kind in self.kinds.items() if kind == "object"]
        holders = [name for name, kind in self.kinds.items() if kind == "receptacle"]
        objects = dict.fromkeys(names, -1)
        flags = dict.fromkeys(names, 0)
        receptacles: set[int] | None = None
        inside: set[str] = set()
        held: set[str] = set()
        toggled: set[str] = set()
        distinct: set[frozenset[str]] = set()
        here = near = False
        for literal in self.literals:
            match literal:
                case ("objecttype", name, kind) if name in objects:
                    objects[name] &= self.tables.object_types.get(kind, 0)
                case ("receptacletype", name, kind) if name in holders:
                    found = set(self.tables.receptacle_types.get(kind, ()))
                    receptacles = found if receptacles is None else receptacles & found
                case (predicate, name) if predicate in FLAGS and name in objects:
                    flags[name] |= FLAGS[predicate]
                case ("istoggled", name) if name in objects:
                    toggled.add(name)
                case (predicate, name) if predicate in self.tables.static and name in objects:
                    objects[name] &= self.tables.static[predicate]
                case ("inreceptacle", name, where) if name in objects and where in holders:
                    inside.add(name)
                case ("holds", _, name) if name in objects:
                    held.add(name)
                case ("!=", a, b) if a in objects and b in objects:
                    distinct.add(frozenset((a, b)))
                case ("receptacleatlocation", where, _) if where in holders:
                    near = True
                case ("atlocation", _, _):
                    here = True
                case _:
                    raise GameFileError(f"the goal's literal {literal!r} cannot be played")
        if not all(objects.values()):
            raise UnsolvableGameError("the goal wants an object of a type that the game lacks")
        wanted = tuple(Wanted(objects[name], flags[name]) for name in names)
        everything = set(names)
        if inside == everything and len(holders) == 1 and toggled == everything and len(names) == 1:
            # The official statement puts no type on the lamp's receptacle.
            if near and here and receptacles is None and not flags[names[0]] and not held:
                return Lit(objects[names[0]])
        elif not toggled and not near and not here:
            if inside == everything and names and not held and receptacles is not None:
                pairs = len(names) * (len(names) - 1) // 2
                if len(distinct) == pairs and (len(names) < 3 or len(set(wanted)) == 1):
                    if not receptacles:
                        raise UnsolvableGameError("the goal wants a receptacle the game lacks")
                    return Placed(wanted, tuple(sorted(receptacles)))
            elif len(names) == 1 and not holders and held == everything:
                return Held(wanted[0])
            elif len(names) == 1 and not holders and not inside and not held and flags[names[0]]:
                return Made(wanted[0])
        raise GameFileError(f"the goal's statement cannot be played: {self.literals!r}")
