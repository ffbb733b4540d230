"""How a model's answer is understood: total functions, whatever was written.

One rule stands behind them. Thoughts are dropped. What stands in tags is taken whole, and of
several pairs the last. Then the dress is taken off: quotes, backticks, stars, a fence, a full stop,
a label such as "Action:". What is written as a list, as JSON or as a table is read as the lines
that it holds.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from himac_envs.answers import fenced, lines, literal, table, tag, tagged, unwrap
from himac_envs.blueprint import SUB_DONE, Blueprint
from himac_envs.thoughts import visible

__all__ = [
    "MAX_COMMAND",
    "finished",
    "is_done",
    "read_blueprint",
    "read_command",
    "tidy",
    "undress",
    "visible",
]

#: Characters of a model's answer that are read as one command.
MAX_COMMAND = 512
#: Characters of a model's answer that are read at all.
MAX_ANSWER = 65_536

ACTION = tag("action")
_ANSWER = tag("answer")
#: The tags that an answer may stand in.
_TAGS = (ACTION, _ANSWER, tag("blueprint"), tag("sub_?goal"))
_DONE = re.compile(r"<\s?/?\s?sub_done\s?/?\s?>(?:\s{0,4}<\s?/\s?sub_done\s?>)?", re.IGNORECASE)
_LABEL = (
    r"(\*\*|__|\*|_|)(?:(?:(?:the|my|next|final)[ \t]{1,4}){0,3}(?:action|command|answer|move))"
    r"[ \t]{0,4}\d{0,6}[ \t]{0,4}(?:\1[ \t]{0,4}[:\uff1a]|[:\uff1a][ \t]{0,4}\1)[ \t]{0,8}"
)
_LABELLED = re.compile(rf"^[ \t>]{{0,8}}{_LABEL}", re.IGNORECASE | re.MULTILINE)
_LABEL_FIRST = re.compile(_LABEL, re.IGNORECASE)
#: "> go to desk 1", "- go to desk 1", "1. go to desk 1"
_BULLET = re.compile(r"(?:>+|[-*•]|\d{1,3}[.)]|\(?[a-zA-Z]\))\s+(?=\S)|>+(?=\S)")
#: "1 go to desk 1", "a. go to desk 1": taken off where a command stands behind it.
_COUNT = re.compile(r"(?:\d{1,3}|[a-zA-Z]\.)\s+(?=\S)")
#: What holds the command in an object: by itself, or within what a tool is called with.
_KEYS = ("action", "command", "answer", "move", "actions", "commands", "moves")
_CALLS = ("arguments", "parameters", "input", "args")
_OBJECT = re.compile(r"^[ \t]{0,64}\{(?=\s{0,256}[\"}])", re.MULTILINE)
#: Places in a text where an object is looked for, and how deep in one another they are read.
_MOST_OBJECTS, _DEEPEST = 32, 4
_THOUGHT = re.compile(
    r"[*_]{0,2}(?:thoughts?|think|thinking|reason|reasoning|observation)"
    r"[*_]{0,2}[ \t]{0,4}\d{0,6}[ \t]{0,4}:",
    re.IGNORECASE,
)
_TURN_ENDS = re.compile(r"(?:<\|\w{1,24}\|>|</s>|<end_of_turn>|<eos>)\Z")
_LONGEST_END = 32
#: What Sokoban's parser takes for a step in place, beside the moves that are offered.
_IDLE = frozenset({"noop", "no operation", "still"})
#: Between several moves on one line.
_SEPARATOR = re.compile(r"\|\||[,;]")


def read_blueprint(answer: object, goal: str) -> Blueprint:
    """Understands a planner's answer. Total: never raises; see `Blueprint.parse`."""
    if isinstance(answer, str):
        answer = visible(answer[:MAX_ANSWER])
    return Blueprint.parse(answer, fallback=goal)


def read_command(answer: object, admissible: Collection[str] = ()) -> str:
    """Understands an executor's answer as one command or `<sub_done>`. Total.

    Text in `<action>` tags is taken where there is any (or in `<answer>` tags, behind a label
    "Action:", in a code fence), otherwise the first line that says something. `<sub_done>` counts
    where it is all that is answered, or all that stands there; not where it is mentioned. What no
    environment understands costs a step there.

    Several lines are several moves for some environments, and a command with a remark for others.
    In tags they are taken whole, unless the first of them is a command by itself. Without tags the
    first is taken, unless all of them are moves: the admissible commands are single words, and
    every line is made of those (and of waiting).

    A list of strings is read like its lines; of an object (JSON) what stands under "action",
    "command" and the like, also within the "arguments" of a call. A command in other letters' case
    is the admissible one, where there is one such.

    Args:
        answer: What the model wrote; anything that is not a string is no command.
        admissible: The commands that are possible now, where that is known. None of them is
            undressed: an environment may have commands that end in a full stop.
    """
    if not isinstance(answer, str):
        return ""
    known = frozenset(admissible)
    if (text := answer.strip()) in known:
        return text
    text = _ended(visible(answer[:MAX_ANSWER]))
    if is_done(text):
        return SUB_DONE
    whole, told = False, False
    for pattern in (ACTION, _ANSWER):
        if (inner := tagged(text, pattern)) is not None:
            text, whole = inner, True
    labels = [] if whole else list(_LABELLED.finditer(text))
    if labels:
        behind = next((m for m in reversed(labels) if not _is_blank(text, m.end())), labels[-1])
        text, told = text[behind.end() :], True
    if not whole and (inner := fenced(text)) is not None:
        text, whole = inner, True
    if (whole or told) and is_done(text):
        return SUB_DONE
    held = _held(text.strip())
    if held:
        text, whole, told = "\n".join(held), False, True
    found = [undress(tidy(line), known) for line in lines(text)[:MAX_COMMAND]]
    if not whole and not told:
        found = [line for line in found if line in known or not _THOUGHT.match(line)]
        if len(found) > 1:
            found = [line for line in found if not is_done(line)]
    if not found:
        return ""
    first = _as_known(found[0], known)
    if len(found) > 1 and (_moves(found, known) or (whole and first not in known)):
        return "\n".join(found)[:MAX_COMMAND].rstrip()
    if is_done(first):
        return SUB_DONE
    return first if first in known else first[:MAX_COMMAND].rstrip()


