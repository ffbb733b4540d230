"""How verl-agent reads an answer: its projection, rule by rule."""

from __future__ import annotations

import re

from himac_envs.blueprint import SUB_DONE
from himac_envs.reading import MAX_ANSWER, is_done, read_blueprint
from himac_envs.thoughts import visible

_CHINESE = re.compile("[\u4e00-\u9fff]")
_OPEN, _CLOSE = "<action>", "</action>"
#: Characters at the end of an answer without tags that are tried as a command.
_TAIL = {"webshop": 20, "sokoban": 0}
_MOVES = frozenset({"up", "down", "left", "right", "still"})


def project(
    answer: object, benchmark: str, *, planning: bool = False, goal: str = ""
) -> tuple[str, bool]:
    """Return what is played for an answer, and whether verl-agent calls it valid. Total.

    Args:
        answer: What the model wrote; anything that is not a string is nothing.
        benchmark: Whose rules: "alfworld", "webshop", "sokoban", or "" for any other.
        planning: The answer is a blueprint: valid where one can be read and a thought stands
            before it.
        goal: The task's instruction, which stands in for a blueprint that cannot be read.
    """
    text = answer[:MAX_ANSWER] if isinstance(answer, str) else ""
    valid = "<think>" in text and "</think>" in text and _CHINESE.search(text) is None
    if planning:
        blueprint = read_blueprint(text, goal)
        return (blueprint.render() if blueprint.valid else ""), valid and blueprint.valid
    low = text.lower()
    begin, end = low.find(_OPEN), low.find(_CLOSE)
    if begin < 0 or end < 0:
        if "sub_done" in low and is_done(visible(text)):
            return SUB_DONE, valid
        tail = _TAIL.get(benchmark, 30)
        return (low[-tail:] if tail else ""), False
    command = low[begin + len(_OPEN) : end].strip()
    if "sub_done" in command and is_done(command):
        return SUB_DONE, valid
    if benchmark == "sokoban" and command not in _MOVES:
        return "", False
    return command, valid
