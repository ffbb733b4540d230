"""Charts: well-formed, right where the numbers are, calm about what cannot be drawn."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from typing import Any

import matplotlib
import numpy as np
import pytest

from himac_agents.reports import charts
from himac_agents.reports.charts import MAX_POINTS, interval_chart, line_chart, share_chart
from himac_agents.reports.marks import Mark, Row, Series, write
from himac_agents.reports.svg import PALETTE, PAPER, variables

NAN = math.nan
NUMBER = r"-?\d+(?:\.\d+)?"


def _tree(svg: str) -> ET.Element:
    # A page's elements have no name space: it is HTML.
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg")
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for value in element.attrib.values():
            assert not re.search(r"\b(nan|inf)\b", value), value
    return root


def _drawn(root: ET.Element, colour: int) -> list[ET.Element]:
    groups = [g for g in root.iter("g") if g.get("data-colour") == str(colour)]
    return [e for group in groups for e in group.iter()]


def _lines(root: ET.Element, colour: int) -> list[list[tuple[float, float]]]:
    """The lines of a colour, each as points."""
    found = []
    for element in _drawn(root, colour):
        if element.tag == "path" and "id" not in element.attrib:
            numbers = [float(n) for n in re.findall(NUMBER, element.attrib["d"])]
            found.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return found


def _points(root: ET.Element, colour: int) -> list[tuple[float, float]]:
    uses = [e for e in _drawn(root, colour) if e.tag == "use" and e.get("x") and e.get("y")]
    return [(float(e.attrib["x"]), float(e.attrib["y"])) for e in uses]


def _ticks(root: ET.Element, *names: str) -> list[tuple[float, float]]:
    """Where some texts stand."""
    at = {e.text: (float(e.attrib["x"]), float(e.attrib["y"])) for e in root.iter("text")}
    return [at[name] for name in names]


def _told(root: ET.Element) -> list[str]:
    """What a pointer is told over the width of a chart, from left to right."""
    strips = [e for e in root.iter("rect") if e.get("class") == "hc-at"]
    return [strip.findtext("title", "") for strip in strips]


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        (0.4725, "percent", "47.2%"),
        (1.0, "percent", "100%"),
        (85_530, "count", "85.5k"),
        (1_250_000, "count", "1.25M"),
        (120, "count", "120"),
        (0.0123, "number", "0.0123"),
        (4e-6, "number", "4.0e-06"),
        (0.0, "number", "0"),
        (NAN, "number", "–"),
        (None, "percent", "–"),
    ],
)
def test_numbers_read_well(value: float | None, form: Any, expected: str) -> None:
    assert write(value, form) == expected


def test_a_line_lies_where_its_numbers_are() -> None:
    series = Series("a", [0, 60, 100], [0.0, 0.75, 1.0], [0.0, 0.5, 0.9], [0.1, 0.8, 1.0])
    mark = Mark("end", 100, 0.8, 0.6, 1.0, colour=1)
    svg = line_chart([series], title="t", marks=[mark], y_range=(0, 1), y_format="percent")
    root = _tree(svg)
    left, middle, right = _ticks(root, "0", "60", "100")
    floor, roof = (y for _, y in _ticks(root, "0%", "100%"))
    (line,) = [one for one in _lines(root, 0) if len(one) == 3]
    assert [x for x, _ in line] == pytest.approx([left[0], middle[0], right[0]], abs=0.3)
    # A text's baseline lies as far below every tick.
    height = floor - roof
    assert [y - line[2][1] for _, y in line] == pytest.approx([height, height / 4, 0], abs=0.3)
    (point,) = [p for p in _points(root, 1) if abs(p[1] - line[2][1] - height * 0.2) < 0.3]
    assert point[0] == pytest.approx(right[0], abs=0.3)
    whisker = _lines(root, 1)[0]
    assert [y for _, y in whisker] == pytest.approx(
        [line[2][1] + 0.4 * height, line[2][1]], abs=0.3
    )
    assert _told(root)[1:] == ["60\na: 75% (50% – 80%)", "100\na: 100% (90% – 100%)"]
    assert "end: 80% [60%, 100%]" in [e.text for e in root.iter("title")]


def test_gaps_stay_gaps_and_lone_points_are_seen() -> None:
    root = _tree(line_chart([Series("a", [0, 1, 2, 3], [1.0, NAN, 2.0, 3.0])], title="t"))
    (path,) = [e.attrib["d"] for e in _drawn(root, 0) if e.tag == "path" and "id" not in e.attrib]
    assert path.count("M") == 2 and path.count("L") == 1
    dot, *others = _points(root, 0)
    assert not others
    assert dot[0] == pytest.approx(_ticks(root, "0")[0][0], abs=0.3)
    assert len(_points(_tree(line_chart([Series("a", [7], [0.5])], title="t")), 0)) == 1
    assert not _points(_tree(line_chart([Series("a", [1, 2], [0.0, 0.0])], title="t")), 0)


def test_axes_take_what_lies_beyond_the_ends_that_are_asked_for() -> None:
    series = Series("a", [1, 2], [-0.5, 1.5])
    root = _tree(line_chart([series], title="t", y_range=(0, 1)))
    texts = [e.text for e in root.iter("text")]
    assert "-0.5" in texts and "1.5" in texts


@pytest.mark.parametrize(
    "draw",
    [
        lambda: line_chart([], title="t"),
        lambda: line_chart([Series("a", [], [])], title="t"),
        lambda: line_chart([Series("a", [1, 2], [NAN, None])], title="t", standalone=True),
        lambda: interval_chart([], title="t"),
        lambda: interval_chart([Row("a", [Mark("a", 0, NAN)])], title="t"),
        lambda: share_chart([1, 2], [("a", [0, NAN], 0)], title="t"),
    ],
)
def test_nothing_to_draw_is_said_and_leaves_nothing_behind(draw: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = _tree(draw())
        # The next chart of the kind is drawn on the same axes.
        after = _tree(line_chart([Series("a", [0, 1], [0.0, 1.0])], title="t"))
    texts = [e.text for e in root.iter("text")]
    assert "no data" in texts and len(texts) <= 2
    assert "no data" not in [e.text for e in after.iter("text")] and _lines(after, 0)


def test_broken_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="'a'"):
        line_chart([Series("a", [1, 2], [1.0])], title="t")
    with pytest.raises(ValueError, match="differ"):
        line_chart([Series("a", [1], [1.0], [0.5])], title="t")


def test_intervals_stand_in_their_rows() -> None:
    rows = [
        Row("HiMAC", heading=True),
        Row("warm start", [Mark("warm", 0, 0.37, 0.33, 0.41, parts=(0.35, 0.39))]),
        Row("end", [Mark("T = 1", 0, 0.6, 0.5, 0.7, 1), Mark("greedy", 0, 0.7, 0.6, 0.8, 2, True)]),
    ]
    root = _tree(interval_chart(rows, title="t"))
    warm, end, greedy = (_points(root, colour)[-1] for colour in (0, 1, 2))
    none, half = (x for x, _ in _ticks(root, "0%", "50%"))
    for point, value in ((warm, 0.37), (end, 0.6), (greedy, 0.7)):
        assert point[0] == pytest.approx(none + 2 * value * (half - none), abs=0.4)
    assert warm[1] < end[1] < greedy[1] < end[1] + 10
    ends = [x for x, _ in _lines(root, 0)[0]]
    assert ends == pytest.approx([none + 2 * v * (half - none) for v in (0.33, 0.41)], abs=0.4)
    text = [e.text for e in root.iter() if e.text]
    assert "warm: 37% [33%, 41%]; seeds 35%, 39%" in text
    assert "HiMAC" in text and "60% / 70%" in text


def test_shares_sum_to_one() -> None:
    parts = [("done", [3.0, 1.0, 0.0], 0), ("truncated", [1.0, 1.0, 0.0], 1)]
    root = _tree(share_chart([0, 10, 20], parts, title="t"))
    # The third has no options.
    assert _told(root) == ["0\ndone: 75%\ntruncated: 25%", "10\ndone: 50%\ntruncated: 50%"]
    _tree(share_chart([5], [("done", [1.0], 0)], title="t"))


def test_text_is_escaped_and_xml_stays_well_formed() -> None:
    nasty = '<script>alert("1")</script>&\x00\x1b]]>\ud800 $x^2$ <g id="hc0.0"> d="1.2345" 木'
    for standalone in (False, True):
        svg = line_chart([Series(nasty, [0, 1], [0.0, 1.0])], title=nasty, x_label=nasty,
                         marks=[Mark(nasty, 0, 0.5)], standalone=standalone)  # fmt: skip
        assert "$x^2$" in "".join(_tree(svg).itertext())
        assert "<script" not in svg
        svg = interval_chart([Row(nasty, [Mark(nasty, 0, 0.5)])], title=nasty)
        _tree(svg)
        assert "<script" not in svg


def test_standalone_carries_colours_title_and_legend() -> None:
    series = [Series(name, [0, 1], [0.0, 1.0], colour=k) for k, name in enumerate(("HiMAC", "_b"))]
    svg = line_chart(series, title="Success", standalone=True)
    root = _tree(svg)
    assert "prefers-color-scheme:dark" in svg and 'xmlns="http://www.w3.org/2000/svg"' in svg
    texts = [e.text for e in root.iter("text")]
    assert {"Success", "HiMAC", "_b"} <= set(texts)
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    inside = _tree(line_chart(series, title="Success"))
    assert "HiMAC" not in [e.text for e in inside.iter("text")]


def test_colours_follow_the_theme() -> None:
    svg = interval_chart([Row("a", [Mark("a", 0, 0.5, 0.4, 0.6, 3, True)])], title="t")
    light, dark = PALETTE[3]
    assert f"stroke:var(--hc-3,{light})" in svg and f"var(--hc-paper,{PAPER})" in svg
    # Every colour that is drawn is a variable of both themes.
    assert not re.findall(r":#[0-9a-f]{6}", svg)
    assert f"--hc-3:light-dark({light},{dark})" in variables()
    assert f"--hc-3:{dark}" in variables(dark=True)


def test_charts_on_one_page_do_not_share_ids_and_load_nothing() -> None:
    one = interval_chart([Row("a", [Mark("a", 0, 0.5, 0.4, 0.6)])], title="one")
    two = interval_chart([Row("a", [Mark("a", 0, 0.5, 0.4, 0.6)])], title="one", width=500)
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, two)]
    assert ids[0] and not ids[0] & ids[1]
    for svg, own in zip((one, two), ids, strict=True):
        assert set(re.findall(r' href="#([^"]+)"', svg)) == own
        assert "url(" not in svg and "http" not in svg and "metadata" not in svg


def test_the_same_data_give_the_same_text_whatever_was_drawn_before() -> None:
    series = [Series("a", [0, 1, 2], [0.0, 0.5, 1.0], [0, 0.4, 0.9], [0.1, 0.6, 1.0])]

    def draw() -> str:
        return line_chart(series, title="t", marks=[Mark("m", 1, 0.5, 0.4, 0.6)])

    before = dict(matplotlib.rcParams)
    charts._axes.cache_clear()
    first = draw()
    line_chart([Series("b", list(range(90)), list(range(90)), colour=4)], title="u", x_label="x")
    line_chart([], title="none")
    assert draw() == first
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "svg.fonttype": "path"}):
        charts._axes.cache_clear()
        assert draw() == first
    assert dict(matplotlib.rcParams) == before


def test_long_lines_are_thinned_but_keep_their_ends() -> None:
    n = 5000
    values = np.random.default_rng(0).random(n).tolist()
    series = Series("a", list(range(n)), values, values, values, thin=[(list(range(n)), values)])
    svg = line_chart([series], title="t")
    root = _tree(svg)
    lines = [line for line in _lines(root, 0) if len(line) > 2]
    assert len(lines) == 2 and all(len(line) <= MAX_POINTS for line in lines)
    assert _told(root)[0].startswith("0\n") and _told(root)[-1].startswith("5k\n")
    assert len(svg) < 60_000


def test_without_matplotlib_the_error_names_its_extra() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from himac_agents.reports.charts import Series, line_chart\n"
        "try: line_chart([Series('a', [0, 1], [0, 1])], title='t')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "a chart needs matplotlib: pip install 'himac[report]'"
