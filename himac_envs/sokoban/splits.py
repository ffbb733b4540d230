"""Which rooms are for training and which are held out: by the form of their floor plan.

A floor plan is what never moves, walls and targets. Its canonical form leaves out the walls around
it, is no higher than wide, and is the smallest of its eight symmetries (four turns, each as in a
mirror), so that it is the same wherever the plan lies in its frame and however it is turned. A hash
of that form assigns the plan to a split: three fifths to "train", one each to "valid" and "test".

On each floor that it carves, the ``fast`` generator places targets until the plan is one of the
number's split, and carves another floor where that does not succeed. So a room that is held out is
among the training rooms in no symmetry, and not even with its boxes or its player elsewhere. The
compatible generators' rooms are fixed by the seeds of the originals and cannot be split in this
way; nor are levels of files, which come as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from himac_envs.sokoban.rules import Board, Level

__all__ = ["NUMBERS", "NotHeldOutWarning", "canonical_plan", "number_splits", "plan_split"]

#: Numbers of the generated rooms of each split. Numbers beyond them are rooms of any plan.
NUMBERS: Final[dict[str, range]] = {
    "train": range(0, 1_000_000),
    "valid": range(1_000_000, 1_005_000),
    "test": range(1_005_000, 1_010_000),
}


class NotHeldOutWarning(UserWarning):
    """The rooms of a split that was asked for are not apart from those of the other splits."""


def number_splits(numbers: Sequence[int]) -> NDArray[np.int64]:
    """The splits of rooms by their numbers.

    Returns:
        int64, shape (len(numbers),): places in :data:`NUMBERS`, -1 for numbers beyond it.
    """
    ends = [numbers.stop for numbers in NUMBERS.values()]
    found = np.searchsorted(ends, np.array(numbers, np.uint64), side="right")
    return np.where(found < len(ends), found, -1).astype(np.int64)


def canonical_plan(room: Level | Board) -> NDArray[np.uint8]:
    """The canonical form of a room's floor plan.

    Returns:
        uint8, shape (rows, columns), rows <= columns: 0 wall, 1 floor, 2 target.
    """
    plan = np.frombuffer(bytes(room.fixed), np.uint8).reshape(room.rows, room.cols)
    inside = np.argwhere(plan)
    if not len(inside):
        return plan[:0, :0]
    (top, left), (bottom, right) = inside.min(axis=0), inside.max(axis=0) + 1
    plan = plan[top:bottom, left:right]
    forms = [np.rot90(side, turns) for side in (plan, plan[::-1]) for turns in range(4)]
    flat = [form for form in forms if form.shape[0] <= form.shape[1]]
    return min(flat, key=lambda form: form.tobytes())


def plan_split(room: Level | Board) -> str:
    """The split that a room belongs to by its floor plan."""
    from himac_envs.sokoban.kernels import generate as k

    fixed = np.frombuffer(bytes(room.fixed), np.uint8)
    with np.errstate(over="ignore"):  # 64-bit hashes wrap on purpose
        return list(NUMBERS)[k.plan_split(fixed, room.rows, room.cols)]
