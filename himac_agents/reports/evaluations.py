"""Evaluations in a report: files of `himac eval --records`, their figures and their episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from himac_agents.evaluation.metrics import Record, success_of, summarise
from himac_agents.evaluation.records import is_record_file, panel_of, read_lines
from himac_agents.reports.runs import DEPTH, SKIPPED, RunError, find_runs

#: Of the episodes that are shown, so many are failures where there are enough of either kind.
FAILURES = 0.75


@dataclass(frozen=True)
class EvaluationData:
    """What a file of records holds.

    Attributes:
        path: The file.
        about: Who played what and how.
        records: What each episode amounted to.
        episodes: The episodes that were kept, failures first, in the form of `episodes.jsonl`.
    """

    path: Path
    about: dict[str, Any]
    records: tuple[Record, ...]
    episodes: tuple[dict[str, Any], ...]

    @property
    def agent(self) -> str:
        """Who played."""
        apart = [self.about.get("planner"), self.about.get("executor")]
        if any(apart):
            whole = self.about.get("agent", "?")
            return " + ".join(str(name or whole) for name in apart)
        names = [str(self.about[key]) for key in ("agent", "model") if self.about.get(key)]
        return " ".join(names) or "?"

    @property
    def env(self) -> str:
        """What was played."""
        return str(self.about.get("env", "?"))

    @property
    def title(self) -> str:
        """Who played what."""
        return f"{self.agent} on {self.env} ({panel_of(self.about)})"

    @property
    def seeds(self) -> int:
        """Seeds of sampling."""
        return len({record.seed for record in self.records})

    def rows(self) -> list[tuple[str, dict[str, Any]]]:
        """Success with its interval over tasks: of each kind of task, then of all."""
        kinds = summarise(self.records).get("by_type", {})
        return [*kinds.items(), ("all tasks", success_of(self.records))]

    def figures(self) -> list[tuple[str, Any]]:
        """What the episodes were like, by name."""
        found = {**summarise(self.records)}
        for shown in ("by_type", "score", "tasks"):
            found.pop(shown, None)
        errors = sum(record.error is not None for record in self.records)
        return [*found.items(), ("errors", errors)]

    def shown(self, most: int) -> list[dict[str, Any]]:
        """At most so many episodes: failures first, and some of the solved ones."""
        failed = [episode for episode in self.episodes if not episode.get("success")]
        solved = [episode for episode in self.episodes if episode.get("success")]
        room = max(round(FAILURES * most), most - len(solved))
        first = failed[:room]
        return first + solved[: most - len(first)]


def find_all(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The runs and the files of records among some paths.

    Args:
        paths: Files of `himac eval --records`, folders of runs, or folders that hold either.

    Returns:
        Folders of runs, and files.

    Raises:
        RunError: A path does not exist, or there is nothing in it that can be shown.
    """
    folders: list[Path] = []
    files: dict[Path, Path] = {}
    for path in paths:
        if path.is_file():
            if not is_record_file(path):
                raise RunError(
                    f"{path} is not an evaluation: `himac eval --records FILE` writes such files; "
                    "name a run by its folder"
                )
            files.setdefault(path.resolve(), path)
            continue
        inner = _record_files(path) if path.is_dir() else []
        try:
            folders += find_runs([path])
        except RunError:
            if not inner:
                raise
        files.update({file.resolve(): file for file in inner if file.resolve() not in files})
    unique = {folder.resolve(): folder for folder in folders}
    return list(unique.values()), list(files.values())


def read_evaluation(path: Path) -> EvaluationData:
    """Reads a file of records.

    Raises:
        RunError: It cannot be read as one.
    """
    try:
        lines = list(read_lines(path))
    except (ValueError, UnicodeDecodeError) as error:
        raise RunError(str(error)) from error
    if not lines:
        raise RunError(f"{path}: no episode has ended yet")
    kept = [line.episode for line in lines if isinstance(line.episode, dict)]
    kept = [episode for episode in kept if "phase" in episode and "segments" in episode]
    kept.sort(key=lambda episode: bool(episode.get("success")))
    records = tuple(line.record for line in lines)
    return EvaluationData(path.resolve(), lines[0].about, records, tuple(kept))


def _record_files(folder: Path) -> list[Path]:
    return [
        file
        for depth in range(DEPTH)
        for file in sorted(folder.glob("*/" * depth + "*.jsonl"))
        if SKIPPED.isdisjoint(file.relative_to(folder).parts) and is_record_file(file)
    ]
