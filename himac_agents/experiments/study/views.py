"""What a study shows of all its cells together: a table and a figure, from what is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from himac_agents.experiments.study import summary
from himac_agents.experiments.study.summary import (
    Run,
    by_method,
    percent,
    points,
    title,
    titled,
    within,
)
from himac_agents.reports.charts import interval_chart, line_chart
from himac_agents.reports.marks import Mark, Row, Series

if TYPE_CHECKING:
    from himac_agents.experiments.study.plan import Study

Cells = Mapping[str, Mapping[str, Any]]
#: A study with its recorded cells -> Markdown and an SVG.
View = Callable[["Study", Cells], tuple[str, str]]

#: Who plans and who acts, and under which name a run holds what that came to.
HALVES = {
    "both learned": "final",
    "oracle plans": "oracle-planner",
    "oracle acts": "oracle-executor",
    "both the oracle": "oracle",
}


def sweep(study: Study, cells: Cells) -> tuple[str, str]:
    """Success of each method along the places of a study's cells, and how far the base leads.

    Differences are paired by task and seed. Tokens stand beside the steps, which are equal.
    """
    order = sorted((c for c in cells.values() if "place" in c), key=lambda c: float(c["place"]))
    methods = list(by_method([run for cell in order for run in cell["runs"]]))
    table = []
    series: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in methods}
    for cell in order:
        found = by_method(cell["runs"])
        shown = []
        for name in methods:
            if name not in found:
                shown.append("")
                continue
            runs, episodes = found[name], int(cell["episodes"])
            end = summary.success([run["final"] for run in runs], episodes)
            series[name].append((float(cell["place"]), end.mean, end.low, end.high))
            before = percent(mean(run["warm_start"]["success"] for run in runs))
            tokens = mean(run["work"].get("tokens", 0) for run in runs)
            shown.append(
                f"{before} → **{percent(end.mean)}** [{percent(end.low)}, {percent(end.high)}] "
                f"({tokens / 1000:,.0f}k)"
            )
        table.append([str(cell["cell"]), *shown])
    against = [name for name in methods if name != study.base]
    leads = []
    for cell in order:
        shown = []
        for name in against:
            pairs = [
                pair
                for pair in cell.get("paired", [])
                if pair["base"] == study.base and pair["against"] == name
            ]
            shown.append(points(summary.paired(cell, pairs, "difference")) if pairs else "")
        leads.append([str(cell["cell"]), *shown])
    drawn = []
    for number, (name, rows) in enumerate(series.items()):
        x, y, low, high = (list(column) for column in zip(*rows, strict=True))
        drawn.append(Series(title(name), x, y, low, high, number))
    chart = line_chart(
        drawn,
        title=f"{study.name}: held-out success at temperature 1",
        x_label=study.axis,
        y_range=(0.0, None),
        y_format="percent",
        standalone=True,
    )
    lines = [
        f"### The {study.name} study as a whole",
        "",
        "Success at temperature 1, warm start -> end, with intervals over what a cell's runs "
        "allow (seeds and tasks, or tasks); in brackets thousands of tokens.",
        "",
        *summary.table(["cell", *map(titled, methods)], table),
        "",
        f"{titled(study.base)} minus the other method, in points, after as many environment steps:",
        "",
        *summary.table(["cell", *map(titled, against)], leads),
    ]
    return "\n".join([*lines, ""]), chart


def bottleneck(study: Study, cells: Cells) -> tuple[str, str]:
    """{learned, oracle} planner x {learned, oracle} executor x what the executor practised on.

    And how much there was to choose among: in how many groups all blueprints came to the same
    return, how many different ones there were a task, and how far the best return lay above the
    mean, which is what practising on the best can give over a random one.
    """
    table = []
    rows: list[Row] = []
    for cell in cells.values():
        rows.append(Row(str(cell["cell"]), heading=True))
        episodes = int(cell["episodes"])
        for name, runs in by_method(cell["runs"]).items():
            shown, marks = [], []
            for number, (label, key) in enumerate(HALVES.items()):
                scores = [run[key] for run in runs if key in run]
                if not scores:
                    shown.append("")
                    continue
                found = summary.success(scores, episodes)
                shown.append(within(found))
                marks.append(Mark(label, 0.0, found.mean, found.low, found.high, number))
            table.append([str(cell["cell"]), titled(name), *shown, *_groups(runs)])
            rows.append(Row(title(name), marks))
    chart = interval_chart(
        rows,
        title=f"{study.name}: held-out success at temperature 1",
        x_label=f"from top to bottom in each row: {', '.join(HALVES)}",
        row_height=44,
        width=720,
        standalone=True,
    )
    lines = [
        f"### The {study.name} study as a whole",
        "",
        "Success at temperature 1 at the end of learning, and what is left when the oracle plans, "
        "acts, or does both. *Alike*: groups whose blueprints all had one return; *different*: "
        "blueprints a task; *lead*: the best return above the mean.",
        "",
        *summary.table(["cell", "method", *HALVES, "alike", "different", "lead"], table, words=2),
    ]
    return "\n".join([*lines, ""]), chart


def _groups(runs: Sequence[Run]) -> list[str]:
    """What runs noted of their groups of blueprints, as means over them."""
    noted = [run["blueprints"] for run in runs if "blueprints" in run]
    if not noted:
        return ["", "", ""]
    alike, different, lead = (
        mean(row[name] for row in noted) for name in ("dead_groups", "blueprints", "lead")
    )
    return [f"{percent(alike)}%", f"{different:.1f}", f"{lead:.3f}"]


VIEWS: dict[str, View] = {"sweep": sweep, "bottleneck": bottleneck}
