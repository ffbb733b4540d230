"""One step of a whole batch, pictures included."""

from __future__ import annotations

from himac_envs.sokoban.kernels import kernel


@kernel
def _draw(frames, board, cell, cols, tiles, code):  # type: ignore[no-untyped-def]
    # frames: (batch, lines, bytes of a line); tiles: (7, lines, bytes of a line).
    lines = tiles.shape[1]
    width = tiles.shape[2]
    top = cell // cols * lines
    left = cell % cols * width
    for y in range(lines):
        for x in range(width):
            frames[board, top + y, left + x] = tiles[code, y, x]


@kernel
def draw_board(frames, board, fixed, state, cols, tiles):  # type: ignore[no-untyped-def]
    """Draw every cell of one board."""
    for cell in range(state.shape[1]):
        code = state[board, cell]
        if code == 5 and fixed[board, cell] == 2:
            code = 6
        _draw(frames, board, cell, cols, tiles, code)


@kernel
def step_batch(
    actions, active, fixed, state, player, on_target, empty, steps, cols, num_boxes, max_steps,
    frames, tiles, drawn, reward, won, truncated, moved, pushed,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Play one action on every active board; the rules are ``Board.step``'s.

    Args:
        actions: int64, 0 to 12.
        active: bool, boards to play; the others keep still and report reward 0.
        fixed, state: uint8, shape (batch, cells).
        player, on_target, empty, steps, num_boxes: int64, one a board.
        cols, max_steps: The boards' width and the step limit.
        frames: uint8, shape (batch, lines, bytes of a line); see ``drawn``.
        tiles: uint8, shape (7, lines, bytes of a line).
        drawn: Whether frames are kept.
        reward, won, truncated, moved, pushed: Outputs, one a board.
    """
    for i in range(actions.shape[0]):
        moved[i] = False
        pushed[i] = False
        if not active[i]:
            reward[i] = 0.0
            won[i] = False
            truncated[i] = False
            continue
        steps[i] += 1
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
            here = player[i]
            there = here + delta
            ahead = state[i, there]
            if ahead == 1 or ahead == 2:
                moved[i] = True
                behind = here - delta
                if action > 8 and (state[i, behind] == 3 or state[i, behind] == 4):
                    pushed[i] = True
                    state[i, here] = 3 if fixed[i, here] == 2 else 4
                    state[i, behind] = fixed[i, behind]
                    if fixed[i, behind] == 2:
                        empty[i] += 1
                    if fixed[i, here] == 2:
                        empty[i] -= 1
                    if drawn:
                        _draw(frames, i, behind, cols, tiles, state[i, behind])
                else:
                    state[i, here] = fixed[i, here]
            elif action < 5 and (ahead == 3 or ahead == 4):
                beyond = there + delta
                if state[i, beyond] == 1 or state[i, beyond] == 2:
                    moved[i] = True
                    pushed[i] = True
                    state[i, here] = fixed[i, here]
                    if ahead == 3:
                        empty[i] += 1
                    if fixed[i, beyond] == 2:
                        empty[i] -= 1
                        state[i, beyond] = 3
                    else:
                        state[i, beyond] = 4
                    if drawn:
                        _draw(frames, i, beyond, cols, tiles, state[i, beyond])
            if moved[i]:
                state[i, there] = 5
                player[i] = there
                if drawn:
                    _draw(frames, i, here, cols, tiles, state[i, here])
                    _draw(frames, i, there, cols, tiles, 6 if fixed[i, there] == 2 else 5)
        gain = -0.1
        now = num_boxes[i] - empty[i]
        if now > on_target[i]:
            gain += 1.0
        elif now < on_target[i]:
            gain -= 1.0
        on_target[i] = now
        done = empty[i] == 0
        if done:
            gain += 10.0
        reward[i] = gain
        won[i] = done
        truncated[i] = not done and steps[i] == max_steps
