"""Reads run folders: settings, metrics, result and episodes, with errors that name the file."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from himac_agents.algorithms.methods import METHODS
from himac_agents.evaluation.intervals import Over, wilson
from himac_agents.files import read_json, read_json_lines
from himac_envs.errors import HiMACError

#: How deep below a given folder runs are looked for, and where not: warm starts that a study's
#: runs were forked from are no runs of their own.
DEPTH = 4
SKIPPED = frozenset({"warm", "warm_start", "checkpoints"})


class RunError(HiMACError):
    """A run folder that cannot be read; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run on its held-out tasks, or of several runs (see `groups.pool`).

    Attributes:
        name: "warm_start", "final", or a baseline's name.
        env_steps: Environment steps learned from until then.
        tokens: Tokens written until then.
        success: At temperature 1.
        ci95: Its 95% interval.
        greedy: At temperature 0; None where it was not measured.
        greedy_ci95: The interval of that.
        episodes: How many tasks.
        outcomes: Each task's, where they were kept.
        greedy_outcomes: The same, greedily.
        seeds: Of several runs: the success of each.
        greedy_seeds: The same, greedily.
        over: What the intervals are over.
        seconds: Seconds of learning until then.
        kinds: Of each kind of task its success and how many tasks it has.
    """

    name: str
    env_steps: float
    tokens: float
    success: float
    ci95: tuple[float, float]
    greedy: float | None = None
    greedy_ci95: tuple[float, float] | None = None
    episodes: int = 0
    outcomes: tuple[float, ...] = ()
    greedy_outcomes: tuple[float, ...] = ()
    seeds: tuple[float, ...] = ()
    greedy_seeds: tuple[float, ...] = ()
    over: Over = "tasks"
    seconds: float = 0.0
    kinds: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        """How many runs it is made of."""
        return max(1, len(self.seeds))


@dataclass(frozen=True)
class RunData:
    """What a run folder holds.

    Attributes:
        path: The folder.
        settings: `config.toml`.
        metrics: The rows of `metrics.jsonl`.
        episodes: The rows of `episodes.jsonl`.
        result: `result.json`; None while the run is not finished.
        notes: What a reader should know: torn lines, missing files.
    """

    path: Path
    settings: dict[str, Any]
    metrics: list[dict[str, Any]]
    episodes: list[dict[str, Any]]
    result: dict[str, Any] | None
    notes: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """The method's name."""
        return str(self.settings.get("method", "himac"))

    @property
    def title(self) -> str:
        """The method's name for readers."""
        traits = METHODS.get(self.method)
        title = self.method if traits is None else traits.title
        return title[:1].upper() + title[1:]

    @property
    def env(self) -> str:
        """The id of the environment that was played."""
        if self.result is not None and "env" in self.result:
            return str(self.result["env"])
        traits = METHODS.get(self.method)
        key = "env" if traits is None or traits.hierarchical else "flat_env"
        return str(self.settings.get(key, self.settings.get("env", "?")))

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.settings.get("seed", 0))

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.result is not None

    @cached_property
    def work(self) -> dict[str, float]:
        """Environment steps, tokens and iterations so far."""
        if self.result is not None and isinstance(self.result.get("work"), dict):
            return dict(self.result["work"])
        rows = [r for r in self.metrics if "env_steps_total" in r]
        last = rows[-1] if rows else {}
        return {
            "iterations": last.get("step", 0),
            "env_steps": last.get("env_steps_total", 0),
            "tokens": last.get("tokens_total", 0),
        }

    @cached_property
    def versions(self) -> dict[str, str]:
        """The packages that the run was finished with, by name; empty where it does not say."""
        told = (self.result or {}).get("versions")
        if isinstance(told, dict):
            return {str(name): str(version) for name, version in told.items()}
        manifest = ((self.result or {}).get("final") or {}).get("manifest") or {}
        return {"himac": str(manifest["himac"])} if "himac" in manifest else {}

    @cached_property
    def clock(self) -> dict[int, float]:
        """Seconds of learning until the end of each iteration that the metrics time."""
        timed = {
            int(row["step"]): float(row["seconds"])
            for row in self.metrics
            if "env_steps_total" in row and is_number(row.get("seconds"))
        }
        return dict(zip(timed, accumulate(timed.values()), strict=True))

    def phases(self) -> list[str]:
        """The phases of learning that the metrics tell of, in order of first appearance."""
        return list(dict.fromkeys(r["phase"] for r in self.metrics if "env_steps_total" in r))

    def curve(self, phase: str, key: str, by: str) -> tuple[list[float], list[float]]:
        """A metric over the course of learning.

        Args:
            phase: "planner", "executor", "flat", ...
            key: The metric.
            by: What runs along the axis: "env_steps", "tokens", "seconds" or "step".

        Returns:
            x and y, without the rows that lack either.
        """
        found = [
            (float(x), float(row[key]))
            for row in self.metrics
            if row["phase"] == phase
            and is_number(x := self._place(row, by))
            and is_number(row.get(key))
        ]
        return [x for x, _ in found], [y for _, y in found]

    def _place(self, row: dict[str, Any], by: str) -> Any:
        """How far learning had come at a line of the metrics; None where nothing says so."""
        if by == "seconds":
            return self.clock.get(row["step"])
        return row.get({"env_steps": "env_steps_total", "tokens": "tokens_total"}.get(by, by))

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """Evaluations of the run itself, in order; from the metrics where there is no result."""
        found = [
            self._evaluation(row["phase"].removeprefix("evaluation/"), row)
            for row in self.metrics
            if row["phase"].startswith("evaluation/") and is_number(row.get("temperature_1"))
        ]
        if self.result is None:
            return found
        stated = {
            name: self._stated(name, self.result[name])
            for name in ("warm_start", "final")
            if isinstance(self.result.get(name), dict)
        }
        named = {e.name for e in found}
        kept = [stated.get(e.name, e) for e in found]
        first = [e for name, e in stated.items() if name not in named and name == "warm_start"]
        last = [e for name, e in stated.items() if name not in named and name == "final"]
        return first + kept + last

    @cached_property
    def baselines(self) -> list[Evaluation]:
        """What was measured beside the run."""
        beside = {} if self.result is None else self.result.get("baselines") or {}
        return [
            self._stated(name, entry.get("final", entry))
            for name, entry in beside.items()
            if isinstance(entry, dict) and is_number(entry.get("final", entry).get("success"))
        ]

    def gain(self, kind: str = "temperature_1") -> tuple[float, float | None, float | None] | None:
        """The rise from warm start to end: mean and its paired 95% interval over tasks."""
        stated = ((self.result or {}).get("gain") or {}).get(kind)
        if isinstance(stated, dict) and is_number(stated.get("mean")):
            low, high = stated.get("ci95", (None, None))
            return float(stated["mean"]), low, high
        known = {e.name: e for e in self.evaluations}
        if "warm_start" in known and "final" in known:
            before, after = known["warm_start"], known["final"]
            if kind == "temperature_1":
                return after.success - before.success, None, None
            if before.greedy is not None and after.greedy is not None:
                return after.greedy - before.greedy, None, None
        return None

    def _at(self, name: str, step: int) -> tuple[float, float]:
        """Work done when an evaluation was made."""
        if name == "warm_start":
            return 0.0, 0.0
        rows = [r for r in self.metrics if "env_steps_total" in r and r["step"] <= step]
        if not rows:
            return 0.0, 0.0
        return float(rows[-1]["env_steps_total"]), float(rows[-1].get("tokens_total", 0))

    def _time(self, step: int | None = None) -> float:
        """Seconds of learning until an iteration; of all of it without one."""
        if step is None and is_number(told := self.work.get("learning_seconds")):
            return float(told or 0.0)
        past = [after for at, after in self.clock.items() if step is None or at <= step]
        return past[-1] if past else 0.0

    def _evaluation(self, name: str, row: dict[str, Any]) -> Evaluation:
        trials = int(self.settings.get("eval_episodes", 0) or 0)
        success = float(row["temperature_1"])
        greedy = float(row["greedy"]) if is_number(row.get("greedy")) else None
        return Evaluation(
            name,
            *self._at(name, int(row["step"])),
            success,
            wilson(round(success * trials), trials),
            greedy,
            None if greedy is None else wilson(round(greedy * trials), trials),
            trials,
            seconds=0.0 if name == "warm_start" else self._time(int(row["step"])),
        )

    def _stated(self, name: str, entry: dict[str, Any]) -> Evaluation:
        where = (self.work.get("env_steps", 0.0), self.work.get("tokens", 0.0))
        greedy = entry.get("greedy")
        greedy = greedy if isinstance(greedy, dict) and is_number(greedy.get("success")) else None
        if not is_number(entry.get("success")):
            raise RunError(f"{self.path / 'result.json'}: {name!r} holds no number 'success'")
        return Evaluation(
            name,
            *((0.0, 0.0) if name == "warm_start" else where),
            float(entry["success"]),
            _interval(entry),
            None if greedy is None else float(greedy["success"]),
            None if greedy is None else _interval(greedy),
            int(entry.get("episodes", 0)),
            _outcomes(entry),
            () if greedy is None else _outcomes(greedy),
            seconds=0.0 if name == "warm_start" else self._time(),
            kinds=_kinds(entry),
        )


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run folders among some folders.

    A folder stands for the runs in it and below it; a run's own flat baseline (a run inside it) is
    found with it.

    Raises:
        RunError: A path is no folder, or holds no run.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise RunError(
                f"{path}: no such file or folder; `himac report` takes runs and evaluations"
            )
        inner = sorted(
            settings.parent
            for depth in range(DEPTH)
            for settings in path.glob("*/" * depth + "config.toml")
            if SKIPPED.isdisjoint(settings.relative_to(path).parts)
        )
        if not inner:
            raise RunError(
                f"{path} has no run, neither itself nor in a folder below (`himac train` makes "
                "runs, with a config.toml), and no evaluation (`himac eval --records FILE`)"
            )
        found += inner
    unique: dict[Path, Path] = {}
    for path in found:
        unique.setdefault(path.resolve(), path)
    return list(unique.values())


