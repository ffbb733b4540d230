"""An optimal solver: fewest pushes or fewest moves, from any state."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from himac_envs.sokoban.rules import Board, Level

__all__ = ["MAX_NODES", "Objective", "Solution", "is_deadlocked", "solve"]

Objective: TypeAlias = Literal["pushes", "moves"]

MAX_NODES = 1_000_000
"""Search nodes after which :func:`solve` gives up, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Solution:
    """What a search found.

    Attributes:
        status: "solved"; "unsolvable" (proven); or "limit" (not known: out of nodes).
        actions: A cheapest solution as actions 1 to 4 (up, down, left, right).
        box_moves: Its pushes as (cell the box left, cell the box reached).
        nodes: Search nodes made.
    """

    status: Literal["solved", "unsolvable", "limit"]
    actions: tuple[int, ...]
    box_moves: tuple[tuple[int, int], ...]
    nodes: int

    @property
    def solved(self) -> bool:
        """Whether there is a solution here."""
        return self.status == "solved"

    @property
    def moves(self) -> int | None:
        """Steps of the solution, pushes included; None where there is none."""
        return len(self.actions) if self.solved else None

    @property
    def pushes(self) -> int | None:
        """Pushes of the solution; None where there is none."""
        return len(self.box_moves) if self.solved else None


class _Workspace:
    """Node arrays, made once a thread and size; untouched pages cost nothing."""

    def __init__(self, max_nodes: int, num_boxes: int) -> None:
        slots = 1024
        while slots < 2 * max_nodes:
            slots *= 4
        self.table = np.zeros(slots, np.int32)
        self.hashes = np.empty(max_nodes, np.uint64)
        self.boxes = np.empty((max_nodes, num_boxes), np.int16)
        self.player, self.cost, self.left, self.parent, self.push, self.following = (
            np.empty(max_nodes, np.int32) for _ in range(6)
        )
        self.pushes = np.empty(16_384, np.int64)


_local = threading.local()


def _workspace(max_nodes: int, num_boxes: int) -> _Workspace:
    kept: dict[tuple[int, int], _Workspace] = _local.__dict__.setdefault("workspaces", {})
    key = (max_nodes, num_boxes)
    if key not in kept:
        if len(kept) == 8:
            kept.clear()
        kept[key] = _Workspace(max_nodes, num_boxes)
    return kept[key]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What depends on the floor plan alone."""

    fixed: NDArray[np.uint8]
    distance: NDArray[np.int64]
    dead: NDArray[np.uint8]


def _plan(fixed: bytes, cols: int) -> _Plan:
    kept: tuple[tuple[bytes, int], _Plan] | None = getattr(_local, "plan", None)
    if kept is not None and kept[0] == (fixed, cols):
        return kept[1]
    from himac_envs.sokoban.kernels import search as k

    codes = np.frombuffer(fixed, np.uint8).copy()
    targets = np.flatnonzero(codes == 2).astype(np.int64)
    distance = np.empty((len(targets), len(codes)), np.int64)
    k.pull_distances(codes, cols, targets, distance)
    plan = _Plan(codes, distance, (distance.min(axis=0) >= k.INF).astype(np.uint8))
    _local.plan = ((fixed, cols), plan)
    return plan


def _pieces(room: Level | Board) -> tuple[NDArray[np.int64], int]:
    codes = np.frombuffer(bytes(room.state), np.uint8)
    boxes = np.flatnonzero((codes == 3) | (codes == 4)).astype(np.int64)
    return boxes, bytes(room.state).index(5)


def solve(
    room: Level | Board, *, objective: Objective = "pushes", max_nodes: int = MAX_NODES
) -> Solution:
    """Solve a room from its present state with the fewest pushes or the fewest moves.

    Args:
        room: A level (its start) or a board in play.
        objective: "pushes" (walking is free; ties are not broken by walking) or "moves" (every
            step counts).
        max_nodes: Give up after so many search nodes.

    Returns:
        The solution. An unsolvable room is proven so, unless the limit came first.
    """
    if objective not in ("pushes", "moves"):
        raise ValueError(f"objective={objective!r}: choose 'pushes' or 'moves'")
    from himac_envs.sokoban.kernels import search as k

    plan = _plan(bytes(room.fixed), room.cols)
    boxes, player = _pieces(room)
    work = _workspace(int(max_nodes), len(boxes))
    with np.errstate(over="ignore"):  # 64-bit hashes wrap on purpose
        status, count, _cost, nodes = k.search(
            plan.fixed, room.cols, boxes, player, plan.distance, plan.dead,
            objective == "moves", int(max_nodes), work.table, work.hashes, work.boxes,
            work.player, work.cost, work.left, work.parent, work.push, work.following,
            work.pushes,
        )  # fmt: skip
    if status != k.SOLVED:
        kind: Any = "limit" if status == k.LIMIT else "unsolvable"
        return Solution(kind, (), (), int(nodes))
    actions = np.empty(64 + 2 * count + 16 * len(plan.fixed), np.uint8)
    way = (plan.fixed, room.cols, boxes, player, work.pushes, count)
    while (filled := k.expand(*way, actions)) < 0:
        actions = np.empty(4 * len(actions), np.uint8)
    step = (-room.cols, room.cols, -1, 1)
    pushed = [(p // 4, p // 4 + step[p % 4]) for p in work.pushes[:count].tolist()]
    return Solution("solved", tuple(actions[:filled].tolist()), tuple(pushed), int(nodes))


def is_deadlocked(room: Level | Board) -> bool:
    """Whether a box is lost for good: on a dead cell, or stuck off target among walls and boxes.

    True is a proof that the room cannot be solved from here. False is not a proof that it can.
    """
    from himac_envs.sokoban.kernels import search as k

    plan = _plan(bytes(room.fixed), room.cols)
    boxes, _ = _pieces(room)
    if plan.dead[boxes].any():
        return True
    scratch = np.zeros(len(plan.fixed), np.uint8)
    return bool(k.frozen_off_target(plan.fixed, room.cols, plan.dead, boxes, len(boxes), scratch))
