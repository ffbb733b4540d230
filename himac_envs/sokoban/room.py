"""The room being played, as gym-sokoban's environments show it."""

from __future__ import annotations

import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from himac_envs.sokoban.rules import Board

__all__ = ["RoomView"]


class RoomView:
    """gym-sokoban's public attributes, for every environment that plays on a `Board`.

    Attributes:
        board: The board being played; None before the first reset.
    """

    board: Board | None = None

    def _playing(self) -> Board:
        if self.board is None:
            raise ResetNeeded("call reset() first: no room is being played yet")
        return self.board

    @property
    def room_fixed(self) -> NDArray[np.int64]:
        """gym-sokoban's array of walls, floor and targets, shape (rows, cols); a copy."""
        return self._playing().room_fixed

    @property
    def room_state(self) -> NDArray[np.int64]:
        """gym-sokoban's array of the present state, shape (rows, cols); a copy."""
        return self._playing().room_state

    @property
    def player_position(self) -> NDArray[np.int64]:
        """The player's row and column."""
        board = self._playing()
        return np.array(divmod(board.player, board.cols), np.int64)

    @property
    def num_boxes(self) -> int:
        """Number of boxes in the room."""
        return self._playing().num_boxes

    @property
    def boxes_on_target(self) -> int:
        """gym-sokoban's counter of boxes on targets (0 at the start, whatever the room)."""
        return self._playing().boxes_on_target

    @property
    def num_env_steps(self) -> int:
        """Steps since the start."""
        return self._playing().steps
