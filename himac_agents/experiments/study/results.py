"""From the `result.json` of runs to `registry/results/STUDY-CELL.toml`, and back.

The files are written by `himac bench methods`, never by hand. Each holds what was measured, under
which settings and budgets, on which machine, from which commit, and the command that does it again.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from himac_agents.config import TrainConfig
from himac_agents.evaluation.intervals import pack
from himac_agents.experiments.study import summary
from himac_agents.experiments.study.plan import Job, Study
from himac_agents.experiments.study.provenance import settings_digest
from himac_agents.files import read_json, read_json_lines, write_atomically
from himac_agents.training.result import difference

#: What all runs in a cell's file share.
_OF_A_CELL = ("env", "split", "episodes", "max_env_steps")

HEADER = "# Written by `himac bench methods`; edits are overwritten.\n"


def collect_results(study: Study, out: Path, jobs: Sequence[Job] = ()) -> dict[str, dict[str, Any]]:
    """What the finished runs below `out` found, by cell; cells without any are left out."""
    found: dict[str, dict[str, Any]] = {}
    jobs = [job for job in jobs or study.jobs() if job.kind == "learn"]
    for cell in study.cells:
        mine = [job for job in jobs if job.cell == cell]
        finished = [
            (job, read_json(_result(job, out))) for job in mine if _result(job, out).is_file()
        ]
        if not finished:
            continue
        first = finished[0][0]
        rows = [_row(job, result, job.folder(out)) for job, result in finished]
        found[cell] = {
            "study": study.name,
            "cell": cell,
            "preset": study.cells[cell].preset,
            "base": study.base,
            "env": first.config.env,
            "flat_env": first.config.flat_env,
            "split": first.config.eval_split,
            "episodes": finished[0][1]["final"]["episodes"],
            "max_env_steps": first.config.max_env_steps,
            "eval_at_tokens": first.config.eval_at_tokens,
            **({} if study.cells[cell].place is None else {"place": study.cells[cell].place}),
            "note": first.config.note,
            "command": f"himac bench methods --setting {study.name} --cells {cell}",
            "missing": [
                job.name.removeprefix("runs/") for job in mine if not _result(job, out).is_file()
            ],
            "runs": rows,
            "paired": _paired(finished, study.base),
        }
    return found


def _result(job: Job, out: Path) -> Path:
    return job.folder(out) / "result.json"


def _row(job: Job, result: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"method": job.method, "seed": job.seed}
    row["warm_start"] = score(result["warm_start"])
    row["final"] = score(result["final"])
    row["gain"] = result["gain"]["temperature_1"]
    row["greedy_gain"] = result["gain"]["greedy"]
    row["work"] = dict(result["work"])
    if "at_tokens" in result:
        row["at_tokens"] = score(result["at_tokens"]) | result["at_tokens"]["work"]
    for name, entry in result["baselines"].items():
        if "outcomes" in entry:
            row[name] = score(entry)
            row[name] |= {k: entry[k] for k in ("supervised_steps", "cpu_seconds") if k in entry}
    if "over_further_supervision" in result["gain"]:
        row["over_supervised"] = result["gain"]["over_further_supervision"]
    if blueprints := _blueprints(folder / "metrics.jsonl"):
        row["blueprints"] = blueprints
    path = folder / "provenance.json"
    if path.is_file():
        row |= read_json(path)
    path = folder / "config.toml"
    if path.is_file():
        row["settings"] = settings_digest(TrainConfig.from_toml(path))
    return row


def _blueprints(metrics: Path) -> dict[str, float]:
    """What phase A saw of its groups of blueprints, as means over a run's iterations."""
    lines, _ = read_json_lines(metrics)
    phases = [line for line in lines if line.get("phase") == "planner" and "lead" in line]
    names = ("dead_groups", "blueprints", "lead") if phases else ()
    return {name: round(mean(float(line[name]) for line in phases), 6) for name in names}


