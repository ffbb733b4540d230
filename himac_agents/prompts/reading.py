"""How a model's answer is understood: total functions, whatever was written."""

from __future__ import annotations

import re

from himac_envs.blueprint import SUB_DONE, Blueprint

_THINK = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_ACTION = re.compile(r"<action>([^<]*)", re.IGNORECASE)
#: Characters of a model's answer that are read as one command.
MAX_COMMAND = 512


def read_blueprint(answer: object, goal: str) -> Blueprint:
    """Understands a planner's answer. Total: never raises; see `Blueprint.parse`."""
    if isinstance(answer, str):
        answer = _THINK.sub(" ", answer[:65_536])
    return Blueprint.parse(answer, fallback=goal)


def read_command(answer: object) -> str:
    """Understands an executor's answer as one command line or `<sub_done>`. Total.

    Text in `<action>` tags is taken where there is any, otherwise the first line that is not
    empty; `<think>` blocks are dropped. What no environment understands costs a step there.
    """
    if not isinstance(answer, str):
        return ""
    answer = _THINK.sub(" ", answer[:65_536])
    if SUB_DONE in answer:
        return SUB_DONE
    tagged = _ACTION.search(answer)
    if tagged:
        answer = tagged.group(1)
    for line in answer.splitlines():
        # A lone surrogate cannot be encoded, and a NUL ends strings elsewhere.
        line = line.encode("utf-8", "replace").decode("utf-8").replace("\x00", " ").strip()
        if line:
            return line[:MAX_COMMAND]
    return ""
