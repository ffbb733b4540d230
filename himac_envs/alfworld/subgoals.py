"""The language of sub-goals: what a planner may ask for, in words that an agent can know.

==========================================  ====================================================
``find a mug``                              be where a mug can be seen, or hold one
``find and take a mug``                     hold a mug
``find and take another mug``               hold a mug that was not put down before
``put the mug in/on the cabinet``           the mug stands in or on a cabinet
``put the mug in/on the same cabinet``      ... where another mug stands
``put down the mug``                        the mug was put down, wherever
``clean the mug``, ``heat``, ``cool``       the mug is clean, hot, cool
``slice the apple``                         an apple is sliced
``turn on the desklamp``                    a desklamp that is on stands where the agent is
``go to the fridge``                        the agent is at a fridge
``open the fridge``, ``close``              the agent is at a fridge that is open, closed
==========================================  ====================================================

"The mug" is the held one, else the one put down last. Names are kinds ("mug", "cabinet"), since
which of the mugs serves cannot be known when the plan is made; names with a number ("mug 2",
"cabinet 3") are understood too. Many other ways to say the same are understood ("pick up",
"place", "wash", "on" for "in/on", "alarm clock" for "alarmclock"); :meth:`Aim.__str__` is the
form above.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

Verb: TypeAlias = Literal[
    "find", "take", "put", "drop", "clean", "heat", "cool", "slice", "use", "go", "open", "close"
]

_THING = r"(?P<{0}>[a-z][a-z ]*?(?: \d+)?)"
_OBJECT = _THING.format("object")
_RECEPTACLE = _THING.format("receptacle")
_FORMS: Final[tuple[tuple[Verb, str], ...]] = (
    (
        "take",
        rf"(?:find and (?:then )?)?(?:take|pick up|get|grab|fetch) {_OBJECT} "
        rf"(?:from|off|out of) {_RECEPTACLE}",
    ),
    ("take", rf"(?:find and (?:then )?)?(?:take|pick up|get|grab|fetch) {_OBJECT}"),
    ("take", rf"(?:find and (?:then )?)?pick {_OBJECT} up"),
    ("drop", rf"(?:put down|put|set|lay) {_OBJECT} down"),
    ("drop", rf"(?:put down|drop|lay down|set down) {_OBJECT}"),
    (
        "put",
        rf"(?:put|place|move|set|store|return|drop|leave) {_OBJECT} "
        rf"(?:in/on|in or on|into|onto|inside|in|on|to|at) (?:top of )?{_RECEPTACLE}",
    ),
    ("clean", rf"(?:clean|wash|rinse) {_OBJECT}(?: (?:with|in|at|using) [a-z0-9 ]+)?"),
    ("heat", rf"(?:heat|heat up|warm|warm up) {_OBJECT}(?: (?:with|in|at|using) [a-z0-9 ]+)?"),
    ("cool", rf"(?:cool|cool down|chill) {_OBJECT}(?: (?:with|in|at|using) [a-z0-9 ]+)?"),
    ("slice", rf"(?:slice|cut) {_OBJECT}(?: (?:with|using) [a-z0-9 ]+)?"),
    ("use", rf"(?:find and )?(?:turn on|switch on|use|toggle|light) {_OBJECT}"),
    ("use", rf"(?:turn|switch) {_OBJECT} on"),
    ("find", rf"(?:find|locate|look for|search for) {_OBJECT}"),
    ("go", rf"(?:go to|walk to|move to|navigate to|approach) {_RECEPTACLE}"),
    ("open", rf"open {_RECEPTACLE}"),
    ("close", rf"(?:close|shut) {_RECEPTACLE}"),
)
_PATTERNS: Final = tuple((verb, re.compile(form)) for verb, form in _FORMS)
_BEFORE: Final = re.compile(r"^(?:the same|the other|another|the|an|a|one|some|any|same|other) ")
_LEAD: Final = re.compile(r"^(?:\d+[.):]|[-*•])\s*")
_MAX_LENGTH: Final = 200


@dataclass(frozen=True)
class Aim:
    """A parsed sub-goal.

    Attributes:
        verb: What to do.
        object: The object's kind ("mug") or name ("mug 2"), "" for none.
        receptacle: The receptacle's kind or name, "" for none (or any).
        another: The object is to be one that was not put down before.
        same: The receptacle is to be one that holds another such object.
    """

    verb: Verb
    object: str = ""
    receptacle: str = ""
    another: bool = False
    same: bool = False

    def __str__(self) -> str:
        if self.verb in ("find", "take"):
            words = "find" if self.verb == "find" else "find and take"
            article = "another" if self.another else _article(self.object)
            text = f"{words} {article} {self.object}" if article else f"{words} {self.object}"
            return f"{text} from {_definite(self.receptacle)}" if self.receptacle else text
        if self.verb == "put":
            where = f"the same {self.receptacle}" if self.same else _definite(self.receptacle)
            return f"put {_definite(self.object)} in/on {where}"
        if self.verb == "drop":
            return f"put down {_definite(self.object)}"
        if self.verb == "use":
            return f"turn on {_definite(self.object)}"
        if self.verb == "go":
            return f"go to {_definite(self.receptacle)}"
        if self.verb in ("open", "close"):
            return f"{self.verb} {_definite(self.receptacle)}"
        return f"{self.verb} {_definite(self.object)}"


def _article(name: str) -> str:
    """The article of a kind; a numbered name has none."""
    if name[-1:].isdigit():
        return ""
    return "an" if name[:1] in "aeiou" else "a"


def _definite(name: str) -> str:
    return name if name[-1:].isdigit() else f"the {name}"


@lru_cache(maxsize=4096)
def parse_aim(text: str) -> Aim | None:
    """Understand a sub-goal.

    Args:
        text: Anything.

    Returns:
        The sub-goal, or None where the text is not one. Never raises.
    """
    if len(text) > _MAX_LENGTH:
        return None
    words = _LEAD.sub("", " ".join(text.lower().split())).rstrip(" .;,!")
    for verb, pattern in _PATTERNS:
        match = pattern.fullmatch(words)
        if match is None:
            continue
        found = match.groupdict()
        object_, before = _name(found.get("object") or "")
        receptacle, where = _name(found.get("receptacle") or "")
        if any(value is not None and not _name(value)[0] for value in found.values()):
            return None
        another = verb in ("take", "find") and before in ("another", "other", "the other")
        return Aim(verb, object_, receptacle, another, verb == "put" and "same" in where)
    return None


def _name(words: str) -> tuple[str, str]:
    """A name without its article, blanks inside the kind removed, and what stood before it."""
    match = _BEFORE.match(words)
    before = match.group().strip() if match else ""
    name = words[match.end() :] if match else words
    if _BEFORE.match(f"{name} "):
        return "", before
    kind, _, number = name.rpartition(" ")
    if number.isdigit():
        return f"{kind.replace(' ', '')} {number}", before
    return name.replace(" ", ""), before
