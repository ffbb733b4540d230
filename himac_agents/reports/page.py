"""Writes the report: one HTML file that needs nothing else, neither network nor server."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from himac_agents.files import write_atomically
from himac_agents.reports.evaluations import EvaluationData, find_all, read_evaluation
from himac_agents.reports.groups import (
    SMOOTH_FROM,
    Family,
    Group,
    differences,
    differing,
    families,
    twins,
)
from himac_agents.reports.marks import write
from himac_agents.reports.panels import SHORT, panel
from himac_agents.reports.runs import RunData, read_run
from himac_agents.reports.svg import variables
from himac_envs import __version__

_PARTS = Path(__file__).parent / "page"
#: Episodes that one run shows, unless told otherwise; evenly chosen, the newest included.
EPISODES = 40
#: Characters of episode data in the whole page.
MAX_DATA = 24_000_000


def write_report(
    paths: Sequence[Path], out: Path, *, episodes: int = EPISODES
) -> tuple[Path, list[RunData], list[EvaluationData]]:
    """Makes the report of some runs and evaluations.

    Args:
        paths: Folders of runs, files of `himac eval --records`, or folders that hold either.
        out: The file to write; replaced if there.
        episodes: How many episodes of each are shown.

    Returns:
        The file, and the runs and evaluations in it.

    Raises:
        RunError: A path holds neither, or a file in it cannot be read.
    """
    folders, files = find_all(paths)
    runs = [read_run(path) for path in folders]
    evaluations = [read_evaluation(path) for path in files]
    html = render(runs, evaluations, episodes=episodes)
    # What is no valid Unicode (a lone surrogate in a model's answer) becomes a question mark.
    write_atomically(out, html.encode("utf-8", "replace").decode("utf-8"))
    return out, runs, evaluations


def render(
    runs: Sequence[RunData],
    evaluations: Sequence[EvaluationData] = (),
    *,
    episodes: int = EPISODES,
) -> str:
    """The report's HTML."""
    sorted_out = families(runs)
    names = dict(zip((id(r) for r in runs), distinct_names(runs), strict=True))
    own = {id(run) for family in sorted_out for group in family.groups for run in group.runs}
    notes = [(names[id(run)], note) for run in runs for note in run.notes]
    notes += _repeated(sorted_out, names)
    runs = [run for run in runs if id(run) in own]
    script = (_PARTS / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PARTS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "count": partial(write, form="count"),
        "points": _points,
        "direction": _direction,
        "gain": lambda found: None if found is None else (found.mean, found.low, found.high),
        "svg": Markup,
        "shown": _shown,
    }
    labels = [f"{one.title} ({one.path.name})" for one in evaluations]
    labels += [_run_label(sorted_out, run, names) for run in runs]
    chosen = [one.shown(episodes) for one in evaluations]
    # Of a run the newest episodes are worth most; of an evaluation the first, which are failures.
    chosen += [_spread(run.episodes, episodes)[::-1] for run in runs]
    counts = [len(one.records) for one in evaluations] + [len(run.episodes) for run in runs]
    data = _episode_data(chosen, counts, labels)
    for entry in data[len(evaluations) :]:
        entry["episodes"].reverse()
    return environment.get_template("report.html.j2").render(
        title=_headline(sorted_out, evaluations),
        lead=counted(runs, evaluations),
        evaluations=evaluations,
        version=__version__,
        css=Markup((_PARTS / "report.css").read_text(encoding="utf-8")),
        colours=Markup(variables()),
        script=Markup(script),
        script_hash=digest,
        axes=SHORT,
        smooth_from=SMOOTH_FROM,
        panels=[panel(family) for family in sorted_out],
        tables=[_table(family, names) for family in sorted_out],
        runs=runs,
        unfinished=[names[id(run)] for run in runs if not run.finished],
        notes=notes,
        settings=_settings(sorted_out, names),
        all_settings=[(names[id(r)], str(r.path), r.versions, r.settings) for r in runs],
        data=Markup(script_json(data)),
        any_episodes=any(entry["episodes"] for entry in data),
    )


