"""What games and states consist of: the fields that rules, goals and commands read.

Nothing of the engine is imported here, so that all of its modules can say what they read.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from himac_envs.alfworld.dialect import Dialect
from himac_envs.alfworld.names import bits

NO_TOOL: Final = 0
SINK: Final = 1
MICROWAVE: Final = 2
FRIDGE: Final = 3

# Contents texts remembered per receptacle: more than a game's normal play meets.
CACHE_LIMIT: Final = 64


class SavedState(NamedTuple):
    """A state as a value; see :class:`himac_envs.alfworld.engine.State` for the fields."""

    location: int
    held: int
    opened: int
    contents: tuple[int, ...]
    lying: tuple[int, ...]
    left: tuple[int, ...]
    clean: int
    hot: int
    cool: int
    sliced: int
    toggled: int
    placed: tuple[int, ...]
    seen: int
    visited: int


class GameRecord:
    """The fixed part of one game, its goal aside; see `himac_envs.alfworld.game.Game`.

    Attributes:
        task_id: Where the game comes from.
        dialect: The strings it speaks.
        goal_text: The goal's sentence as printed, e.g. ``"put a mug in desk."``.
        object_names, receptacle_names, location_names: Names by number.
        object_types, receptacle_types: PDDL types by number, ``""`` for none.
        object_index, receptacle_index: Numbers by name.
        location_of: Location of each receptacle, -1 for none.
        at: Receptacles at each location.
        accepts: Mask of the objects that may be put in each receptacle.
        permits: The pairs of types that this comes from: of receptacle and of object.
        tools: ``NO_TOOL``, ``SINK``, ``MICROWAVE`` or ``FRIDGE`` for each receptacle.
        openable: Mask of receptacles.
        pickupable, cleanable, heatable, coolable, toggleable, sliceable, holders, knives: Masks of
            objects; ``holders`` are objects that can have others inside.
        inner: For each of ``holders``, the objects that are said to be inside (never changes).
        goto: The ``go to`` commands possible at each location, sorted.
    """

    __slots__ = (
        "_described", "_takes", "accepts", "at", "cleanable", "coolable", "dialect",
        "facing", "goal_text", "goto", "heatable", "holders", "inner", "intro", "knives",
        "location_names", "location_of", "object_index", "object_names", "object_types",
        "openable", "permits", "pickupable", "receptacle_index", "receptacle_names",
        "receptacle_types", "sliceable", "start", "task_id", "toggleable", "tools",
    )  # fmt: skip

    task_id: str
    dialect: Dialect
    goal_text: str
    object_names: tuple[str, ...]
    receptacle_names: tuple[str, ...]
    location_names: tuple[str, ...]
    object_types: tuple[str, ...]
    receptacle_types: tuple[str, ...]
    object_index: dict[str, int]
    receptacle_index: dict[str, int]
    location_of: tuple[int, ...]
    at: tuple[tuple[int, ...], ...]
    accepts: tuple[int, ...]
    permits: tuple[tuple[str, str], ...]
    tools: tuple[int, ...]
    openable: int
    pickupable: int
    cleanable: int
    heatable: int
    coolable: int
    toggleable: int
    sliceable: int
    holders: int
    knives: int
    inner: dict[int, tuple[int, ...]]
    goto: tuple[list[str], ...]
    facing: tuple[str, ...]
    intro: str
    start: SavedState
    _described: list[dict[int, str]]
    _takes: list[dict[int, list[str]]]

    def takes(self, r: int, contents: int) -> list[str]:
        """The ``take`` commands for a receptacle's contents, sorted. Not to be changed."""
        known = self._takes[r]
        commands = known.get(contents)
        if commands is None:
            name = self.receptacle_names[r]
            names = (self.object_names[o] for o in bits(contents & self.pickupable))
            commands = sorted(f"take {object_name} from {name}" for object_name in names)
            if len(known) >= CACHE_LIMIT:
                known.clear()
            known[contents] = commands
        return commands


class StateRecord:
    """One episode's state; see `himac_envs.alfworld.engine.State`.

    Attributes:
        game: The fixed tables.
        location: Number of the agent's location.
        held: Number of the held object, -1 for none.
        opened: Mask of open receptacles.
        contents: Mask of the objects in each receptacle.
        lying: Mask of the objects at each location (PDDL's objectAtLocation).
        left: For each receptacle, mask of the objects that were taken out of it and not put back
            (the explicit negations that the original's state keeps).
        clean, hot, cool, sliced, toggled: Masks of objects.
        placed: Objects put down so far, the latest last, each once. Not of the original's state.
        seen: Mask of the receptacles whose contents were printed. Not of the original's state.
        visited: Mask of the receptacles of which anything was printed, "is closed" included.
    """

    __slots__ = (
        "clean", "contents", "cool", "held", "hot", "left", "location", "lying", "opened",
        "placed", "seen", "sliced", "toggled", "visited",
    )  # fmt: skip

    game: GameRecord
    location: int
    held: int
    opened: int
    contents: list[int]
    lying: list[int]
    left: list[int]
    clean: int
    hot: int
    cool: int
    sliced: int
    toggled: int
    placed: tuple[int, ...]
    seen: int
    visited: int
