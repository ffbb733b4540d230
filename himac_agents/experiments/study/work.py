"""One job of a study, in a process of its own: ``python -m himac_agents.experiments.study.work``.

A warm start is a run that stops before its first update. A method's run begins as a copy of it,
under the method's own settings, and is resumed like any interrupted run.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from types import FrameType

from filelock import FileLock
from rich.console import Console

from himac_agents.config import LEARNING_FIELDS, TrainConfig
from himac_agents.experiments.study.provenance import provenance
from himac_agents.files import write_atomically

#: The exit status of a job that was asked to leave, and can go on from its checkpoint.
LEFT = 75

#: Written into a warm start's folder once it can be forked.
READY = "ready.json"


def done(kind: str, config: TrainConfig, folder: Path) -> bool:
    """Whether nothing is left to do of a job.

    Args:
        kind: "warm" or "learn".
        config: Its settings. A warm start may have been made for another method.
        folder: Where its result is, if it has one.

    Raises:
        ValueError: It was done with other settings.
    """
    if not (folder / (READY if kind == "warm" else "result.json")).is_file():
        return False
    _check_settings(config, folder, LEARNING_FIELDS if kind == "warm" else frozenset())
    return True


def warm(config: TrainConfig, folder: Path, console: Console) -> None:
    """Makes a warm start, or does nothing where it is ready."""
    if done("warm", config, folder):
        return
    from himac_agents.training.trainer import Trainer

    begun = (folder / "config.toml").is_file()
    if begun:
        _check_settings(config, folder)
    trainer = Trainer(config, folder, resume=begun, console=console)
    trainer.begin()
    trainer.run_folder.close()
    write_atomically(folder / READY, json.dumps(provenance(), indent=2) + "\n")


def learn(config: TrainConfig, folder: Path, source: Path, console: Console) -> None:
    """Runs a method from a warm start to its end; goes on where a dead process stopped."""
    if done("learn", config, folder):
        return
    from himac_agents.training.trainer import Trainer

    if (folder / "config.toml").is_file():
        _check_settings(config, folder)
    else:
        fork(config, folder, source)
    Trainer(config, folder, resume=True, console=console).run()


def fork(config: TrainConfig, folder: Path, source: Path) -> None:
    """A run's folder that goes on from a warm start, made beside its place and moved into it.

    Raises:
        FileNotFoundError: The warm start is not ready.
    """
    if not (source / READY).is_file():
        raise FileNotFoundError(f"{source} is not a finished warm start: it has no {READY}")
    staged = folder.with_name(f".forking-{folder.name}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for name in ("warm_start", "checkpoints"):
        shutil.copytree(source / name, staged / name)
    shutil.copy(source / "metrics.jsonl", staged)
    write_atomically(staged / "config.toml", config.to_toml())
    write_atomically(staged / "provenance.json", json.dumps(provenance(), indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(staged, folder)


def _check_settings(
    config: TrainConfig, folder: Path, others: Collection[str] = frozenset()
) -> None:
    """Refuses a folder that was begun with settings that differ, but for some `others`."""
    saved = TrainConfig.from_toml(folder / "config.toml")
    # What readers are told may be put better; nothing is computed from it.
    kept = {"note", *others}
    names = [n for n in vars(config) if n not in kept and getattr(saved, n) != getattr(config, n)]
    if names:
        raise ValueError(
            f"{folder} was begun with other settings ({', '.join(names)}): finish it with those, "
            "or choose another --out"
        )


def main(args: Sequence[str]) -> int:
    """``warm FOLDER CONFIG`` or ``learn FOLDER CONFIG SOURCE``."""
    kind, folder, config = args[0], Path(args[1]), TrainConfig.from_toml(args[2])
    console = Console(file=sys.stdout, width=100, no_color=True)
    signal.signal(signal.SIGTERM, _leave)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A driver that was killed leaves its workers behind: the next one's worker waits for them.
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        try:
            if kind == "warm":
                warm(config, folder, console)
            else:
                learn(config, folder, Path(args[3]), console)
        except KeyboardInterrupt:
            return LEFT
    return 0


def _leave(number: int, frame: FrameType | None) -> None:
    """Asks the run to be left at its next step, with a checkpoint; at once where asked twice."""
    from himac_agents.training.trainer import Trainer

    signal.signal(number, signal.SIG_DFL)
    Trainer.stop.set()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
