"""The command line ``himac``: hierarchical environments for language agents, and training.

Each command is a function of `himac_agents.cli`, imported only when it runs, so that
``himac list`` never waits for torch.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape

from himac_agents.cli import (
    bench,
    data,
    demos,
    doctor,
    evaluation,
    listing,
    model,
    play,
    push,
    report,
    servers,
    train,
)
from himac_agents.cli.environment import importable, spell_out
from himac_agents.cli.helped import helped
from himac_envs import __version__
from himac_envs.errors import HiMACError, explained

#: Command -> what runs it.
COMMANDS: dict[str, Callable[..., Any]] = {
    "list": listing.run,
    "play": play.run,
    "train": train.run,
    "eval": evaluation.run,
    "demos": demos.run,
    "data": data.run,
    "model": model.run,
    "bench": bench.run,
    "report": report.run,
    "push": push.run,
    "site": servers.site,
    "serve": servers.model,
    "serve-env": servers.environment,
    "doctor": doctor.run,
}

#: Commands of several commands: those, and what they are about.
_GROUPS = {
    "data": (data.COMMANDS, "Data sets of the benchmarks."),
    "model": (model.COMMANDS, "Pretrained models."),
}
#: Benchmarks that have options of their own.
_STUDIES = {"methods": "study", "credit": "credit", "gpu": "bench_gpu", "llm": "llm"}
#: What needs a package that is missing, in words.
_NEEDS = {
    "train": "training",
    "bench": "this benchmark",
    "report": "a report",
    "push": "publishing a run",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; None reads ``sys.argv``.

    Returns:
        The exit status: 0, 1 for an error whose message was printed, 130 after Ctrl-C, 141 where
        whoever read the output has gone (``himac list | head``).
    """
    args = list(sys.argv[1:] if argv is None else argv)
    errors = Console(stderr=True, highlight=False)
    if args[:1] in (["--version"], ["version"]):
        print(f"himac {__version__}")
        return 0
    try:
        # An environment of one's own ("module:Id-v0") may lie where the command is given.
        with importable(os.getcwd()):
            status = _run(args)
        sys.stdout.flush()
        return status
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            return 141
        # Gymnasium's own, such as an id that nobody has registered, by name: its import is slow.
        gymnasium = type(error).__module__.startswith("gymnasium.")
        if not (gymnasium or isinstance(error, (HiMACError, OSError, ValueError, ImportError))):
            raise
        if isinstance(error, ImportError):
            command = args[0] if args else ""
            error = explained(error, _NEEDS.get(command, f"himac {command}".strip()))
        errors.print(f"[bold red]himac:[/] {escape(str(error))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        errors.print("[bold red]himac:[/] stopped")
        return 130


def _reader_has_gone() -> bool:
    """Whether nobody reads the output any more; what is left of it is thrown away then."""
    if not hasattr(select, "poll"):  # Windows
        return False
    try:
        place = sys.stdout.fileno()
    except OSError:  # a stream without one, which has no reader
        return False
    poll = select.poll()
    poll.register(place, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    # Python flushes what is left once more at its end.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, place)
    os.close(nowhere)
    return True


def _run(args: list[str]) -> int:
    first, second = (*args[:2], "", "")[:2]
    if first == "train":
        # A preset's values are the options' defaults: they are known once the preset is.
        return train.main(args[1:])
    if first == "bench" and second in _STUDIES:
        study_of = import_module(f"himac_agents.cli.{_STUDIES[second]}")
        return bench.with_options(second, study_of.Options, study_of.run, args[2:])
    commands, prog, about = COMMANDS, "himac", __doc__.split("\n")[0]
    if first in _GROUPS:
        commands, about = _GROUPS[first]
        args, prog = args[1:], f"himac {first}"
    if args and args[0] in commands:
        helped(commands[args[0]])
    status = tyro.extras.subcommand_cli_from_dict(
        commands, args=spell_out(args), prog=prog, description=about
    )
    return int(status or 0)


if __name__ == "__main__":
    raise SystemExit(main())
