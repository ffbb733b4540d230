"""The 200 puzzles that come with the package (``data="puzzles"``): how they were made.

``python -m himac_envs.sokoban.puzzles`` writes ``registry/worlds/sokoban.xsb`` and its card anew,
byte for byte the same: rooms of the ``fast`` generator, eight sizes, and within each size from the
easiest to the hardest (by the fewest pushes) of 1,500 candidates in even steps.
"""

from __future__ import annotations

import os
from pathlib import Path

from himac_envs import registry
from himac_envs.sokoban.generate import RoomGenerator
from himac_envs.sokoban.levels import format_xsb
from himac_envs.sokoban.rules import Level
from himac_envs.sokoban.solver import solve

__all__ = ["SIZES", "build", "write"]

#: Rows, columns, boxes, puzzles of that size, fewest pushes of the easiest.
SIZES = (
    (5, 5, 1, 15, 2),
    (6, 6, 1, 30, 3),
    (6, 6, 2, 30, 5),
    (7, 7, 2, 30, 6),
    (7, 7, 3, 20, 9),
    (8, 8, 3, 25, 11),
    (9, 9, 3, 20, 13),
    (10, 10, 4, 30, 15),
)
_CANDIDATES = 1_500
_FIRST = 5_000_000  # numbers beyond every split: no puzzle is a task of the generated ones


def build() -> list[tuple[Level, int, int]]:
    """Return the puzzles with their fewest pushes and fewest moves, in order."""
    chosen = []
    for rows, cols, boxes, count, least in SIZES:
        rooms = RoomGenerator("fast", rows, cols, boxes).rooms(range(_FIRST, _FIRST + _CANDIDATES))
        distinct = {(room.fixed, room.state): room for room in rooms}
        ranked = sorted((solve(room).pushes or 0, room.name, room) for room in distinct.values())
        hardest = ranked[-1][0]
        for k in range(count):
            # The first room not yet taken that needs this many pushes, from least to hardest.
            wanted = least + (hardest - least) * k // (count - 1)
            at = min((i for i, r in enumerate(ranked) if r[0] >= wanted), default=len(ranked) - 1)
            pushes, _, room = ranked.pop(at)
            chosen.append((room, pushes, solve(room, objective="moves").moves or 0))
    return chosen


def write(folder: Path) -> None:
    """Write ``sokoban.xsb`` and ``sokoban.toml`` into a folder."""
    puzzles = build()
    text = "".join(
        f"; {n}: {pushes} pushes or {moves} moves at least\n{format_xsb(room)}\n\n"
        for n, (room, pushes, moves) in enumerate(puzzles)
    )
    card = "\n".join(
        [
            "# 200 puzzles for people and agents, from a first push to four boxes.",
            "# Written by `python -m himac_envs.sokoban.puzzles`; the levels are in sokoban.xsb.",
            'name = "puzzles"',
            'file = "sokoban.xsb"',
            'license = "MIT"',
            f"pushes = {[pushes for _, pushes, _ in puzzles]}",
            f"moves = {[moves for _, _, moves in puzzles]}",
            "",
        ]
    )
    for name, content in (("sokoban.xsb", text), ("sokoban.toml", card)):
        beside = folder / f".{name}.{os.getpid()}"
        beside.write_text(content, encoding="utf-8")
        os.replace(beside, folder / name)


if __name__ == "__main__":
    write(registry.root() / "worlds")
