"""``himac train [PRESET]``: train an agent; every setting of the preset is an option."""

from __future__ import annotations

import errno
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from himac_agents.algorithms import methods
from himac_agents.cli import guide, processes
from himac_agents.cli.environment import named
from himac_agents.cli.helped import helped
from himac_agents.config import TrainConfig, environments, settings_of
from himac_agents.config.tree import EXTENT
from himac_agents.training.progress import Display
from himac_envs import registry
from himac_envs.errors import HiMACError

if TYPE_CHECKING:
    from himac_agents.training.trainer import Trainer

#: Beside --resume: whether the model is sharded over processes from now on.
_SHARD = {"--shard": True, "--no-shard": False}
#: How a disk says that it is full (a quota is spent, a file may not grow).
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: What the short help says of the options that are no settings.
_OWN_OPTIONS = {
    "PRESET": "a preset, or a TOML file of settings",
    "--out FOLDER": "the run's folder (runs/PRESET-seedN)",
    "--resume RUN": "continue a run; --iterations, --max-env-steps, --max-tokens extend it",
    "--data DATA": 'a folder of data, "generated", or an installed data set\'s name',
    "--max-steps N": "commands after which an episode is truncated",
    "--processes N": "processes on this machine that train together (1)",
    "--help-all": "explain every option",
}


@dataclass(frozen=True)
class Options:
    """Train an agent: a preset's settings, any of them replaced by an option."""

    preset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")] = "quickstart"
    """A preset (himac list shows them), or a TOML file of settings. Default: "quickstart", or "hf"
    with --policy hf."""
    out: Path | None = None
    """Folder of the run (default: runs/PRESET-seedN, or runs/PRESET-METHOD-seedN with a method that
    is not the preset's)."""
    resume: Path | None = None
    """Continue this run, with its own settings. Beside it stand only: --iterations, --max-env-steps
    and --max-tokens, which extend the run (it is evaluated again at its new end), --servers, if
    their addresses have changed, --processes, and --shard or --no-shard."""
    data: str | None = None
    """A folder of data, "generated", or the name of an installed data set (himac data where): short
    for --env-kwargs data=..., which keeps the preset's other arguments."""
    max_steps: int | None = None
    """Commands after which an episode is truncated: short for --env-kwargs max_steps=..."""
    processes: int = 1
    """Processes on this machine that train together, one for each GPU, or for each core with a tiny
    model: the same run, faster. Across machines torchrun starts them."""
    further: tyro.conf.Suppress[bool] = False
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


def main(args: Sequence[str]) -> int:
    """Run the command from its arguments."""
    try:
        if {"--help-all", "-h", "--help"} & set(args):
            return _help(args)
        count, args = processes.asked(args)
        if count > 1:
            return processes.start(count, ["train", *args])
        resumes = any(word.partition("=")[0] == "--resume" for word in args)
        return run(_resumed(args) if resumes else parse(args))
    except ValueError as error:
        raise ValueError(_with_option(str(error))) from error


def parse(args: Sequence[str]) -> Options:
    """What a new run is asked for.

    The preset is looked for first, because its values are the defaults of the other options.

    Raises:
        ValueError: There is no such preset, or a setting is wrong.
    """
    first = _first(args)
    options = _parse(args, first)
    if options.preset != first:
        # It stands behind options: what they replace is known only now.
        options = _parse(args, options.preset)
    short = named(options.data, options.max_steps)
    kwargs = {**options.config.env_kwargs, **short}
    return replace(options, config=options.config.replace(env_kwargs=kwargs))


def _help(args: Sequence[str]) -> int:
    """The short help, or with --help-all every option with its whole text."""
    left = [word for word in args if word not in ("--help-all", "-h", "--help")]
    preset = _first(left)
    if "--help-all" in args:
        _parse([*left, "--help"], preset)
    guide.show(Console(highlight=False), preset, _settings(preset), _OWN_OPTIONS)
    return 0


def _parse(args: Sequence[str], preset: str) -> Options:
    default = Options(preset=preset, config=_defaults(args, preset))
    return tyro.cli(helped(Options), args=list(args), default=default, prog="himac train")


def _defaults(args: Sequence[str], preset: str) -> TrainConfig:
    """A preset's settings, without those that mean nothing beside options that are given.

    One environment tells the other, and steps of the warm start are those of the method that is
    trained: what the preset says of the other environment, or of flat agents, is not meant.
    """
    config = _settings(preset)
    given = {name: found for name in ("env", "flat_env") if (found := _value(args, name))}
    if _value(args, "warm_steps") and not _value(args, "flat_warm_steps"):
        config = config.replace(flat_warm_steps=0)
    return config.replace(**given) if len(given) == 1 else config


