"""A solution of a generated world: the commands that show that it can be solved.

This is bookkeeping on the world's own description, independent of the engine; the engine then
plays the commands (`himac_envs.alfworld.generate.games`), so each checks the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from himac_envs.alfworld.generate.goals import APPLIANCE, Goal
from himac_envs.alfworld.generate.tables import Household
from himac_envs.alfworld.generate.world import GeneratedWorld


def solve(world: GeneratedWorld, facts: Household) -> list[str] | None:
    """Return commands that reach all goals, near the fewest; None where there are none.

    Goals are served one after the other, the lamp last, since the object must be in hand there.
    """
    walk = _Walk(world, facts)
    for goal in sorted(world.goals, key=lambda goal: goal.light):
        if not walk.serve(goal):
            return None
    return walk.commands


class _Walk:
    """The agent on its way through a world."""

    def __init__(self, world: GeneratedWorld, facts: Household) -> None:
        self.world = world
        self.facts = facts
        self.commands: list[str] = []
        self.spot = -1  # the start, where nothing stands
        self.opened: set[int] = set()
        self.place = [thing.place for thing in world.things]
        self.cold = [thing.cold for thing in world.things]
        self.by_kind: dict[str, list[int]] = {}
        for i, row in enumerate(world.receptacles):
            self.by_kind.setdefault(row.kind, []).append(i)

    def serve(self, goal: Goal) -> bool:
        items = [i for i, thing in enumerate(self.world.things) if thing.kind == goal.item]
        if len(items) < goal.number:
            return False
        if goal.light:
            return self._look(goal, items)
        target = self._cheapest(
            i
            for i in self.by_kind.get(goal.target, ())
            if goal.item in self.facts.holds.get(goal.target, ())
        )
        if target is None:
            return False
        # Cold ones save the way to the fridge; of the others, the cheapest to reach.
        served = sorted(items, key=lambda i: (-self._ready(goal, i, target), self._price(i)))
        return all(self._bring(goal, item, target) for item in served[: goal.number])

    def _ready(self, goal: Goal, item: int, target: int) -> int:
        done = "cool" in goal.needs and self.cold[item]
        return int(done) + int(self.place[item] == target and len(goal.needs) == int(done))

    def _price(self, item: int) -> tuple[int, int]:
        return (self._cost(self.place[item]), item)

    def _cost(self, receptacle: int) -> int:
        row = self.world.receptacles[receptacle]
        return int(row.spot != self.spot) + int(row.door and receptacle not in self.opened)

    def _cheapest(self, receptacles: Iterator[int]) -> int | None:
        return min(receptacles, key=lambda i: (self._cost(i), i), default=None)

    def _reach(self, receptacle: int, *, inside: bool) -> None:
        row, name = self.world.receptacles[receptacle], self.world.receptacle_names[receptacle]
        if row.spot != self.spot:
            self.commands.append(f"go to {name}")
            self.spot = row.spot
        if inside and row.door and receptacle not in self.opened:
            self.commands.append(f"open {name}")
            self.opened.add(receptacle)

    def _take(self, item: int) -> str:
        self._reach(self.place[item], inside=True)
        name = self.world.thing_names[item]
        source = self.world.receptacle_names[self.place[item]]
        self.commands.append(f"take {name} from {source}")
        return name

    def _bring(self, goal: Goal, item: int, target: int) -> bool:
        if self._ready(goal, item, target) == 1 + int("cool" in goal.needs):
            return True
        name = self._take(item)
        for need in goal.needs:
            if need == "cool" and self.cold[item]:
                continue
            tool = self._cheapest(iter(self.by_kind.get(APPLIANCE[need], ())))
            if tool is None:
                return False
            self._reach(tool, inside=False)
            self.commands.append(f"{need} {name} with {self.world.receptacle_names[tool]}")
        self._reach(target, inside=True)
        self.commands.append(f"move {name} to {self.world.receptacle_names[target]}")
        self.place[item] = target
        return True

    def _look(self, goal: Goal, items: list[int]) -> bool:
        lamps = [i for i, thing in enumerate(self.world.things) if thing.kind == goal.target]
        if not lamps:
            return False
        self._take(min(items, key=self._price))
        lamp = min(lamps, key=lambda i: (self._cost(self.place[i]), i))
        # A lamp can be switched on through a closed door, as in the original.
        self._reach(self.place[lamp], inside=False)
        self.commands.append(f"use {self.world.thing_names[lamp]}")
        return True
