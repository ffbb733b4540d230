"""A run is a folder: settings, metrics, episodes, checkpoints and, at its end, the result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from himac_agents.config import TrainConfig
from himac_agents.config.tree import KEPT
from himac_agents.files import write_atomically
from himac_agents.rollouts.trace import describe
from himac_agents.rollouts.types import Episode
from himac_agents.training.loggers import Guarded, JsonLogger, Logger, make_loggers
from himac_agents.training.rows import Row
from himac_envs.errors import HiMACError

#: The settings that a run was begun with, written once: a run that goes on is to be the same run.
#: What is learned or evaluated may not differ; how far it goes, how fast, and what is kept of it
#: may (see `himac_agents.config.setting.Changes`).
_BEGUN = "begun.toml"
_HEAD = (
    "# What this run was begun with, not to be edited: a run that goes on is compared with it.\n\n"
)


class Run:
    """The folder of one training run, and its logs.

    Files: `config.toml`, `begun.toml` (the settings that the run was begun with),
    `metrics.jsonl` (one JSON object a phase), what the loggers write, `episodes.jsonl` (sampled
    episodes to look at), `checkpoints/`; when finished also `result.json` and `report.html`.

    Args:
        folder: Where; made if absent.
        config: The settings, written by `begin`.
        resume: Continue the folder's run: logs are appended to, nothing is overwritten.
        loggers: Who is told the metrics beside `metrics.jsonl`; None: those of the settings.
        warn: Told of loggers that fail.

    Raises:
        FileExistsError: A fresh start in a folder that already holds a run.
        HiMACError: Another process is at work in the folder.
        ValueError: The settings are not those that the run was begun with.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        *,
        resume: bool = False,
        loggers: Sequence[Logger] | None = None,
        warn: Callable[[str], None] = print,
    ) -> None:
        self.folder = folder
        if resume:
            check_unchanged(folder, config)
        if not resume and (folder / "config.toml").exists():
            raise FileExistsError(
                f"{folder} already holds a run: `himac train --resume {folder}` continues it, "
                "or choose another --out"
            )
        folder.mkdir(parents=True, exist_ok=True)
        # One for all runs of this process in the folder; a process that dies lets go of it.
        self._lock = FileLock(folder / ".lock", is_singleton=True, thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise HiMACError(
                f"another process is training in {folder}: wait for it, or choose another --out"
            ) from error
        self._config, self._goes_on = config, resume
        self.metrics_path = folder / "metrics.jsonl"
        self.episodes_path = folder / "episodes.jsonl"
        self.lines = 0
        self._metrics = JsonLogger(self.metrics_path)
        made = make_loggers(config, folder) if loggers is None else loggers
        self._loggers = Guarded(made, warn)

    def begin(self) -> None:
        """Writes the settings: from now on the folder holds a run.

        Called when all that they ask for is there, so that a start that fails leaves no run behind.
        """
        begun = self.folder / _BEGUN
        if not (self._goes_on and begun.exists()):
            write_atomically(begun, _HEAD + self._config.to_toml())
        path, text = self.folder / "config.toml", self._config.to_toml()
        # A run that goes on goes further, at most.
        if not path.is_file() or TrainConfig.from_toml(path) != self._config:
            write_atomically(path, text)

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.folder / "checkpoints"

    def rewind(self, lines: int) -> None:
        """Cuts the logs back to the checkpoint that is resumed.

        Args:
            lines: Lines of metrics that the checkpoint knew of.
        """
        self.lines = lines
        if not self.metrics_path.exists():
            return
        kept = self._metrics.rows(lines)
        self._rewrite(kept)
        if not self.episodes_path.exists():
            return
        # Episodes belong to iterations; the run may have ended in the middle of a line.
        rows = [row for row in kept if row.phase != "warm_start"]
        last = max((row.step for row in rows), default=-1)
        known = {(row.phase, row.step) for row in rows}
        shown = self.episodes_path.read_text(encoding="utf-8").splitlines()
        whole = [line for line in shown if (row := _row(line)) and _belongs(row, last, known)]
        write_atomically(self.episodes_path, "".join(f"{line}\n" for line in whole))

    def log(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Appends one line of metrics, and tells it the loggers."""
        row = Row(phase, step, {key: round(float(value), 6) for key, value in values.items()})
        self._metrics.log(row)
        self.lines += 1
        self._loggers.log(row)

    def rename(self, phase: str, step: int, new: str) -> None:
        """Gives the lines and the shown episodes of an evaluation another name."""
        rows = self._metrics.rows(self.lines)
        alike = [row.phase == phase and row.step == step for row in rows]
        self._rewrite(
            [replace(row, phase=new) if a else row for row, a in zip(rows, alike, strict=True)]
        )
        if self.episodes_path.exists():
            lines = []
            for line in self.episodes_path.read_text(encoding="utf-8").splitlines():
                shown = json.loads(line)
                name, comma, kind = shown["phase"].partition(",")
                if (name, shown["step"]) == (phase, step):
                    line = json.dumps({**shown, "phase": new + comma + kind})
                lines.append(line + "\n")
            write_atomically(self.episodes_path, "".join(lines))

    def _rewrite(self, rows: Sequence[Row]) -> None:
        self._metrics.rewind(rows)
        self._loggers.rewind(rows)

    def show(
        self,
        phase: str,
        step: int,
        episodes: Iterable[Episode],
        candidates: Sequence[tuple[Episode, float, float]] = (),
    ) -> None:
        """Appends episodes for a reader to look at (`himac report` shows them).

        Args:
            phase: When they were played: "train", "evaluation/final".
            step: The iteration.
            episodes: What was played.
            candidates: What the planner proposed meanwhile (see `rollouts.trace.describe`).
        """
        with self.episodes_path.open("a", encoding="utf-8") as file:
            for episode in episodes:
                file.write(json.dumps(describe(episode, phase, step, candidates)) + "\n")

    def result(self, content: Mapping[str, Any]) -> Path:
        """Writes `result.json`, the mark of a finished run."""
        path = self.folder / "result.json"
        write_atomically(path, json.dumps(content, indent=2) + "\n")
        return path

    def report(self) -> Path | None:
        """Writes `report.html`.

        Returns:
            None where it could not be made: a run that has its result does not fail for that, and
            `himac report` says what is wrong.
        """
        try:
            from himac_agents.reports.page import write_report

            return write_report([self.folder], self.folder / "report.html")[0]
        except (ImportError, HiMACError, OSError):
            return None

    def close(self) -> None:
        """Closes the logs, and leaves the folder to others."""
        self._loggers.close()
        self._lock.release()


class UnwrittenRun(Run):
    """The same run seen from a process that leaves the writing to another."""

    def __init__(self, folder: Path, config: TrainConfig, **further: Any) -> None:
        self.folder, self.lines = folder, 0

    def _nothing(self, *args: Any, **kwargs: Any) -> None: ...

    begin = rename = show = report = close = _nothing

    def rewind(self, lines: int) -> None:
        """Counts the lines."""
        self.lines = lines

    def log(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Counts a line."""
        self.lines += 1

    def result(self, content: Mapping[str, Any]) -> Path:
        """Where the result is written."""
        return self.folder / "result.json"


def check_unchanged(folder: Path, config: TrainConfig) -> None:
    """Refuses to go on with other settings than a run was begun with.

    Raises:
        ValueError: The message names the settings, what they are and what they were.
    """
    if not (folder / _BEGUN).is_file():
        return
    begun = TrainConfig.from_toml(folder / _BEGUN)
    changed = [
        f"{name}={now!r} (begun with {was!r})"
        for name in begun.__dataclass_fields__
        if name in KEPT and (now := getattr(config, name)) != (was := getattr(begun, name))
    ]
    if changed:
        raise ValueError(
            f"{folder} was begun with other settings: {', '.join(changed)}. Put them back in its "
            "config.toml, or start another run with them. Only its limits may be changed: `himac "
            f"train --resume {folder} --iterations N`"
        )


def _row(line: str) -> dict[str, Any] | None:
    """A line of a log; None where it is torn."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and "step" in row and "phase" in row else None


def _belongs(episode: Mapping[str, Any], last: int, known: set[tuple[str, int]]) -> bool:
    """Whether a shown episode is part of what is resumed.

    An evaluation shows its episodes before its line of metrics, in an iteration that may have its
    checkpoint already: where the line is missing, it is made, and shown, once more.
    """
    phase, _, _ = str(episode["phase"]).partition(",")
    if phase.startswith("evaluation/"):
        return (phase, episode["step"]) in known
    return bool(episode["step"] <= last)
