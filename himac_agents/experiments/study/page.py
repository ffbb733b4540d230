"""The page of results: tables and figures from what `results` wrote, none of it by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from himac_agents.algorithms.methods import METHODS
from himac_agents.experiments.study.plan import Study
from himac_agents.experiments.study.results import pooled
from himac_agents.files import write_atomically
from himac_agents.reports.charts import Mark, Row, interval_chart

Run = Mapping[str, Any]
#: A study with its recorded cells.
Recorded = tuple[Study, Mapping[str, Mapping[str, Any]]]

#: Colours of the chart's points, as indices into its palette.
_WARM, _FINAL, _SUPERVISED = 7, 0, 1


def write_page(path: Path, studies: Sequence[Recorded]) -> Path:
    """Writes the page and, in a folder of its name beside it, a figure a cell.

    Args:
        path: The Markdown file, e.g. `docs/results.md`.
        studies: Each study with its recorded cells (see `results.read_all`).

    Returns:
        `path`.
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
            parts.append(section(cells[name], f"{path.stem}/{figure.name}"))
        if cells and (left := _not_run(study, cells, studies)):
            parts.append(left)
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
    wanted: dict[str, list[str]] = {}
    for group, methods in study.rows:
        for name in (name for name in group if name not in own):
            new = [titled(method) for method in methods if (name, method) not in known]
            if new:
                wanted.setdefault(name, []).extend(new)
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
temperature 1 as in training, and greedily beside it. Intervals are Wilson's 95% intervals of
the seeds' mean, over tasks: as many trials as tasks, since all seeds play the same. The seeds' own
figures stand in the second table. **Gain** is the
difference from the warm start on the same tasks, with a 95% bootstrap interval. **Further
supervision** trains the same warm start on the same demonstrations for as many CPU seconds as HiMAC
learned.
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
        *_methods_table(runs, episodes, int(cell.get("eval_at_tokens", 0))),
        "",
        *_runs_table(runs),
        "",
        *_paired_lines(cell.get("paired", [])),
    ]
    if cell.get("missing"):
        lines += [f"**Not finished yet:** {', '.join(cell['missing'])}.", ""]
    lines += [f"Machine and code: {'; '.join(sorted(set(_origins(runs))))}.", ""]
    return "\n".join(lines)


def _origins(runs: Iterable[Run]) -> Iterable[str]:
    for run in runs:
        if "machine" in run:
            yield (
                f"{run['machine']}, one thread a run, torch {run['torch']}, himac "
                f"{run['version']} at {run['commit'] or 'no commit'}"
            )


def by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by method, in the order of `METHODS`."""
    found = {name: [r for r in runs if r["method"] == name] for name in METHODS}
    return {str(name): rows for name, rows in found.items() if rows}


def titled(method: str) -> str:
    """A method's title in Markdown, where a bare `<sub_done>` would be taken for a tag."""
    return METHODS[method].title.replace("<sub_done>", "`<sub_done>`")


def _methods_table(runs: Sequence[Run], episodes: int, tokens: int) -> list[str]:
    budget = f"after {tokens:,} tokens | " if tokens else ""
    lines = [
        f"| method | seeds | warm start | {budget}after learning | greedy: warm start | after | "
        "env steps | tokens | CPU s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|" + ("--:|" if tokens else ""),
    ]
    for method, rows in by_method(runs).items():
        warm, final = [r["warm_start"] for r in rows], [r["final"] for r in rows]
        work = [r["work"] for r in rows]
        there = [r["at_tokens"] for r in rows if "at_tokens" in r]
        measured = len(there) == len(rows)
        at_tokens = f"{_pooled(there, episodes) if measured else ''} | " if tokens else ""
        lines.append(
            f"| {titled(method)} | {len(rows)} | {_pooled(warm, episodes)} | "
            f"{at_tokens}**{_pooled(final, episodes)}** | {_pooled(warm, episodes, 'greedy')} | "
            f"{_pooled(final, episodes, 'greedy')} | {_mean(work, 'env_steps')} | "
            f"{_mean(work, 'tokens')} | {_mean(work, 'learning_cpu_seconds')} |"
        )
        beside = [r["supervised"] for r in rows if "supervised" in r]
        if beside:
            lines.append(
                f"| {titled(method)}: further supervision instead | {len(beside)} | "
                f"{_pooled(warm, episodes)} | {'| ' if tokens else ''}"
                f"{_pooled(beside, episodes)} | "
                f"{_pooled(warm, episodes, 'greedy')} | {_pooled(beside, episodes, 'greedy')} | "
                f"0 | 0 | {_mean(beside, 'cpu_seconds')} |"
            )
    return lines


