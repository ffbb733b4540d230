"""A solution of a generated world: the commands that show that it can be solved.

This is bookkeeping on the world's own description, independent of the engine; the engine then
plays the commands (`himac_envs.alfworld.generate.games`), so each checks the other.
"""

from __future__ import annotations

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
        targets = self.by_kind.get(goal.target, ())
        if goal.item not in self.facts.holds.get(goal.target, ()) or not targets:
            return False
        if any(need for need in goal.needs if not self.by_kind.get(APPLIANCE[need])):
            return False
        if goal.number == 1:
            _, item, target = min(
                (self._price(goal, item, target), item, target)
                for item in items
                for target in targets
            )
            self._bring(goal, item, target)
            return True
        target = min(targets, key=lambda i: (self._cost(i), i))
        for _ in range(goal.number):
            item = min(items, key=lambda i: (self._price(goal, i, target), i))
            items.remove(item)
            self._bring(goal, item, target)
        return True

    def _price(self, goal: Goal, item: int, target: int) -> int:
        """How many commands it takes to bring an object, ready, to a target."""
        needs = self._needs(goal, item)
        source = self.place[item]
        if not needs and source == target:
            return 0
        rows = self.world.receptacles
        price = self._cost(source) + 2 + len(needs)  # take and move, and each preparation
        spot = rows[source].spot
        for need in needs:
            tool = self._nearest(need, spot)
            price += int(rows[tool].spot != spot)
            spot = rows[tool].spot
        row = rows[target]
        return (
            price
            + int(row.spot != spot)
            + int(row.door and target not in self.opened and target != source)
        )

    def _needs(self, goal: Goal, item: int) -> list[str]:
        """The preparations that an object still lacks."""
        return [need for need in goal.needs if need != "cool" or not self.cold[item]]

    def _nearest(self, need: str, spot: int) -> int:
        """The tool of a preparation: one where the agent stands, if there is one."""
        rows = self.world.receptacles
        return min(self.by_kind[APPLIANCE[need]], key=lambda i: (rows[i].spot != spot, i))

    def _cost(self, receptacle: int) -> int:
        row = self.world.receptacles[receptacle]
        return int(row.spot != self.spot) + int(row.door and receptacle not in self.opened)

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

    def _bring(self, goal: Goal, item: int, target: int) -> None:
        needs = self._needs(goal, item)
        if not needs and self.place[item] == target:
            return
        name = self._take(item)
        for need in needs:
            tool = self._nearest(need, self.spot)
            self._reach(tool, inside=False)
            self.commands.append(f"{need} {name} with {self.world.receptacle_names[tool]}")
        self._reach(target, inside=True)
        self.commands.append(f"move {name} to {self.world.receptacle_names[target]}")
        self.place[item] = target

    def _look(self, goal: Goal, items: list[int]) -> bool:
        lamps = [i for i, thing in enumerate(self.world.things) if thing.kind == goal.target]
        if not lamps:
            return False
        rows = self.world.receptacles
        _, item, lamp = min(
            (
                self._cost(self.place[item])
                + int(rows[self.place[item]].spot != rows[self.place[lamp]].spot),
                item,
                lamp,
            )
            for item in items
            for lamp in lamps
        )
        self._take(item)
        # A lamp can be switched on through a closed door, as in the original.
        self._reach(self.place[lamp], inside=False)
        self.commands.append(f"use {self.world.thing_names[lamp]}")
        return True
