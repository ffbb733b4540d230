"""The page of results: tables and figures from what `results` wrote, none of it by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from himac_agents.experiments.study import summary
from himac_agents.experiments.study.plan import Study
from himac_agents.experiments.study.summary import (
    Run,
    by_method,
    percent,
    points,
    seeds_of,
    title,
    titled,
    within,
)
from himac_agents.experiments.study.views import VIEWS
from himac_agents.files import write_atomically
from himac_agents.reports.charts import interval_chart
from himac_agents.reports.marks import Mark, Row

#: A study with its recorded cells.
Recorded = tuple[Study, Mapping[str, Mapping[str, Any]]]

#: Colours of the chart's points, as indices into its palette.
_WARM, _FINAL, _SUPERVISED = 7, 0, 1


def write_page(path: Path, studies: Sequence[Recorded]) -> Path:
    """Writes the page and, in a folder of its name beside it, a figure a cell.

    Args:
        path: The Markdown file, e.g. `docs/results.md`.
        studies: Each study with its recorded cells (see `results.read_all`).
    """
    figures = path.parent / path.stem
    figures.mkdir(parents=True, exist_ok=True)
    parts = [_OPENING]
    for study, cells in studies:
        if cells:
            parts.append(f"## The {study.name} study\n\n{study.summary}\n")
        for name in [n for n in study.cells if n in cells]:
            figure = figures / f"{study.name}-{name}.svg"
            write_atomically(figure, draw(cells[name]) + "\n")
            # The card may ask for more by now than when the cell was recorded, or for less.
            left = [run.removeprefix("runs/") for run in study.left(name, cells[name]["runs"])]
            parts.append(section({**cells[name], "missing": left}, f"{path.stem}/{figure.name}"))
        if cells and study.view:
            text, drawn = VIEWS[study.view](study, cells)
            figure = figures / f"{study.name}.svg"
            write_atomically(figure, drawn + "\n")
            shown = f"![{study.view} of the {study.name} study]({path.stem}/{figure.name})"
            parts.append(f"{text}\n{shown}\n")
        if cells and (unrun := _not_run(study, cells, studies)):
            parts.append(unrun)
        if cells and study.notes:
            parts.append(f"### Notes on the {study.name} study\n\n{study.notes.strip()}\n")
    if len(parts) == 1:
        parts.append("Nothing has been recorded yet: run `himac bench methods`.\n")
    write_atomically(path, "\n".join(parts))
    return path


def _not_run(
    study: Study, own: Mapping[str, Mapping[str, Any]], studies: Sequence[Recorded]
) -> str:
    """What no study has recorded of the cells that this one has not begun: methods by cell.

    A cell that it has begun tells itself what is missing.
    """
    known = {
        (name, run["method"])
        for _, cells in studies
        for name, cell in cells.items()
        for run in cell["runs"]
    }
    wanted: dict[str, dict[str, None]] = {}
    for row in study.rows:
        for name in (name for name in row.cells if name not in own):
            new = [titled(method) for method in row.methods if (name, method) not in known]
            if new:
                wanted.setdefault(name, {}).update(dict.fromkeys(new))
    if not wanted:
        return ""
    lines = [f"- {name}: {'; '.join(methods)}" for name, methods in wanted.items()]
    return "\n".join([f"**Of the {study.name} study not run yet:**", "", *lines, ""])


_OPENING = """# Results

This page is written by `himac bench methods --report-only` from the files in `registry/results`;
those are written by the runs themselves.

How to read it. **Warm start** is supervision on a scripted expert's demonstrations; the methods of
a cell that have the same roles share one a seed. Then each method learns until it has taken the
same number of environment steps; where a table has a column for a number of tokens, each was
measured once more when it had written so many. **Success** is on held-out tasks, sampled at
temperature 1 as in training, and greedily beside it. **Gain** is the difference from the warm start
on the same tasks. **Further supervision** trains the same warm start on the same demonstrations for
as many CPU seconds as the method learned.

