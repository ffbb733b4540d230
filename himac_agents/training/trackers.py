"""Weights & Biases and trackio: services that show the curves of many runs side by side.

Both take metrics and never give them back, while a run that is resumed may have to take back what
came after its checkpoint. So a tracked run holds exactly the lines of `metrics.jsonl`, or ends:
where the two would differ, another tracked run of the same group begins with the lines that hold.

Steps of different phases overlap, so each phase has a step of its own, `PHASE/step`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from himac_agents.config import TrainConfig
from himac_agents.files import write_atomically
from himac_agents.training.rows import Row
from himac_envs.errors import MissingDependencyError


@dataclass(frozen=True)
class _Told:
    """What a service was told, as it is kept beside the run.

    Attributes:
        id: What the service calls the tracked run.
        part: The how manieth of the run's tracked runs it is.
        lines: A digest of the lines that it holds, in order.
    """

    id: str
    part: int = 1
    lines: str = ""

    def and_(self, row: Row) -> _Told:
        """The same with one line more."""
        line = json.dumps([self.lines, row.phase, row.step, dict(row.values)], sort_keys=True)
        return _Told(self.id, self.part, hashlib.sha256(line.encode()).hexdigest())


class Tracker(ABC):
    """A service as a logger.

    Args:
        folder: The run's.
        config: Its settings; `project` is what the service files the run under.

    Raises:
        MissingDependencyError: The service's package is not installed.
    """

    package: ClassVar[str]

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        if importlib.util.find_spec(self.package) is None:
            raise MissingDependencyError(self.package, f"the logger {self.package!r}", self.package)
        self._folder, self._config = folder, config
        self._record = folder / f"{self.package}.json"
        self._told = self._read()
        self._open = False

    @abstractmethod
    def _begin(self, name: str, group: str, run_id: str) -> None:
        """Begins a tracked run, or goes on with it."""

    @abstractmethod
    def _log(self, row: Row) -> None:
        """One line more."""

    @abstractmethod
    def _end(self) -> None:
        """Everything is written."""

    def log(self, row: Row) -> None:
        """See `Logger`."""
        if not self._open:
            group = self._folder.resolve().name
            part = self._told.part
            name = group if part == 1 else f"{group} (resumed {part - 1})"
            self._begin(name, group, self._told.id)
            self._open = True
        self._log(row)
        self._told = self._told.and_(row)
        write_atomically(self._record, json.dumps(vars(self._told)))

    def rewind(self, rows: Sequence[Row]) -> None:
        """See `Logger`; the module's text says how."""
        holding = _Told(self._told.id)
        for row in rows:
            holding = holding.and_(row)
        if holding.lines == self._told.lines:
            return
        self.close()
        begun = bool(self._told.lines)
        self._told = _new(self._told.part + 1 if begun else self._told.part)
        for row in rows:
            self.log(row)

    def close(self) -> None:
        """See `Logger`."""
        if self._open:
            self._open = False
            self._end()

    def _read(self) -> _Told:
        try:
            return _Told(**json.loads(self._record.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return _new(1)


def _new(part: int) -> _Told:
    return _Told(uuid.uuid4().hex[:12], part)


def _flat(row: Row) -> dict[str, float]:
    return {f"{row.phase}/step": row.step, **{f"{row.phase}/{k}": v for k, v in row.values.items()}}


class WandbLogger(Tracker):
    """Weights & Biases; `WANDB_MODE=offline` keeps it on this machine until `wandb sync`."""

    package = "wandb"

    def _begin(self, name: str, group: str, run_id: str) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=self._config.project,
            entity=os.environ.get("WANDB_ENTITY"),
            dir=str(self._folder),
            id=run_id,
            name=name,
            group=group,
            resume="allow",
            config=dict(vars(self._config)),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._phases: set[str] = set()

    def _log(self, row: Row) -> None:
        if row.phase not in self._phases:
            self._phases.add(row.phase)
            self._run.define_metric(f"{row.phase}/step", hidden=True)
            self._run.define_metric(f"{row.phase}/*", step_metric=f"{row.phase}/step")
        self._run.log(_flat(row))

    def _end(self) -> None:
        self._run.finish()


class TrackioLogger(Tracker):
    """trackio: on this machine (`trackio show`), or in a Space that TRACKIO_SPACE_ID names."""

    package = "trackio"

    def _begin(self, name: str, group: str, run_id: str) -> None:
        import trackio

        self._run: Any = trackio.init(
            project=self._config.project,
            name=f"{name} {run_id}",
            group=group,
            resume="allow",
            config=dict(vars(self._config)),
            embed=False,
        )

    def _log(self, row: Row) -> None:
        self._run.log(_flat(row))

    def _end(self) -> None:
        import trackio

        trackio.finish()
