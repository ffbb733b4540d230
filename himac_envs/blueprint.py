"""Blueprints: the planner's list of sub-goals, and a parser that never raises."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from himac_envs.answers import lines, literal, table, tag, tagged, unwrap

#: What an executor writes to end its sub-goal.
SUB_DONE = "<sub_done>"
#: Sub-goals kept by default (the specification's K).
MAX_SUBGOALS = 8
#: Characters of a blueprint's text that are read; the rest is cut.
MAX_BLUEPRINT = 8_192
#: Characters kept of one sub-goal.
MAX_SUBGOAL = 256

#: A list's number or bullet, behind quotes and headings' signs; a bold number is seen to apart.
_LEAD = re.compile(r"[\s>#]{0,64}")
_NUMBER = re.compile(
    # 1. and 1) and (1) and 1: and 1\\. and "1 - ", and the 1 of **1**.
    r"\(?\d{1,6}(?:\\?[.):\]]|[ \t]{1,4}[\u2013\u2014-](?=[ \t])|(?=(?:\*{1,3}|_{1,3})[.):]))"
    r"|(?:step|sub[-_ ]?goal)[ \t]{0,4}#?\d{1,6}(?:[ \t]{0,4}[.):\u2013\u2014-]|(?=[*_]))",
    re.IGNORECASE,
)
_BULLET = re.compile(r"[-*+\u2022\u2013][ \t]+(?:\[[ xX]\][ \t]+)?")
_EMPHASIS = re.compile(r"\*{1,3}|_{1,3}")
#: A mark alone on its line, whose text follows on the next: "### Step 1", "**Step 1:**", "1.".
_ALONE = re.compile(
    r"[*_]{0,3}(?:(?:step|sub[-_ ]?goal)[ \t]{0,4}#?\d{1,6}[ \t]{0,4}[.):]?|\d{1,6}[.)])"
    r"[*_]{0,3}[.:]?",
    re.IGNORECASE,
)
#: A count without a stop, or a letter, which are marks only where they run on from 1 or from a.
_COUNTED = re.compile(r"(\d{1,3})[ \t]+(?=[^\W\d])(.+)")
_LETTERED = re.compile(r"\(?([a-z])[.)][ \t]+(.+)", re.IGNORECASE)
_BLUEPRINT_TAG = tag("blueprint")
_SUBGOAL_TAG = tag("sub_?goal")
_LIST = re.compile(r"[\[{](?=\s{0,256}[\[{\"'])")
#: Places in a text where a JSON list is looked for.
_MOST_LISTS = 32
_TAG = re.compile(
    r"</?(?:blueprint|sub_?goal|sub_done|think|plan|action)\b[^<>]{0,64}>", re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_JSON_KEYS = ("subgoal", "sub_goal", "goal", "text", "description")
_JSON_LISTS = ("blueprint", "subgoals", "sub_goals", "plan", "steps")


@dataclass(frozen=True, slots=True)
class Subgoal:
    """One sub-goal, in words.

    Attributes:
        text: One line, no control characters, at most 256 characters.
    """

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", clean(self.text))

    def __str__(self) -> str:
        return self.text


def clean(text: str) -> str:
    """Return ``text`` as one tidy line: no tags of ours, controls or lone surrogates."""
    text = _TAG.sub(" ", text[: 4 * MAX_SUBGOAL])
    text = _SURROGATE.sub("\ufffd", _CONTROL.sub(" ", text))
    return " ".join(text.split())[:MAX_SUBGOAL].rstrip()


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A list of sub-goals, to be achieved one after the other.

    Attributes:
        subgoals: At least one.
        valid: False where the text could not be parsed and the task's goal stands in.
        dropped: Sub-goals beyond the limit that were left out.
    """

    subgoals: tuple[Subgoal, ...]
    valid: bool = True
    dropped: int = 0

    def __post_init__(self) -> None:
        if not self.subgoals:
            raise ValueError("a blueprint needs at least one sub-goal")

    @classmethod
    def of(cls, subgoals: Iterable[str | Subgoal]) -> Blueprint:
        """Build a blueprint from sub-goals.

        Raises:
            ValueError: There is none, or one is empty.
        """
        made = tuple(s if isinstance(s, Subgoal) else Subgoal(s) for s in subgoals)
        if any(not s.text for s in made):
            raise ValueError("a sub-goal may not be empty")
        return cls(made)

    @classmethod
    def parse(
        cls,
        text: object,
        *,
        fallback: str = "complete the task",
        max_subgoals: int = MAX_SUBGOALS,
        max_length: int = MAX_BLUEPRINT,
    ) -> Blueprint:
        """Read a blueprint from whatever a model wrote. Total: never raises.

        What stands in ``<blueprint>`` tags is read where there are any, of several pairs the
        last. Understood are, in this order: a list in JSON or Python (of strings, or of objects
        with a "subgoal", "goal" or "text") that is no part of an item, ``<subgoal>`` tags, numbered
        or bulleted lines ("1. x", "1.x", "Step 1: x", "- x", as a heading or in bold; or "Step 1"
        alone with the text on the next line), a Markdown table, lines counted on from 1 ("1 x",
        "2 y") or from a ("a) x", "b) y"), and, inside ``<blueprint>`` tags, plain lines. Tags may
        be unclosed. Quotes, backticks and stars around
        the whole of a sub-goal are taken off.

        Args:
            text: The model's output; anything that is not a string is unparsable.
            fallback: The single sub-goal of an unparsable blueprint: the task's goal.
            max_subgoals: The first so many are kept.
            max_length: Characters read.

        Returns:
            The blueprint; ``valid`` is False where the fallback was used.
        """
        if isinstance(text, BlueprintText):
            return text.blueprint.first(max_subgoals)
        found: list[str] = []
        if isinstance(text, str):
            found = [s for s in map(clean, _read(text[:max_length])) if s]
        if not found:
            return cls((Subgoal(clean(fallback) or "complete the task"),), valid=False)
        kept = tuple(Subgoal(s) for s in found[: max(1, max_subgoals)])
        return cls(kept, dropped=len(found) - len(kept))

    def render(self) -> str:
        """Return the canonical text: one numbered sub-goal a line. `parse` reads it back."""
        return "\n".join(f"{i}. {s.text}" for i, s in enumerate(self.subgoals, 1))

    def action(self) -> str:
        """Return the same text as an action that `parse` need not read: it knows what it says."""
        return BlueprintText(self)

    def first(self, most: int) -> Blueprint:
        """Return the blueprint with at most so many sub-goals; `dropped` counts the others."""
        kept = self.subgoals[: max(1, most)]
        left_out = len(self.subgoals) - len(kept)
        return replace(self, subgoals=kept, dropped=self.dropped + left_out) if left_out else self

    def __str__(self) -> str:
        return self.render()

    def __len__(self) -> int:
        return len(self.subgoals)

    def texts(self) -> list[str]:
        """Return the sub-goals' texts."""
        return [s.text for s in self.subgoals]


