"""Charts: well-formed, right where the numbers are, calm about what cannot be drawn."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from himac_agents.reports import scales
from himac_agents.reports.charts import (
    MAX_POINTS,
    Mark,
    Row,
    Series,
    interval_chart,
    line_chart,
    share_chart,
    thinned,
)
from himac_agents.reports.scales import Scale, write

NAN = math.nan


def _tree(svg: str) -> ET.Element:
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg")
    for element in root.iter():
        for value in element.attrib.values():
            assert "nan" not in value.split(), value
            assert not re.search(r"[MLH,]-?(nan|inf)", value), value
    return root


def _hits(root: ET.Element) -> Any:
    return json.loads(root.attrib["data-hits"])


def test_scale_maps_ends_to_ends() -> None:
    scale = Scale(0.0, 10.0, 100.0, 200.0)
    assert (scale(0), scale(5), scale(10)) == (100, 150, 200)
    upside_down = Scale(0.0, 1.0, 90.0, 10.0)
    assert upside_down(0.25) == 70


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 85_530, [0, 20_000, 40_000, 60_000, 80_000]),
        (-0.003, 0.003, [-0.002, 0.0, 0.002]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert scales.ticks(low, high) == pytest.approx(expected)


def test_bounds_are_never_empty_and_keep_given_ends() -> None:
    assert scales.bounds([]) == (0.0, 1.0)
    assert scales.bounds([2.0, 2.0]) == (2.0, 3.0)
    assert scales.bounds([0.0]) == (0.0, 1.0)
    assert scales.bounds([NAN, None, 0.3, math.inf], (0.0, None)) == (0.0, 0.3)
    low, high = scales.bounds([5.0], (None, 1.0))
    assert low < high == 1.0
    assert scales.widen(0.013, 0.087) == pytest.approx([0.0, 0.1])
    assert scales.widen(0.013, 0.087, (0.0, 1.0)) == [0.0, 1.0]


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
    series = Series("a", [0, 50, 100], [0.0, 0.5, 1.0], [0.0, 0.4, 0.9], [0.1, 0.6, 1.0])
    mark = Mark("end", 100, 0.8, 0.7, 0.9)
    root = _tree(line_chart([series], title="t", marks=[mark], y_range=(0, 1), x_label="steps"))
    hits = _hits(root)
    left, top, right, bottom = hits["box"]
    points = hits["series"][0]["at"]
    assert [p[0] for p in points] == pytest.approx(
        [left + 6, (left + right) / 2, right - 6], abs=0.2
    )
    assert [p[1] for p in points] == pytest.approx([bottom, (top + bottom) / 2, top], abs=0.1)
    assert points[1][2:] == ["50", "0.5 (0.4 – 0.6)"]
    assert hits["series"][1]["at"][0][3] == "0.8 [0.7, 0.9]"
    kinds = [e.attrib.get("class", "") for e in root.iter()]
    assert "hc-band hc-f0" in kinds and "hc-line hc-s0" in kinds and "hc-disc hc-f0" in kinds


def test_gaps_stay_gaps_and_lone_points_are_seen() -> None:
    root = _tree(line_chart([Series("a", [0, 1, 2, 3], [1.0, NAN, 2.0, 3.0])], title="t"))
    assert len([e for e in root.iter() if e.attrib.get("class") == "hc-line hc-s0"]) == 1
    assert len([e for e in root.iter() if "hc-dot" in e.attrib.get("class", "")]) == 1
    lone = _tree(line_chart([Series("a", [7], [0.5])], title="t"))
    assert [e for e in lone.iter() if "hc-dot" in e.attrib.get("class", "")]
    flat = _tree(line_chart([Series("a", [1, 2], [0.0, 0.0])], title="t"))
    assert _hits(flat)["series"][0]["at"][0][1] == _hits(flat)["box"][3]


@pytest.mark.parametrize(
    "svg",
    [
        line_chart([], title="t"),
        line_chart([Series("a", [], [])], title="t"),
        line_chart([Series("a", [1, 2], [NAN, None])], title="t"),
        interval_chart([], title="t"),
        interval_chart([Row("a", [Mark("a", 0, NAN)])], title="t"),
        share_chart([1, 2], [("a", [0, NAN], 0)], title="t"),
    ],
)
def test_nothing_to_draw_is_said(svg: str) -> None:
    assert "no data" in "".join(_tree(svg).itertext())


def test_broken_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="'a'"):
        line_chart([Series("a", [1, 2], [1.0])], title="t")
    with pytest.raises(ValueError, match="differ"):
        line_chart([Series("a", [1], [1.0], [0.5])], title="t")


def test_intervals_stand_in_their_rows() -> None:
    rows = [
        Row("HiMAC", heading=True),
        Row("warm start", [Mark("warm", 0, 0.37, 0.33, 0.41)]),
        Row("end", [Mark("T = 1", 0, 0.6, 0.5, 0.7), Mark("greedy", 0, 0.7, 0.6, 0.8)]),
    ]
    root = _tree(interval_chart(rows, title="t"))
    circles = [e.attrib for e in root.iter() if e.tag == "circle"]
    assert len(circles) == 3
    xs = [float(c["cx"]) for c in circles]
    assert xs[0] < xs[1] < xs[2]
    assert float(circles[0]["cy"]) < float(circles[1]["cy"]) < float(circles[2]["cy"])
    text = "".join(root.itertext())
    assert "warm: 37% [33%, 41%]" in text and "HiMAC" in text


def test_shares_sum_to_one() -> None:
    parts = [("done", [3.0, 1.0, 0.0], 0), ("truncated", [1.0, 1.0, 0.0], 1)]
    root = _tree(share_chart([0, 10, 20], parts, title="t"))
    series = _hits(root)["series"]
    assert [p[3] for p in series[0]["at"]] == ["75%", "50%"]  # the third has no options
    assert [p[3] for p in series[1]["at"]] == ["25%", "50%"]
    _tree(share_chart([5], [("done", [1.0], 0)], title="t"))


def test_text_is_escaped_and_xml_stays_well_formed() -> None:
    nasty = '<script>alert("1")</script>&\x00\x1b]]>\ud800'
    for standalone in (False, True):
        svg = line_chart([Series(nasty, [0, 1], [0.0, 1.0])], title=nasty, x_label=nasty,
                         marks=[Mark(nasty, 0, 0.5)], standalone=standalone)  # fmt: skip
        _tree(svg)
        assert "<script" not in svg
        svg = interval_chart([Row(nasty, [Mark(nasty, 0, 0.5)])], title=nasty)
        _tree(svg)
        assert "<script" not in svg


def test_standalone_carries_colours_title_and_legend() -> None:
    svg = line_chart([Series("HiMAC", [0, 1], [0.0, 1.0])], title="Success", standalone=True)
    root = _tree(svg)
    assert "prefers-color-scheme:dark" in svg and 'xmlns="http://www.w3.org/2000/svg"' in svg
    assert "HiMAC" in "".join(root.itertext())
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_long_lines_are_thinned_but_keep_their_ends() -> None:
    n = 5000
    series = Series("a", list(range(n)), [float(k) for k in range(n)])
    short = thinned(series)
    assert len(short.x) == len(short.y) == MAX_POINTS
    assert (short.x[0], short.x[-1]) == (0, n - 1)
    assert list(short.x) == sorted(set(short.x))
    assert len(line_chart([series], title="t")) < 100_000
