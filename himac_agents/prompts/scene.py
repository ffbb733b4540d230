"""What an observation says, in fewer words: the scene, and what matches the task."""

from __future__ import annotations

import re

_ALFWORLD = re.compile(
    r"Looking quickly around you, you see (?P<scene>.*?)\.\s*Your task is to: (?P<goal>.*?)\.?\s*$",
    re.DOTALL,
)
_NUMBERED = re.compile(r"an? (\S+) (\d+)")
_NAME = re.compile(r"\b([a-z]{2,}) (\d+)\b")
_WORDS = re.compile(r"[a-z]{2,}")


def scene(first: str) -> str:
    """The first observation without its instruction, shortened where its form is known.

    ALFWorld lists every receptacle ("a cabinet 3, a cabinet 2, a cabinet 1, ..."); numbers of a
    kind run from 1 to the highest, so the highest says it all: "cabinet 3". Other texts stay.
    """
    highest = _highest(first)
    if highest is None:
        return first
    return " ".join(f"{kind} {number}" for kind, number in highest.items())


def in_words(first: str) -> str:
    """The same for a reader who does not know the short form: "cabinet 1 to 5, fridge 1"."""
    highest = _highest(first)
    if highest is None:
        return first
    return ", ".join(
        f"{kind} 1 to {number}" if number > 1 else f"{kind} 1" for kind, number in highest.items()
    )


def _highest(first: str) -> dict[str, int] | None:
    """The highest number of each kind of receptacle; None where the text is of another form."""
    known = _ALFWORLD.search(first)
    if known is None:
        return None
    highest: dict[str, int] = {}
    for kind, number in _NUMBERED.findall(known["scene"]):
        highest[kind] = max(highest.get(kind, 0), int(number))
    return highest


def mark(text: str, task: str) -> str:
    """`text` with a star behind each numbered name whose word stands in `task`."""
    wanted = set(_WORDS.findall(task))
    return _NAME.sub(lambda m: f"{m[0]} *" if m[1] in wanted else m[0], text)


def gather(text: str, task: str) -> str:
    """`text`, and behind it each numbered name whose word stands in `task`, with a star before it.

    The same information as `mark`, in one place: what is to be copied stands at the end, next to
    where the command begins.
    """
    wanted = set(_WORDS.findall(task))
    found = dict.fromkeys(m[0] for m in _NAME.finditer(text) if m[1] in wanted)
    return text + "".join(f" * {name}" for name in found)
