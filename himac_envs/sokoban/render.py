"""Frames: whole boards, and frames kept up to date cell by cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from himac_envs.sokoban.rules import Board

__all__ = ["Frame", "picture"]


def picture(codes: NDArray[np.uint8], tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw picture codes.

    Args:
        codes: Shape (..., rows, cols), codes 0 to 6 (``Board.grid``).
        tiles: Shape (7, size, size, 3).

    Returns:
        A new array of shape (..., rows * size, cols * size, 3).
    """
    *batch, rows, cols = codes.shape
    size = tiles.shape[1]
    drawn = tiles[codes]  # (..., rows, cols, size, size, 3)
    drawn = np.swapaxes(drawn, -4, -3)  # rows and lines together, columns and pixels together
    return np.ascontiguousarray(drawn).reshape(*batch, rows * size, cols * size, 3)


class Frame:
    """The picture of one board, redrawn only where an action changed it.

    A push changes three cells, so keeping a frame costs a few small copies where drawing it anew
    costs them all.
    """

    def __init__(self, board: Board, tiles: NDArray[np.uint8]) -> None:
        self.tiles = tiles
        self._size = tiles.shape[1]
        self.board = board
        self.pixels = picture(board.grid(), tiles)
        self._corners = [
            (r * self._size, c * self._size) for r in range(board.rows) for c in range(board.cols)
        ]

    def update(self) -> None:
        """Redraw what the board's last action changed."""
        board, size = self.board, self._size
        for cell in board.changed:
            code = board.state[cell]
            if code == 5 and board.fixed[cell] == 2:
                code = 6
            top, left = self._corners[cell]
            self.pixels[top : top + size, left : left + size] = self.tiles[code]

    def redraw(self, board: Board) -> None:
        """Draw another board (or the same one after a jump)."""
        self.board = board
        self.pixels = picture(board.grid(), self.tiles)
