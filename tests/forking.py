"""Functions in several processes that have nothing to import: forked from one that did it once.

A process that learns with a model of Hugging Face spends most of its time on imports. The one that
is forked has no GPU, so that it may have learned already: what is loaded on first use is there.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import context, get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_VARIABLES = {
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
}
_ready: list[context.ForkServerContext] = []


def fork(
    count: int,
    log: Path,
    work: Callable[..., Any],
    *arguments: Any,
    until: Callable[[], bool] | None = None,
) -> None:
    """Runs a function in so many processes, with the variables that a launcher sets.

    Args:
        count: How many.
        log: A folder for what they print.
        work: A function of a module.
        arguments: Its arguments.
        until: Asked again and again: once it is true, all are killed.
    """
    if not _ready:
        _ready.append(get_context("forkserver"))
        _ready[0].set_forkserver_preload(["forked_imports"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    files = [log / f"process-{rank}.log" for rank in range(count)]
    started = []
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(_VARIABLES)
    try:
        for rank, file in enumerate(files):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            own = {**told, **own, "LOCAL_WORLD_SIZE": str(count)}
            started.append(_ready[0].Process(target=_run, args=(own, file, work, arguments)))
            started[-1].start()
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    deadline = time.monotonic() + 550
    try:
        while any(process.exitcode is None for process in started):
            if until is not None and until():
                return
            failed = [i for i, process in enumerate(started) if process.exitcode]
            assert not failed, files[failed[0]].read_text()[-4000:]
            assert time.monotonic() < deadline, "\n".join(f.read_text()[-2000:] for f in files)
            started[-1].join(0.01 if until else 0.1)
        assert until is None, "what was waited for did not come"
        for process, file in zip(started, files, strict=True):
            assert process.exitcode == 0, file.read_text()[-4000:]
    finally:
        for process in started:
            process.kill()
            process.join()


def _run(
    variables: dict[str, str], log: Path, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(variables)
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        found = work(*arguments)
        sys.stdout.flush()
        sys.exit(found if isinstance(found, int) else 0)
