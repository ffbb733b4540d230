"""How the original names things, and writes lists of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

_ESCAPES: Final = (
    ("_bar_", "|"), ("_minus_", "-"), ("_plus_", "+"), ("_dot_", "."), ("_comma_", ","),
)  # fmt: skip


def bits(mask: int) -> Iterator[int]:
    """Yield the numbers of a mask's set bits, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def listing(names: list[str]) -> str:
    """Join as the original's lists: ``nothing``; ``a``; ``a, and b``; ``a, b, and c``."""
    if not names:
        return "nothing"
    if len(names) == 1:
        return names[0]
    return ", ".join(names[:-1]) + ", and " + names[-1]


def entity_names(ids: list[str]) -> dict[str, str]:
    """Name entities as the original does: ``mug 1`` for an id ``mug_bar_...``.

    Numbers count down through a class in the order of ids, so that the first gets the highest
    (alfworld's Demangler pops them from the end of a list). An id without ``_bar_`` has no number,
    and its name ends in a blank, so that no command can name it.

    Args:
        ids: Every id that occurs in a fact, sorted.
    """
    classes: dict[str, str] = {}
    for id_ in ids:
        text = id_
        for escaped, plain in _ESCAPES:
            text = text.replace(escaped, plain)
        name, bar, _ = text.partition("|")
        if bar:
            classes[id_] = name + "basin" if "basin" in id_ else name
    left = Counter(classes.values())
    names: dict[str, str] = {}
    for id_ in ids:
        if id_ not in classes:
            text = id_
            for escaped, plain in _ESCAPES:
                text = text.replace(escaped, plain)
            names[id_] = text + " "
        else:
            class_ = classes[id_]
            names[id_] = f"{class_} {left[class_]}"
            left[class_] -= 1
    return names
