"""Sokoban's rules, cell by cell as gym-sokoban plays them.

Everything a single game needs is here, in plain Python: a step takes about a microsecond, needs
no compiler and no array library. Batches are played by :mod:`himac_envs.sokoban.kernels.step`
(numba) and :mod:`himac_envs.sokoban.batch` (NumPy); the tests hold all three equal.

Source of each rule: ``gym_sokoban/envs/sokoban_env.py`` (version 0.0.6), which is quoted by
method name below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ACTION_NAMES",
    "DIRECTIONS",
    "NUM_ACTIONS",
    "NUM_ACTIONS_PULL",
    "Board",
    "Cell",
    "Level",
    "LevelError",
]


class Cell(IntEnum):
    """gym-sokoban's cell codes. ``PLAYER_ON_TARGET`` exists in pictures and grids only."""

    WALL = 0
    FLOOR = 1
    TARGET = 2
    BOX_ON_TARGET = 3
    BOX = 4
    PLAYER = 5
    PLAYER_ON_TARGET = 6


DIRECTIONS: Final = ("up", "down", "left", "right")
"""Names of the four directions, in gym-sokoban's order."""

ACTION_NAMES: Final = (
    "no operation",
    *(f"{verb} {direction}" for verb in ("push", "move", "pull") for direction in DIRECTIONS),
)
"""Names by action number: 0 no-op, 1-4 push, 5-8 move, 9-12 pull (push-and-pull variant)."""

NUM_ACTIONS: Final = 9
NUM_ACTIONS_PULL: Final = 13

STEP_PENALTY: Final = -0.1
BOX_ON_TARGET_REWARD: Final = 1.0
ALL_ON_TARGET_REWARD: Final = 10.0


class LevelError(ValueError):
    """A room that cannot be played; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Level:
    """A room at its start.

    Attributes:
        name: Where it comes from, ``<generator or file>:<number>``.
        rows: Height in cells.
        cols: Width in cells.
        fixed: ``rows * cols`` codes of what never moves: wall, floor or target.
        state: ``rows * cols`` codes of the start, boxes and player included.
    """

    name: str
    rows: int
    cols: int
    fixed: bytes
    state: bytes

    @classmethod
    def from_arrays(cls, room_fixed: ArrayLike, room_state: ArrayLike, name: str = "room") -> Level:
        """A level from gym-sokoban's two arrays, checked.

        Args:
            room_fixed: Shape (rows, cols), codes 0 to 2.
            room_state: Shape (rows, cols), codes 0 to 5.
            name: The level's name, used in messages.

        Raises:
            LevelError: If the arrays do not describe a playable room.
        """
        fixed, state = np.asarray(room_fixed), np.asarray(room_state)
        if fixed.ndim != 2 or fixed.shape != state.shape:
            raise LevelError(
                f"{name}: room_fixed and room_state must be two-dimensional and of one shape, "
                f"got {fixed.shape} and {state.shape}"
            )
        rows, cols = (int(n) for n in fixed.shape)
        if not (np.isin(fixed, (0, 1, 2)).all() and np.isin(state, range(6)).all()):
            raise LevelError(f"{name}: room_fixed holds codes 0 to 2 and room_state codes 0 to 5")
        level = cls(
            name, rows, cols, fixed.astype(np.uint8).tobytes(), state.astype(np.uint8).tobytes()
        )
        level.check()
        return level

    def check(self) -> None:
        """Raise :class:`LevelError` unless the room can be played.

        One player, as many boxes as targets (at least one), a ring of walls (gym-sokoban indexes
        past the edge otherwise) and two layers that agree on walls and targets.
        """
        rows, cols, fixed, state = self.rows, self.cols, self.fixed, self.state
        if rows < 3 or cols < 3 or len(fixed) != rows * cols or len(state) != rows * cols:
            raise LevelError(f"{self.name}: a room has at least 3 x 3 cells, got {rows} x {cols}")
        players = state.count(Cell.PLAYER)
        if players != 1:
            raise LevelError(f"{self.name}: a room has exactly one player, found {players}")
        boxes = state.count(Cell.BOX) + state.count(Cell.BOX_ON_TARGET)
        targets = fixed.count(Cell.TARGET)
        if boxes != targets or not boxes:
            raise LevelError(
                f"{self.name}: a room has as many boxes as targets and at least one, "
                f"found {boxes} boxes and {targets} targets"
            )
        ring = fixed[:cols] + fixed[-cols:] + fixed[::cols] + fixed[cols - 1 :: cols]
        if any(ring):
            raise LevelError(f"{self.name}: the outermost cells must all be walls")
        for cell, (below, above) in enumerate(zip(fixed, state, strict=True)):
            wrong = (
                (below == Cell.WALL) != (above == Cell.WALL)
                or (above in (Cell.TARGET, Cell.BOX_ON_TARGET) and below != Cell.TARGET)
                or (above in (Cell.FLOOR, Cell.BOX) and below != Cell.FLOOR)
            )
            if wrong:
                raise LevelError(
                    f"{self.name}: room_fixed has {below} and room_state {above} at row "
                    f"{cell // cols}, column {cell % cols}, which contradict each other"
                )

    @property
    def num_boxes(self) -> int:
        """Number of boxes (and of targets)."""
        return self.fixed.count(Cell.TARGET)

    @property
    def room_fixed(self) -> NDArray[np.int64]:
        """gym-sokoban's ``room_fixed``: a new int64 array of shape (rows, cols)."""
        return _grid(self.fixed, self.rows, self.cols)

    @property
    def room_state(self) -> NDArray[np.int64]:
        """gym-sokoban's ``room_state``: a new int64 array of shape (rows, cols)."""
        return _grid(self.state, self.rows, self.cols)

    def padded(self, rows: int, cols: int) -> Level:
        """The same room in the top left corner of a larger one, the rest filled with walls.

        Raises:
            LevelError: If the room is larger than that.
        """
        if (rows, cols) == (self.rows, self.cols):
            return self
        if rows < self.rows or cols < self.cols:
            raise LevelError(
                f"{self.name} has {self.rows} x {self.cols} cells and does not fit into "
                f"room=({rows}, {cols}): pass a larger room"
            )
        fixed = np.zeros((rows, cols), np.uint8)
        state = np.zeros((rows, cols), np.uint8)
        fixed[: self.rows, : self.cols] = self.room_fixed
        state[: self.rows, : self.cols] = self.room_state
        return Level(self.name, rows, cols, fixed.tobytes(), state.tobytes())


