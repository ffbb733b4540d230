"""Sokoban in words: observations, actions, sub-goals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from himac_envs.sokoban import subgoals
from himac_envs.sokoban.env import SokobanEnv
from himac_envs.sokoban.levels import parse_levels
from himac_envs.sokoban.rules import Board
from himac_envs.sokoban.text import SYMBOLS, describe, parse_actions

ROOM = parse_levels("######\n#@ $.#\n# *  #\n######")[0]


def test_actions() -> None:
    assert parse_actions("up") == [1] and parse_actions("  RIGHT \n") == [4]
    assert parse_actions("push left") == [3] and parse_actions("move left") == [7]
    assert parse_actions("no operation") == [0]
    assert parse_actions("pull up") is None and parse_actions("pull up", pull=True) == [9]
    assert parse_actions("up, down") is None
    assert parse_actions("Right || Right || Up", 3) == [4, 4, 1]
    assert parse_actions("up,up;up\nup", 2) == [1, 1]
    assert parse_actions("up, fly", 3) is None
    assert parse_actions("") is None and parse_actions("up" * 10_000, 9) is None


def test_grid_symbols() -> None:
    board = Board(ROOM)
    assert describe(board, "grid", "xsb") == "######\n#@ $.#\n# *  #\n######"
    assert describe(board, "grid", "ragen") == "######\n#P_XO#\n#_√__#\n######"
    assert describe(board, "grid", "ragen-letters").split("\n")[1] == "WA.BGW"
    row = describe(board, "grid", "verl-agent").split("\n")[1]
    assert row == " # \t P \t _ \t X \t O \t # \t"
    assert all(len(set(symbols)) == 7 for symbols in SYMBOLS.values())


def test_coordinates_and_sentences_tell_the_whole_state() -> None:
    board = Board(ROOM)
    text = describe(board, "coordinates", "xsb")
    assert "Player: (1, 1)" in text and "Boxes off target: (1, 3)" in text
    assert "Boxes on target: (2, 2)" in text and "Free targets: (1, 4)" in text
    said = describe(board, "sentences", "xsb")
    assert "You stand at (1, 1). There is above you a wall" in said
    assert "The box at (1, 3) is 2 right of you." in said
    assert "row 2 columns 1 2 3 4" in said
    seen = {form: set() for form in ("coordinates", "sentences", "grid")}  # type: ignore[var-annotated]
    states = set()
    rng = np.random.default_rng(0)
    for _ in range(300):
        board.step(int(rng.integers(1, 5)))
        states.add(bytes(board.state))
        for form, texts in seen.items():
            texts.add(describe(board, form, "xsb"))
    assert {len(texts) for texts in seen.values()} == {len(states)}


@pytest.mark.parametrize(
    ("text", "kind", "start", "end"),
    [
        ("push the box at (1, 3) to (1, 4)", "push", 9, 10),
        ("Push the box at (1,3) onto the target at (1, 4).", "push", 9, 10),
        ("move box from 1, 3 to 2, 3", "push", 9, 15),
        ("push the box at (1, 3) right", "push", 9, 10),
        ("push the box at (1, 3) left 2 cells", "push", 9, 7),
        ("push a box to (1, 4)", "cover", -1, 10),
        ("cover the target at (1, 4)", "cover", -1, 10),
        ("go to (2, 4)", "goto", -1, 16),
        ("walk to the cell at (row 2, column 4)", "goto", -1, 16),
        ("push every box onto a target", "solve", -1, -1),
        ("solve the puzzle", "solve", -1, -1),
        ("put all boxes on the targets", "solve", -1, -1),
    ],
)
def test_subgoals_that_are_understood(text: str, kind: str, start: int, end: int) -> None:
    assert subgoals.read_subgoal(text, Board(ROOM)) == subgoals.Target(kind, start, end)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["", "win", "go to (9, 9)", "go to (0, 0)", "push the box at (1, 3) up", "push (1, 3)", "up"],
)
def test_subgoals_that_are_not(text: str) -> None:
    env = SokobanEnv()
    assert subgoals.read_subgoal(text, Board(ROOM)) is None
    env.reset(seed=0)
    assert env.achieved("to be or not to be") is None
    with pytest.raises(ValueError, match="write 'push the box"):
        env.oracle("to be or not to be")


def test_subgoals_are_achieved_by_the_oracle_and_reported() -> None:
    env = SokobanEnv(boxes=2, max_steps=100)
    for seed in range(25):
        env.reset(seed=seed)
        assert env.board is not None
        board = env.board
        open_cells = [c for c, code in enumerate(board.state) if code in (1, 2)]
        for cell in open_cells:
            goal = f"go to ({cell // 6}, {cell % 6})"
            assert env.achieved(goal) is False
            try:
                plan = list(env.oracle(goal))
            except ValueError:
                continue  # walled off by boxes
            state = env.snapshot()
            for command in plan:
                env.step(command)
            assert env.achieved(goal) is True
            env.restore(state)
        for goal in env.oracle_blueprint().texts():
            assert env.achieved(goal) is False
            for command in env.oracle(goal):
                env.step(command)
            assert env.achieved(goal) is True


def test_oracle_plans_anew_when_the_state_changed_under_it() -> None:
    env = SokobanEnv(max_steps=200, min_solution=8, max_solution=15)
    for seed in range(20):
        env.reset(seed=seed)
        listed = list(env.oracle())
        assert listed == list(env.oracle())  # listing plays nothing
        rng = np.random.default_rng(seed)
        info = {"won": False}
        for command in env.oracle():
            *_, info = env.step(command)
            if not info["won"] and rng.random() < 0.3:
                env.step("not a command")
                env.step("move up")  # walks off, pushes nothing
        assert info["won"]


def test_several_actions_in_one_answer() -> None:
    one, many = SokobanEnv(max_steps=50), SokobanEnv(max_steps=50, actions_per_step=4)
    for seed in range(10):
        one.reset(seed=seed)
        many.reset(seed=seed)
        plan = list(one.oracle())[:4]
        rewards = [one.step(c)[1] for c in plan]
        observation, reward, terminated, _, info = many.step(" || ".join(plan))
        assert reward == pytest.approx(sum(rewards))
        assert info["step"] == len(plan) == one.board.steps  # type: ignore[union-attr]
        assert observation["text"] == describe(one.board, "grid", "verl-agent")  # type: ignore[arg-type]
    short = SokobanEnv(max_steps=3, actions_per_step=9)
    short.reset(seed=0)
    _, _, terminated, truncated, info = short.step("still,still,still,still,still")
    assert (terminated, truncated, info["step"]) == (False, True, 3)


MESSY = st.one_of(
    st.text(),
    st.sampled_from(["up", "DOWN", "left,", "|| right", "push the box at (1, 1) to (2, 2)"]),
    st.text("(),0123456789 pushtheboxgoatup|", max_size=60),
    st.binary().map(lambda b: b.decode("latin-1")),
    st.characters(categories=["Cs", "Cc", "So"]).map(lambda c: c * 50),
)


@settings(max_examples=1_000, deadline=None)
@given(MESSY)
def test_malformed_text_never_raises(text: str) -> None:
    _poke(text)


@pytest.mark.slow
@settings(max_examples=100_000, deadline=None)
@given(MESSY)
def test_100000_malformed_texts_never_raise(text: str) -> None:
    _poke(text)


_ENV = SokobanEnv(max_steps=10**9, actions_per_step=3)
_ENV.reset(seed=0)


def _poke(text: str) -> None:
    _, _, _, truncated, info = _ENV.step(text)
    assert not truncated and type(info["invalid"]) is bool
    assert _ENV.achieved(text) in (None, True, False)
