"""What the conformance checks share: their error, and when two answers are the same."""

from __future__ import annotations

from typing import Any

import numpy as np


class ConformanceError(AssertionError):
    """An environment breaks the contract; the message says which rule and how."""


def need(condition: bool, message: str) -> None:
    """Raise a `ConformanceError` unless a condition holds."""
    if not condition:
        raise ConformanceError(message)


def same(left: Any, right: Any) -> bool:
    """Return whether two answers are equal, arrays included."""
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return bool(np.array_equal(left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)
