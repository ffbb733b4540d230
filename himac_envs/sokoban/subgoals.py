"""Sub-goals in words: what is understood, whether it holds, and how to get there.

======================================================  ==========================================
``push the box at (2, 3) to (4, 3)``                    holds when a box is on (4, 3) and none is
                                                        on (2, 3) any more
``push the box at (2, 3) down 2``                       the same for the cell two below
``push a box to (4, 3)``, ``cover the target at ...``   holds when a box is on (4, 3)
``go to (1, 1)``                                        holds when the player is there
``push every box onto a target``, ``solve the puzzle``  holds when the puzzle is solved
======================================================  ==========================================

Coordinates are (row, column) from 0 at the top left.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import Literal

from himac_envs.sokoban.rules import DIRECTIONS, Board
from himac_envs.sokoban.solver import MAX_NODES, Solution, solve

__all__ = [
    "ALL_BOXES",
    "Stretch",
    "Target",
    "best_solution",
    "holds",
    "phrase",
    "plan",
    "read_subgoal",
    "stretches",
]

_CELL = r"\(?\s*(?:row\s*)?(\d{1,3})\s*,\s*(?:col(?:umn)?\s*)?(\d{1,3})\s*\)?"
_PUSH = re.compile(
    rf"(?:push|move|bring|put|shove)\s+(?:the|a|that)?\s*box\s+(?:at|from|on)\s+{_CELL}\s+"
    rf"(?:to|onto|into|on)\s+(?:the\s+)?(?:target\s+|cell\s+|goal\s+)?(?:at\s+)?{_CELL}"
)
_PUSH_WAY = re.compile(
    rf"(?:push|move|shove)\s+(?:the|a|that)?\s*box\s+(?:at|from|on)\s+{_CELL}\s+"
    rf"(up|down|left|right)(?:\s+(?:by\s+)?(\d{{1,3}}))?(?:\s+(?:cells?|steps?|times?))?"
)
_COVER = re.compile(
    rf"(?:(?:push|move|bring|put|get|shove)\s+(?:the|a|one|any)?\s*box\s+(?:to|onto|into|on)|cover)"
    rf"\s+(?:the\s+)?(?:target\s+|cell\s+|goal\s+)?(?:at\s+)?{_CELL}"
)
_GOTO = re.compile(rf"(?:go|walk|move|step|get)\s+to\s+(?:the\s+)?(?:cell\s+)?(?:at\s+)?{_CELL}")
_SOLVE = re.compile(
    r"(?:push|move|bring|put|get)\s+(?:the|every|each|all(?:\s+the|\s+other)?)"
    r"\s*(?:other\s+|remaining\s+)?box(?:es)?\s+(?:on|onto|to|into)\s+(?:a|the|their|its)?\s*targets?"
    r"|(?:solve|finish|complete)\s+(?:the\s+)?(?:puzzle|level|room|task|rest)"
)

ALL_BOXES = "push every box onto a target"


@dataclass(frozen=True, slots=True)
class Target:
    """A sub-goal that was understood.

    Attributes:
        kind: "push" (this box there), "cover" (any box there), "goto" or "solve".
        start: The box's cell at the start (push).
        end: The cell to reach (push, cover, goto).
    """

    kind: Literal["push", "cover", "goto", "solve"]
    start: int = -1
    end: int = -1


def read_subgoal(text: str, board: Board) -> Target | None:
    """Understand a sub-goal's text; None where it cannot be, or names a cell outside the room."""
    words = " ".join(text[:400].lower().split()).rstrip(".!")
    if match := _PUSH.fullmatch(words):
        return _target("push", board, _pair(match, 1), _pair(match, 3))
    if match := _PUSH_WAY.fullmatch(words):
        row, col = _pair(match, 1)
        way = DIRECTIONS.index(match.group(3))
        far = int(match.group(4) or 1)
        down, right = ((-far, 0), (far, 0), (0, -far), (0, far))[way]
        return _target("push", board, (row, col), (row + down, col + right))
    if match := _COVER.fullmatch(words):
        return _target("cover", board, None, _pair(match, 1))
    if match := _GOTO.fullmatch(words):
        return _target("goto", board, None, _pair(match, 1))
    if _SOLVE.fullmatch(words):
        return Target("solve")
    return None


def _pair(match: re.Match[str], first: int) -> tuple[int, int]:
    return int(match.group(first)), int(match.group(first + 1))


def _target(
    kind: Literal["push", "cover", "goto"],
    board: Board,
    start: tuple[int, int] | None,
    end: tuple[int, int],
) -> Target | None:
    cells = [-1, -1]
    for i, place in enumerate((start, end)):
        if place is None:
            continue
        row, col = place
        if not (0 <= row < board.rows and 0 <= col < board.cols):
            return None
        cells[i] = row * board.cols + col
        if board.fixed[cells[i]] == 0:
            return None  # a wall: nothing can ever be there
    return Target(kind, cells[0], cells[1])


def holds(target: Target, board: Board) -> bool:
    """Whether a sub-goal holds now."""
    if target.kind == "solve":
        return board.won
    if target.kind == "goto":
        return board.player == target.end
    there = board.state[target.end] in (3, 4)
    if target.kind == "cover":
        return there
    return there and (target.start == target.end or board.state[target.start] not in (3, 4))