class BlueprintText(str):
    """A rendered blueprint that remembers what it was rendered from.

    To wrappers and spaces it is text like any other; one that is changed on its way is plain text,
    and read again.
    """

    blueprint: Blueprint

    def __new__(cls, blueprint: Blueprint) -> BlueprintText:
        """Render a blueprint."""
        text = super().__new__(cls, blueprint.render())
        text.blueprint = blueprint
        return text

    def __reduce__(self) -> tuple[type[BlueprintText], tuple[Blueprint]]:
        return BlueprintText, (self.blueprint,)


def _read(text: str) -> Sequence[str]:
    inner = tagged(text, _BLUEPRINT_TAG)
    text = text if inner is None else inner
    for read in (_read_lists, _read_tags, _read_items, table, _read_counted):
        found = read(text)
        if found:
            return found
    return [] if inner is None else [unwrap(line) for line in lines(text)]


def _read_lists(text: str) -> list[str]:
    """The last list of sub-goals before the first item: within an item it is part of its text."""
    found: list[str] = []
    place = 0
    for _ in range(_MOST_LISTS):
        opened = _LIST.search(text, place)
        if opened is None:
            break
        place = opened.end()
        if _items_before(text, place):
            break
        if (read := literal(text, opened.start())) is not None:
            value, place = read
            found = _texts(value) or found
    return found


