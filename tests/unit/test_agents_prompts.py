"""What models write is understood or refused, and never raises."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from himac_agents.prompts import (
    MAX_COMMAND,
    ChatPrompts,
    CompactPrompts,
    make,
    mark,
    read_blueprint,
    read_command,
    scene,
)
from himac_agents.prompts.scene import in_words
from himac_envs.blueprint import MAX_SUBGOALS, SUB_DONE, Blueprint

_PIECES = st.sampled_from(
    [
        "<blueprint>", "</blueprint>", "<subgoal>", "</subgoal>", "<action>", "</action>",
        "<think>", "</think>", SUB_DONE, "1. ", "2) ", "- ", "* ", "\n", "[", "]", '["', '"]',
        '{"subgoal": "', '"}', ",", "\x00", "\ud800", "\udfff", "\u2028", "\x85", " ", "\t", "\\",
        "find and take a mug", "go to cabinet 1", "9999999999. ", "[" * 50, "<" * 20,
    ]
)  # fmt: skip
_MALFORMED = st.one_of(
    st.lists(st.one_of(_PIECES, st.text(max_size=12)), max_size=30).map("".join),
    st.text(st.characters(), max_size=200),
    st.none(),
    st.integers(),
    st.binary(max_size=20),
    st.lists(st.text(max_size=5), max_size=5),
)


def _is_blueprint(found: Blueprint) -> None:
    assert 1 <= len(found) <= MAX_SUBGOALS
    for text in found.texts():
        assert text and text == text.strip() and len(text) <= 256
        text.encode("utf-8")
        assert not set(text) & set("\x00\n\r\u2028")


@settings(max_examples=10_000, deadline=None)
@given(_MALFORMED)
def test_any_answer_is_a_blueprint(answer: object) -> None:
    _is_blueprint(read_blueprint(answer, "put a mug in the cabinet"))


@settings(max_examples=10_000, deadline=None)
@given(_MALFORMED)
def test_any_answer_is_a_command(answer: object) -> None:
    found = read_command(answer)
    assert isinstance(found, str) and len(found) <= MAX_COMMAND
    assert found == found.strip() and "\x00" not in found
    assert all(line.strip() for line in found.split("\n")) or not found
    found.encode("utf-8")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "x" * 1_000_000,
        "<blueprint>" * 20_000,
        "<think>" * 20_000,
        "\n".join(f"{i}. go" for i in range(10_000)),
        "<subgoal>" + "<subgoal>a</subgoal>" * 10_000,
        "[" * 500_000,
        '["a", ' * 100_000,
        "\x00" * 10_000,
        "\ud800" * 1000,
        "1. " + "a" * 100_000,
    ],
)
def test_huge_and_hostile_answers(answer: str) -> None:
    _is_blueprint(read_blueprint(answer, "the goal"))
    assert len(read_command(answer)) <= MAX_COMMAND


def test_commands() -> None:
    assert read_command("go to cabinet 1") == "go to cabinet 1"
    assert read_command("<think>hm <action>no</action></think> <action> look </action>") == "look"
    assert read_command("<think>I am done.</think> <sub_done>") == SUB_DONE
    assert read_command("I am not done: no <sub_done>\nlook") != SUB_DONE, "only mentioned"
    assert read_command("\n\n  open door \nmore") == "open door"
    assert read_command("<think>never ends go to x") == ""


def test_blueprints_of_both_styles_are_read_back() -> None:
    blueprint = Blueprint.of(
        ["find and take a mug", "clean the mug", "put the mug in/on the shelf"]
    )
    for style in (CompactPrompts(), ChatPrompts()):
        found = read_blueprint(style.write_blueprint(blueprint), "goal")
        assert found.valid and found.texts() == blueprint.texts()
        for command in ("go to shelf 1", SUB_DONE):
            assert read_command(style.write_command(command)) == command
    thought = "<think>1. wrong</think>\n1. right"
    assert read_blueprint(thought, "goal").texts() == ["right"]


def test_scene_keeps_the_highest_number_of_each_kind_and_leaves_the_task_out() -> None:
    first = (
        "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly "
        "around you, you see a cabinet 2, a cabinet 1, and a fridge 1.\n\n"
        "Your task is to: put a clean mug in cabinet."
    )
    assert scene(first) == "cabinet 2 fridge 1"
    # A model that does not know the short form would read one thing of two names.
    prompt = ChatPrompts(benchmark="alfworld").segment(first, "find a mug", [], None)[-1].text
    assert "Scene:\ncabinet 1 to 2, fridge 1\n" in prompt
    assert in_words("WebShop [SEP] Search") == "WebShop [SEP] Search"
    assert scene("WebShop [SEP] Search") == "WebShop [SEP] Search"


def test_the_executor_reads_its_sub_goal_and_how_earlier_ones_ended_but_not_the_task() -> None:
    first = (
        "You are in the middle of a room. Looking quickly around you, you see a fridge 1.\n\n"
        "Your task is to: put a secret in fridge."
    )
    endings = ["You pick up the mug 1 from the fridge 1."]
    for style in (CompactPrompts(mark=False), CompactPrompts(), ChatPrompts()):
        text = "\n".join(m.text for m in style.segment(first, "clean the mug", endings))
        text = text.replace(" *", "")  # the mark behind names that the sub-goal mentions
        assert "clean the mug" in text and endings[0] in text and "fridge 1" in text
        assert "secret" not in text
        assert "secret" in "\n".join(m.text for m in style.plan(first, "put a secret in fridge."))
    assert all(c not in string.whitespace for c in SUB_DONE)


def test_what_matches_the_task_can_be_gathered_behind_the_observation() -> None:
    prompts = CompactPrompts(gather=True)
    seen = "On the shelf 1, you see a mug 2, a cup 1, and a mug 3. The mug 2 is hot."
    text = prompts.observe(seen, "find and take a mug", {}).text
    assert text == seen + " * mug 2 * mug 3", "each name once, in its order, and no others"
    assert prompts.observe(seen, "find and take a pan", {}).text == seen
    ending = prompts.segment("a room", "put the mug in/on the shelf", [seen])[0].text
    assert " * shelf 1 * mug 2 * mug 3\n" in ending
    assert make("compact-gather", tiny=True) == prompts


def test_names_that_the_task_mentions_are_marked_and_no_others() -> None:
    seen = "On the shelf 1, you see a plate 1, a mug 12, and a mugrack 1."
    marked = "On the shelf 1, you see a plate 1, a mug 12 *, and a mugrack 1."
    assert mark(seen, "find and take a mug") == marked
    assert mark(seen, "look around") == seen
    assert CompactPrompts().observe(seen, "find and take a mug", {}).text == marked
    assert CompactPrompts(mark=False).observe(seen, "find and take a mug", {}).text == seen
