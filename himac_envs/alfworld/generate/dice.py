"""Random draws that are the same on every machine and under every version of NumPy.

NumPy promises a stable stream for ``PCG64`` and ``SeedSequence``, but not for the methods of
``Generator``. So the raw 64-bit words are taken from the former, and the few kinds of draw that
worlds need are written here, on Python integers, which is also faster for single draws.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from numpy.random import PCG64, SeedSequence

T = TypeVar("T")
_BLOCK = 256


class Dice:
    """A stream of draws, fixed by a sequence of non-negative integers.

    Args:
        *seeds: The integers, e.g. a stream's number and a world's number.
    """

    def __init__(self, *seeds: int) -> None:
        self._bits = PCG64(SeedSequence(seeds))
        self._words: list[int] = []

    def below(self, n: int) -> int:
        """Return an integer from 0 to ``n - 1``, each equally likely (up to n / 2**64)."""
        if not self._words:
            self._words = self._bits.random_raw(_BLOCK).tolist()
        return (self._words.pop() * n) >> 64

    def between(self, low: int, high: int) -> int:
        """Return an integer from ``low`` to ``high``, both included."""
        return low + self.below(high - low + 1)

    def percent(self, chance: float) -> bool:
        """Return True in ``chance`` of 100 cases."""
        return self.below(10_000) < chance * 100

    def choice(self, items: Sequence[T]) -> T:
        """Return one of ``items``, each equally likely."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return ``items`` in random order (Fisher-Yates)."""
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = self.below(i + 1)
            out[i], out[j] = out[j], out[i]
        return out


class Shares(Generic[T]):
    """Values with integer weights, ready to be drawn from.

    Args:
        pairs: The values with their weights; weights of 0 are left out.
    """

    __slots__ = ("_sums", "values", "weights")

    def __init__(self, pairs: Sequence[tuple[T, int]]) -> None:
        kept = [(value, weight) for value, weight in pairs if weight > 0]
        self.values: tuple[T, ...] = tuple(value for value, _ in kept)
        self.weights: tuple[int, ...] = tuple(weight for _, weight in kept)
        self._sums = list(accumulate(self.weights))

    def __len__(self) -> int:
        return len(self.values)

    def __bool__(self) -> bool:
        return bool(self.values)

    def pairs(self) -> Iterator[tuple[T, int]]:
        """Return the values with their weights."""
        return zip(self.values, self.weights, strict=True)

    def draw(self, dice: Dice) -> T:
        """Return one value, by weight.

        Raises:
            IndexError: There is nothing to draw from.
        """
        if not self.values:
            raise IndexError("no values to draw from")
        return self.values[bisect_right(self._sums, dice.below(self._sums[-1]))]