def best_solution(board: Board, max_nodes: int = MAX_NODES) -> Solution:
    """The solution with the fewest moves; with the fewest pushes where that takes too long."""
    first = solve(board, objective="moves", max_nodes=min(max_nodes, 30_000))
    if first.status != "limit":
        return first
    return solve(board, objective="pushes", max_nodes=max_nodes)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a solution: the walk to a box and its pushes until another box's turn.

    Attributes:
        target: The sub-goal that it achieves.
        actions: The actions, 1 to 4.
        before: The board's state where it begins.
    """

    target: Target
    actions: tuple[int, ...]
    before: bytes


def stretches(board: Board, solution: Solution, most: int, straight: bool = False) -> list[Stretch]:
    """Cut a solution into at most ``most`` stretches: at each box's turn.

    With ``straight`` also at each turn of a box's way, so that a sub-goal is one walk and pushes in
    one direction.

    Where there are more, and from a stretch on whose box ends where it began (no state tells
    whether that one was done), the last stretch is all that is left: every box onto a target.
    """
    found: list[Stretch] = []
    play = board.after([])
    start = end = way = -1
    taken: list[int] = []
    walked = 0  # actions since the last push
    before = after = bytes(play.state)  # where this stretch began; just after the last push
    for action in solution.actions:
        cell = play.player + play.offsets[action]
        pushes = play.state[cell] in (3, 4)
        if pushes:
            if start < 0:
                start = cell
            elif cell != end or (straight and action != way):
                # Another turn, which began with the walk since the last push.
                cut = len(taken) - walked
                found.append(Stretch(Target("push", start, end), tuple(taken[:cut]), before))
                before = after
                taken, start = taken[cut:], cell
            end, way = cell + play.offsets[action], action
        play.step(action)
        taken.append(action)
        walked = 0 if pushes else walked + 1
        if pushes:
            after = bytes(play.state)
    if start >= 0:
        found.append(Stretch(Target("push", start, end), tuple(taken), before))
    kept = next((i for i, s in enumerate(found) if s.target.start == s.target.end), len(found))
    if kept == len(found) <= most:
        return found
    kept = min(kept, most - 1)
    rest = tuple(action for s in found[kept:] for action in s.actions)
    return [*found[:kept], Stretch(Target("solve"), rest, found[kept].before)]


def plan(target: Target, board: Board) -> list[int] | None:
    """Actions that achieve a sub-goal from here; None where there is no way.

    Pushes move the named box only, as short as can be, and among the sides from which the last
    push may be made the one that leaves the best way to solve the rest.
    """
    if holds(target, board):
        return []
    if target.kind == "solve":
        solution = best_solution(board)
        return list(solution.actions) if solution.solved else None
    if target.kind == "goto":
        return _walk(board, target.end)
    starts = _between(target, board) if target.kind == "push" else board.boxes()
    ways: list[list[int]] = []
    for start in starts:
        if board.state[start] in (3, 4):
            ways += _push_ways(board, start, target.end)
    if not ways:
        return None
    ways.sort(key=len)
    if len(ways) == 1:
        return ways[0]
    best, cost = ways[0], None
    for way in ways:
        rest = best_solution(board.after(way), 100_000)
        if rest.moves is not None and (cost is None or len(way) + rest.moves < cost):
            best, cost = way, len(way) + rest.moves
    return best


def _between(target: Target, board: Board) -> list[int]:
    """Where the box of a push is: at its start, or already on the straight way to its end."""
    (r0, c0), (r1, c1) = divmod(target.start, board.cols), divmod(target.end, board.cols)
    down, right = (r1 > r0) - (r1 < r0), (c1 > c0) - (c1 < c0)
    if down and right:
        return [target.start]
    step = (down * board.cols + right) or 1
    way = range(target.start, target.end, step)
    return [cell for cell in way if board.state[cell] in (3, 4)][:1] or [target.start]


def _walk(board: Board, end: int) -> list[int] | None:
    came = {board.player: (-1, 0)}
    queue = deque([board.player])
    while queue:
        cell = queue.popleft()
        if cell == end:
            path = []
            while came[cell][1]:
                cell, action = came[cell]
                path.append(action)
            return path[::-1]
        for action in range(1, 5):
            near = cell + board.offsets[action]
            if near not in came and board.state[near] in (1, 2):
                came[near] = (cell, action)
                queue.append(near)
    return None


def _push_ways(board: Board, start: int, end: int) -> list[list[int]]:
    """Shortest ways to push one box to a cell, one for each side the player may end on."""
    free = [code not in (0, 3, 4) for code in board.state]
    free[start] = True
    first = (start, board.player)
    came: dict[tuple[int, int], tuple[tuple[int, int], int]] = {first: (first, 0)}
    queue = deque([first])
    ends: list[tuple[int, int]] = []
    sides = [end + board.offsets[action] for action in range(1, 5)]
    while queue:
        node = queue.popleft()
        box, player = node
        if box == end and player in sides:
            ends.append(node)
        for action in range(1, 5):
            step = board.offsets[action]
            near = player + step
            if near == box:
                after = (box + step, near)
                if not free[after[0]]:
                    continue
            elif free[near]:
                after = (box, near)
            else:
                continue
            if after not in came:
                came[after] = (node, action)
                queue.append(after)
    ways = []
    for node in ends:
        way = []
        while came[node][1]:
            node, action = came[node]
            way.append(action)
        ways.append(way[::-1])
    return ways


def phrase(target: Target, board: Board) -> str:
    """A stretch's sub-goal in words that :func:`read_subgoal` understands."""
    if target.kind == "solve":
        return ALL_BOXES
    (r0, c0), (r1, c1) = divmod(target.start, board.cols), divmod(target.end, board.cols)
    return f"push the box at ({r0}, {c0}) to ({r1}, {c1})"
