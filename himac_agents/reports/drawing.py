"""What charts are drawn with: lines, marks and rows as values, and an SVG in the making."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape as _escape

from himac_agents.reports import scales
from himac_agents.reports.scales import Format, Scale, write
from himac_agents.reports.theme import PALETTE, stylesheet, text_width


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
        dashed: Drawn dashed (a second kind of the same thing).
        thin: The lines that the mean is made of, (x, y) each, drawn faintly behind it.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    colour: int = 0
    dashed: bool = False
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


class Frame:
    """An SVG in the making: axes first, then what is drawn on them."""

    def __init__(
        self,
        size: tuple[int, int],
        title: str,
        standalone: bool,
        legend: Sequence[tuple[str, int, bool]],
    ) -> None:
        self.width, self.height = size
        self.title, self.standalone = title, standalone
        self.legend = [item for item in legend if item[0]]
        self.parts: list[str] = []
        self.box = (0.0, 0.0, 0.0, 0.0)
        self.x = Scale(0, 1, 0, 1)
        self.y = Scale(0, 1, 0, 1)

    def axes(
        self,
        x_ends: Sequence[float],
        y_ends: Sequence[float],
        x_format: Format,
        y_format: Format,
        x_label: str,
        y_label: str,
    ) -> None:
        """Grid, ticks and names; sets the scales."""
        marks = scales.ticks(y_ends[0], y_ends[1], max(2, self.height // 56))
        left = 14 + max((text_width(write(v, y_format), 11) for v in marks), default=20)
        left += 18 if y_label else 0
        top = (56 if self.legend else 36) if self.standalone else 10
        right, bottom = self.width - 14, self.height - (42 if x_label else 26)
        self.box = (left, top, right, bottom)
        # A little air, so that what stands at the ends is not cut in half by the axis.
        self.x = Scale(x_ends[0], x_ends[1], left + 6, right - 6)
        self.y = Scale(y_ends[0], y_ends[1], bottom, top)
        for value in marks:
            at = self.y(value)
            self.parts.append(stroke(left, at, right, at, "grid"))
            self.text(left - 7, at + 4, write(value, y_format), anchor="end")
        for value in scales.ticks(x_ends[0], x_ends[1], max(2, self.width // 85)):
            self.text(self.x(value), bottom + 17, write(value, x_format), anchor="middle")
        self.parts.append(stroke(left, bottom, right, bottom, "axis"))
        if x_label:
            self.text((left + right) / 2, bottom + 35, x_label, anchor="middle")
        if y_label:
            middle = (top + bottom) / 2
            self.parts.append(
                f'<text class="hc-soft" text-anchor="middle" transform="translate(12,'
                f'{middle:.1f}) rotate(-90)">{escape(y_label)}</text>'
            )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        kind: str = "soft",
        *,
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """Adds a text."""
        if text:
            weight = ' font-weight="600"' if bold else ""
            self.parts.append(
                f'<text class="hc-{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>'
                f"{escape(text)}</text>"
            )

    def series(self, one: Series) -> None:
        """Adds a line: faint seeds, band, then the line itself."""
        colour = one.colour % len(PALETTE)
        self.parts.append(f'<g class="hc-series" data-colour="{colour}">')
        if one.low:
            self.area(one.x, one.low, one.high, colour, "band")
        for xs, ys in one.thin:
            self._path(xs, ys, f"hc-thin hc-s{colour}")
        self._path(one.x, one.y, f"hc-line hc-s{colour}" + (" hc-dash" if one.dashed else ""))
        self.parts.append("</g>")

    def _path(self, xs: Sequence[float], ys: Sequence[float | None], kind: str) -> None:
        for run in runs(xs, ys):
            if len(run) == 1:
                self.parts.append(
                    f'<circle class="{kind} hc-dot" cx="{self.x(run[0][0]):.1f}" '
                    f'cy="{self.y(run[0][1]):.1f}" r="2.5"/>'
                )
            else:
                way = "L".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in run)
                self.parts.append(f'<path class="{kind}" d="M{way}"/>')

    def area(
        self,
        xs: Sequence[float],
        lows: Sequence[float | None],
        highs: Sequence[float | None],
        colour: int,
        kind: str,
    ) -> None:
        """Adds the region between two lines; gaps in either leave it open."""
        both = [h if low is not None else None for low, h in zip(lows, highs, strict=True)]
        upper = runs(xs, both)
        low_at = {x: low for x, low in zip(xs, lows, strict=True) if low is not None}
        for run in upper:
            run = [(x, h) for x, h in run if math.isfinite(low_at.get(x, math.nan))]
            if len(run) < 2:
                continue
            around = [*run, *((x, low_at[x]) for x, _ in reversed(run))]
            way = "L".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in around)
            self.parts.append(f'<path class="hc-{kind} hc-f{colour % len(PALETTE)}" d="M{way}Z"/>')

    def mark(self, mark: Mark) -> None:
        """Adds a point with its interval on the axes."""
        if not scales.finite([mark.x]) or not scales.finite([mark.y]):
            return
        x, colour = self.x(mark.x), mark.colour % len(PALETTE)
        self.parts.append(f'<g class="hc-series" data-colour="{colour}">')
        if mark.low is not None and mark.high is not None:
            low, high = self.y(mark.low), self.y(mark.high)
            self.parts.append(
                f'<path class="hc-whisker hc-s{colour}" d="M{x:.1f},{low:.1f}V{high:.1f}'
                f'M{x - 4:.1f},{low:.1f}h8M{x - 4:.1f},{high:.1f}h8"/>'
            )
        self.parts += [_dot(x, self.y(part), colour) for part in scales.finite(mark.parts)]
        self.parts.append(self._point(x, self.y(mark.y), mark))
        self.parts.append("</g>")

    def interval(self, mark: Mark, scale: Scale, y: float, form: Format) -> None:
        """Adds a point with its interval along a row."""
        colour, text = mark.colour % len(PALETTE), write(mark.y, form)
        self.parts.append(f'<g class="hc-series" data-colour="{colour}">')
        if mark.low is not None and mark.high is not None:
            low, high = scale(mark.low), scale(mark.high)
            text += f" [{write(mark.low, form)}, {write(mark.high, form)}]"
            self.parts.append(
                f'<path class="hc-whisker hc-s{colour}" d="M{low:.1f},{y:.1f}H{high:.1f}'
                f'M{low:.1f},{y - 3:.1f}v6M{high:.1f},{y - 3:.1f}v6"/>'
            )
        if seeds := scales.finite(mark.parts):
            text += f"; seeds {', '.join(write(part, form) for part in seeds)}"
            self.parts += [_dot(scale(part), y, colour) for part in seeds]
        self.parts.append(self._point(scale(mark.y), y, mark))
        self.parts.append(f"<title>{escape(f'{mark.label}: {text}')}</title></g>")

    @staticmethod
    def _point(x: float, y: float, mark: Mark) -> str:
        colour = mark.colour % len(PALETTE)
        kind = f"hc-ring hc-s{colour}" if mark.hollow else f"hc-disc hc-f{colour}"
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'

    def empty(self) -> str:
        """The chart of nothing."""
        self.parts = []
        self.text(self.width / 2, self.height / 2, "no data", anchor="middle")
        return self.svg()

    def svg(self, hits: str = "") -> str:
        """The finished element."""
        name = escape(self.title, quote=True)
        data = f' data-hits="{escape(hits, quote=True)}"' if hits else ""
        space = ' xmlns="http://www.w3.org/2000/svg"' if self.standalone else ""
        top = ""
        if self.standalone:
            top = f'<style>{stylesheet(standalone=True)}</style><rect class="hc-paper" '
            top += f'width="{self.width}" height="{self.height}"/>'
            top += f'<text class="hc-ink hc-title" x="14" y="22">{escape(self.title)}</text>'
            at = 14.0
            for label, colour, dashed in self.legend:
                kind = f"hc-line hc-s{colour % len(PALETTE)}" + (" hc-dash" if dashed else "")
                top += f'<path class="{kind}" d="M{at:.1f},40h18"/>'
                top += f'<text class="hc-soft" x="{at + 24:.1f}" y="44">{escape(label)}</text>'
                at += 44 + text_width(label)
        return (
            f'<svg class="hc"{space} viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{name}"{data}><title>{escape(self.title)}</title>{top}'
            f"{''.join(self.parts)}</svg>"
        )


def escape(text: str, quote: bool = False) -> str:
    """Text for XML: markup escaped, characters that XML forbids replaced."""
    return _escape("".join(c if _allowed(c) else "\ufffd" for c in text), quote=quote)


def _allowed(char: str) -> bool:
    code = ord(char)
    return code >= 0x20 and not 0xD800 <= code <= 0xDFFF and code not in (0xFFFE, 0xFFFF)


def runs(xs: Sequence[float], ys: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    """The stretches of points without a gap."""
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if y is None or not math.isfinite(x) or not math.isfinite(y):
            found.append([])
        else:
            found[-1].append((float(x), float(y)))
    return [run for run in found if run]


def clip(text: str, width: float) -> str:
    """The text, cut to fit."""
    if text_width(text) <= width:
        return text
    while text and text_width(text + "…") > width:
        text = text[:-1]
    return text + "…"


def stroke(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<path class="hc-{kind}" d="M{x1:.1f},{y1:.1f}L{x2:.1f},{y2:.1f}"/>'


def _dot(x: float, y: float, colour: int) -> str:
    return f'<circle class="hc-seed hc-f{colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>'
