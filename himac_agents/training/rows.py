"""A line of metrics, as loggers are told it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of metrics.

    Attributes:
        phase: "warm_start", a phase of learning, or "evaluation/NAME".
        step: The supervised step, or the iteration.
        values: The metrics, by name.
    """

    phase: str
    step: int
    values: Mapping[str, float]
