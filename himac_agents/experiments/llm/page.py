"""The page of the language model's study: curve, arms, temperatures, kinds of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from himac_agents.experiments.llm.plan import BAND, Frozen
from himac_agents.experiments.study import page, summary
from himac_agents.experiments.study.plan import Job
from himac_agents.experiments.study.summary import by_method, percent, titled, within
from himac_agents.files import read_json, write_atomically
from himac_agents.reports.charts import line_chart
from himac_agents.reports.marks import Series


def write(
    out: Path,
    curve: Mapping[int, tuple[float, float]],
    frozen: Frozen | None,
    cell: Mapping[str, Any] | None,
    jobs: Sequence[Job],
) -> Path:
    """Writes `llm.md` and its figures.

    Args:
        out: The study's folder.
        curve: Of the warm starts that are measured.
        frozen: The one that was chosen, once all are.
        cell: What the arms found, as `results.collect_results` tells it; None: nothing yet.
        jobs: The arms'.
    """
    lines = ["# A language model", "", "## Warm starts", ""]
    rows = [(str(n), percent(a), percent(b)) for n, (a, b) in sorted(curve.items())]
    lines += summary.table(["demonstrations", "temperature 1", "greedy"], rows, words=0)
    if frozen is not None:
        low, high = (percent(end) for end in BAND)
        where = "" if frozen.inside else f"; none lay between {low} and {high}"
        lines += ["", f"The arms begin from {frozen.demos} demonstrations{where}."]
    write_atomically(out / "llm-curve.svg", draw(curve) + "\n")
    lines += ["", "![Success by demonstrations](llm-curve.svg)", ""]
    if cell is not None:
        write_atomically(out / "llm-arms.svg", page.draw(cell) + "\n")
        lines += ["## Arms", "", page.section(cell, "llm-arms.svg"), *temperatures(cell), ""]
        lines += kinds(jobs, out)
    write_atomically(out / "llm.md", "\n".join(lines) + "\n")
    return out / "llm.md"


def draw(curve: Mapping[int, tuple[float, float]]) -> str:
    """Success of warm starts by their demonstrations."""
    counts = sorted(curve)
    return line_chart(
        [
            Series(label, counts, [curve[n][place] for n in counts], colour=place)
            for place, label in enumerate(("temperature 1", "greedy"))
        ],
        title="Held-out success of warm starts",
        x_label="demonstrations",
        y_range=(0.0, 1.0),
        y_format="percent",
        standalone=True,
    )


def temperatures(cell: Mapping[str, Any]) -> list[str]:
    """Each arm's end at all temperatures."""
    episodes = int(cell["episodes"])
    table = []
    for method, runs in by_method(cell["runs"]).items():
        shown = []
        for where, key in (("final", "greedy"), ("temperature-0.4", ""), ("final", "")):
            scores = [run[where] for run in runs if where in run]
            shown.append(within(summary.success(scores, episodes, key or "success")))
        table.append([titled(method), str(len(runs)), *shown])
    heads = ["method", "seeds", "greedy", "0.4", "1"]
    return ["### Temperatures", "", *summary.table(heads, table)]


def kinds(jobs: Sequence[Job], out: Path) -> list[str]:
    """Each arm's success at temperature 1 by kind of task, the mean of its seeds."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for job in jobs:
        path = job.folder(out) / "result.json"
        if job.kind == "learn" and path.is_file():
            final = read_json(path)["final"]
            found.setdefault(job.method, []).append(final.get("by_type", {}))
    names = sorted({name for rows in found.values() for row in rows for name in row})
    if not names:
        return []
    table = [
        [titled(method), *(percent(mean(row[name]["success"] for row in rows)) for name in names)]
        for method, rows in found.items()
    ]
    return ["### Kinds of tasks", "", *summary.table(["method", *names], table)]