def _grid(codes: bytes | bytearray, rows: int, cols: int) -> NDArray[np.int64]:
    return np.frombuffer(bytes(codes), np.uint8).reshape(rows, cols).astype(np.int64)


class Board:
    """One game in play.

    Attributes:
        rows, cols: Size in cells.
        num_boxes: Number of boxes (and of targets).
        fixed: What never moves, a code a cell, row by row.
        state: What is there now (the player on a target is ``PLAYER``, as in gym-sokoban).
        player: The player's cell, ``row * cols + column``.
        steps: Actions played since the start.
        boxes_on_target: gym-sokoban's counter. It is 0 at the start whatever the room looks
            like, so a room that starts with a box in place earns its +1 on the first step.
        empty_targets: Targets without a box.
        changed: Cells whose picture the last action changed.
    """

    __slots__ = (
        "boxes_on_target",
        "changed",
        "cols",
        "empty_targets",
        "fixed",
        "level",
        "num_boxes",
        "offsets",
        "player",
        "rows",
        "state",
        "steps",
    )

    def __init__(self, level: Level) -> None:
        self.level = level
        self.rows, self.cols, self.fixed = level.rows, level.cols, level.fixed
        self.num_boxes = level.num_boxes
        self.offsets = (0, *(-level.cols, level.cols, -1, 1) * 3)
        self.restart()

    def restart(self) -> None:
        """Back to the level's start (``SokobanEnv.reset``)."""
        self.state = bytearray(self.level.state)
        self.player = self.state.index(Cell.PLAYER)
        self.steps = 0
        self.boxes_on_target = 0
        self.empty_targets = self.num_boxes - self.state.count(Cell.BOX_ON_TARGET)
        self.changed: tuple[int, ...] = ()

    @property
    def won(self) -> bool:
        """Whether every target holds a box (``_check_if_all_boxes_on_target``)."""
        return self.empty_targets == 0

    @property
    def score(self) -> float:
        """Share of the targets that hold a box, from 0 to 1."""
        return (self.num_boxes - self.empty_targets) / self.num_boxes

    def step(self, action: int) -> tuple[float, bool, bool]:
        """Play one action (``SokobanEnv.step`` and, from 9 on, ``PushAndPullSokobanEnv._pull``).

        gym-sokoban's push-and-pull variant lets action 0 fall through to "push right" (0 - 1
        modulo 4 is 3). Here 0 is no operation in both variants.

        Args:
            action: 0 to 12, see :data:`ACTION_NAMES`. Not checked.

        Returns:
            The reward, whether the player moved, whether a box moved.
        """
        self.steps += 1
        self.changed = ()
        moved = pushed = False
        if action:
            state, fixed, here = self.state, self.fixed, self.player
            delta = self.offsets[action]
            there = here + delta
            ahead = state[there]
            if ahead == 1 or ahead == 2:
                moved = True
                behind = here - delta
                pulled = action > 8 and (state[behind] == 3 or state[behind] == 4)
                state[there] = 5
                if pulled:
                    pushed = True
                    ground = fixed[behind]
                    state[here] = 3 if fixed[here] == 2 else 4
                    state[behind] = ground
                    self.empty_targets += (ground == 2) - (fixed[here] == 2)
                    self.changed = (here, there, behind)
                else:
                    state[here] = fixed[here]
                    self.changed = (here, there)
                self.player = there
            elif action < 5 and (ahead == 3 or ahead == 4):
                beyond = there + delta
                if state[beyond] == 1 or state[beyond] == 2:
                    moved = pushed = True
                    onto = fixed[beyond] == 2
                    state[there] = 5
                    state[here] = fixed[here]
                    state[beyond] = 3 if onto else 4
                    self.empty_targets += (ahead == 3) - onto
                    self.player = there
                    self.changed = (here, there, beyond)
        # _calc_reward compares counts: a box pushed from target to target earns nothing, and
        # every further step on a finished board earns the 10 again.
        reward = STEP_PENALTY
        on_target = self.num_boxes - self.empty_targets
        if on_target > self.boxes_on_target:
            reward += BOX_ON_TARGET_REWARD
        elif on_target < self.boxes_on_target:
            reward -= BOX_ON_TARGET_REWARD
        if not self.empty_targets:
            reward += ALL_ON_TARGET_REWARD
        self.boxes_on_target = on_target
        return reward, moved, pushed

    def boxes(self) -> list[int]:
        """The boxes' cells in ascending order."""
        return [cell for cell, code in enumerate(self.state) if code == 3 or code == 4]

    def targets(self) -> list[int]:
        """The targets' cells in ascending order."""
        return [cell for cell, code in enumerate(self.fixed) if code == 2]

    def grid(self) -> NDArray[np.uint8]:
        """Picture codes, shape (rows, cols), uint8: ``state`` with 6 for a player on a target."""
        codes = np.frombuffer(bytes(self.state), np.uint8).copy()
        if self.fixed[self.player] == 2:
            codes[self.player] = 6
        return codes.reshape(self.rows, self.cols)

    @property
    def room_fixed(self) -> NDArray[np.int64]:
        """gym-sokoban's ``room_fixed``: a new int64 array of shape (rows, cols)."""
        return _grid(self.fixed, self.rows, self.cols)

    @property
    def room_state(self) -> NDArray[np.int64]:
        """gym-sokoban's ``room_state``: a new int64 array of shape (rows, cols)."""
        return _grid(self.state, self.rows, self.cols)

    def snapshot(self) -> tuple[Level, bytes, int, int]:
        """Everything needed to continue from here, as an immutable value."""
        return self.level, bytes(self.state), self.steps, self.boxes_on_target

    @classmethod
    def from_snapshot(cls, snapshot: tuple[Level, bytes, int, int]) -> Board:
        """The board that :meth:`snapshot` was taken of."""
        level, state, steps, on_target = snapshot
        board = cls(level)
        board.state = bytearray(state)
        board.player = board.state.index(Cell.PLAYER)
        board.empty_targets = board.num_boxes - board.state.count(Cell.BOX_ON_TARGET)
        board.steps, board.boxes_on_target = steps, on_target
        return board

    def after(self, actions: Sequence[int]) -> Board:
        """A copy of this board with these actions played on it."""
        copy = Board.from_snapshot(self.snapshot())
        for action in actions:
            copy.step(action)
        return copy
