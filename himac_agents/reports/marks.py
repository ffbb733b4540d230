"""What charts show, as values: lines, measured points, rows, and how their numbers are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: How numbers are written: "percent" shows 0.25 as 25%, "count" 12000 as 12k.
Format = Literal["number", "percent", "count"]

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Series:
    """One line, with an optional band around it.

    Attributes:
        label: Its name.
        x: Where.
        y: What; None and NaN leave a gap.
        low: The band's lower edge, one a point; empty for no band.
        high: Its upper edge.
        colour: Index into the palette.
        thin: The lines that the mean is made of, (x, y) each, drawn faintly behind it.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    colour: int = 0
    thin: Sequence[tuple[Sequence[float], Sequence[float | None]]] = ()


@dataclass(frozen=True)
class Mark:
    """One measured point with its interval.

    Attributes:
        label: What it is.
        x: Where.
        y: The value.
        low: Lower end of its interval; None for no interval.
        high: Upper end.
        colour: Index into the palette.
        hollow: Drawn as a ring rather than a disc.
        parts: The values of which it is the mean (the seeds'), drawn as small dots.
    """

    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    colour: int = 0
    hollow: bool = False
    parts: Sequence[float] = ()


@dataclass(frozen=True)
class Row:
    """One line of an interval chart.

    Attributes:
        label: What was measured.
        points: What was found: marks, whose `x` is not used.
        heading: A row without points that names those below it.
    """

    label: str
    points: Sequence[Mark] = ()
    heading: bool = False


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


def told(mark: Mark, form: Format) -> str:
    """A mark in words: its name, its value, its interval, and the seeds it is the mean of."""
    text = f"{mark.label}: {write(mark.y, form)}"
    if mark.low is not None and mark.high is not None:
        text += f" [{write(mark.low, form)}, {write(mark.high, form)}]"
    if mark.parts:
        text += f"; seeds {', '.join(write(part, form) for part in mark.parts)}"
    return text
