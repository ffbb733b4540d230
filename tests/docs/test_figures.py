"""Intervals that prose tells are intervals that the records give.

Prose is written by hand and records are made anew, so that one outlives the other unless this is
checked. What prose tells of differences in two decimals is the credit benchmark's, whose tables
stand on its own page.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest

from himac_agents.experiments.study import summary
from tests.pages_of_docs import ROOT

Figure = tuple[str, str, str]
_CARDS = sorted((ROOT / "registry" / "studies").glob("*.toml"))
_PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("studies", "learning", "methods", "proofs")),
    *_CARDS,
]
_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_TOLD = re.compile(rf"({_NUMBER})(?: points)? \[({_NUMBER}), ({_NUMBER})\]")

#: What docs/studies.md tells of runs that are not recorded: those before `credit_cut_subgoals`,
#: whose records were replaced by runs after it, and two seeds more; the credit benchmark on
#: ALFWorld alone; the first five and the last five of ten seeds of the horizon.
_NOT_RECORDED = """
50.7 [38, 63] 47.5 [37, 58] 51.8 [30, 73] 47.3 [29, 66] 1.5 [-3.8, 6.8] 13.7 [8.3, 19.1]
6.1 [-7.5, 19.7] 0.4 [-4.4, 5.2] -2.5 [-20.3, 15.3]
0.29 [0.22, 0.35] 0.29 [0.24, 0.35] 0.22 [0.17, 0.26]
0.28 [0.20, 0.35] 0.29 [0.24, 0.33] 0.21 [0.17, 0.24]
5.5 [-0.1, 11.1] 5.5 [0.6, 10.3] 4.9 [-4.6, 14.4] 1.8 [-4.3, 7.9]
"""


def _told(text: str) -> list[Figure]:
    """The intervals in a text, without signs of plus."""
    plain = re.sub(r"\s+", " ", text.replace("\\\n", "").replace("*", "").replace("−", "-"))
    return [_plain(*found.groups()) for found in _TOLD.finditer(plain)]


def _plain(mean: str, low: str, high: str) -> Figure:
    return mean.lstrip("+"), low.lstrip("+"), high.lstrip("+")


def test_intervals_are_found_however_they_are_set() -> None:
    text = "by **+4.2 [−13.6,\n+22.0]**, 52.2 [40, 65], +1 [0], 0.6 [0.5, 0.7], 3 points [1, \\\n5]"
    assert _told(text) == [
        ("4.2", "-13.6", "22.0"),
        ("52.2", "40", "65"),
        ("0.6", "0.5", "0.7"),
        ("3", "1", "5"),
    ]


@cache
def _cells() -> list[dict[str, Any]]:
    paths = sorted((ROOT / "registry" / "results").glob("*.toml"))
    return [tomllib.loads(path.read_text(encoding="utf-8")) for path in paths]


def _means(cell: Mapping[str, Any]) -> Iterator[tuple[list[float], Any]]:
    """Every figure of a cell by its seeds, and what computes its interval; one way round."""
    tasks, runs = int(cell["episodes"]), summary.by_method(cell["runs"])
    tables = {
        (method, where, key): [run[where] for run in rows]
        for method, rows in runs.items()
        for where, score in rows[0].items()
        if isinstance(score, Mapping) and "success" in score and all(where in r for r in rows)
        for key in summary.OUTCOMES
        if key in score
    }
    for (_, _, key), scores in tables.items():
        yield (
            [float(score[key]) for score in scores],
            lambda scores=scores, key=key: summary.success(scores, tasks, key),
        )
    seeds = {method: [run["seed"] for run in rows] for method, rows in runs.items()}
    for one, other in itertools.combinations(tables, 2):
        (a, at, key), (b, beside, same) = one, other
        if key != same or (at != beside and a != b and "supervised" not in (at, beside)):
            continue
        common = [seed for seed in seeds[a] if seed in seeds[b]]
        first = [tables[one][seeds[a].index(seed)] for seed in common]
        second = [tables[other][seeds[b].index(seed)] for seed in common]
        if not common or not all(summary.OUTCOMES[key] in s for s in (*first, *second)):
            continue
        yield (
            [float(y[key]) - float(x[key]) for x, y in zip(first, second, strict=True)],
            lambda x=first, y=second, key=key: summary.difference(x, y, [], tasks, key),
        )
    for kind in ("difference", "greedy_difference", "token_difference"):
        pairs = [pair for pair in cell["paired"] if kind in pair]
        for against in dict.fromkeys(pair["against"] for pair in pairs):
            rows = [pair for pair in pairs if pair["against"] == against]
            yield (
                [float(row[kind]["mean"]) for row in rows],
                lambda rows=rows, kind=kind: summary.paired(cell, rows, kind),
            )


@cache
def _recorded() -> set[Figure]:
    """What the records give, of means that some page tells; differences either way round."""
    means = {mean for page in _PAGES for mean, _, _ in _told(page.read_text(encoding="utf-8"))}
    found = set()
    for cell in _cells():
        for values, interval in _means(cell):
            percent = 100 * float(np.mean(values))
            if {f"{percent:.1f}", f"{-percent:.1f}"} & means:
                made = interval()
                for sign, digits in itertools.product((100, -100), (0, 1)):
                    low, high = sorted(sign * end for end in made.ci95)
                    found.add(
                        (f"{sign * made.mean:.1f}", f"{low:.{digits}f}", f"{high:.{digits}f}")
                    )
    return found


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_intervals_in_prose_are_those_of_the_records(page: Any) -> None:
    text = page.read_text(encoding="utf-8")
    benchmark = (ROOT / "docs" / "credit-benchmark.md").read_text(encoding="utf-8")
    known = {*_recorded(), *_told(benchmark)}
    if page.name == "studies.md":
        known.update(_told(_NOT_RECORDED))
    assert [found for found in _told(text) if found not in known] == []
