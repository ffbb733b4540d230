"""Where things go on a chart: round tick values, number formats, and linear scales."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

#: How the numbers of an axis are written: "percent" shows 0.25 as 25%, "count" 12000 as 12k.
Format = Literal["number", "percent", "count"]

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Scale:
    """A linear map from a range of values to a range of pixels.

    Attributes:
        low: The value at pixel `start`.
        high: The value at pixel `stop`; not equal to `low`.
        start: First pixel.
        stop: Last pixel.
    """

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)


def finite(values: Iterable[float | None]) -> list[float]:
    """The values that can be drawn: neither None nor NaN nor infinite."""
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def bounds(
    values: Iterable[float | None], fixed: tuple[float | None, float | None] = (None, None)
) -> tuple[float, float]:
    """The lowest and the highest value to be shown; never an empty range.

    Args:
        values: What is drawn; what is not finite is passed over.
        fixed: Ends that are given rather than found.
    """
    known = finite(values)
    low = fixed[0] if fixed[0] is not None else min(known, default=0.0)
    high = fixed[1] if fixed[1] is not None else max(known, default=low + 1.0)
    if high <= low:
        # One value only: room around it, on the side that is free.
        room = abs(low) * 0.5 or 1.0
        if fixed[1] is not None and fixed[0] is None:
            low = high - room
        else:
            high = low + room
    return low, high


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values (1, 2, 2.5 or 5 times a power of ten) within [low, high], about `count`."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    raw = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def widen(low: float, high: float, fixed: Sequence[float | None] = (None, None)) -> list[float]:
    """A range opened to the next round values, except at ends that are given."""
    marks = ticks(low, high)
    step = marks[1] - marks[0] if len(marks) > 1 else (high - low)
    ends = [math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step]
    return [end if given is None else given for end, given in zip(ends, fixed, strict=True)]


def write(value: float | None, form: Format = "number") -> str:
    """A number as a reader wants it: 0.0123, 12.5k, 47.2%; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if form == "percent":
        return f"{100 * value:.1f}".removesuffix(".0") + "%"
    size = abs(value)
    if form == "count" or size >= 10_000:
        for factor, prefix in _PREFIXES:
            if size >= factor:
                return f"{value / factor:.3g}{prefix}"
    if size >= 1000:
        return f"{value:,.0f}"
    if size != 0 and size < 1e-3:
        return f"{value:.1e}"
    return f"{value:.3g}"
