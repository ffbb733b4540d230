"""Blueprints: the planner's list of sub-goals, and a parser that never raises."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

#: What an executor writes to end its sub-goal.
SUB_DONE = "<sub_done>"
#: Sub-goals kept by default (the specification's K).
MAX_SUBGOALS = 8
#: Characters of a blueprint's text that are read; the rest is cut.
MAX_BLUEPRINT = 8_192
#: Characters kept of one sub-goal.
MAX_SUBGOAL = 256

_ITEM = re.compile(r"^[ \t>]{0,64}(?:\(?\d{1,6}[.):\]]|[-*•–])[ \t]+(\S.*)$")
_OPEN_BLUEPRINT = re.compile(r"<blueprint\b[^<>]{0,64}>", re.IGNORECASE)
_CLOSE_BLUEPRINT = re.compile(r"</blueprint\s*>", re.IGNORECASE)
_SUBGOAL = re.compile(r"<sub_?goal\b[^<>]{0,64}>([^<]*)", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:blueprint|sub_?goal|sub_done|think|plan|action)\b[^<>]{0,64}>", re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_JSON_KEYS = ("subgoal", "sub_goal", "goal", "text", "description")


@dataclass(frozen=True, slots=True)
class Subgoal:
    """One sub-goal, in words: one line, no control characters, at most 256 characters."""

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

        Understood are, in this order: a JSON list (of strings, or of objects with a "subgoal",
        "goal" or "text"), ``<subgoal>`` tags, numbered or bulleted lines, and, inside
        ``<blueprint>`` tags, plain lines. Tags may be unclosed or nested.

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
    opened = _OPEN_BLUEPRINT.search(text)
    if opened:
        text = text[opened.end() :]
        closed = _CLOSE_BLUEPRINT.search(text)
        if closed:
            text = text[: closed.start()]
    for read in (_read_json, _read_tags, _read_items):
        found = read(text)
        if found:
            return found
    return text.splitlines() if opened else []


def _read_json(text: str) -> list[str]:
    start, end = text.find("["), text.rfind("]")
    if start < 0 or end < start:
        return []
    try:
        value = json.loads(text[start : end + 1])
    except (ValueError, RecursionError):
        return []
    if not isinstance(value, list):
        return []
    found = []
    for item in value:
        if isinstance(item, dict):
            item = next((item[k] for k in _JSON_KEYS if isinstance(item.get(k), str)), None)
        if isinstance(item, str):
            found.append(item)
    return found


def _read_tags(text: str) -> list[str]:
    return [m.group(1) for m in _SUBGOAL.finditer(text)]


def _read_items(text: str) -> list[str]:
    return [m.group(1) for m in map(_ITEM.match, text.splitlines()) if m]
