"""A run is a folder: settings, metrics, episodes, checkpoints and, at its end, the result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from himac_agents.config import TrainConfig
from himac_agents.files import write_atomically
from himac_agents.rollouts.trace import describe
from himac_agents.rollouts.types import Episode
from himac_envs.task import HiMACError


class Run:
    """The folder of one training run, and its logs.

    Files: `config.toml`, `metrics.jsonl` (one JSON object a phase), TensorBoard events,
    `episodes.jsonl` (sampled episodes to look at), `checkpoints/`; when finished also
    `result.json` and `report.html`.

    Args:
        folder: Where; made if absent.
        config: The settings, written by `begin`.
        resume: Continue the folder's run: logs are appended to, nothing is overwritten.

    Raises:
        FileExistsError: A fresh start in a folder that already holds a run.
        HiMACError: Another process is at work in the folder.
    """

    def __init__(self, folder: Path, config: TrainConfig, *, resume: bool = False) -> None:
        self.folder = folder
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
        self._config = None if resume else config
        self.metrics_path = folder / "metrics.jsonl"
        self.episodes_path = folder / "episodes.jsonl"
        self.lines = 0
        self._board: Any = None

    def begin(self) -> None:
        """Writes the settings: from now on the folder holds a run.

        Called when all that they ask for is there, so that a start that fails leaves no run behind.
        """
        if self._config is not None:
            write_atomically(self.folder / "config.toml", self._config.to_toml())

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
        kept = self.metrics_path.read_text(encoding="utf-8").splitlines()[:lines]
        write_atomically(self.metrics_path, "".join(f"{line}\n" for line in kept))
        # TensorBoard's files cannot be cut: they are written again, from the lines that stay.
        for path in self.folder.glob("events.out.tfevents.*"):
            path.unlink()
        for line in kept:
            row = json.loads(line)
            self._chart(row.pop("phase"), row.pop("step"), row)
        if not self.episodes_path.exists():
            return
        # Episodes belong to iterations; the run may have ended in the middle of a line.
        rows = [row for line in kept if (row := _row(line)) and row["phase"] != "warm_start"]
        last = max((row["step"] for row in rows), default=-1)
        known = {(row["phase"], row["step"]) for row in rows}
        shown = self.episodes_path.read_text(encoding="utf-8").splitlines()
        whole = [line for line in shown if (row := _row(line)) and _belongs(row, last, known)]
        write_atomically(self.episodes_path, "".join(f"{line}\n" for line in whole))

    def log(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Appends one line of metrics, and the same to TensorBoard."""
        row = {"phase": phase, "step": step, **{k: _plain(v) for k, v in values.items()}}
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.lines += 1
        self._chart(phase, step, values)

    def _chart(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        board = self._tensorboard()
        for key, value in values.items():
            board.add_scalar(f"{phase}/{key}", value, step)

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
        if self._board is not None:
            self._board.close()
            self._board = None
        self._lock.release()

    def _tensorboard(self) -> Any:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder))
        return self._board


class UnwrittenRun(Run):
    """The same run seen from a process that leaves the writing to another."""

    def __init__(self, folder: Path, config: TrainConfig, *, resume: bool = False) -> None:
        self.folder, self.lines = folder, 0

    def begin(self) -> None:
        """Nothing."""

    def rewind(self, lines: int) -> None:
        """Counts the lines."""
        self.lines = lines

    def log(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Counts a line."""
        self.lines += 1

    def show(
        self,
        phase: str,
        step: int,
        episodes: Iterable[Episode],
        candidates: Sequence[tuple[Episode, float, float]] = (),
    ) -> None:
        """Nothing."""

    def result(self, content: Mapping[str, Any]) -> Path:
        """Where the result is written."""
        return self.folder / "result.json"

    def report(self) -> Path | None:
        """Nothing."""
        return None

    def close(self) -> None:
        """Nothing."""


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


def _plain(value: float) -> float:
    return round(float(value), 6)