def _items_before(text: str, place: int) -> bool:
    start = text.rfind("\n", 0, place) + 1
    before = text[:place]
    return (
        bool(_SUBGOAL_TAG.search(before) or _read_items(before))
        or _item(text[start:place] + "x") is not None
    )


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = next((value[k] for k in _JSON_LISTS if isinstance(value.get(k), list)), None)
    if not isinstance(value, list):
        return []
    found = []
    for item in value:
        if isinstance(item, dict):
            item = next((item[k] for k in _JSON_KEYS if isinstance(item.get(k), str)), None)
        if isinstance(item, str):
            found.append(_item(item) or item)
    return found


def _read_tags(text: str) -> list[str]:
    """What stands behind each opening tag, up to the next tag."""
    found: list[str] = []
    start: int | None = None
    for mark in _SUBGOAL_TAG.finditer(text):
        if start is not None:
            found.append(text[start : mark.start()])
        start = None if mark[1] else mark.end()
    if start is not None:
        found.append(text[start:])
    return [unwrap(part) for part in found if part.strip()]


def _read_items(text: str) -> list[str]:
    """The items of a list, of each the text behind its one mark.

    Two are taken off where all are bulleted and numbered on from 1 ("- 1. x", "- 2. y").
    """
    rows = [(_is_bulleted(line), item) for line in _joined(text) if (item := _item(line))]
    within = [_numbered(item) if bulleted else None for bulleted, item in rows]
    if len(rows) > 1 and [n and n[0] for n in within] == list(range(1, len(rows) + 1)):
        return [n[1] for n in within if n is not None]
    return [item for _, item in rows]


def _joined(text: str) -> list[str]:
    """The lines; where a mark stands alone, together with the next line that says something."""
    found: list[str] = []
    alone = ""
    for line in text.splitlines():
        bare = line[_LEAD.match(line).end() :].rstrip()  # type: ignore[union-attr]
        if _ALONE.fullmatch(bare):
            alone = bare
            continue
        if alone and bare:
            count = re.search(r"\d+", alone)
            joined = _item(line) is None and count is not None
            line = f"{count[0]}. {bare}" if joined and count is not None else line
            alone = ""
        found.append(line)
    return found


def _read_counted(text: str) -> list[str]:
    """The lines that are counted on from 1 or lettered on from a, at least two."""
    for pattern in (_COUNTED, _LETTERED):
        marked = [m for line in text.splitlines() if (m := pattern.fullmatch(line.strip()))]
        places = [int(m[1]) if m[1].isdigit() else ord(m[1].lower()) - 96 for m in marked]
        if len(places) > 1 and places == list(range(1, len(places) + 1)):
            return [unwrap(m[2]) for m in marked]
    return []


def _is_bulleted(line: str) -> bool:
    return _BULLET.match(line, _LEAD.match(line).end()) is not None  # type: ignore[union-attr]


def _item(line: str) -> str | None:
    """The text of a numbered or bulleted line; None where it is neither.

    One mark is taken off, no more: what is written as "- 5 - go" says "5 - go".
    """
    line = line[_LEAD.match(line).end() :].rstrip()  # type: ignore[union-attr]
    bullet = _BULLET.match(line)
    if bullet:
        return unwrap(line[bullet.end() :]) or None
    numbered = _numbered(line)
    return None if numbered is None else numbered[1]


def _numbered(line: str) -> tuple[int, str] | None:
    """The number of a numbered line, and the text behind it; None where it is none."""
    emphasis = _EMPHASIS.match(line)
    mark = emphasis[0] if emphasis else ""
    number = _NUMBER.match(line, len(mark))
    if number is None:
        return None
    rest = line[number.end() :]
    if mark and rest.startswith(mark):  # **1.** x, **1**. x, **Step 1**: x
        rest = rest[len(mark) :].lstrip(".):]")
    elif mark and rest.endswith(mark):  # **1. x**
        rest = rest[: -len(mark)]
    elif mark:
        rest = rest.replace(mark, "", 1)  # **1. x**: why
    # "1.find" is an item, "1.5 kg" is not.
    if rest[:1].isdigit() or not unwrap(rest):
        return None
    digits = re.search(r"\d+", number[0])
    assert digits is not None  # every form of _NUMBER has some
    return int(digits[0]), unwrap(rest)
