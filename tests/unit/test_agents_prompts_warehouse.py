"""Sokoban in few words: boards, sub-goals and blueprints, exactly; and odd text, totally."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from hypothesis import given, settings
from hypothesis import strategies as st

from himac_agents.prompts import CompactPrompts
from himac_agents.prompts.compact.warehouse import WarehouseForm, cell, grid
from himac_envs.blueprint import Blueprint

BOARD = "\n".join(
    [
        " # \t # \t # \t # \t # \t # \t",
        " # \t # \t # \t _ \t _ \t # \t",
        " # \t # \t _ \t X \t P \t # \t",
        " # \t # \t _ \t _ \t _ \t # \t",
        " # \t # \t O \t _ \t √ \t # \t",
        " # \t # \t # \t # \t # \t # \t",
    ]
)
LATER = BOARD.replace(" _ \t _ \t # ", " _ \t P \t # ", 1).replace("X \t P", "X \t _")
STYLE = CompactPrompts()


def test_boards() -> None:
    assert STYLE.observe(BOARD, "solve", {}).text == "24 ffbw box 23 done 44 to 42"
    assert STYLE.observe(BOARD.replace("O", "S").replace("P", "_"), "", {}).text == (
        "42 fwwf box 23 done 44 to 42"
    )
    assert STYLE.observe("Nothing here.", "", {}).text == "Nothing here."
    assert cell(3, 12) == "0312"


def test_conversations_begin_with_the_walls_and_the_board_as_it_stands() -> None:
    walls = "walls 11 12 21 31 41"
    (message,) = STYLE.plan(BOARD, "Push the box onto the target. In the grid: # wall ...")
    assert message.text == f"<plan> {walls} 24 ffbw box 23 done 44 to 42\nsolve"
    (message,) = STYLE.play(BOARD, "Push every box onto a target.")
    assert message.text == f"<play> {walls} 24 ffbw box 23 done 44 to 42\nsolve"
    (message,) = STYLE.segment(BOARD, "push the box at (2, 3) to (4, 3)", [BOARD, LATER])
    assert message.text == f"<act> {walls} 14 wffw box 23 done 44 to 42\npush down 23 43"
    (message,) = STYLE.segment(BOARD, "go to (1, 3)", [])
    assert message.text.endswith("\ngo to (1, 3)")
    (message,) = STYLE.plan(BOARD, f"{LATER}\nPush the box onto the target.")
    assert "14 wffw" in message.text  # asked again: the board as it is now


def test_blueprints_there_and_back() -> None:
    blueprint = Blueprint.of(
        ["push the box at (2, 3) to (4, 3)", "push the box at (10, 3) to (1, 12)", "solve it"]
    )
    written = STYLE.draft(blueprint, BOARD, "goal")
    assert written == "- push 23 43\n- push 1003 0112\n- solve it"
    assert STYLE.read_plan(written, BOARD, "goal") == blueprint
    assert not STYLE.read_plan("nothing", BOARD, "goal").valid


_ODD = st.lists(
    st.one_of(st.sampled_from([" # ", "\t", "\n", "P", "_ ", "X\t", "push 23 4", "(1, 2)"]),
              st.text(max_size=5)),
    max_size=30,
).map("".join)  # fmt: skip


@settings(max_examples=1_000, deadline=None)
@given(_ODD, _ODD)
def test_odd_text_raises_nothing(text: str, other: str) -> None:
    form = WarehouseForm()
    for seen in (text, f"# P\n{text}", f"{text}\n# #\n# P _"):
        assert isinstance(form.observation(seen, other, {}), str)
        assert form.opening(seen, other, [text], {}) and form.scene(seen) is not None
        assert form.knows(seen) == (grid(seen) is not None)
    assert isinstance(form.brief(text), str) and isinstance(form.aim(text), str)
    assert len(STYLE.read_plan(text, BOARD, other)) >= 1


def test_straight_subgoals_win_and_never_turn() -> None:
    env: Any = gym.make("HiMAC-Sokoban-v0", straight=True).unwrapped
    turned = 0
    for task_id in list(env.task_ids("valid"))[:30]:
        observation, info = env.reset(options={"task_id": task_id})
        written = STYLE.draft(env.oracle_blueprint(), observation["text"], info["goal"])
        plan = STYLE.read_plan(written, observation["text"], info["goal"])
        turned += len(plan) > 1
        for text in plan.texts():
            assert STYLE.segment(observation["text"], text, [])[0].text.split("\n")[1].split()[
                1
            ] in ("up", "down", "left", "right")
        env.step(plan.render())
        over = False
        while not over:
            command = next(iter(env.oracle(env.subgoal)), "<sub_done>")
            *_, terminated, truncated, info = env.step(command)
            over = terminated or truncated
        assert info["won"]
    assert turned >= 10
