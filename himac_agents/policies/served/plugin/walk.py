"""Choices as a tree of token ids, walked along an answer that grows."""

from __future__ import annotations

from collections.abc import Sequence


class Walk:
    """Where an answer that is to be one of some choices has come to.

    Args:
        choices: The choices, as token ids.
        written: The answer's ids; the list itself is kept, and whoever writes appends to it.
    """

    __slots__ = ("_left", "_place", "_written")

    def __init__(self, choices: Sequence[tuple[int, ...]], written: Sequence[int]) -> None:
        self._left = list(choices)
        self._written = written
        self._place = 0

    def options(self) -> list[int]:
        """The ids that may come next, sorted; none behind a whole answer."""
        while self._place < len(self._written):
            place, token = self._place, self._written[self._place]
            self._left = [c for c in self._left if len(c) > place and c[place] == token]
            self._place += 1
        place = self._place
        return sorted({choice[place] for choice in self._left if len(choice) > place})
