"""Who is told the metrics of a run: TensorBoard, wandb, trackio, the file of metrics, anyone's own.

A logger is an object with the three methods of `Logger`. It is passed (``Trainer(...,
loggers=[mine])``), or registered under a name that the setting `loggers` lists: by
`register_logger`, or by a package's entry point in the group ``himac.loggers``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from himac_agents.config import TrainConfig
from himac_agents.files import write_atomically
from himac_agents.register import Register
from himac_agents.training.rows import Row
from himac_agents.training.trackers import TrackioLogger, WandbLogger


@runtime_checkable
class Logger(Protocol):
    """Is told the metrics of a run as they are known."""

    def log(self, row: Row) -> None:
        """One line more."""
        ...

    def rewind(self, rows: Sequence[Row]) -> None:
        """The run goes on from a checkpoint: of all that was logged, only `rows` still holds."""
        ...

    def close(self) -> None:
        """The run ends, or is left; `log` may be called again if it goes on."""
        ...


#: Makes a run's logger, of its folder and its settings.
Factory = Callable[[Path, TrainConfig], Logger]


class JsonLogger:
    """A file with one JSON object a line: `metrics.jsonl`.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, row: Row) -> None:
        """See `Logger`."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self._line(row))

    def _line(self, row: Row) -> str:
        return json.dumps({"phase": row.phase, "step": row.step, **row.values}) + "\n"

    def rows(self, most: int) -> list[Row]:
        """The first lines, `most` of them."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines()[:most]:
            values = json.loads(line)
            found.append(Row(values.pop("phase"), values.pop("step"), values))
        return found

    def rewind(self, rows: Sequence[Row]) -> None:
        """See `Logger`."""
        if self.path.exists():
            write_atomically(self.path, "".join(map(self._line, rows)))

    def close(self) -> None:
        """See `Logger`."""


class TensorBoardLogger:
    """TensorBoard's event files, in the run's folder.

    Args:
        folder: The run's.
        config: Its settings.
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self._folder = folder
        self._board: Any = None

    def log(self, row: Row) -> None:
        """See `Logger`."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self._folder))
        for key, value in row.values.items():
            self._board.add_scalar(f"{row.phase}/{key}", value, row.step)

    def rewind(self, rows: Sequence[Row]) -> None:
        """Its files cannot be cut: they are written again."""
        self.close()
        for path in self._folder.glob("events.out.tfevents.*"):
            path.unlink()
        for row in rows:
            self.log(row)

    def close(self) -> None:
        """See `Logger`."""
        if self._board is not None:
            self._board.close()
            self._board = None


#: What makes loggers, by name.
LOGGERS: Register[Factory] = Register(
    "logger",
    "himac.loggers",
    {"tensorboard": TensorBoardLogger, "wandb": WandbLogger, "trackio": TrackioLogger},
)


def register_logger(name: str, factory: Factory, *, replace: bool = False) -> None:
    """Makes a logger known by name.

    Args:
        name: What `loggers` calls it.
        factory: Called with the run's folder and settings.
        replace: Take the place of one that has the name.

    Raises:
        ValueError: Another one has this name.
    """
    LOGGERS.add(name, factory, replace=replace)


def make_loggers(config: TrainConfig, folder: Path) -> list[Logger]:
    """The loggers that a run's settings name.

    Raises:
        ValueError: A name is not known.
    """
    check_loggers(config)
    return [LOGGERS[name](folder, config) for name in config.loggers]


def check_loggers(config: TrainConfig) -> None:
    """Refuses, by a ValueError, names that no logger has."""
    for name in config.loggers:
        try:
            LOGGERS.find(name)
        except ValueError as error:
            raise ValueError(f"loggers={name!r}: {error}") from None


class Guarded:
    """Loggers that cannot end a run: what they raise is told once each, and the run goes on.

    Args:
        loggers: The loggers.
        warn: Told what went wrong.
    """

    def __init__(self, loggers: Sequence[Logger], warn: Callable[[str], None]) -> None:
        self._loggers, self._warn = list(loggers), warn
        self._warned: set[int] = set()

    def log(self, row: Row) -> None:
        """See `Logger`."""
        self._each(lambda logger: logger.log(row))

    def rewind(self, rows: Sequence[Row]) -> None:
        """See `Logger`."""
        self._each(lambda logger: logger.rewind(rows))

    def close(self) -> None:
        """See `Logger`."""
        self._each(lambda logger: logger.close())

    def _each(self, tell: Callable[[Logger], None]) -> None:
        for place, logger in enumerate(self._loggers):
            try:
                tell(logger)
            except Exception as error:
                if place not in self._warned:
                    self._warned.add(place)
                    name = type(logger).__name__
                    self._warn(f"{name} failed, the run goes on: {type(error).__name__}: {error}")
