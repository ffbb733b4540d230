"""How hard a generated world is: the settings, their defaults, and three ready-made sets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from himac_envs.alfworld.archive import TASK_TYPES
from himac_envs.alfworld.generate.tables import ROOMS

MAX_GOALS = 8


@dataclass(frozen=True)
class Controls:
    """Difficulty of generated worlds; equal controls and ids give equal worlds everywhere.

    Ranges are inclusive pairs.

    Attributes:
        rooms: Room kinds to draw from.
        task_types: Task types to draw from.
        weights: Relative frequency of each of ``task_types``; None: as in the official games.
        receptacles: Number of receptacles in a world.
        objects: Number of objects in a world.
        copies: Objects of a goal's kind beyond those that the goal needs. Each of them would do
            as well, so more copies make the search shorter.
        hidden: Percent of goals whose objects all start behind doors, and (drawn separately) whose
            target is of a kind with doors; where the room has such a receptacle for them.
        chained: Percent of the tasks with an object to prepare, or two objects to place, that ask
            for one preparation more ("clean and heat some mug ..."); the official games have none.
        goals: Number of goals of one episode, all to hold at its end.
        shortest: Fewest commands of a solution, for each of ``task_types``; None: no bound. It is
            a bound for episodes of one goal.
        horizon: Commands within which a world must be solvable.
    """

    rooms: tuple[str, ...] = ROOMS
    task_types: tuple[str, ...] = TASK_TYPES
    weights: tuple[int, ...] | None = None
    receptacles: tuple[int, int] = (12, 60)
    objects: tuple[int, int] = (15, 90)
    copies: tuple[int, int] = (0, 2)
    hidden: int = 0
    chained: int = 0
    goals: tuple[int, int] = (1, 1)
    shortest: tuple[int, ...] | None = None
    horizon: int = 1_000

    def __post_init__(self) -> None:
        """Refuse what no world can be drawn for, naming the field."""
        for row in fields(self):
            value: Any = getattr(self, row.name)
            if isinstance(value, list):  # as read from TOML or JSON
                value = tuple(value)
                object.__setattr__(self, row.name, value)
        _among("rooms", self.rooms, ROOMS)
        _among("task_types", self.task_types, TASK_TYPES)
        if self.weights is not None and (
            len(self.weights) != len(self.task_types)
            or min(self.weights) < 0
            or sum(self.weights) <= 0
        ):
            raise ValueError(
                f"weights={self.weights}: expected {len(self.task_types)} numbers >= 0, not all 0, "
                "one for each of task_types"
            )
        if self.shortest is not None and len(self.shortest) != len(self.task_types):
            raise ValueError(
                f"shortest={self.shortest}: expected {len(self.task_types)} numbers, one for each "
                "of task_types"
            )
        for name, least in (("receptacles", 2), ("objects", 1), ("copies", 0), ("goals", 1)):
            low, high = getattr(self, name)
            if not least <= low <= high:
                raise ValueError(f"{name}={(low, high)}: expected {least} <= first <= second")
        if self.goals[1] > MAX_GOALS:
            raise ValueError(f"goals={self.goals}: at most {MAX_GOALS} goals fit into one room")
        for name in ("hidden", "chained"):
            if not 0 <= getattr(self, name) <= 100:
                raise ValueError(f"{name}={getattr(self, name)}: expected a percentage, 0 to 100")
        if self.horizon < 4:
            raise ValueError(f"horizon={self.horizon}: no task is solved in fewer than 4 commands")


def _among(name: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    unknown = [value for value in given if value not in known]
    if unknown or not given:
        what = f"unknown {', '.join(map(repr, unknown))}" if unknown else "empty"
        raise ValueError(f"{name}: {what}; choose among {', '.join(known)}")


REAL = Controls(receptacles=(5, 60), objects=(8, 90))
"""Drawn as the official games are: their mix of tasks, room sizes and places."""

DEFAULT = Controls(weights=(6, 6, 15, 15, 15, 43), shortest=(5, 5, 7, 7, 7, 10), hidden=80)
"""All six task types, somewhat longer than the official games: more objects start behind doors,
and more tasks ask for two. The shortest solutions take 8 commands on average."""


def long_horizon(horizon: int = 100, goals: int | None = None) -> Controls:
    """Return the controls of ``HiMAC-ALFWorld-Long-v0``: several goals in one episode.

    The number of goals grows with the horizon, one goal for about 20 commands; the shortest
    solution always fits.

    Args:
        horizon: Commands of an episode, 20 to 200.
        goals: Exactly so many goals instead.

    Raises:
        ValueError: The horizon is out of range, or too short for the goals.
    """
    if not 20 <= horizon <= 200:
        raise ValueError(f"horizon={horizon}: expected 20 to 200 commands")
    most = min(MAX_GOALS, max(2, horizon // 20))
    if goals is not None and not 1 <= goals <= most:
        raise ValueError(
            f"goals={goals}: expected 1 to {most} with horizon={horizon}, one for 20 commands"
        )
    return Controls(
        goals=(max(2, most - 1), most) if goals is None else (goals, goals),
        hidden=40,
        chained=25,
        copies=(0, 1),
        horizon=horizon,
    )
