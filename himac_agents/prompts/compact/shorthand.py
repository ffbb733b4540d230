"""A shopping list in shorthand: what a small planner takes over from the instruction, by number.

WebShop's sub-goals repeat most of the instruction: a model of 0.2M parameters would spend all its
training on copying words. So its planner reads the instruction in numbered pieces,

    1 eco friendly 2 space saving storage baskets 3 color ivory 4 size pack of 3 under $60.00

and writes its blueprint with the numbers:

    - search 1 2 3 4
    - open 1 2 3 4 under
    - choose 3
    - choose 4
    - buy

which stands for "search for eco friendly space saving storage baskets ivory pack of 3", "open a
product with eco friendly, space saving storage baskets, ivory, pack of 3 under $60.00", "choose
color ivory", "choose size pack of 3", "buy the product". What goes into the query, what a product
is judged by, what is chosen and in which order remain the planner's decisions. The executor reads
the sub-goals in full.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

_LIMIT = re.compile(r",? and price lower than (\d+\.\d+) dollars\s*$")
_OPTIONS = re.compile(r" with (?=[^,:]+: )")
_LINE = re.compile(r"(search|open|choose)((?: \d{1,3})*)( under)?")
_SEARCH = re.compile(r"search(?: for)? (.+)", re.IGNORECASE)
_OPEN = re.compile(r"open a product(?: with (.+?))?( under \$\d+(?:\.\d+)?)?", re.IGNORECASE)
_CHOOSE = re.compile(r"choose (.+)", re.IGNORECASE)
_BUY = "buy the product"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an instruction.

    Attributes:
        text: As it is shown: "eco friendly", "color ivory".
        value: What is searched for: "eco friendly", "ivory".
    """

    text: str
    value: str


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction in pieces.

    Attributes:
        pieces: Attributes (the last one with the kind of product), then options.
        limit: The price limit as it is written, "" without one.
    """

    pieces: tuple[Piece, ...]
    limit: str

    def plain(self) -> str:
        """All of it in a few words."""
        return ", ".join(p.text for p in self.pieces) + self._under()

    def numbered(self) -> str:
        """The same with the pieces' numbers."""
        pieces = (f"{n} {piece.text}" for n, piece in enumerate(self.pieces, start=1))
        return " ".join(pieces) + self._under()

    def _under(self) -> str:
        return f" under ${self.limit}" if self.limit else ""

    # ---- writing ---------------------------------------------------------------------------
    def shorten(self, subgoal: str) -> str:
        """A sub-goal in shorthand; as it stands where it has none."""
        if subgoal == _BUY:
            return "buy"
        if match := _CHOOSE.fullmatch(subgoal):
            chosen = [n for n, p in enumerate(self.pieces, start=1) if p.text == match[1]]
            return f"choose {chosen[0]}" if chosen else subgoal
        if match := _OPEN.fullmatch(subgoal):
            named = [part.strip() for part in (match[1] or "").split(",")]
            kept = [n for n, p in self._each() if _leads(p, named)]
            under = ["under"] if match[2] else []
            return " ".join(["open", *kept, *under])
        if match := _SEARCH.fullmatch(subgoal):
            words = set(match[1].split())
            asked = [n for n, p in self._each() if set(p.split()) <= words]
            # An expert may search for words that the instruction does not hold: all of it, then.
            return " ".join(["search", *(asked or (n for n, _ in self._each()))])
        return subgoal

    def _each(self) -> Iterator[tuple[str, str]]:
        return ((str(n), piece.value) for n, piece in enumerate(self.pieces, start=1))

    # ---- reading ---------------------------------------------------------------------------
    def expand(self, line: str) -> str:
        """The sub-goal that a line of shorthand stands for; any other line as it stands."""
        if line == "buy":
            return _BUY
        match = _LINE.fullmatch(line)
        if match is None:
            return line
        numbers = [int(n) for n in match[2].split()]
        pieces = [self.pieces[n - 1] for n in numbers if 0 < n <= len(self.pieces)]
        if match[1] == "search":
            return " ".join(["search for", *(p.value for p in pieces)]) if pieces else line
        if match[1] == "choose":
            return " ".join(["choose", *(p.text for p in pieces[:1])])
        having = f" with {', '.join(p.value for p in pieces)}" if pieces else ""
        return f"open a product{having}{self._under() if match[3] else ''}"


def _leads(value: str, named: list[str]) -> bool:
    """Whether a piece begins with something that is named, or is it."""
    return any(part and f"{value} ".startswith(f"{part} ") for part in named)


@lru_cache(4096)
def instruction(goal: str) -> Instruction:
    """An instruction's pieces; one piece where it is not written as the generated ones are."""
    limit = _LIMIT.search(goal)
    text = goal[: limit.start()] if limit else goal
    kinds, *rest = _OPTIONS.split(text.removeprefix("Find me "), maxsplit=1)
    pieces = [Piece(part, part) for part in kinds.split(", ") if part]
    for option in rest[0].split(", and ") if rest else ():
        name, _, value = option.partition(": ")
        pieces.append(Piece(f"{name} {value}".strip(), value or name))
    return Instruction(tuple(pieces), limit[1] if limit else "")
