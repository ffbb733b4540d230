"""Sokoban's grid in few words.

A grid of 36 cells is 36 tokens a step, of which two change. Here a cell is one number ("23": row 2,
column 3; "0212" where one of them has two digits), and an observation names the player, what lies
above, below, left and right of it (one letter each: free, wall, box), the boxes and the targets:

    24 fwbw box 23 to 42

Walls inside the room stand once, where a conversation begins; those around it are left out. Every
agent, flat or hierarchical, reads the same words. Sub-goals and blueprints name cells in the same
way, and the direction of a straight push, which follows from its cells: "push the box at (2, 3) to
(4, 3)" is read as "push down 23 43"; a planner writes "push 23 43".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

from himac_agents.prompts.compact.forms import Form, rewritten
from himac_envs.blueprint import Blueprint

_CELLS = "#_O√XPS"
_ROW = re.compile(rf"[ \t]*[{_CELLS}](?:[ \t]+[{_CELLS}])+[ \t]*")
_AROUND = ((-1, 0), (1, 0), (0, -1), (0, 1))
_SAYS = {"#": "w", "X": "b", "√": "b"}
_PUSH = re.compile(r"push the box at \((\d+), (\d+)\) to \((\d+), (\d+)\)")
_SHORT = re.compile(r"push (\d\d|\d{4}) (\d\d|\d{4})")


def cell(row: int, col: int) -> str:
    """A cell as a number."""
    return f"{row}{col}" if row < 10 and col < 10 else f"{row:02}{col:02}"


@dataclass(frozen=True, slots=True)
class Grid:
    """A board as it is seen: what stands in each cell, row by row."""

    rows: tuple[tuple[str, ...], ...]

    def cells(self, kinds: str) -> list[str]:
        """Where things of some kinds stand."""
        return [
            cell(r, c)
            for r, row in enumerate(self.rows)
            for c, thing in enumerate(row)
            if thing in kinds
        ]

    def walls(self) -> list[str]:
        """The walls inside the outer ring."""
        inner = [row[1:-1] for row in self.rows[1:-1]]
        return [
            cell(r, c)
            for r, row in enumerate(inner, start=1)
            for c, thing in enumerate(row, start=1)
            if thing == "#"
        ]

    def around(self) -> str:
        """What stands above, below, left and right of the player."""
        player = [
            (r, c) for r, row in enumerate(self.rows) for c, it in enumerate(row) if it in "PS"
        ]
        found = ""
        for row, col in player[:1]:
            for down, right in _AROUND:
                r, c = row + down, col + right
                inside = 0 <= r < len(self.rows) and 0 <= c < len(self.rows[r])
                found += _SAYS.get(self.rows[r][c], "f") if inside else "w"
        return found


@lru_cache(4096)
def grid(text: str) -> Grid | None:
    """The last grid in a text; None without one."""
    rows: list[tuple[str, ...]] = []
    last: list[tuple[str, ...]] = []
    for line in text.split("\n"):
        if _ROW.fullmatch(line):
            rows.append(tuple(line.split()))
            last = rows
        else:
            rows = []
    return Grid(tuple(last)) if last else None


class WarehouseForm(Form):
    """See the module's text."""

    def knows(self, text: str) -> bool:
        """Grids in the environment's own symbols."""
        return grid(text) is not None

    def task(self, goal: str) -> str:
        """The one task there is: how grids are read need not be said."""
        return "solve"

    def brief(self, goal: str) -> str:
        """The same, with the last of the boards that came before, where it is asked again."""
        return "\n".join([self.observation(goal, "", {}), "solve"]) if grid(goal) else "solve"

    def aim(self, subgoal: str) -> str:
        """A sub-goal with cells as words."""
        match = _PUSH.fullmatch(subgoal)
        if match is None:
            return subgoal
        r0, c0, r1, c1 = (int(n) for n in match.groups())
        ways = {(1, 0): "down", (-1, 0): "up", (0, 1): "right", (0, -1): "left"}
        way = ways.get(((r1 > r0) - (r1 < r0), (c1 > c0) - (c1 < c0)), "")
        return " ".join(["push", *([way] if way else []), cell(r0, c0), cell(r1, c1)])

    def shorten(self, blueprint: Blueprint, goal: str) -> Blueprint:
        """Cells as words."""
        return _each(blueprint, _PUSH, lambda *at: f"push {cell(*at[:2])} {cell(*at[2:])}")

    def expand(self, blueprint: Blueprint, goal: str) -> Blueprint:
        """Cells in the environment's form."""
        return _each(blueprint, _SHORT, _spelled)

    def scene(self, first: str) -> str:
        """The walls and the first board."""
        seen = grid(first)
        walls = ["walls", *seen.walls()] if seen else []
        return " ".join([*walls, self.observation(first, "", {})])

    def observation(self, text: str, task: str, info: dict[str, Any]) -> str:
        """The player, what is beside it, boxes and targets."""
        seen = grid(text)
        if seen is None:
            return text
        found = [*seen.cells("PS"), seen.around()]
        for name, kinds in (("box", "X"), ("done", "√"), ("to", "OS")):
            cells = seen.cells(kinds)
            found += [name, *cells] if cells else []
        return " ".join(found)

    def opening(
        self, first: str, task: str, endings: Sequence[str], info: dict[str, Any]
    ) -> list[str]:
        """The walls, and the board as it stands: nothing else matters."""
        return [self.scene(endings[-1] if endings else first)]

    def words(self) -> list[str]:
        """Words of the board."""
        said = "walls box done to push up down left right solve"
        around = ("".join(letters) for letters in product("fwb", repeat=4))
        return [f"{word} 1" for word in (*said.split(), *around)]


def _spelled(start: int, end: int) -> str:
    (r0, c0), (r1, c1) = (divmod(n, 10 if n < 100 else 100) for n in (start, end))
    return f"push the box at ({r0}, {c0}) to ({r1}, {c1})"


def _each(blueprint: Blueprint, form: re.Pattern[str], write: Callable[..., str]) -> Blueprint:
    """A blueprint whose sub-goals of one form are written anew from the numbers in them."""

    def rule(text: str) -> str:
        match = form.fullmatch(text)
        return write(*map(int, match.groups())) if match else text

    return rewritten(blueprint, rule)
