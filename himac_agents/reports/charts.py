"""Charts as SVG text: lines with bands, intervals, and shares over time. Nothing but strings.

Every function returns one `<svg>` element. Inside a page its colours are the page's CSS variables,
so that it follows the page's theme; with `standalone=True` it carries its own, light and dark by
the reader's preference, and can be saved as a file and shown by any browser or Markdown viewer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from himac_agents.reports import scales
from himac_agents.reports.drawing import Frame, Mark, Row, Series, clip, stroke
from himac_agents.reports.scales import Format, Scale, write
from himac_agents.reports.theme import PALETTE, text_width

__all__ = ["Mark", "Row", "Series", "interval_chart", "line_chart", "share_chart", "thinned"]

#: More points than this on one line are thinned out: nobody sees them.
MAX_POINTS = 400


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    marks: Sequence[Mark] = (),
    x_label: str = "",
    y_label: str = "",
    x_range: tuple[float | None, float | None] = (None, None),
    y_range: tuple[float | None, float | None] = (None, None),
    x_format: Format = "count",
    y_format: Format = "number",
    size: tuple[int, int] = (640, 320),
    standalone: bool = False,
) -> str:
    """Lines with bands over a common axis.

    Args:
        series: The lines.
        title: What the chart shows; read out by screen readers, drawn when standalone.
        marks: Points with intervals, on top.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        x_range: Fixed ends of the horizontal axis; None is found from the data.
        y_range: Fixed ends of the vertical axis.
        x_format: How its numbers are written.
        y_format: How its numbers are written.
        size: Width and height in pixels.
        standalone: Carry colours, title and legend along.

    Returns:
        An `<svg>` element. With nothing to draw it says so.

    Raises:
        ValueError: The lengths within a series differ.
    """
    for one in series:
        _check(one)
    # A point every other pixel: more is not seen.
    series = [thinned(one, max(2, min(MAX_POINTS, size[0] // 2))) for one in series]
    xs = [x for s in series for x in s.x] + [m.x for m in marks]
    xs += [x for s in series for line in s.thin for x in line[0]]
    ys = [y for s in series for ys in (s.y, s.low, s.high) for y in ys]
    ys += [y for s in series for line in s.thin for y in line[1]]
    ys += [v for m in marks for v in (m.y, m.low, m.high)]
    names = list(dict.fromkeys((s.label, s.colour, s.dashed) for s in series))
    frame = Frame(size, title, standalone, [] if not standalone else names)
    if not scales.finite(xs) or not scales.finite(ys):
        return frame.empty()
    x_low, x_high = scales.bounds(xs, x_range)
    y_low, y_high = scales.widen(*scales.bounds(ys, y_range), y_range)
    frame.axes((x_low, x_high), (y_low, y_high), x_format, y_format, x_label, y_label)
    for one in series:
        frame.series(one)
    for mark in marks:
        frame.mark(mark)
    return frame.svg(_hits(frame, series, marks, x_format, y_format))


def interval_chart(
    rows: Sequence[Row],
    *,
    title: str,
    x_label: str = "",
    x_range: tuple[float | None, float | None] = (0.0, 1.0),
    x_format: Format = "percent",
    width: int = 640,
    row_height: int = 30,
    standalone: bool = False,
) -> str:
    """Rows of points with intervals along one axis: who got how far, how surely.

    Args:
        rows: From top to bottom.
        title: What the chart shows.
        x_label: Name of the axis.
        x_range: Fixed ends of the axis; None is found from the data.
        x_format: How its numbers are written.
        width: In pixels; the height follows from the rows.
        row_height: In pixels.
        standalone: Carry colours and title along.

    Returns:
        An `<svg>` element. With nothing to draw it says so.
    """
    top = 40 if standalone else 8
    height = top + row_height * max(1, len(rows)) + 44
    frame = Frame((width, height), title, standalone, [])
    points = [p for row in rows for p in row.points]
    values = scales.finite(v for p in points for v in (p.y, p.low, p.high))
    if not values:
        return frame.empty()
    space = 24 + max(
        text_width(" / ".join(write(p.y, x_format) for p in row.points)) for row in rows
    )
    left = min(0.45 * width, 24 + max(text_width(row.label) for row in rows))
    low, high = scales.bounds(values, x_range)
    low, high = scales.widen(low, high, x_range)
    scale = Scale(low, high, left, width - space)
    bottom = top + row_height * len(rows)
    for value in scales.ticks(low, high):
        at = scale(value)
        frame.parts.append(stroke(at, top, at, bottom, "grid"))
        frame.text(at, bottom + 16, write(value, x_format), anchor="middle")
    frame.text((left + width - space) / 2, bottom + 36, x_label, anchor="middle")
    for number, row in enumerate(rows):
        y = top + row_height * (number + 0.5)
        if row.heading:
            frame.text(4, y + 4, clip(row.label, width), "ink", bold=True)
            continue
        frame.text(left - 12, y + 4, clip(row.label, left - 16), "ink", anchor="end")
        drawn = [p for p in row.points if scales.finite([p.y])]
        for place, point in enumerate(drawn):
            frame.interval(point, scale, y + 7 * (place - (len(drawn) - 1) / 2), x_format)
        if drawn:
            said = " / ".join(write(p.y, x_format) for p in drawn)
            frame.text(width - 4, y + 4, said, "ink", anchor="end")
    return frame.svg()


def share_chart(
    x: Sequence[float],
    parts: Sequence[tuple[str, Sequence[float | None], int]],
    *,
    title: str,
    x_label: str = "",
    x_format: Format = "count",
    size: tuple[int, int] = (640, 320),
    standalone: bool = False,
) -> str:
    """Shares of a whole over time, stacked: what the parts of 100% were.

    Args:
        x: Where.
        parts: From bottom to top: name, one value a point, colour. Each point's values are
            divided by their sum; a point whose values sum to 0 is left out.
        title: What the chart shows.
        x_label: Name of the horizontal axis.
        x_format: How its numbers are written.
        size: Width and height in pixels.
        standalone: Carry colours, title and legend along.

    Returns:
        An `<svg>` element. With nothing to draw it says so.
    """
    columns = [[v if v is not None and math.isfinite(v) else 0.0 for v in p[1]] for p in parts]
    kept = [i for i in range(len(x)) if math.isfinite(x[i]) and sum(c[i] for c in columns) > 0]
    named = [(name, colour, False) for name, _, colour in parts]
    frame = Frame(size, title, standalone, named if standalone else [])
    if not kept:
        return frame.empty()
    at = [float(x[i]) for i in kept]
    low, high = scales.bounds(at)
    if len(at) == 1:  # a lone point is drawn as a column as wide as the chart
        at, kept = [low, high], kept * 2
    frame.axes((low, high), (0.0, 1.0), x_format, "percent", x_label, "")
    floor = [0.0] * len(kept)
    shown: list[Series] = []
    for (name, _, colour), column in zip(parts, columns, strict=True):
        share = [column[i] / sum(c[i] for c in columns) for i in kept]
        roof = [a + b for a, b in zip(floor, share, strict=True)]
        frame.area(at, floor, roof, colour, "stack")
        shown.append(Series(name, at, share, colour=colour))
        floor = roof
    return frame.svg(_hits(frame, shown, (), x_format, "percent"))


def thinned(series: Series, most: int = MAX_POINTS) -> Series:
    """A series of at most `most` points, evenly chosen, ends kept; its thin lines likewise."""

    def some(values: Sequence[Any]) -> Sequence[Any]:
        return [values[i] for i in _even(len(values), most)]

    return replace(
        series,
        x=some(series.x),
        y=some(series.y),
        low=some(series.low),
        high=some(series.high),
        thin=[(some(x), some(y)) for x, y in series.thin],
    )


def _even(count: int, most: int) -> Sequence[int]:
    """At most `most` of the numbers below `count`, the first and the last among them."""
    if count <= most:
        return range(count)
    return sorted({round(k * (count - 1) / (most - 1)) for k in range(most)})


def _check(series: Series) -> None:
    lengths = {len(series.x), len(series.y)} | {len(e) for e in (series.low, series.high) if e}
    if len(lengths) != 1 or bool(series.low) != bool(series.high):
        raise ValueError(f"series {series.label!r}: x, y, low and high differ in length")


def _hits(
    frame: Frame,
    series: Sequence[Series],
    marks: Sequence[Mark],
    x_format: Format,
    y_format: Format,
) -> str:
    """What a pointer can read off the chart, as JSON: pixels and the texts that belong to them."""
    found = []
    for one in series:
        points = []
        for i, (x, y) in enumerate(zip(one.x, one.y, strict=True)):
            if y is None or not math.isfinite(x) or not math.isfinite(y):
                continue
            text = write(y, y_format)
            if one.low and scales.finite([one.low[i], one.high[i]]):
                text += f" ({write(one.low[i], y_format)} – {write(one.high[i], y_format)})"
            points.append([round(frame.x(x), 1), round(frame.y(y), 1), write(x, x_format), text])
        if points:
            found.append({"name": one.label, "colour": one.colour % len(PALETTE), "at": points})
    for mark in marks:
        text = write(mark.y, y_format)
        if mark.low is not None and mark.high is not None:
            text += f" [{write(mark.low, y_format)}, {write(mark.high, y_format)}]"
        at = [round(frame.x(mark.x), 1), round(frame.y(mark.y), 1), write(mark.x, x_format), text]
        found.append({"name": mark.label, "colour": mark.colour % len(PALETTE), "at": [at]})
    box = [frame.box[0], frame.box[1], frame.box[2], frame.box[3]]
    return json.dumps({"box": [round(v, 1) for v in box], "series": found}, ensure_ascii=False)
