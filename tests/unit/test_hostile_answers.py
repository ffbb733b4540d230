"""Answers made to be slow to read: the readers take linear time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from himac_agents.prompts import VerlAgentPrompts, read_blueprint, read_command

HOSTILE = [
    "<think>", "</think>", "<think ", "<think/>", "<action>", "</action>", "<action></action>",
    "<action>a", "<answer>", "<", "< ", "[", "]", "[THINK]", "[/THINK]", '["', '["a", ', '{"a":',
    "<|channel|>", "<|channel|>final<|message|>", "<|channel|>analysis<|message|>", "<blueprint>",
    "<blueprint>a</blueprint>", "<subgoal>", "1. ", "1. a\n", "**1", "**", "`", "```", "```\n", '"',
    "Action:", "Action:\n", "Action: a\n", "Action ", "Thought: a\n", "> ", ">", ". ", ".", "up\n",
    "<sub_done>", "<sub_done>\n", " ", "\n", "\t", "\x00", "\ud800", "</act", "- ", "Step 1", "_1",
    "</s>", "1 - ",
]  # fmt: skip


def _cpu_seconds(call: Callable[[], object]) -> float:
    """The fastest of three calls, in seconds of this process."""
    spent = []
    for _ in range(3):
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)
    return min(spent)


@pytest.mark.parametrize("piece", HOSTILE, ids=repr)
def test_hostile_answers_take_linear_time(piece: str) -> None:
    """Eight times the text takes about eight times as long, on any machine; a square, 64 times."""
    verl = VerlAgentPrompts()
    readers: list[Callable[[str], object]] = [
        lambda answer: read_command(answer, ["up", "down"]),
        lambda answer: read_blueprint(answer, "goal"),
        verl.read,
    ]
    for head in ("", "<action>", "Action", "<blueprint>1. "):
        short, long = (head + piece * (size // len(piece)) for size in (4_096, 32_768))
        for read in readers:
            limit = 24 * _cpu_seconds(lambda read=read, short=short: read(short)) + 0.02
            assert _cpu_seconds(lambda read=read, long=long: read(long)) < limit
