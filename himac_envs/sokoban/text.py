"""Sokoban in words: observations as text, and the actions that an agent may write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from himac_envs.sokoban.rules import DIRECTIONS, Board

__all__ = ["SYMBOLS", "TEXT_FORMS", "describe", "goal_text", "parse_actions"]

SYMBOLS: Final[dict[str, tuple[str, ...]]] = {
    "verl-agent": (" # \t", " _ \t", " O \t", " √ \t", " X \t", " P \t", " S \t"),
    "ragen": ("#", "_", "O", "√", "X", "P", "S"),
    "ragen-letters": ("W", ".", "G", "C", "B", "A", "@"),
    "xsb": ("#", " ", ".", "*", "$", "@", "+"),
}
"""What a grid writes for wall, floor, target, box on target, box, player, player on target."""

TEXT_FORMS: Final = ("grid", "coordinates", "sentences")

_MEANINGS = ("wall", "floor", "target", "box on target", "box", "player", "player on target")

_ACTIONS: Final[dict[str, int]] = {
    **{name: i for i, name in enumerate(DIRECTIONS, 1)},
    **{f"push {name}": i for i, name in enumerate(DIRECTIONS, 1)},
    **{f"move {name}": i for i, name in enumerate(DIRECTIONS, 5)},
    "no operation": 0,
    "noop": 0,
    "still": 0,
}
_PULLS: Final = {f"pull {name}": i for i, name in enumerate(DIRECTIONS, 9)}
_SEPARATOR = re.compile(r"\s*(?:\|\||[,;\n])\s*")
_LONGEST = 400


def parse_actions(text: str, limit: int = 1, pull: bool = False) -> list[int] | None:
    """Read the actions of an answer, e.g. ``up`` or ``Right || Right || Up``.

    ``up``, ``down``, ``left`` and ``right`` push, or walk where there is nothing to push; gym-
    sokoban's names ("push up", "move left", "no operation") are understood too. Case and space
    around do not matter. Several actions are separated by ``||``, commas, semicolons or line ends.

    Args:
        text: The answer.
        limit: Most actions an answer may hold; what follows is dropped, as RAGEN does. With 1, an
            answer of several actions is not understood.
        pull: Whether the variant has pull actions.

    Returns:
        Action numbers, or None where some part is not understood.
    """
    text = text.strip()
    if not text or len(text) > _LONGEST:
        return None
    parts = _SEPARATOR.split(text.lower())
    if limit == 1 and len(parts) > 1:
        return None
    actions = []
    for part in parts[:limit]:
        action = _ACTIONS.get(part)
        if action is None and pull:
            action = _PULLS.get(part)
        if action is None:
            return None
        actions.append(action)
    return actions


def goal_text(board: Board, form: str, symbols: str) -> str:
    """The task's instruction, with what is needed to read the observation."""
    many = board.num_boxes > 1
    goal = f"Push {'every' if many else 'the'} box onto {'a' if many else 'the'} target."
    if form == "grid":
        legend = ", ".join(
            f"{symbol.strip() or 'blank'} {meaning}"
            for symbol, meaning in zip(SYMBOLS[symbols], _MEANINGS, strict=True)
        )
        goal += f" In the grid: {legend}."
    return f"{goal} Cells are (row, column), counted from (0, 0) at the top left."


def describe(board: Board, form: str, symbols: str) -> str:
    """The board as text: a grid, a list of coordinates, or sentences."""
    if form == "grid":
        table = SYMBOLS[symbols]
        return "\n".join("".join([table[code] for code in row]) for row in board.grid().tolist())
    if form == "coordinates":
        return _coordinates(board)
    return _sentences(board)


def _at(board: Board, cell: int) -> str:
    return f"({cell // board.cols}, {cell % board.cols})"


def _list(board: Board, cells: Sequence[int]) -> str:
    return ", ".join(_at(board, cell) for cell in cells) or "none"


def _coordinates(board: Board) -> str:
    boxes = board.boxes()
    inner = [
        cell
        for cell, code in enumerate(board.fixed)
        if code == 0
        and 0 < cell // board.cols < board.rows - 1
        and 0 < cell % board.cols < board.cols - 1
    ]
    return "\n".join(
        [
            f"Room: {board.rows} rows, {board.cols} columns, walls all around",
            f"Player: {_at(board, board.player)}",
            f"Boxes off target: {_list(board, [b for b in boxes if board.state[b] == 4])}",
            f"Boxes on target: {_list(board, [b for b in boxes if board.state[b] == 3])}",
            f"Free targets: {_list(board, [t for t in board.targets() if board.state[t] != 3])}",
            f"Walls inside: {_list(board, inner)}",
        ]
    )


def _sentences(board: Board) -> str:
    names = ("a wall", "free floor", "a free target", "a box on a target", "a box")
    around = [
        f"{where} {names[board.state[board.player + step]]}"
        for where, step in zip(
            ("above you", "below you", "to your left", "to your right"),
            board.offsets[1:5],
            strict=True,
        )
    ]
    on = " on a target" if board.fixed[board.player] == 2 else ""
    lines = [
        f"You stand at {_at(board, board.player)}{on}. There is {', '.join(around[:3])} "
        f"and {around[3]}."
    ]
    for box in board.boxes():
        if board.state[box] == 3:
            lines.append(f"The box at {_at(board, box)} is on a target.")
        else:
            lines.append(f"The box at {_at(board, box)} is {_away(board, board.player, box)} you.")
    for target in board.targets():
        if board.state[target] != 3:
            lines.append(
                f"The target at {_at(board, target)} is free; it is "
                f"{_away(board, board.player, target)} you."
            )
    lines.append(f"You can step on: {_open_cells(board)}.")
    return "\n".join(lines)


def _away(board: Board, start: int, end: int) -> str:
    down = end // board.cols - start // board.cols
    right = end % board.cols - start % board.cols
    parts = []
    if down:
        parts.append(f"{abs(down)} {'below' if down > 0 else 'above'}")
    if right:
        parts.append(f"{abs(right)} {'right of' if right > 0 else 'left of'}")
    if not parts:
        return "under"
    if not right:
        return parts[0]
    return " and ".join(parts)


def _open_cells(board: Board) -> str:
    rows = []
    for r in range(board.rows):
        columns = [str(c) for c in range(board.cols) if board.fixed[r * board.cols + c] != 0]
        if columns:
            rows.append(f"row {r} columns {' '.join(columns)}")
    return "; ".join(rows)
