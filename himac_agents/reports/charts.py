"""Charts as SVG text, drawn by matplotlib: lines with bands, intervals, and shares over time.

Every function returns one `<svg>` element. Its texts are texts, its colours are CSS variables with
the light theme's as what they fall back to, and what a pointer is told stands in `<title>`s, so
that one element serves a page in both themes and needs no script. With `standalone=True` it carries
the dark theme, its title and a legend along, and can be saved as a file and shown by any browser or
Markdown viewer. The same data give the same text.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from himac_agents.reports.marks import Format, Mark, Row, Series, told, write
from himac_agents.reports.svg import GRID, INK, PALETTE, PAPER, SOFT, clean, tidied, variables
from himac_envs.errors import explained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Ends = tuple[float | None, float | None]

#: How matplotlib draws here, whatever the machine's own settings are.
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "himac", "text.parse_math": False,
    "text.usetex": False, "font.family": "DejaVu Sans", "font.size": 12, "text.color": INK,
    "axes.autolimit_mode": "round_numbers", "axes.xmargin": 0, "axes.ymargin": 0,
    "axes.facecolor": "none", "axes.edgecolor": SOFT, "axes.linewidth": 1,
    "axes.spines.left": False, "axes.spines.right": False, "axes.spines.top": False,
    "axes.labelcolor": SOFT, "axes.labelsize": 12, "axes.axisbelow": True,
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelsize": 12, "ytick.labelsize": 12,
    "xtick.major.size": 0, "ytick.major.size": 0, "grid.color": GRID, "grid.linewidth": 1,
    "legend.frameon": False, "legend.labelcolor": SOFT, "legend.fontsize": 12,
    "lines.solid_joinstyle": "round", "lines.solid_capstyle": "round", "figure.facecolor": PAPER,
}  # fmt: skip
#: More points than this on one line are thinned out: nobody sees them.
MAX_POINTS = 400


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    marks: Sequence[Mark] = (),
    x_label: str = "",
    y_label: str = "",
    x_range: Ends = (None, None),
    y_range: Ends = (None, None),
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
        x_range: Where the horizontal axis begins and ends at the latest; None is found from the
            data, and so is what lies beyond.
        y_range: The same of the vertical axis.
        y_format: How its numbers are written.
        size: Width and height in pixels.
        standalone: Carry colours, title and legend along.

    Returns:
        An `<svg>` element. With nothing to draw it says so.

    Raises:
        ValueError: The lengths within a series differ.
        MissingDependencyError: matplotlib is not installed.
    """
    for one in series:
        _check(one)
    with _chart(size, title, standalone, "y") as chart:
        axes = chart.axes
        for one in series:
            chart.line(one)
        for mark in marks:
            chart.mark(mark, mark.x, y_format)
        chart.limit("x", x_range, "count", size[0] // 70)
        chart.limit("y", y_range, y_format, size[1] // 44)
        axes.set_ylabel(clean(y_label))
        beside = (32 if y_label else 12) + _wide(write(v, y_format) for v in axes.get_yticks())
        chart.place(x_label, beside)
        return chart.svg(series, y_format)


def interval_chart(
    rows: Sequence[Row],
    *,
    title: str,
    x_label: str = "",
    x_range: Ends = (0.0, 1.0),
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
        x_range: Where the axis begins and ends at the latest.
        x_format: How its numbers are written.
        width: In pixels; the height follows from the rows.
        row_height: In pixels.
        standalone: Carry colours and title along.

    Returns:
        An `<svg>` element. With nothing to draw it says so.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    height = row_height * max(1, len(rows)) + (82 if standalone else 58)
    with _chart((width, height), title, standalone, "x") as chart:
        axes = chart.axes
        names, values = {}, [""]
        for number, row in enumerate(rows):
            if row.heading:
                chart.over(number, _short(row.label, width - 8))
                continue
            names[number] = _short(row.label, 0.45 * width)
            drawn = [point for point in row.points if math.isfinite(point.y)]
            for place, point in enumerate(drawn):
                apart = 7 * (place - (len(drawn) - 1) / 2) / row_height
                chart.mark(point, number + apart, x_format, across=True)
            values.append(" / ".join(write(point.y, x_format) for point in drawn))
            beside = axes.get_yaxis_transform()
            axes.text(1.02, number, values[-1], transform=beside, va="center")
        chart.limit("x", x_range, x_format, width // 110)
        axes.set_yticks(list(names), list(names.values()), color=INK)
        axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
        chart.place(x_label, 16 + _wide(names.values()), 22 + _wide(values))
        return chart.svg()


def share_chart(
    x: Sequence[float],
    parts: Sequence[tuple[str, Sequence[float | None], int]],
    *,
    title: str,
    x_label: str = "",
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
        size: Width and height in pixels.
        standalone: Carry colours, title and legend along.

    Returns:
        An `<svg>` element. With nothing to draw it says so.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    at = _numbers(x)
    table = np.nan_to_num(np.array([_numbers(values) for _, values, _ in parts]))
    kept = np.isfinite(at) & (table.sum(axis=0) > 0)
    at, table = at[kept], table[:, kept]
    with _chart(size, title, standalone) as chart:
        if not len(at):
            return chart.svg()
        table = table / table.sum(axis=0)
        shown = [
            Series(name, at.tolist(), row.tolist(), colour=colour)
            for (name, _, colour), row in zip(parts, table, strict=True)
        ]
        if len(at) == 1:  # a lone point is drawn as a column as wide as the chart
            at, table = np.array([at[0], at[0] + 1]), np.repeat(table, 2, axis=1)
        colours = [_colour(one.colour) for one in shown]
        for area, one in zip(
            chart.axes.stackplot(at, table, colors=colours, alpha=0.85), shown, strict=True
        ):
            area.set(edgecolor=PAPER, gid=chart.named(one.colour))
            chart.keys.append(area)
        chart.limit("x", (None, None), "count", size[0] // 70)
        chart.limit("y", (0.0, 1.0), "percent", size[1] // 44)
        chart.place(x_label, 12 + _wide(["100%"]))
        return chart.svg(shown, "percent")


@contextmanager
def _chart(
    size: tuple[int, int], title: str, standalone: bool, grid: Literal["x", "y", ""] = ""
) -> Iterator[_Chart]:
    """A chart in the making, under our style; matplotlib's settings are as before afterwards."""
    try:
        import matplotlib
    except ImportError as error:
        raise explained(error, "a chart") from error
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The reader's fonts draw the texts; that matplotlib's own lacks a letter is of no account.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        chart = _Chart(size, title, standalone, grid)
        try:
            yield chart
        finally:
            chart.clear()


@lru_cache(maxsize=8)
def _axes(size: tuple[int, int], standalone: bool, grid: Literal["x", "y", ""]) -> Axes:
    """Empty axes. Making them takes as long as drawing: charts of one kind take turns on them."""
    from matplotlib.figure import Figure

    # 72 dots an inch: a point is a pixel.
    figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72)
    figure.patch.set_visible(standalone)
    axes = figure.add_subplot()
    if grid:
        axes.grid(axis=grid)
    return axes


class _Chart:
    """matplotlib's axes, and what a pointer is told of what is drawn on them."""

    def __init__(
        self, size: tuple[int, int], title: str, standalone: bool, grid: Literal["x", "y", ""]
    ) -> None:
        self.width, self.height = size
        self.title, self.standalone = title, standalone
        self.axes = _axes(size, standalone, grid)
        self.figure: Any = self.axes.figure
        self.titles: list[str] = []
        #: What a legend shows of each series.
        self.keys: list[Any] = []

    def clear(self) -> None:
        """Takes away what was drawn."""
        drawn = (self.axes.lines, self.axes.collections, self.axes.texts)
        for artist in [
            a for some in (*drawn, self.figure.texts, self.figure.legends) for a in some
        ]:
            artist.remove()
        self.axes.relim()
        self.axes.set_visible(True)

    def named(self, colour: int, title: str = "") -> str:
        """The id of what belongs to one series, by which `svg` finds it again."""
        self.titles.append(title)
        return f"hc{colour % len(PALETTE)}.{len(self.titles) - 1}"

    def line(self, one: Series) -> None:
        """Adds a line: band, faint seeds, then the line itself."""
        name, most = self.named(one.colour), max(2, min(MAX_POINTS, self.width // 2))
        how: dict[str, Any] = {"color": _colour(one.colour), "gid": name}
        if one.low:
            x, low, high = (_thinned(values, most) for values in (one.x, one.low, one.high))
            self.axes.fill_between(x, low, high, alpha=0.16, lw=0, **how)
        for xs, ys in one.thin:
            thin = _thinned(ys, most)
            self.axes.plot(_thinned(xs, most), thin, lw=1, alpha=0.32, **how, **_lone(thin))
        y = _thinned(one.y, most)
        self.keys += self.axes.plot(_thinned(one.x, most), y, lw=2.2, **how, **_lone(y))

    def mark(self, mark: Mark, at: float, form: Format, *, across: bool = False) -> None:
        """Adds a point with its interval, upright at `at` or across it."""
        if not (math.isfinite(at) and math.isfinite(mark.y)):
            return
        colour, name = _colour(mark.colour), self.named(mark.colour, told(mark, form))

        def draw(values: Sequence[float], **how: Any) -> None:
            ends = (values, [at] * len(values)) if across else ([at] * len(values), values)
            self.axes.plot(*ends, gid=name, color=colour, **how)

        if mark.low is not None and mark.high is not None:
            draw([mark.low, mark.high], lw=1.6, marker="|" if across else "_", ms=7, mew=1.6)
        inside = {"mfc": PAPER, "mew": 2.2} if mark.hollow else {"mec": PAPER, "mew": 1.5}
        if mark.parts:
            draw(mark.parts, ls="", marker="o", ms=5, mec=PAPER, mew=0.8, alpha=0.75)
        draw([mark.y], ls="", marker="o", ms=9, **inside)

    def over(self, row: int, text: str) -> None:
        """Adds a heading over the whole width."""
        from matplotlib.transforms import blended_transform_factory

        where = blended_transform_factory(self.figure.transFigure, self.axes.transData)
        self.axes.text(0.01, row, text, transform=where, va="center", weight="bold")

    def place(self, label: str, left: float, right: float = 14) -> None:
        """Names the horizontal axis, and gives the axes what is left beside so many pixels."""
        top = 12 + (24 if self.standalone else 0) + (20 if self.standalone and self.keys else 0)
        bottom = 42 if label else 26
        self.figure.subplots_adjust(
            left=left / self.width,
            right=1 - right / self.width,
            top=1 - top / self.height,
            bottom=bottom / self.height,
        )
        # Below the middle of the axes, unless it would then be cut.
        half = _wide([label]) / 2 + 8
        middle = min(max((left + self.width - right) / 2, half), max(half, self.width - half))
        self.figure.text(
            middle / self.width, 7 / self.height, clean(label), color=SOFT, ha="center"
        )

    def limit(self, which: Literal["x", "y"], ends: Ends, form: Format, most: int) -> None:
        """Sets an axis's ends, and how its at most so many numbers are written."""
        from matplotlib.ticker import MaxNLocator

        level, box = which == "x", self.axes.dataLim
        axis = self.axes.xaxis if level else self.axes.yaxis
        low, high = box.intervalx if level else box.intervaly
        if not (math.isfinite(low) and math.isfinite(high)):
            return
        axis.set_major_locator(MaxNLocator(max(2, most), steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(lambda value, _: write(value, form))
        given = [low if ends[0] is None else min(low, ends[0]),
                 high if ends[1] is None else max(high, ends[1])]  # fmt: skip
        if given[0] == given[1]:  # room around a lone value
            given[1] += abs(given[1]) * 0.5 or 1.0
        if level:
            # A little air, so that what stands at the ends is not cut in half.
            air = 0.012 * (given[1] - given[0])
            self.axes.set_xlim(given[0] - air, given[1] + air)
        else:
            self.axes.set_ylim(*axis.get_major_locator().view_limits(*given))

    def svg(self, series: Sequence[Series] = (), form: Format = "number") -> str:
        """The finished element; with strips over the width that tell what the series are there."""
        if not np.isfinite(self.axes.dataLim.get_points()).all():
            self.axes.set_visible(False)
            self.figure.text(0.5, 0.5, "no data", color=SOFT, ha="center", va="center")
            series = ()
        if self.standalone:
            at = (14 / self.width, 1 - 8 / self.height)
            self.figure.text(*at, clean(self.title), va="top", size=14, weight="bold")
            if series:
                names = [clean(one.label) for one in series]
                where = {
                    "loc": "upper left",
                    "bbox_to_anchor": (8 / self.width, 1 - 24 / self.height),
                }
                self.figure.legend(self.keys, names, ncols=len(names), borderpad=0, **where)
        file = io.StringIO()
        plain = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        self.figure.savefig(file, format="svg", metadata=plain)
        text = file.getvalue()
        body = tidied(text[text.index('<g id="figure_1">') : text.rindex("</svg>")], self.titles)
        title, space, carried = escape(clean(self.title)), "", ""
        if self.standalone:
            space = ' xmlns="http://www.w3.org/2000/svg" font-family="system-ui,sans-serif"'
            dark = f".hc{{{variables(dark=True)}}}"
            carried = f"<style>@media(prefers-color-scheme:dark){{{dark}}}</style>"
        return (
            f'<svg class="hc"{space} viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{title}"><title>{title}</title>{carried}'
            f'{"".join(self._strips(series, form))}<g pointer-events="none">{body}</g></svg>'
        )

    def _strips(self, series: Sequence[Series], form: Format) -> Iterator[str]:
        """Upright strips, each with what every series is at its place."""
        known = []
        for one in series:
            x, y = _numbers(one.x), _numbers(one.y)
            if (there := np.flatnonzero(np.isfinite(x) & np.isfinite(y))).size:
                known.append((one, x[there], there))
        if not known:
            return
        places = np.unique(np.concatenate([x for _, x, _ in known]))
        places = places[_even(len(places), self.width // 24)]
        box = self.axes.bbox
        at = self.axes.transData.transform(np.stack([places, np.zeros_like(places)], 1))[:, 0]
        edges = [box.x0, *((at[1:] + at[:-1]) / 2), box.x1]
        for place, left, right in zip(places, edges[:-1], edges[1:], strict=True):
            lines = [write(place, "count")]
            for one, x, there in known:
                k = int(there[np.abs(x - place).argmin()])
                line = f"{one.label}: {write(one.y[k], form)}"
                if one.low:
                    line += f" ({write(one.low[k], form)} – {write(one.high[k], form)})"
                lines.append(clean(line))
            yield (
                f'<rect class="hc-at" fill="none" pointer-events="all" x="{left:.1f}" '
                f'y="{self.height - box.y1:.1f}" width="{right - left:.1f}" '
                f'height="{box.height:.1f}"><title>{escape(chr(10).join(lines))}</title></rect>'
            )


def _colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)][0]


def _numbers(values: Sequence[float | None] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Values as an array; what cannot be drawn is NaN."""
    found = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def _thinned(values: Sequence[float | None], most: int) -> NDArray[np.float64]:
    """At most so many of a line's values, evenly chosen, ends kept."""
    return _numbers(values)[_even(len(values), most)]


def _even(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the numbers below `count`, the first and the last among them."""
    return np.unique(np.linspace(0, max(0, count - 1), min(count, most)).round().astype(np.int64))


def _lone(y: NDArray[np.float64]) -> dict[str, Any]:
    """How a line's points are drawn that have no neighbour: as dots, or nobody would see them."""
    there = np.concatenate([[False], np.isfinite(y), [False]])
    lone = there[1:-1] & ~there[:-2] & ~there[2:]
    return {"marker": "o", "ms": 5, "markevery": np.flatnonzero(lone).tolist()} if any(lone) else {}


def _check(series: Series) -> None:
    lengths = {len(series.x), len(series.y)} | {len(e) for e in (series.low, series.high) if e}
    if len(lengths) != 1 or bool(series.low) != bool(series.high):
        raise ValueError(f"series {series.label!r}: x, y, low and high differ in length")


def _wide(texts: Iterable[str]) -> float:
    """About how many pixels the longest of some texts takes."""
    return 6.8 * max(map(len, texts), default=0)


def _short(text: str, width: float) -> str:
    """The text, cut to about so many pixels."""
    most = int(width / 6.8)
    return clean(text if len(text) <= most else text[: most - 1] + "…")
