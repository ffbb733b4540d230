"""Many boards in step: the state of a batch, played by numba or by NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from himac_envs.sokoban.render import picture
from himac_envs.sokoban.rules import Cell, Level

__all__ = ["BatchBoards"]


class BatchBoards:
    """Boards of one size, played together.

    Args:
        num: How many boards.
        rows, cols: Their size.
        max_steps: The step limit.
        tiles: Tiles of the frames to keep, shape (7, size, size, 3); None keeps no frames.
        engine: "numba", "numpy", or None for numba where it is installed. Both play alike; numba
            is several times faster.

    Attributes:
        fixed, state: uint8, shape (num, rows * cols).
        player, steps, empty, on_target, num_boxes: int64, one a board.
        frames: uint8, shape (num, height, width, 3), kept up to date in place; None without tiles.
        reward, won, truncated, moved, pushed: What the last step answered; overwritten by the next.
    """

    def __init__(
        self,
        num: int,
        rows: int,
        cols: int,
        max_steps: int,
        tiles: NDArray[np.uint8] | None = None,
        engine: str | None = None,
    ) -> None:
        if engine is None:
            engine = "numba" if _have_numba() else "numpy"
        if engine not in ("numba", "numpy"):
            raise ValueError(f"engine={engine!r}: choose 'numba' or 'numpy'")
        self.num, self.rows, self.cols, self.max_steps = num, rows, cols, max_steps
        self.engine = engine
        cells = rows * cols
        self.fixed = np.zeros((num, cells), np.uint8)
        self.state = np.zeros((num, cells), np.uint8)
        self.player, self.steps, self.empty, self.on_target, self.num_boxes = (
            np.zeros(num, np.int64) for _ in range(5)
        )
        self.reward = np.zeros(num, np.float64)
        self.won, self.truncated, self.moved, self.pushed = (
            np.zeros(num, np.bool_) for _ in range(4)
        )
        self.tiles = tiles
        size = 1 if tiles is None else tiles.shape[1]
        self._size = size
        flat = np.zeros((7, 1, 3), np.uint8) if tiles is None else tiles.reshape(7, size, size * 3)
        self._tile_lines = np.array(flat)  # a writable copy: one type for the compiled kernel
        shape = (1, 1, 3) if tiles is None else (num, rows * size, cols * size * 3)
        self._lines = np.zeros(shape, np.uint8)
        self.frames: NDArray[np.uint8] | None = None
        if tiles is not None:
            self.frames = self._lines.reshape(num, rows * size, cols * size, 3)
        self._all = np.ones(num, np.bool_)
        # NumPy's engine: action -> offset, and the first cell of each board in one flat array.
        self._offsets = np.array([0, *(-cols, cols, -1, 1) * 3], np.int64)
        self._base = np.arange(num, dtype=np.int64) * cells

    def load(self, boards: Sequence[int], levels: Sequence[Level]) -> None:
        """Put levels on some of the boards, at their start."""
        for i, level in zip(boards, levels, strict=True):
            state = np.frombuffer(level.state, np.uint8)
            self.fixed[i] = np.frombuffer(level.fixed, np.uint8)
            self.state[i] = state
            self.player[i] = level.state.index(Cell.PLAYER)
            self.num_boxes[i] = level.num_boxes
            self.empty[i] = self.num_boxes[i] - level.state.count(Cell.BOX_ON_TARGET)
            self.on_target[i] = 0  # gym-sokoban's counter starts at 0, whatever the room
            self.steps[i] = 0
            if self.frames is None:
                continue
            if self.engine == "numba":
                from himac_envs.sokoban.kernels.step import draw_board

                draw_board(self._lines, i, self.fixed, self.state, self.cols, self._tile_lines)
            else:
                assert self.tiles is not None
                self.frames[i] = picture(self.grids(i), self.tiles)

    def grids(self, board: int | None = None) -> NDArray[np.uint8]:
        """Picture codes, shape (num, rows, cols) or (rows, cols) of one board; a new array."""
        if board is not None:
            codes = self.state[board].copy()
            if self.fixed[board, self.player[board]] == 2:
                codes[self.player[board]] = 6
            return codes.reshape(self.rows, self.cols)
        codes = self.state.copy()
        flat = codes.reshape(-1)
        at = self._base + self.player
        flat[at] = np.where(self.fixed.reshape(-1)[at] == 2, 6, flat[at])
        return codes.reshape(self.num, self.rows, self.cols)

    def step(
        self, actions: NDArray[np.int64], active: NDArray[np.bool_] | None = None
    ) -> None:
        """Play one action on every board (or every active one); see the attributes for answers.

        Args:
            actions: int64, shape (num,), 0 to 12. Not checked.
            active: Boards to play; the others keep still with reward 0.
        """
        active = self._all if active is None else active
        if self.engine == "numpy":
            self._step_numpy(actions, active)
            return
        from himac_envs.sokoban.kernels.step import step_batch

        step_batch(
            actions, active, self.fixed, self.state, self.player, self.on_target, self.empty,
            self.steps, self.cols, self.num_boxes, self.max_steps, self._lines, self._tile_lines,
            self.frames is not None, self.reward, self.won, self.truncated, self.moved, self.pushed,
        )  # fmt: skip

    def _step_numpy(self, actions: NDArray[np.int64], active: NDArray[np.bool_]) -> None:
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
        self.moved[:] = moving
        self.pushed[:] = push | pull
        self.steps[active] += 1
        now = self.num_boxes - self.empty
        won = active & (self.empty == 0)
        reward = -0.1 + 1.0 * np.sign(now - self.on_target)
        reward = np.where(won, reward + 10.0, reward)
        self.on_target[active] = now[active]
        self.reward[:] = np.where(active, reward, 0.0)
        self.won[:] = won
        self.truncated[:] = active & ~won & (self.steps == self.max_steps)
        if self.frames is not None:
            self._draw_numpy(m, here, there)
            self._draw_numpy(np.flatnonzero(push), beyond)
            self._draw_numpy(pulled, behind)

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
