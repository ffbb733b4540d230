"""One step of a whole batch, pictures included."""

from __future__ import annotations

from himac_envs.sokoban.kernels import B1, F64, I64, U8, kernel


@kernel
def _draw(frames: U8, board: int, cell: int, cols: int, tiles: U8, code: int) -> None:
    # frames: (batch, lines, bytes of a line); tiles: (7, lines, bytes of a line).
    lines = tiles.shape[1]
    width = tiles.shape[2]
    top = cell // cols * lines
    left = cell % cols * width
    for y in range(lines):
        for x in range(width):
            frames[board, top + y, left + x] = tiles[code, y, x]


@kernel
def draw_board(frames: U8, board: int, fixed: U8, state: U8, cols: int, tiles: U8) -> None:
    """Draw every cell of one board."""
    for cell in range(state.shape[1]):
        code = state[board, cell]
        if code == 5 and fixed[board, cell] == 2:
            code = 6
        _draw(frames, board, cell, cols, tiles, code)


@kernel
def load_boards(
    which: I64,
    new_fixed: U8,
    new_state: U8,
    fixed: U8,
    state: U8,
    ints: I64,
    lines: U8,
    tiles: U8,
    cols: int,
    drawn: bool,
) -> None:
    """Put rooms on some of the boards, at their start.

    Args:
        which: int64, the boards.
        new_fixed: uint8, shape (len(which), cells).
        new_state: uint8, shape (len(which), cells).
        fixed: See :func:`step_batch`.
        state: See :func:`step_batch`.
        ints: See :func:`step_batch`.
        lines: See :func:`step_batch`.
        tiles: See :func:`step_batch`.
        cols: See :func:`step_batch`.
        drawn: See :func:`step_batch`.
    """
    for k in range(which.shape[0]):
        i = which[k]
        boxes = 0
        done = 0
        for cell in range(state.shape[1]):
            fixed[i, cell] = new_fixed[k, cell]
            code = new_state[k, cell]
            state[i, cell] = code
            if code == 5:
                ints[0, i] = cell
            elif code == 3:
                done += 1
            if new_fixed[k, cell] == 2:
                boxes += 1
        ints[1, i] = 0
        ints[2, i] = boxes - done
        ints[3, i] = 0  # gym-sokoban's counter starts at 0, whatever the room
        ints[4, i] = boxes
        if drawn:
            draw_board(lines, i, fixed, state, cols, tiles)


@kernel
def step_batch(
    actions: I64,
    active: B1,
    fixed: U8,
    state: U8,
    ints: I64,
    cols: int,
    max_steps: int,
    num_actions: int,
    lines: U8,
    tiles: U8,
    drawn: bool,
    grids: U8,
    floats: F64,
    flags: B1,
) -> int:
    """Play one action on every active board; the rules are ``Board.step``'s.

    Args:
        actions: int64, one a board.
        active: bool, boards to play; the others keep still and report reward 0.
        fixed: uint8, shape (batch, cells): what never moves.
        state: uint8, shape (batch, cells): what is there now.
        ints: int64, shape (5, batch): player, steps, empty targets, boxes on target, boxes.
        cols: The boards' width.
        max_steps: The step limit.
        num_actions: The size of the action space.
        lines: uint8 frames, shape (batch, lines, bytes of a line); see ``drawn``.
        tiles: uint8, shape (7, lines, bytes of a line).
        drawn: Whether frames are kept.
        grids: uint8 output of picture codes, shape (batch, cells), or (0, 0) for none.
        floats: float64 output, shape (2, batch): reward, score.
        flags: bool output, shape (4, batch): won, truncated, moved, pushed.

    Returns:
        How many boards ended, or -1 (and nothing played) where an action is not in the space.
    """
    n = actions.shape[0]
    for i in range(n):
        if actions[i] < 0 or actions[i] >= num_actions:
            return -1
    ended = 0
    for i in range(n):
        moved = False
        pushed = False
        gain = 0.0
        won = False
        truncated = False
        if active[i]:
            ints[1, i] += 1
            action = actions[i]
            if action > 0:
                way = (action - 1) & 3
                if way == 0:
                    delta = -cols
                elif way == 1:
                    delta = cols
                elif way == 2:
                    delta = -1
                else:
                    delta = 1
                here = ints[0, i]
                there = here + delta
                ahead = state[i, there]
                if ahead == 1 or ahead == 2:
                    moved = True
                    behind = here - delta
                    if action > 8 and (state[i, behind] == 3 or state[i, behind] == 4):
                        pushed = True
                        state[i, here] = 3 if fixed[i, here] == 2 else 4
                        state[i, behind] = fixed[i, behind]
                        if fixed[i, behind] == 2:
                            ints[2, i] += 1
                        if fixed[i, here] == 2:
                            ints[2, i] -= 1
                        if drawn:
                            _draw(lines, i, behind, cols, tiles, state[i, behind])
                    else:
                        state[i, here] = fixed[i, here]
                elif action < 5 and (ahead == 3 or ahead == 4):
                    beyond = there + delta
                    if state[i, beyond] == 1 or state[i, beyond] == 2:
                        moved = True
                        pushed = True
                        state[i, here] = fixed[i, here]
                        if ahead == 3:
                            ints[2, i] += 1
                        if fixed[i, beyond] == 2:
                            ints[2, i] -= 1
                            state[i, beyond] = 3
                        else:
                            state[i, beyond] = 4
                        if drawn:
                            _draw(lines, i, beyond, cols, tiles, state[i, beyond])
                if moved:
                    state[i, there] = 5
                    ints[0, i] = there
                    if drawn:
                        _draw(lines, i, here, cols, tiles, state[i, here])
                        _draw(lines, i, there, cols, tiles, 6 if fixed[i, there] == 2 else 5)
            gain = -0.1
            now = ints[4, i] - ints[2, i]
            if now > ints[3, i]:
                gain += 1.0
            elif now < ints[3, i]:
                gain -= 1.0
            ints[3, i] = now
            won = ints[2, i] == 0
            if won:
                gain += 10.0
            truncated = not won and ints[1, i] == max_steps
            if won or truncated:
                ended += 1
        floats[0, i] = gain
        floats[1, i] = (ints[4, i] - ints[2, i]) / max(ints[4, i], 1)
        flags[0, i] = won
        flags[1, i] = truncated
        flags[2, i] = moved
        flags[3, i] = pushed
        if grids.shape[0]:
            for cell in range(state.shape[1]):
                grids[i, cell] = state[i, cell]
            if fixed[i, ints[0, i]] == 2:
                grids[i, ints[0, i]] = 6
    return ended