def _held(text: str) -> list[str]:
    """The commands that an object, a list of strings or a table holds; none for other texts."""
    listed = literal(text, 0) if text.startswith("[") else None
    if listed and not text[listed[1] :].strip() and (held := _commands(listed[0], 0)):
        return held
    found: list[str] = []
    place = 0
    for _ in range(_MOST_OBJECTS):
        if (opened := _OBJECT.search(text, place)) is None:
            break
        place = opened.end()
        if (read := literal(text, opened.end() - 1)) is not None:
            place = read[1]
            found = _commands(read[0], _DEEPEST) or found
    return found or table(text)


def _commands(value: Any, depth: int) -> list[str]:
    if isinstance(value, str) and depth < _DEEPEST:
        return lines(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [line for item in value for line in lines(item)]
    if not isinstance(value, dict) or not depth:
        return []
    for key in (*_KEYS, *_CALLS):
        inner = value.get(key)
        if key in _CALLS and isinstance(inner, str):  # an object, written as a string
            read = literal(inner, 0)
            inner = None if read is None else read[0]
        if found := _commands(inner, depth - 1):
            return found
    return []


def _as_known(text: str, known: Collection[str]) -> str:
    """The admissible command that a text is but for its letters' case and a count before it."""
    bare = _COUNT.sub("", text, count=1) if _COUNT.match(text) else text
    for said in (text, bare):
        if said in known:
            return said
        alike = [command for command in known if command.casefold() == said.casefold()]
        if len(alike) == 1:
            return alike[0]
    return text


def finished(answer: str, admissible: Collection[str] = ()) -> str:
    """What is certain of an answer that was cut at its limit. Total.

    Nothing, where it ends inside a tag, complete ones in that or not: `<action>go to cabinet 1` may
    have become cabinet 12. Without tags, its lines but the last; and the whole where it is a
    command that no other admissible one begins with.
    """
    said = visible(answer[:MAX_ANSWER])
    # Of each kind the last: a blueprint may be open behind a sub-goal of it that is complete.
    last = [found[-1] for pattern in _TAGS if (found := list(pattern.finditer(said)))]
    if last:
        return answer if all(mark[1] for mark in last) else ""
    text = said.strip()
    longer = [command for command in admissible if command != text and command.startswith(text)]
    if is_done(text) or (text in admissible and not longer):
        return answer
    return said.rpartition("\n")[0]


def is_done(text: str) -> bool:
    """Whether a text is `<sub_done>` and nothing else, in any case, with a slash or without."""
    text = text.strip()
    return len(text) <= 128 and _DONE.fullmatch(undress(text)) is not None


def undress(text: str, known: Collection[str] = ()) -> str:
    """Takes quotes, backticks, stars, labels, bullets and a full stop off, layer by layer.

    Args:
        text: One line.
        known: Texts that are right as they are: it ends at the first of these.
    """
    if text in known or len(text) > 4 * MAX_COMMAND:
        return text
    while (bare := _peel(text)) and bare != text:
        text = bare
        if text in known:
            break
    return text


def _ended(text: str) -> str:
    """An answer without the marks that end a turn, which some servers leave there."""
    text = text.rstrip()
    for _ in range(4):
        if found := _TURN_ENDS.search(text[-_LONGEST_END:]):
            text = text[: len(text) - len(found[0])].rstrip()
    return text


def _peel(text: str) -> str:
    if (bare := unwrap(text)) != text:
        return bare
    for dress in (_LABEL_FIRST, _BULLET):
        if found := dress.match(text):
            return text[found.end() :]
    return text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text


def tidy(line: str) -> str:
    """A line that can be encoded: no lone surrogates, and no NUL, which ends strings elsewhere."""
    return line.encode("utf-8", "replace").decode("utf-8").replace("\x00", " ").strip()


def _is_blank(text: str, place: int) -> bool:
    """Whether nothing but white space follows a place, before the next label."""
    found = _LABELLED.search(text, place)
    return not text[place : found.start() if found else len(text)].strip()


def _moves(found: Collection[str], known: Collection[str]) -> bool:
    """Whether all lines are moves: with a verb ("push left"), several ("Up || up"), or waiting."""
    words = {command.casefold() for command in known if command != SUB_DONE}
    if not words or not all(word.isalpha() for word in words):
        return False
    parts = [part.casefold().split() for line in found for part in _SEPARATOR.split(line)]
    return all(
        (0 < len(part) <= 2 and part[-1] in words) or " ".join(part) in _IDLE for part in parts
    )