def _runs_table(runs: Sequence[Run]) -> list[str]:
    lines = [
        "| run | warm start | after | gain | greedy gain | further supervision | over it |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for method, rows in by_method(runs).items():
        for run in rows:
            beside = run.get("supervised")
            shown = "" if beside is None else f"{_percent(beside['success'])} " \
                f"({_percent(beside['greedy'])} greedy)"  # fmt: skip
            over = _difference(run["over_supervised"]) if "over_supervised" in run else ""
            lines.append(
                f"| {titled(method)}, seed {run['seed']} | "
                f"{_percent(run['warm_start']['success'])} | {_percent(run['final']['success'])} | "
                f"{_difference(run['gain'])} | {_difference(run['greedy_gain'])} | "
                f"{shown} | {over} |"
            )
    return lines


def _paired_lines(paired: Sequence[Mapping[str, Any]]) -> list[str]:
    if not paired:
        return []
    tokens = any("token_difference" in row for row in paired)
    lines = [
        "HiMAC minus the other method on the same tasks, after as many environment steps"
        + (", and after as many tokens:" if tokens else ":"),
        "",
        "| against | seed | temperature 1 | greedy |"
        + (" equal tokens: temperature 1 |" if tokens else ""),
        "|---|--:|--:|--:|" + ("--:|" if tokens else ""),
    ]
    kinds = ["difference", "greedy_difference"]
    kinds += ["token_difference"] if tokens else []
    for row in paired:
        found = [_difference(row[kind]) if kind in row else "" for kind in kinds]
        title = titled(row["against"])
        lines.append(f"| {title} | {row['seed']} | {' | '.join(found)} |")
    return [*lines, ""]


def draw(cell: Mapping[str, Any]) -> str:
    """The cell's figure: warm start, end and further supervision of every method."""
    episodes, rows = int(cell["episodes"]), []
    for method, runs in by_method(cell["runs"]).items():
        points = [_mark("warm start", [r["warm_start"] for r in runs], episodes, _WARM, True)]
        beside = [r["supervised"] for r in runs if "supervised" in r]
        if beside:
            points.append(_mark("further supervision", beside, episodes, _SUPERVISED, True))
        points.append(_mark("after learning", [r["final"] for r in runs], episodes, _FINAL, False))
        rows.append(Row(METHODS[method].title, points))
    return interval_chart(
        rows,
        title=f"{cell['env']}: held-out success at temperature 1",
        x_label="grey: warm start; orange: further supervision; blue: after learning (95% "
        "intervals)",
        standalone=True,
        width=720,
    )


def _mark(
    label: str, scores: Sequence[Mapping[str, Any]], episodes: int, colour: int, hollow: bool
) -> Mark:
    value, low, high = pooled(scores, episodes)
    return Mark(label, 0.0, value, low, high, colour, hollow)


def _pooled(scores: Sequence[Mapping[str, Any]], episodes: int, key: str = "success") -> str:
    value, low, high = pooled(scores, episodes, key)
    return f"{_percent(value)} [{_percent(low)}, {_percent(high)}]"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _difference(found: Mapping[str, Any]) -> str:
    low, high = found["ci95"]
    return f"{100 * found['mean']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    found = [row[key] for row in rows if key in row]
    return f"{mean(found):,.0f}" if found else ""
