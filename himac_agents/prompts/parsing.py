"""How a model's answer is understood: total functions, whatever was written."""

from __future__ import annotations

import re

from himac_envs.blueprint import SUB_DONE, Blueprint

_THINK = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<(/?)think>", re.IGNORECASE)
_ACTION = re.compile(r"<action>([^<]*)", re.IGNORECASE)
#: Characters of a model's answer that are read as one command.
MAX_COMMAND = 512


def visible(text: str) -> str:
    """An answer without its thoughts.

    A `<think>` block is dropped, one that never ends too; and where a chat template has opened the
    block already, so that the answer begins inside it, all that stands before the first
    `</think>`.
    """
    first = _TAG.search(text)
    if first is not None and first.group(1):
        text = text[first.end() :]
    return _THINK.sub(" ", text)


def read_blueprint(answer: object, goal: str) -> Blueprint:
    """Understands a planner's answer. Total: never raises; see `Blueprint.parse`."""
    if isinstance(answer, str):
        answer = visible(answer[:65_536])
    return Blueprint.parse(answer, fallback=goal)


def read_command(answer: object) -> str:
    """Understands an executor's answer as one command line or `<sub_done>`. Total.

    Text in `<action>` tags is taken where there is any, otherwise the first line that is not
    empty; `<think>` blocks are dropped. What no environment understands costs a step there.
    """
    if not isinstance(answer, str):
        return ""
    answer = visible(answer[:65_536])
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