def score(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Success at temperature 1 and greedy, with intervals over tasks, and each task's outcome.

    Outcomes are packed into hexadecimal digits (see `intervals.pack`), in the order of the tasks,
    which is the same in all runs of a cell.
    """
    found: dict[str, Any] = {"success": entry["success"], "ci95": entry["ci95"]}
    if "outcomes" in entry:
        found["outcomes"] = pack(entry["outcomes"])
    if "greedy" in entry:
        found["greedy"] = entry["greedy"]["success"]
        found["greedy_ci95"] = entry["greedy"]["ci95"]
        if "outcomes" in entry["greedy"]:
            found["greedy_outcomes"] = pack(entry["greedy"]["outcomes"])
    return found


def _paired(finished: Sequence[tuple[Job, Mapping[str, Any]]], base: str) -> list[dict[str, Any]]:
    """One method against each other on the same tasks, a row a seed, with intervals over tasks.

    At the end, where both have taken as many environment steps, and where both were measured there
    after as many tokens.
    """
    rows: list[dict[str, Any]] = []
    by_run = {(job.method, job.seed): result for job, result in finished}
    for (method, seed), theirs in by_run.items():
        ours = by_run.get((base, seed))
        if method == base or ours is None:
            continue
        row: dict[str, Any] = {"base": base, "against": method, "seed": seed}
        row["difference"] = _difference(theirs["final"], ours["final"])
        row["greedy_difference"] = _difference(theirs["final"]["greedy"], ours["final"]["greedy"])
        if "at_tokens" in theirs and "at_tokens" in ours:
            row["token_difference"] = _difference(theirs["at_tokens"], ours["at_tokens"])
        rows.append(row)
    return rows


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_drawn(tuple(before["outcomes"]), tuple(after["outcomes"])))


@cache  # ten thousand draws, and all pairs are asked for anew whenever a run ends
def _drawn(before: tuple[float, ...], after: tuple[float, ...]) -> dict[str, Any]:
    return difference({"outcomes": before}, {"outcomes": after})


# -- files -----------------------------------------------------------------------------------------


def keep(recorded: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """`content`, and what was recorded before of runs whose folders are not there any more.

    So a study can be finished on another day, or another machine, from what it has recorded. A
    difference is kept as long as both of its runs are: one from a run that was made anew is not.
    """

    def both(old: list[dict[str, Any]], kind: str, *keys: str) -> list[dict[str, Any]]:
        rows = [*old, *content[kind]]
        return list({tuple(row[key] for key in keys): row for row in rows}.values())

    before = recorded.get("runs", [])
    runs = both(before, "runs", "method", "seed")
    names = {f"{content['cell']}-{row['method']}-seed{row['seed']}" for row in runs}
    missing = [name for name in content["missing"] if name not in names]
    replaced = {(row["method"], row["seed"]) for row in before if row not in runs}
    standing = [
        pair
        for pair in recorded.get("paired", [])
        if not replaced & {(pair["base"], pair["seed"]), (pair["against"], pair["seed"])}
    ]
    paired = both(standing, "paired", "base", "against", "seed")
    return {**content, "missing": missing, "runs": runs, "paired": paired}


def write(folder: Path, content: Mapping[str, Any], study: Study) -> Path:
    """Writes one cell's file, with what it held of other runs (see `keep`); returns its path.

    Where runs of it are of tasks that have changed since, "older" says how.

    Args:
        folder: Where the records are.
        content: What `collect_results` found of the cell.
        study: Whose settings all of its runs must have.

    Raises:
        ValueError: The file holds, or would then hold, runs with other settings.
    """
    path = folder / _name(content)
    recorded = read_all(folder, content["study"]).get(content["cell"], {})
    others = [
        f"{name} = {recorded[name]!r}"
        for name in _OF_A_CELL
        if name in recorded and recorded[name] != content[name]
    ]
    content = keep(recorded, content)
    known = [row for row in content["runs"] if "settings" in row]
    # Seeds do not count: a method's runs all have one digest.
    one = {row["method"]: row for row in known}
    asked = {method: _settings(study, content["cell"], row) for method, row in one.items()}
    others += [
        f"{row['method']} seed {row['seed']}"
        for row in known
        if asked[row["method"]] not in ("", row["settings"])
    ]
    if others:
        raise ValueError(
            f"{path}: runs with other settings than the study has now do not belong in one table "
            f"with its runs: {', '.join(others)}. Move the file away (and the folders of runs "
            "below --out that are named here), or record elsewhere with --results"
        )
    content |= {"older": changed} if (changed := summary.older(content)) else {}
    write_atomically(path, HEADER + to_toml(content))
    return path


def _settings(study: Study, cell: str, row: Mapping[str, Any]) -> str:
    """The digest of the settings that the study gives a run; "" if it no longer has its method."""
    try:
        return settings_digest(study.config(cell, row["method"], row["seed"]))
    except ValueError:
        return ""


def read_all(folder: Path, study: str) -> dict[str, dict[str, Any]]:
    """Every cell of a study that is recorded in `folder`.

    Raises:
        ValueError: A file is not valid TOML, or has another cell's name.
    """
    found = {}
    for path in sorted(folder.glob(f"{study}-*.toml")):
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: not valid TOML: {error}") from error
        if content.get("study") != study:
            continue
        if path.name != (name := _name(content)):
            raise ValueError(f"{path} holds what belongs into {name}: move one of them away")
        found[str(content["cell"])] = content
    return found


def _name(content: Mapping[str, Any]) -> str:
    """The name of the file that records a cell of a study."""
    return f"{content['study']}-{content.get('cell')}.toml"


def to_toml(content: Mapping[str, Any]) -> str:
    """Plain values as TOML: lists of tables become [[name]], other tables stand in a line."""
    lines = []
    tables: list[str] = []
    for key, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            for row in value:
                tables += ["", f"[[{key}]]", *(f"{_key(k)} = {_value(v)}" for k, v in row.items())]
        else:
            lines.append(f"{_key(key)} = {_value(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _key(key: str) -> str:
    """A name, in quotes where TOML would read something else ("temperature-0.4")."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no result")
        return repr(value)
    if isinstance(value, int):
        return str(value)
    return json.dumps(str(value), ensure_ascii=False)