def read_run(path: Path) -> RunData:
    """Reads one run folder.

    Raises:
        RunError: A file cannot be read as what it should be; a torn last line, as a running or
            interrupted run leaves it, is passed over with a note.
    """
    notes: list[str] = []
    try:
        settings = tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path / 'config.toml'}: not valid TOML: {error}") from error
    metrics = _lines(path / "metrics.jsonl", ("phase", "step"), notes)
    episodes = _lines(path / "episodes.jsonl", ("phase", "segments"), notes)
    result = None
    if (path / "result.json").is_file():
        try:
            result = read_json(path / "result.json")
        except ValueError as error:
            raise RunError(str(error)) from error
    run = RunData(path.resolve(), settings, metrics, episodes, result, tuple(notes))
    _ = run.evaluations, run.baselines  # what is wrong with them is to be said here
    return run


def _lines(path: Path, needed: Sequence[str], notes: list[str]) -> list[dict[str, Any]]:
    """The JSON objects of a log, one a line."""
    if not path.is_file():
        notes.append(f"there is no {path.name}")
        return []
    try:
        found, torn = read_json_lines(path, needed)
    except ValueError as error:
        raise RunError(str(error)) from error
    if torn:
        notes.append(f"{path.name} ends in the middle of a line, which was passed over")
    return found


def is_number(value: object) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _outcomes(entry: dict[str, Any]) -> tuple[float, ...]:
    found = entry.get("outcomes")
    if not isinstance(found, list) or not all(map(is_number, found)):
        return ()
    return tuple(map(float, found))


def _kinds(entry: dict[str, Any]) -> dict[str, tuple[float, int]]:
    """Success by kind of task, as an evaluation states it."""
    told = entry.get("by_type")
    return {
        str(kind): (float(found["success"]), int(found.get("tasks", 0)))
        for kind, found in (told.items() if isinstance(told, dict) else ())
        if isinstance(found, dict) and is_number(found.get("success"))
    }


def _interval(entry: dict[str, Any]) -> tuple[float, float]:
    """The stated interval, or Wilson's from the count."""
    stated = entry.get("ci95")
    if isinstance(stated, list) and len(stated) == 2 and all(is_number(v) for v in stated):
        return float(stated[0]), float(stated[1])
    trials = int(entry.get("episodes", 0))
    return wilson(round(float(entry["success"]) * trials), trials)
