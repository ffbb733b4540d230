"""Answers in the form of lists, objects and tables, and in other letters' case."""

from __future__ import annotations

import pytest

from himac_agents.prompts import read_blueprint, read_command
from himac_envs.blueprint import SUB_DONE

MUG, SHELF = "find and take a mug", "put the mug in/on the shelf"


@pytest.mark.parametrize(
    "answer",
    [f"b) {MUG}\nc) {SHELF}", f"2 {MUG}\n3 {SHELF}", "1 mug\n1 bowl", f"a) {MUG}", "| a | b |\nc",
     "['it's broken']", "['a'", "Step 1\nStep 2", "|---|\n|---|"],
)  # fmt: skip
def test_what_only_looks_like_a_list_is_none(answer: str) -> None:
    assert not read_blueprint(answer, "goal").valid


LISTED = ["go to desk 1", "take pen 1", "1 step back", SUB_DONE]
#: Read as the first of LISTED; and what they are where nothing is known to be admissible.
HELD = {
    "an object": ('{"thought": "well", "action": "go to desk 1"}', "go to desk 1"),
    "an object behind words": ('So:\n{"command": "Go to desk 1."}\nOver.', "Go to desk 1"),
    "a call in a fence": (
        '```json\n{"name": "act", "arguments": {"command": "go to desk 1"}}\n```', "go to desk 1"),
    "a call's text": ('{"arguments": "{\\"command\\": \\"go to desk 1\\"}"}', "go to desk 1"),
    "a list": ('["go to desk 1", "take pen 1"]', "go to desk 1"),
    "Python's list": ("['go to desk 1', 'take pen 1']", "go to desk 1"),
    "a list in tags": ('<action>["go to desk 1", "take pen 1"]</action>', "go to desk 1"),
    "letters": ("a) go to desk 1\nb) take pen 1", "go to desk 1"),
    "a letter with a stop": ("A. go to desk 1", "A. go to desk 1"),
    "a count": ("1 go to desk 1", "1 go to desk 1"),
    "a table": ("| n | action |\n|---|---|\n| 1 | go to desk 1 |", "go to desk 1"),
    "capitals": ("GO TO DESK 1", "GO TO DESK 1"),
    "capitals in tags": ("<action>Go To Desk 1</action>", "Go To Desk 1"),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "alone"), HELD.values(), ids=HELD)
def test_lists_objects_tables_and_other_case(answer: str, alone: str) -> None:
    assert read_command(answer, LISTED) == "go to desk 1"
    assert read_command(answer) == alone


def test_objects_and_counts_that_are_part_of_a_command_stay() -> None:
    assert read_command("1 step back", LISTED) == "1 step back"
    assert read_command('search[{"action": "run"}]') == 'search[{"action": "run"}]'
    assert read_command('{"action": "<sub_done>"}', LISTED) == SUB_DONE
    assert read_command('{"mood": "good"}', LISTED) == '{"mood": "good"}'
    assert read_command("WAIT", ["wait", "Wait"]) == "WAIT", "which of the two?"
    moves = ["up", "down", "left", "right", SUB_DONE]
    for answer in ('["up", "left"]', "{'x': 1}\n[]", '{"moves": ["up", "left"]}'):
        expected = "{'x': 1}" if "x" in answer else "up\nleft"
        assert read_command(answer, moves) == expected