**Intervals** are 95% intervals. Those of a method are over training seeds *and* tasks, by a
hierarchical bootstrap (`himac_agents/evaluation/intervals.py` gives the estimator, its sources, and
why three seeds make it wide); differences are paired by task and seed. They tell what another
training on other tasks may give. A row of one seed holds an interval *over tasks* alone: how well
that one trained agent is known, not what the method gives when it is trained again. Below a mean
stand its seeds, in the order of their numbers.
"""


def section(cell: Mapping[str, Any], figure: str) -> str:
    """One cell: what was run, the figure, the tables."""
    runs: list[Run] = cell["runs"]
    episodes = int(cell["episodes"])
    lines = [
        f"### {cell['cell']}: {cell['env']}",
        "",
        f"Preset `{cell['preset']}`, {episodes} tasks of the split `{cell['split']}`, "
        f"{int(cell['max_env_steps']):,} environment steps a run. Command: `{cell['command']}`.",
        "",
        str(cell.get("note", "")),
        "",
        f"![Success before and after learning, {cell['cell']}]({figure})",
        "",
    ]
    if changed := summary.older(cell):
        lines += [
            "**Older tasks.** These runs were recorded before their environment changed, and are "
            f"not to be compared with newer ones: {' '.join(changed)}",
            "",
        ]
    if summary.by_counts(cell):
        lines += [
            "Runs here were recorded without the outcomes of single tasks: the seeds' part of an "
            "interval over seeds and tasks comes from the seeds' means, the tasks' part is drawn "
            "from counts, rather too wide than too narrow.",
            "",
        ]
    lines += [
        *_methods_table(runs, episodes, int(cell.get("eval_at_tokens", 0))),
        "",
        *_runs_table(runs, episodes),
        "",
        *_paired_lines(cell),
    ]
    if cell.get("missing"):
        lines += [f"**Not finished yet:** {', '.join(cell['missing'])}.", ""]
    lines += [f"Machine and code: {'; '.join(sorted(set(_origins(runs))))}.", ""]
    return "\n".join(lines)


def _origins(runs: Iterable[Run]) -> Iterable[str]:
    for run in runs:
        if "machine" in run:
            where = ", ".join(run[name] for name in ("machine", "gpu") if name in run)
            yield (
                f"{where}, one thread a run, torch {run['torch']}, himac "
                f"{run['version']} at {run['commit'] or 'no commit'}"
            )


def _methods_table(runs: Sequence[Run], episodes: int, tokens: int) -> list[str]:
    budget = [f"after {tokens:,} tokens"] if tokens else []
    heads = ["method", "seeds", "warm start", *budget, "after learning", "greedy: warm start"]
    heads += ["after", "env steps", "tokens", "CPU s"]
    table = []
    for method, rows in by_method(runs).items():
        warm, final = [r["warm_start"] for r in rows], [r["final"] for r in rows]
        work = [r["work"] for r in rows]
        there = [r["at_tokens"] for r in rows if "at_tokens" in r]
        measured = len(there) == len(rows)
        at_tokens = [_success(there, episodes) if measured else ""] if tokens else []
        greedily = _success(warm, episodes, "greedy")
        first = [titled(method), str(len(rows)), _success(warm, episodes)]
        last = [_mean(work, name) for name in ("env_steps", "tokens", "learning_cpu_seconds")]
        learned = [_success(final, episodes, strong=True), greedily]
        table.append([*first, *at_tokens, *learned, _success(final, episodes, "greedy"), *last])
        if beside := [r["supervised"] for r in rows if "supervised" in r]:
            first[:2] = [f"{titled(method)}: further supervision instead", str(len(beside))]
            first[2] += " |" if tokens else ""
            instead = [_success(beside, episodes), greedily, _success(beside, episodes, "greedy")]
            table.append([*first, *instead, "0", "0", _mean(beside, "cpu_seconds")])
    return summary.table(heads, table)


def _runs_table(runs: Sequence[Run], episodes: int) -> list[str]:
    heads = ["run", "warm start", "after", "gain", "greedy gain", "further supervision", "over it"]
    table = []
    for method, rows in by_method(runs).items():
        for run in rows:
            beside = run.get("supervised")
            shown = "" if beside is None else f"{percent(beside['success'])} " \
                f"({percent(beside['greedy'])} greedy)"  # fmt: skip
            ends = [percent(run[name]["success"]) for name in ("warm_start", "final")]
            gains = [_difference(run[name]) for name in ("gain", "greedy_gain")]
            over = _difference(run["over_supervised"]) if "over_supervised" in run else ""
            table.append([f"{titled(method)}, seed {run['seed']}", *ends, *gains, shown, over])
        if len(rows) > 1:
            table.append(_whole_row(method, rows, episodes))
    said = "Each seed, with intervals over tasks; and **all seeds**, over seeds and tasks:"
    return [said, "", *summary.table(heads, table)]


def _whole_row(method: str, rows: Sequence[Run], episodes: int) -> list[str]:
    """All seeds of a method, in the columns of the table of runs."""
    beside = [run for run in rows if "over_supervised" in run]
    over = ""
    if beside:
        found = summary.change(beside, "supervised", "final", "over_supervised", episodes)
        over = points(found)
    return [
        f"**{titled(method)}, all seeds**",
        _mean_percent(rows, "warm_start"),
        _mean_percent(rows, "final"),
        f"**{points(summary.change(rows, 'warm_start', 'final', 'gain', episodes))}**",
        points(summary.change(rows, "warm_start", "final", "greedy_gain", episodes)),
        _mean_percent(beside, "supervised"),
        over,
    ]


def _paired_lines(cell: Mapping[str, Any]) -> list[str]:
    pairs = [row for row in cell.get("paired", []) if row["base"] == cell["base"]]
    if not pairs:
        return []
    tokens = any("token_difference" in row for row in pairs)
    said = (
        f"{titled(cell['base'])} minus the other method on the same tasks, after as many "
        + ("environment steps, and after as many tokens" if tokens else "environment steps")
        + " (each seed over tasks; **all seeds** over seeds and tasks):"
    )
    heads, kinds = ["temperature 1", "greedy"], ["difference", "greedy_difference"]
    if tokens:
        heads, kinds = [*heads, "equal tokens: temperature 1"], [*kinds, "token_difference"]
    table = []
    order = by_method([{"method": row["against"], "seed": row["seed"]} for row in pairs])
    for against in order:
        rows = sorted((r for r in pairs if r["against"] == against), key=lambda r: int(r["seed"]))
        for row in rows:
            found = [_difference(row[kind]) if kind in row else "" for kind in kinds]
            table.append([titled(against), str(row["seed"]), *found])
        if len(rows) > 1:
            whole = []
            for kind in kinds:
                known = all(kind in row for row in rows)
                whole.append(points(summary.paired(cell, rows, kind)) if known else "")
            table.append([f"**{titled(against)}**", "**all seeds**", *whole])
    return [said, "", *summary.table(["against", "seed", *heads], table), ""]


def draw(cell: Mapping[str, Any]) -> str:
    """The cell's figure: warm start, end and further supervision of every method."""
    episodes, rows = int(cell["episodes"]), []
    for method, runs in by_method(cell["runs"]).items():
        marks = [_mark("warm start", [r["warm_start"] for r in runs], episodes, _WARM, True)]
        beside = [r["supervised"] for r in runs if "supervised" in r]
        if beside:
            marks.append(_mark("further supervision", beside, episodes, _SUPERVISED, True))
        marks.append(_mark("after learning", [r["final"] for r in runs], episodes, _FINAL, False))
        rows.append(Row(title(method), marks))
    return interval_chart(
        rows,
        title=f"{cell['env']}: held-out success at temperature 1",
        x_label="grey: warm start; orange: further supervision; blue: after learning; small dots: "
        "seeds; 95% over seeds and tasks",
        standalone=True,
        width=720,
    )


def _mark(
    label: str, scores: Sequence[Mapping[str, Any]], episodes: int, colour: int, hollow: bool
) -> Mark:
    found = summary.success(scores, episodes)
    seeds = [float(score["success"]) for score in scores]
    return Mark(
        label, 0.0, found.mean, *found.ci95, colour, hollow, seeds if len(seeds) > 1 else ()
    )


def _success(
    scores: Sequence[Mapping[str, Any]], episodes: int, key: str = "success", strong: bool = False
) -> str:
    """A mean with its interval, and the seeds that it is the mean of below it."""
    found = summary.success(scores, episodes, key)
    text = f"**{within(found)}**" if strong else within(found)
    if len(scores) == 1:
        return f"{text} (over {found.over})"
    return f"{text}<br>{seeds_of(scores, key)}"


def _mean_percent(runs: Sequence[Run], name: str) -> str:
    return percent(mean(run[name]["success"] for run in runs)) if runs else ""


def _difference(found: Mapping[str, Any]) -> str:
    low, high = found["ci95"]
    return f"{100 * found['mean']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    found = [row[key] for row in rows if key in row]
    return f"{mean(found):,.0f}" if found else ""
