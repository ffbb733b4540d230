"""Answers that are chosen among some: what may follow, and what is forbidden."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from himac_agents.policies.base import TokenBatch


class Answer:
    """One answer while it is written: what is there, what is still to be fed, what may follow."""

    __slots__ = ("_options", "allowed", "left", "logps", "pending", "tokens")

    def __init__(self, choices: Sequence[tuple[int, ...]] | None) -> None:
        self.tokens: list[int] = []
        self.logps: list[float] = []
        self.pending: list[int] = []
        self.left = None if choices is None else list(choices)
        self.allowed: list[tuple[int, ...]] = []
        self._options: tuple[int, ...] | None = None

    def options(self) -> tuple[int, ...]:
        """The ids that may come next (only asked when choices constrain them)."""
        if self._options is None:
            place = len(self.tokens)
            self._options = tuple(sorted({c[place] for c in self.left or () if len(c) > place}))
        return self._options

    def write(self, token: int, logp: float) -> None:
        """Appends a token."""
        if self.left is not None:
            self.allowed.append(self.options())
            place = len(self.tokens)
            self.left = [c for c in self.left if len(c) > place and c[place] == token]
        self._options = None
        self.tokens.append(token)
        self.logps.append(logp)
        self.pending.append(token)

    def write_forced(self) -> None:
        """Appends what has no alternative: no forward pass is needed to know it."""
        while self.left is not None and len(options := self.options()) == 1:
            self.write(options[0], 0.0)


def constraints(batch: TokenBatch) -> list[tuple[int, tuple[int, ...]]]:
    """For the tokens under the mask, in row order: (which one, the ids it was drawn from)."""
    if not batch.allowed:
        return []
    number = np.cumsum(batch.mask.ravel() > 0).reshape(batch.mask.shape) - 1
    return [
        (int(number[row, position]), ids)
        for row, pairs in enumerate(batch.allowed)
        for position, ids in pairs
        if batch.mask[row, position] > 0
    ]
