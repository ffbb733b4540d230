"""Sokoban's rules: by hand, and three implementations against each other."""

from __future__ import annotations

import numpy as np
import pytest

from himac_envs.sokoban.batch import BatchBoards
from himac_envs.sokoban.generate import RoomGenerator
from himac_envs.sokoban.levels import format_xsb, parse_levels
from himac_envs.sokoban.render import Frame, picture
from himac_envs.sokoban.rules import ACTION_NAMES, Board, Level, LevelError
from himac_envs.sokoban.tiles import tile_set

UP, DOWN, LEFT, RIGHT = 1, 2, 3, 4


def board(text: str) -> Board:
    return Board(parse_levels(text)[0])


def test_push_move_and_reward() -> None:
    b = board("#######\n#@$ . #\n#######")
    assert b.step(RIGHT) == (-0.1, True, True)
    assert b.boxes() == [7 + 3]
    assert b.step(RIGHT) == (10.9, True, True)
    assert b.won and b.score == 1.0
    # gym-sokoban pays the 10 again for every step on a finished board.
    assert b.step(0) == (9.9, False, False)
    assert b.step(RIGHT) == (-1.1, True, True)
    assert not b.won


def test_push_is_blocked_by_walls_and_boxes() -> None:
    b = board("######\n#@$$.#\n#   .#\n######")
    assert b.step(RIGHT) == (-0.1, False, False)
    assert b.step(UP) == (-0.1, False, False)
    assert b.steps == 2


def test_move_never_pushes_and_no_op_costs() -> None:
    b = board("######\n#@$ .#\n######")
    assert b.step(8) == (-0.1, False, False)
    assert b.step(0) == (-0.1, False, False)
    assert b.step(4) == (-0.1, True, True)


def test_from_target_to_target_earns_nothing() -> None:
    b = board("#######\n#@*.$ #\n#######")
    # The counter starts at 0 whatever the room looks like, so the first step earns +1.
    assert b.step(0) == (0.9, False, False)
    assert b.step(RIGHT) == (-0.1, True, True)


def test_pull_variant() -> None:
    b = board("#######\n# @$ .#\n#######")
    assert b.step(11) == (-0.1, True, True)
    assert format_xsb(b).split("\n")[1] == "#@$  .#"
    assert b.step(11) == (-0.1, False, False)
    # gym-sokoban's push-and-pull variant pushes to the right on "no operation"; ours does not.
    b = board("#######\n#@$ . #\n#######")
    assert b.step(0) == (-0.1, False, False)
    assert len(ACTION_NAMES) == 13


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("#####\n#@$ #\n#####", "as many boxes as targets"),
        ("#####\n# $.#\n#####", "exactly one player"),
        ("#####\n#@@$.#\n######", "exactly one player"),
        ("####\n#@$.\n####", "do not close"),
        ("#####\n#@  #\n#####", "at least one"),
    ],
)
def test_bad_levels_say_why(text: str, why: str) -> None:
    with pytest.raises(LevelError, match=why):
        parse_levels(text, "file")


def test_arrays_that_disagree() -> None:
    level = parse_levels("#####\n#@$.#\n#####")[0]
    fixed, state = level.room_fixed, level.room_state
    state[1, 1] = 4
    with pytest.raises(LevelError, match="exactly one player"):
        Level.from_arrays(fixed, state)
    state = level.room_state
    state[1, 2] = 3
    with pytest.raises(LevelError, match="row 1, column 2"):
        Level.from_arrays(fixed, state)
    with pytest.raises(LevelError, match="codes"):
        Level.from_arrays(fixed, state + 9)
    with pytest.raises(LevelError, match="two-dimensional"):
        Level.from_arrays(fixed[0], state)
    fixed[0, 0] = 1
    with pytest.raises(LevelError, match="outermost"):
        Level.from_arrays(fixed, np.where(level.room_state + fixed == 1, 1, level.room_state))


@pytest.mark.parametrize("pull", [False, True])
@pytest.mark.parametrize("size", [(6, 6, 1), (7, 9, 3)])
def test_board_numpy_and_numba_agree(pull: bool, size: tuple[int, int, int]) -> None:
    rows, cols, boxes = size
    levels = RoomGenerator("fast", rows, cols, boxes).rooms(range(48))
    tiles = tile_set("drawn", 8)
    batches = [BatchBoards(48, rows, cols, 60, tiles, 13, engine=e) for e in ("numba", "numpy")]
    for b in batches:
        b.load(range(48), levels)
    singles = [Board(level) for level in levels]
    frames = [Frame(s, tiles) for s in singles]
    rng = np.random.default_rng(0)
    for t in range(80):
        actions = rng.integers(0, 13 if pull else 9, 48)
        answers = [b.step(actions, want_grids=True) for b in batches]
        for left, right in zip(*answers, strict=True):
            assert np.array_equal(left, right)
        answer = answers[0]
        for i, single in enumerate(singles):
            reward, moved, pushed = single.step(int(actions[i]))
            frames[i].update()
            assert reward == answer.reward[i]
            assert (moved, pushed) == (answer.moved[i], answer.pushed[i])
            assert single.won == answer.won[i]
            assert single.score == answer.score[i]
            assert (not single.won and t + 1 == 60) == answer.truncated[i]
            assert np.array_equal(single.grid(), answer.grids[i])
        for b in batches:
            assert b.frames is not None
            assert np.array_equal(b.frames, np.stack([f.pixels for f in frames]))
            assert np.array_equal(b.frames, picture(b.grids(), tiles))


def test_inactive_boards_keep_still() -> None:
    levels = RoomGenerator().rooms(range(4))
    for engine in ("numba", "numpy"):
        b = BatchBoards(4, 6, 6, 9, engine=engine)
        b.load(range(4), levels)
        before = b.state.copy()
        active = np.array([True, False, True, False])
        for _ in range(5):
            answer = b.step(np.full(4, 2), active)
            assert (answer.reward[~active] == 0).all()
        assert np.array_equal(before[~active], b.state[~active])
        assert b.steps.tolist() == [5, 0, 5, 0]
        with pytest.raises(ValueError, match="0 to 12"):
            b.step(np.array([0, 1, 13, 0]))


def test_snapshot_and_after() -> None:
    b = Board(RoomGenerator().room(3))
    rng = np.random.default_rng(1)
    for a in rng.integers(1, 9, 7).tolist():
        b.step(a)
    tail = rng.integers(0, 9, 9).tolist()
    other = Board.from_snapshot(b.snapshot())
    assert b.after(tail).state != b"" and b.steps == 7
    assert [b.step(a) for a in tail] == [other.step(a) for a in tail]
    assert b.snapshot() == other.snapshot()


def test_every_tile_set_tells_the_seven_codes_apart() -> None:
    for tiles in (tile_set("drawn", s) for s in (8, 16, 33, 64)):
        flat = tiles.reshape(7, -1)
        assert len(np.unique(flat, axis=0)) == 7
    assert tile_set("tiny", 1)[6].tolist() == [[[219, 212, 56]]]
    with pytest.raises(ValueError, match="8 to 64"):
        tile_set("drawn", 7)
    with pytest.raises(ValueError, match="choose 'drawn'"):
        tile_set("no such folder")
