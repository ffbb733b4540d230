"""Many boards in step: the state of a batch, played by numba or by NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from himac_envs.sokoban.render import picture
from himac_envs.sokoban.rules import NUM_ACTIONS_PULL, Level

__all__ = ["BatchAnswer", "BatchBoards"]


class BatchAnswer(NamedTuple):
    """What a step of a batch answers, one entry a board; new arrays each time.

    Attributes:
        ended: How many boards were won or ran out of steps.
        reward: float64.
        score: float64, share of the targets that hold a box.
        won, truncated, moved, pushed: bool.
        grids: uint8 picture codes, shape (num, rows, cols), where asked for.
    """

    ended: int
    reward: NDArray[np.float64]
    score: NDArray[np.float64]
    won: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    moved: NDArray[np.bool_]
    pushed: NDArray[np.bool_]
    grids: NDArray[np.uint8] | None


_NO_GRIDS = np.zeros((0, 0), np.uint8)


class BatchBoards:
    """Boards of one size, played together.

    Args:
        num: How many boards.
        rows, cols: Their size.
        max_steps: The step limit.
        tiles: Tiles of the frames to keep, shape (7, size, size, 3); None keeps no frames.
        num_actions: Actions 0 to ``num_actions - 1`` are played.
        engine: "numba", "numpy", or None for numba where it is installed. Both play alike; numba
            is several times faster.

    Attributes:
        fixed, state: uint8, shape (num, rows * cols).
        player, steps, empty, on_target, num_boxes: int64, one a board (rows of one array).
        frames: uint8, shape (num, height, width, 3), kept up to date in place; None without tiles.
    """

    def __init__(
        self,
        num: int,
        rows: int,
        cols: int,
        max_steps: int,
        tiles: NDArray[np.uint8] | None = None,
        num_actions: int = NUM_ACTIONS_PULL,
        engine: str | None = None,
    ) -> None:
        if engine is None:
            engine = "numba" if _have_numba() else "numpy"
        if engine not in ("numba", "numpy"):
            raise ValueError(f"engine={engine!r}: choose 'numba' or 'numpy'")
        self.num, self.rows, self.cols, self.max_steps = num, rows, cols, max_steps
        self.num_actions, self.engine = num_actions, engine
        cells = rows * cols
        self.fixed = np.zeros((num, cells), np.uint8)
        self.state = np.zeros((num, cells), np.uint8)
        self._ints = np.zeros((5, num), np.int64)
        self.tiles = tiles
        size = 1 if tiles is None else tiles.shape[1]
        self._size = size
        flat = np.zeros((7, 1, 3), np.uint8) if tiles is None else tiles.reshape(7, size, size * 3)
        self._tile_lines = np.array(flat)  # a writable copy: one type for the compiled kernel
        shape = (1, 1, 3) if tiles is None else (num, rows * size, cols * size * 3)
        self._lines = np.zeros(shape, np.uint8)
        self._all = np.ones(num, np.bool_)
        # NumPy's engine: action -> offset, and the first cell of each board in one flat array.
        self._offsets = np.array([0, *(-cols, cols, -1, 1) * 3], np.int64)
        self._base = np.arange(num, dtype=np.int64) * cells
        self._name_rows()

    def _name_rows(self) -> None:
        self.player, self.steps, self.empty, self.on_target, self.num_boxes = self._ints
        self.frames: NDArray[np.uint8] | None = None
        if self.tiles is not None:
            height, width = self.rows * self._size, self.cols * self._size
            self.frames = self._lines.reshape(self.num, height, width, 3)

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._name_rows()  # views do not survive copying as views

    def load(self, boards: Sequence[int], levels: Sequence[Level]) -> None:
        """Put levels on some of the boards, at their start."""
        if not levels:
            return
        fixed = np.frombuffer(b"".join(level.fixed for level in levels), np.uint8)
        state = np.frombuffer(b"".join(level.state for level in levels), np.uint8)
        shape = (len(levels), self.rows * self.cols)
        self.load_arrays(
            np.array(boards, np.int64), fixed.reshape(shape).copy(), state.reshape(shape).copy()
        )

    def load_arrays(
        self, boards: NDArray[np.int64], fixed: NDArray[np.uint8], state: NDArray[np.uint8]
    ) -> None:
        """Put rooms on some of the boards: one row of ``fixed`` and ``state`` for each."""
        if self.engine == "numba":
            from himac_envs.sokoban.kernels.step import load_boards

            load_boards(
                boards, fixed, state, self.fixed, self.state, self._ints, self._lines,
                self._tile_lines, self.cols, self.frames is not None,
            )  # fmt: skip
            return
        self.fixed[boards], self.state[boards] = fixed, state
        self.player[boards] = (state == 5).argmax(axis=1)
        self.steps[boards] = 0
        self.num_boxes[boards] = (fixed == 2).sum(axis=1)
        self.empty[boards] = self.num_boxes[boards] - (state == 3).sum(axis=1)
        self.on_target[boards] = 0  # gym-sokoban's counter starts at 0, whatever the room
        if self.frames is not None:
            assert self.tiles is not None
            self.frames[boards] = picture(self.grids()[boards], self.tiles)

    def grids(self) -> NDArray[np.uint8]:
        """Picture codes, shape (num, rows, cols); a new array."""
        codes = self.state.copy()
        flat = codes.reshape(-1)
        at = self._base + self.player
        flat[at] = np.where(self.fixed.reshape(-1)[at] == 2, 6, flat[at])
        return codes.reshape(self.num, self.rows, self.cols)

    def step(
        self,
        actions: NDArray[np.int64],
        active: NDArray[np.bool_] | None = None,
        want_grids: bool = False,
    ) -> BatchAnswer:
        """Play one action on every board (or every active one).

        Args:
            actions: int64, shape (num,).
            active: Boards to play; the others keep still with reward 0.
            want_grids: Whether to answer picture codes too.

        Raises:
            ValueError: An action is not in the action space. No board was played.
        """
        active = self._all if active is None else active
        floats = np.empty((2, self.num))
        flags = np.empty((4, self.num), np.bool_)
        if self.engine == "numba":
            from himac_envs.sokoban.kernels.step import step_batch

            codes = np.empty_like(self.state) if want_grids else _NO_GRIDS
            ended = step_batch(
                actions, active, self.fixed, self.state, self._ints, self.cols, self.max_steps,
                self.num_actions, self._lines, self._tile_lines, self.frames is not None, codes,
                floats, flags,
            )  # fmt: skip
            grids = codes.reshape(self.num, self.rows, self.cols) if want_grids else None
        else:
            ended = self._step_numpy(actions, active, floats, flags)
            grids = self.grids() if want_grids and ended >= 0 else None
        if ended < 0:
            raise ValueError(f"actions must lie in 0 to {self.num_actions - 1}, got {actions}")
        return BatchAnswer(
            ended, floats[0], floats[1], flags[0], flags[1], flags[2], flags[3], grids
        )

    def _step_numpy(
        self,
        actions: NDArray[np.int64],
        active: NDArray[np.bool_],
        floats: NDArray[np.float64],
        flags: NDArray[np.bool_],
    ) -> int:
        if actions.min() < 0 or actions.max() >= self.num_actions:
            return -1
        state, fixed = self.state.reshape(-1), self.fixed.reshape(-1)
        delta = self._offsets[actions]
        here = self._base + self.player
        there = here + delta
        # A board's outermost cells are walls, so two steps ahead of a box or behind the player may
        # leave the board but never matter there; they must only stay inside the array.
        beyond = np.clip(there + delta, 0, state.size - 1)
        behind = np.clip(here - delta, 0, state.size - 1)
        acting = active & (actions > 0)
        ahead, far, back = state[there], state[beyond], state[behind]
        walk = acting & ((ahead == 1) | (ahead == 2))
        push = acting & (actions < 5) & (ahead >= 3) & (ahead <= 4) & ((far == 1) | (far == 2))
        pull = walk & (actions > 8) & ((back == 3) | (back == 4))
        moving = walk | push
        m = np.flatnonzero(moving)
        state[here[m]] = fixed[here[m]]
        state[there[m]] = 5
        self.player[m] += delta[m]
        for moved, source, target in (
            (np.flatnonzero(push), there, beyond),
            (np.flatnonzero(pull), behind, here),
        ):
            onto = fixed[target[moved]] == 2
            off = fixed[source[moved]] == 2
            state[target[moved]] = np.where(onto, 3, 4)
            self.empty[moved] += off.astype(np.int64) - onto
        pulled = np.flatnonzero(pull)
        state[behind[pulled]] = fixed[behind[pulled]]
        self.steps[active] += 1
        now = self.num_boxes - self.empty
        won = active & (self.empty == 0)
        reward = -0.1 + 1.0 * np.sign(now - self.on_target)
        reward = np.where(won, reward + 10.0, reward)
        self.on_target[active] = now[active]
        floats[0] = np.where(active, reward, 0.0)
        floats[1] = now / np.maximum(self.num_boxes, 1)
        flags[0] = won
        flags[1] = active & ~won & (self.steps == self.max_steps)
        flags[2] = moving
        flags[3] = push | pull
        if self.frames is not None:
            self._draw_numpy(m, here, there)
            self._draw_numpy(np.flatnonzero(push), beyond)
            self._draw_numpy(pulled, behind)
        return int((flags[0] | flags[1]).sum())

    def _draw_numpy(self, boards: NDArray[np.intp], *places: NDArray[np.int64]) -> None:
        assert self.frames is not None and self.tiles is not None
        size = self._size
        tiled = self.frames.reshape(self.num, self.rows, size, self.cols, size, 3)
        for place in places:
            flat = place[boards]
            codes = self.state.reshape(-1)[flat]
            codes = np.where((codes == 5) & (self.fixed.reshape(-1)[flat] == 2), 6, codes)
            cells = flat - self._base[boards]
            tiled[boards, cells // self.cols, :, cells % self.cols] = self.tiles[codes]


def _have_numba() -> bool:
    from himac_envs.sokoban.kernels import COMPILED

    return COMPILED