def _value(args: Sequence[str], setting: str) -> str:
    """What an option is given; "" where it is not."""
    options = {f"--{setting}", f"--{setting.replace('_', '-')}"}
    for word, after in zip(args, [*args[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name in options:
            return value if equals else after
    return ""


def _resumed(args: Sequence[str]) -> Options:
    """A run to go on with, and how far.

    Raises:
        ValueError: Another option stands beside, or there is no such run.
    """
    names = sorted(EXTENT)
    extent = [f"--{name.replace('_', '-')}" for name in names]
    allowed = {"--resume", "--servers", "--processes", *_SHARD, *extent}
    words = [word.partition("=")[0].replace("_", "-") for word in args if word.startswith("--")]
    if set(words) - allowed or not args[0].startswith("--"):
        raise ValueError(
            "--resume RUN continues with the run's own settings; beside it are allowed only "
            f"{', '.join(sorted(allowed - {'--resume'}))}: leave out all others, or start another "
            "run with them"
        )
    asked = tyro.cli(
        helped(_Resumed), args=[a for a in args if a not in _SHARD], prog="himac train"
    )
    path = asked.resume / "config.toml"
    if not path.is_file():
        raise FileNotFoundError(f"{asked.resume} is not a run: it has no {path.name}")
    further = {name: value for name in names if (value := getattr(asked, name)) is not None}
    elsewhere: dict[str, Any] = {} if asked.servers is None else {"servers": asked.servers}
    for word in args:
        if word in _SHARD:
            elsewhere["shard"] = _SHARD[word]
    config = TrainConfig.from_toml(path).replace(**further, **elsewhere)
    return Options(resume=asked.resume, config=config, further=bool(further))


@dataclass(frozen=True)
class _Resumed:
    """Continue a run."""

    resume: Path
    """The run's folder."""
    iterations: int | None = None
    """Most iterations, those already done included."""
    max_env_steps: int | None = None
    """Most environment steps, those already taken included; 0: no limit."""
    max_tokens: int | None = None
    """Most written tokens, those already written included; 0: no limit."""
    servers: tuple[str, ...] | None = None
    """Addresses of the servers that sample, if they have changed."""


def _with_option(told: str) -> str:
    """An error that begins with a setting, with the option in its place."""
    found = re.match(r"[a-z_]+", told)
    if found is None or found[0] not in settings_of(TrainConfig):
        return told
    return f"--{found[0].replace('_', '-')}{told[found.end() :]}"


def _first(args: Sequence[str]) -> str:
    """The preset that stands before all options; without one, that of the kind of policy."""
    if args and not args[0].startswith("-"):
        return args[0]
    return "hf" if _value(args, "policy") == "hf" else "quickstart"


def _settings(preset: str) -> TrainConfig:
    known = registry.names("presets")
    if preset.endswith(".toml") or preset in known:
        return TrainConfig.named(preset)
    if registry.benchmark_of(preset):
        raise ValueError(f"{preset!r} is an environment, not a preset: himac train --env {preset}")
    raise ValueError(
        f"no preset {preset!r}: there are {', '.join(known)}; a file of settings ends in .toml"
    )


def run(options: Options) -> int:
    """Train to the end, or continue; print the table of results."""
    if options.resume is None:
        _check_names(options.config)
    display = Display(Console(stderr=True))
    with display.stage("loading torch and transformers"):
        from himac_agents import distributed
        from himac_agents.training.trainer import Trainer

    if options.resume is not None:
        trainer = Trainer(options.config, options.resume, resume=True)
        if options.further and (why := trainer.over()):
            trainer.run_folder.close()
            raise ValueError(f"{options.resume} has reached its limit: {why}; give a higher one")
    else:
        trainer = Trainer(options.config, options.out or Path("runs") / _name(options))
    folder = trainer.run_folder.folder
    goes_on = f"`himac train --resume {folder}` continues the run"
    try:
        with _gentle_interrupts(trainer):
            trainer.run()
    except KeyboardInterrupt:
        print(f"stopped; {goes_on}", file=sys.stderr)
        raise
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        told = f"cannot write: {error}. Free some space; then {goes_on}"
        raise HiMACError(told) from error
    finally:
        distributed.leave()
    return 0


def _check_names(config: TrainConfig) -> None:
    """Refuses a name that means nothing before torch is loaded, which takes seconds.

    Raises:
        ValueError: The message names the setting and what there is.
    """
    environments.import_modules(config.env, config.flat_env)
    methods.check(config)
    flat = not methods.method_of(config).hierarchical
    registry.find_id(environments.resolved(config.env, config.flat_env, flat=flat))


def _name(options: Options) -> str:
    name, method = Path(options.preset).stem, options.config.method
    if method != _settings(options.preset).method:
        name += f"-{method.replace(':', '-')}"
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
