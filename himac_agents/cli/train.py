"""``himac train [PRESET]``: train an agent; every setting of the preset is an option."""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import tyro

from himac_agents.cli.environment import named
from himac_agents.config import TrainConfig
from himac_envs import registry
from himac_envs.task import HiMACError, MissingDependencyError

if TYPE_CHECKING:
    from himac_agents.training.trainer import Trainer

#: How a disk says that it is full (a quota is spent, a file may not grow).
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Options:
    """Train an agent: a preset's settings, any of them replaced by an option."""

    preset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")] = "quickstart"
    """A preset of the registry (himac list shows them), or a TOML file of settings. Without one:
    "quickstart", or "hf" with --policy hf."""
    out: Path | None = None
    """Folder of the run (default: runs/PRESET-seedN, with the method where it is not the
    preset's)."""
    resume: Path | None = None
    """Continue this run instead, with its own settings: no other option goes with it."""
    data: str | None = None
    """A folder of data, "generated", or the name of an installed data set (himac data where):
    short for --env-kwargs data=..., which keeps the preset's other arguments."""
    max_steps: int | None = None
    """Commands after which an episode is truncated; likewise."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


def main(args: Sequence[str]) -> int:
    """Run the command from its arguments.

    The preset is looked for first, because its values are the defaults of the other options.
    """
    if _resumes(args) and len(args) != (1 if args[0].startswith("--resume=") else 2):
        raise ValueError(
            "--resume RUN goes on with the run's own settings: leave out all other options, or "
            "begin another run with them"
        )
    usual = "hf" if _wants_hf(args) else "quickstart"
    first = next((a for a in args[:1] if not a.startswith("-")), usual)
    options = _parse(args, first)
    if options.preset != first:
        # It stands behind options: what they replace is known only now.
        options = _parse(args, options.preset)
    return run(replace(options, config=_in_environment(options)))


def _in_environment(options: Options) -> TrainConfig:
    """The settings with the environment's name and arguments as the other commands take them."""
    config = options.config
    if options.resume is not None:
        return config
    return config.replace(
        env=registry.find_id(config.env),
        flat_env=config.flat_env and registry.find_id(config.flat_env),
        env_kwargs={**config.env_kwargs, **named(options.data, options.max_steps)},
    )


def _parse(args: Sequence[str], preset: str) -> Options:
    default = Options(preset=preset, config=_settings(preset))
    return tyro.cli(Options, args=list(args), default=default, prog="himac train")


def _resumes(args: Sequence[str]) -> bool:
    return any(word == "--resume" or word.startswith("--resume=") for word in args)


def _wants_hf(args: Sequence[str]) -> bool:
    """Whether the options ask for a model of Hugging Face."""
    return "--policy=hf" in args or ("--policy", "hf") in pairwise(args)


def _settings(preset: str) -> TrainConfig:
    if preset.endswith(".toml"):
        return TrainConfig.from_toml(preset)
    known = registry.names("presets")
    if preset not in known and registry.benchmark_of(preset):
        raise ValueError(f"{preset!r} is an environment, not a preset: himac train --env {preset}")
    if preset not in known:
        raise ValueError(
            f"no preset {preset!r}: there are {', '.join(known)}; a file of settings ends in .toml"
        )
    return TrainConfig.preset(preset)


def run(options: Options) -> int:
    """Train to the end, or continue; print the table of results."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("torch", "training", "agents") from error
    from himac_agents import distributed
    from himac_agents.training.trainer import Trainer

    if options.resume is not None:
        settings = options.resume / "config.toml"
        if not settings.is_file():
            raise FileNotFoundError(f"{options.resume} holds no run: there is no {settings.name}")
        trainer = Trainer(TrainConfig.from_toml(settings), options.resume, resume=True)
    else:
        folder = options.out or Path("runs") / _name(options)
        trainer = Trainer(options.config, folder)
    folder = trainer.run_folder.folder
    goes_on = f"`himac train --resume {folder}` goes on"
    try:
        with _gentle_interrupts(trainer):
            trainer.run()
    except KeyboardInterrupt:
        print(f"stopped; {goes_on}", file=sys.stderr)
        raise
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        told = f"nothing more can be written: {error}. Make room, then {goes_on}"
        raise HiMACError(told) from error
    finally:
        distributed.leave()
    return 0


def _name(options: Options) -> str:
    name, method = Path(options.preset).stem, options.config.method
    if method != _settings(options.preset).method:
        name += f"-{method}"
    return f"{name}-seed{options.config.seed}"


@contextmanager
def _gentle_interrupts(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C ends the run where nothing is lost; the second one at once.

    Several processes would not agree where to stop: there the first one already stops at once.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        if trainer.stop.is_set() or trainer.team.size > 1:
            raise KeyboardInterrupt
        trainer.stop.set()
        print(
            "stopping at the next step with a checkpoint; Ctrl-C again stops at once",
            file=sys.stderr,
        )

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        trainer.stop.clear()