def script_json(value: Any) -> str:
    """JSON for a `<script type="application/json">`: nothing in it can end the element."""
    text = json.dumps(_finite(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def distinct_names(runs: Sequence[RunData]) -> list[str]:
    """Short names of runs, no two alike: as much of each path's end as that takes."""
    parts = [run.path.parts for run in runs]
    depth = 1
    while depth < max((len(p) for p in parts), default=0):
        found = ["/".join(p[-depth:]) for p in parts]
        if len(set(found)) == len(found):
            return found
        depth += 1
    return [str(run.path) for run in runs]


@dataclass(frozen=True)
class Line:
    """One line of the table of results.

    Attributes:
        name: The group's label or the run's name.
        colour: Index into the palette.
        whole: A group, rather than one of its runs.
        state: Empty, or why the line is not final.
        cells: What stands in the columns.
    """

    name: str
    colour: int
    whole: bool
    state: str
    cells: dict[str, Any]


def _table(family: Family, names: dict[int, str]) -> dict[str, Any]:
    lines: list[Line] = []
    for group in family.groups:
        lines.append(_line(group))
        if len(group.runs) > 1:
            alone = [replace(group, label=names[id(run)], runs=(run,)) for run in group.runs]
            lines += [_line(one, whole=False) for one in alone]
    kinds = {group.label: group.kinds() for group in family.groups}
    names_of_kinds = sorted({kind for found in kinds.values() for kind in found})
    return {
        "family": family,
        "lines": lines,
        "kinds": kinds,
        "kind_names": names_of_kinds,
        "differences": differences(family),
    }


def _line(group: Group, *, whole: bool = True) -> Line:
    """A group's line, or that of one of its runs."""
    work, count = [run.work for run in group.runs], len(group.runs)
    cells = {
        "warm": group.pooled("warm_start"),
        "final": group.pooled("final"),
        "gain": _gain(group, "temperature_1"),
        "greedy_gain": _gain(group, "greedy"),
        "env_steps": sum(w.get("env_steps", 0) for w in work) / count,
        "tokens": sum(w.get("tokens", 0) for w in work) / count,
        "seconds": _mean(w.get("learning_seconds") for w in work),
        "seed": f"{count} seeds" if count > 1 else f"seed {group.runs[0].seed}",
        "runs": count,
    }
    unfinished = count - group.finished
    state = "unfinished" if count == 1 else f"{unfinished} of {count} unfinished"
    return Line(group.label, group.colour, whole, state if unfinished else "", cells)


def _gain(group: Group, kind: str) -> tuple[float, float | None, float | None] | None:
    """The gain of the seeds that have one, with its interval; of a single run its own."""
    if len(group.runs) == 1:
        return group.runs[0].gain(kind)
    found = group.gain(kind)
    return None if found is None else (found.mean, found.low, found.high)


def _repeated(sorted_out: Sequence[Family], names: dict[int, str]) -> list[tuple[str, str]]:
    """Notes on runs of one seed: copies, which are not counted, and others, which are."""
    found = []
    for group in (group for family in sorted_out for group in family.groups):
        for copy, of in group.copies:
            found.append(
                (names[id(copy)], f"tells what {names[id(of)]} tells (seed {of.seed}): not counted")
            )
        for first, *others in twins(group.runs):
            listed = _listed([names[id(run)] for run in others])
            found.append(
                (
                    names[id(first)],
                    f"of the same seed ({first.seed}) as {listed}, with other figures: all are "
                    "counted, as if they were different seeds",
                )
            )
    return found


def _settings(sorted_out: Sequence[Family], names: dict[int, str]) -> dict[str, Any]:
    """The settings that differ: a column a group, its runs' values together where they are many."""
    groups = [group for family in sorted_out for group in family.groups]
    runs = [run for group in groups for run in group.runs]
    rows = []
    told = differing(runs)
    versions = [", ".join(f"{k} {v}" for k, v in run.versions.items()) for run in runs]
    if len(set(versions)) > 1:
        told["versions"] = versions
    for key, values in told.items():
        by_run = dict(zip((id(run) for run in runs), values, strict=True))
        cells = []
        for group in groups:
            mine = dict.fromkeys(_shown(by_run[id(run)]) for run in group.runs)
            cells.append(", ".join(mine))
        rows.append((key, cells))
    heads = [
        (group.label, group.colour, family.title if len(sorted_out) > 1 else "")
        for family in sorted_out
        for group in family.groups
    ]
    return {"heads": heads, "rows": rows}


def _episode_data(
    chosen: Sequence[Sequence[dict[str, Any]]], counts: Sequence[int], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """The episodes for the viewer, one source after the other, within `MAX_DATA` characters.

    Args:
        chosen: Of each run or evaluation the episodes to show, the most telling first.
        counts: How many it has in all.
        labels: What it is called.
    """
    found: list[dict[str, Any]] = []
    left = MAX_DATA
    for number, (episodes, count, label) in enumerate(zip(chosen, counts, labels, strict=True)):
        kept: list[dict[str, Any]] = []
        for episode in episodes:
            size = len(script_json(episode))
            if size > left:
                break
            left -= size
            kept.append(episode)
        hidden = count - len(kept)
        found.append({"run": number, "episodes": kept, "hidden": hidden, "label": label})
    return found


def _spread(episodes: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    if len(episodes) <= most:
        return list(episodes)
    if most <= 1:
        return list(episodes[-1:]) if most else []
    index = sorted({round(k * (len(episodes) - 1) / (most - 1)) for k in range(most)})
    return [episodes[i] for i in index]


def _run_label(sorted_out: Sequence[Family], run: RunData, names: dict[int, str]) -> str:
    for family in sorted_out:
        for group in family.groups:
            if any(member is run for member in group.runs):
                return f"{group.label} · {family.title} · seed {run.seed} ({names[id(run)]})"
    return names[id(run)]


def _headline(sorted_out: Sequence[Family], evaluations: Sequence[EvaluationData]) -> str:
    methods = list(dict.fromkeys(g.label for family in sorted_out for g in family.groups))
    tasks = list(dict.fromkeys(family.name for family in sorted_out))
    if not methods:
        methods = list(dict.fromkeys(one.agent for one in evaluations))
        tasks = list(dict.fromkeys(one.env for one in evaluations))
    kind = "methods" if sorted_out else "agents"
    shown = f"{len(methods)} {kind}" if len(methods) > 3 else _listed(methods)
    return f"{shown} on {_listed(tasks)}"


def counted(runs: Sequence[RunData], evaluations: Sequence[EvaluationData]) -> str:
    """How many runs and evaluations there are: "3 runs, 1 of them unfinished"."""
    parts = []
    if runs:
        unfinished = sum(not run.finished for run in runs)
        said = f"{len(runs)} run{'s' if len(runs) != 1 else ''}"
        parts.append(said + (f", {unfinished} of them unfinished" if unfinished else ""))
    if evaluations:
        parts.append(f"{len(evaluations)} evaluation{'s' if len(evaluations) != 1 else ''}")
    return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    """Names as a phrase: "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _finite(value: Any) -> Any:
    """A JSON value with null for what JSON cannot say (NaN, infinities)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _points(value: float) -> str:
    """A difference in points of 100, signed; zero has no sign."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def _direction(gain: tuple[float, float | None, float | None]) -> str:
    """The class of a gain's chip: coloured only where its interval, if it has one, excludes 0."""
    mean, low, high = gain
    if mean > 0 and (low is None or low > 0):
        return "up"
    return "down" if mean < 0 and (high is None or high < 0) else ""
