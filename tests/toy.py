"""A small TaskEnv for tests of the contracts: collect fruit in a row of rooms.

Rooms 0..n-1 lie in a row; each fruit lies in one of them. "east", "west", "take X" are understood.
The task: hold every fruit. Its sub-goals read "get the X".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from himac_envs import Blueprint, Outcome, TaskEnv
from himac_envs.errors import UnknownSplitError, UnknownTaskError

FRUIT = ("apple", "banana", "cherry", "plum")


class FruitEnv(TaskEnv):
    default_max_steps = 30
    data_name = "fruit"
    COUNTS: ClassVar[dict[str, int]] = {"train": 20, "valid": 5, "test": 5}

    def task_ids(self, split: str | None = None) -> Sequence[str]:
        split = split or self.split
        if split == "all":
            return [i for s in sorted(self.COUNTS) for i in self.task_ids(s)]
        if split not in self.COUNTS:
            raise UnknownSplitError(split, {**self.COUNTS, "all": 30}, "the fruit rooms")
        return [f"{split}:{i:02d}" for i in range(self.COUNTS[split])]

    def _start(self, task_id: str) -> Outcome:
        if task_id not in self.task_ids("all"):
            raise UnknownTaskError(task_id, self.task_ids("all"), "the fruit rooms")
        split, number = task_id.split(":")
        rng = np.random.default_rng([sorted(self.COUNTS).index(split), int(number)])
        self.rooms = int(rng.integers(3, 6))
        self.fruit = {
            FRUIT[i]: int(rng.integers(self.rooms)) for i in range(int(rng.integers(1, 4)))
        }
        self.here, self.held = 0, frozenset[str]()
        return Outcome(text=f"A row of {self.rooms} rooms. {self._look()}")

    def _look(self) -> str:
        seen = [f for f, room in self.fruit.items() if room == self.here and f not in self.held]
        return f"Room {self.here}. You see {', '.join(seen) or 'nothing'}."

    def _admissible(self) -> list[str]:
        moves = ["east"] if self.here + 1 < self.rooms else []
        moves += ["west"] if self.here else []
        return moves + [
            f"take {f}" for f, r in self.fruit.items() if r == self.here and f not in self.held
        ]

    def _act(self, command: str) -> Outcome:
        if command not in self._admissible():
            return Outcome("Nothing happens.", score=self._score(), won=self._won(), invalid=True)
        before = self._score()
        if command == "east":
            self.here += 1
        elif command == "west":
            self.here -= 1
        else:
            self.held = self.held | {command.removeprefix("take ")}
        won = self._won()
        return Outcome(self._look(), self._score() - before, won, won, self._score())

    def _score(self) -> float:
        return len(self.held) / len(self.fruit)

    def _won(self) -> bool:
        return len(self.held) == len(self.fruit)

    def _goal(self) -> str:
        return "get every fruit"

    def _save(self) -> Any:
        return (self.here, self.held)

    def _load(self, state: Any) -> None:
        self.here, self.held = state

    def oracle(self, subgoal: str | None = None) -> Iterator[str]:
        wanted = list(self.fruit) if subgoal is None else [self._fruit(subgoal)]
        if None in wanted:
            raise ValueError(f"not understood: {subgoal!r}")
        for fruit in wanted:
            assert fruit is not None
            while fruit not in self.held:
                room = self.fruit[fruit]
                if room != self.here:
                    yield "east" if room > self.here else "west"
                else:
                    yield f"take {fruit}"

    def _fruit(self, subgoal: str) -> str | None:
        name = subgoal.removeprefix("get the ")
        return name if name in self.fruit else None

    def oracle_blueprint(self) -> Blueprint:
        left = [f for f in self.fruit if f not in self.held] or list(self.fruit)
        return Blueprint.of(f"get the {f}" for f in left)

    def achieved(self, subgoal: str) -> bool | None:
        fruit = self._fruit(subgoal)
        return None if fruit is None else fruit in self.held
