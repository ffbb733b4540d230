"""Blueprint.parse reads what models write, and never raises."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from himac_envs import Blueprint, Subgoal
from himac_envs.blueprint import MAX_SUBGOAL, clean

GOAL = "put a clean mug in the cabinet."


@pytest.mark.parametrize(
    "text",
    [
        "1. find a mug\n2. clean the mug",
        "1) find a mug\n2) clean the mug",
        "(1) find a mug\n (2) clean the mug",
        "- find a mug\n* clean the mug",
        "Plan:\n1. find a mug\nthen\n2. clean the mug\nDone.",
        "<blueprint>find a mug\nclean the mug</blueprint>",
        "<think>1. or 2.</think><blueprint>\n1. find a mug\n2. clean the mug\n</blueprint> ok",
        "<blueprint>find a mug\nclean the mug",
        "<subgoal>find a mug</subgoal><subgoal>clean the mug</subgoal>",
        "<subgoal>find a mug<subgoal>clean the mug",
        '["find a mug", "clean the mug"]',
        '```json\n[{"subgoal": "find a mug"}, {"goal": "clean the mug"}]\n```',
        "1. find   a\tmug <sub_done>\n2. clean the\x00 mug",
    ],
)
def test_understood(text: str) -> None:
    blueprint = Blueprint.parse(text, fallback=GOAL)
    assert blueprint.texts() == ["find a mug", "clean the mug"]
    assert blueprint.valid and blueprint.dropped == 0


@pytest.mark.parametrize(
    "text", ["", "  \n", "find a mug", "[]", "[1, 2]", "1.", "<blueprint></blueprint>", None, 7]
)
def test_unparsable_is_the_goal_itself(text: object) -> None:
    blueprint = Blueprint.parse(text, fallback=GOAL)
    assert blueprint.texts() == [GOAL] and not blueprint.valid


def test_the_first_eight_are_kept() -> None:
    text = "\n".join(f"{i}. step {i}" for i in range(1, 10_001))
    blueprint = Blueprint.parse(text, max_length=10**7)
    assert blueprint.texts() == [f"step {i}" for i in range(1, 9)]
    assert blueprint.dropped == 9_992


def test_render_is_read_back() -> None:
    blueprint = Blueprint.of(["find a mug", "put the mug in/on the cabinet"])
    assert Blueprint.parse(blueprint.render()) == blueprint
    with pytest.raises(ValueError, match="empty"):
        Blueprint.of(["a", " "])
    with pytest.raises(ValueError, match="at least one"):
        Blueprint(())


def test_subgoals_are_one_tidy_line() -> None:
    assert Subgoal(" a\n b\x00\ud800 ").text == "a b \ufffd"
    assert len(clean("x" * 10_000)) == MAX_SUBGOAL


_PIECES = st.sampled_from(
    [
        *("<blueprint>", "</blueprint>", "<subgoal>", "</subgoal>", "<sub_done>", "<think>"),
        *("</think>", "<action>", "[", "]", "{", "}", '"', "'", "\\", "1.", "2)", "- ", "* "),
        *("```", "json", "\x00", "\ud800", "\udfff", "🙂", "\n", "\r", "\u2028", ":", ","),
        *("null", "1e999", "goal", " "),
    ]
)
MALFORMED = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=())),
    st.lists(_PIECES | st.text(max_size=5), max_size=60).map("".join),
    st.integers(0, 9).map(lambda n: "[" * 4**n),
    st.text(min_size=1, max_size=9).map(lambda s: (s * (10**6 // len(s) + 1))[: 10**6]),
    st.none() | st.integers() | st.binary(),
)


@given(text=MALFORMED, limit=st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_parse_is_total(text: object, limit: int) -> None:
    blueprint = Blueprint.parse(text, fallback=GOAL, max_subgoals=limit)
    _tidy(blueprint, limit)


def _tidy(blueprint: Blueprint, limit: int) -> None:
    assert 1 <= len(blueprint) <= limit
    for subgoal in blueprint.subgoals:
        assert 0 < len(subgoal.text) <= MAX_SUBGOAL
        assert subgoal.text == clean(subgoal.text)
        subgoal.text.encode()


@pytest.mark.slow
@given(text=MALFORMED, limit=st.integers(1, 9))
@settings(max_examples=20_000, deadline=None)
def test_parse_is_total_over_20000_cases(text: object, limit: int) -> None:
    _tidy(Blueprint.parse(text, fallback=GOAL, max_subgoals=limit), limit)


def test_one_mark_is_taken_off_an_item() -> None:
    texts = [
        *Blueprint.parse("- 5 - go\n- **1.** look").texts(),
        *Blueprint.parse("- 1. go").texts(),
    ]
    assert texts == ["5 - go", "**1.** look", "1. go"]
    # Bullets before numbers that count on from 1 are one mark.
    for twice in (
        "- 1. go\n- 2. look",
        "* **Step 1:** go\n* **Step 2:** look",
        "- 1 - go\n- 2) look",
    ):
        assert Blueprint.parse(twice).texts() == ["go", "look"]
    assert Blueprint.parse("- 2. go\n- 1. look").texts() == ["2. go", "1. look"]
