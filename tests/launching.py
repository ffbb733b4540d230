"""Commands in several processes, started as a launcher starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
Processes = list[subprocess.Popen[str]]


def launch(count: int, *arguments: str) -> None:
    """Runs a command in so many processes, with the variables that a launcher sets."""
    port = str(_port())
    told = []
    for rank in range(count):
        own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        if count > 1:
            own |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            own |= {"LOCAL_WORLD_SIZE": str(count)}
        told.append((list(arguments), own))
    with _started(told) as started:
        _wait(started)


def launch_nodes(*arguments: str, until: Callable[[], bool] | None = None) -> None:
    """Runs `python -m ...` on two "nodes" of this machine, by torchrun, a process on each.

    Args:
        arguments: Of torchrun: what is run.
        until: Asked again and again: once it is true, everything is killed.
    """
    port = str(_port())
    told = []
    for node in ("0", "1"):
        command = ["-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", node]
        command += ["--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", port]
        told.append(([*command, *arguments], {}))
    with _started(told) as started:
        if until is None:
            _wait(started)
            return
        deadline = time.monotonic() + 550
        while not until():
            assert time.monotonic() < deadline, "what was waited for did not come"
            for process in started:
                assert process.poll() is None, process.communicate()[0][-4000:]
            time.sleep(0.01)


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _started(told: list[tuple[list[str], dict[str, str]]]) -> Iterator[Processes]:
    """Processes with these arguments and variables; they, and what they started, are killed."""
    base = {
        **os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    started: Processes = []
    try:
        for arguments, own in told:
            command, variables = [sys.executable, *arguments], {**base, **own}
            started.append(
                subprocess.Popen(
                    command, env=variables, cwd=ROOT, text=True, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )  # fmt: skip
        yield started
    finally:
        for process in started:
            # What torchrun starts is in sessions of its own.
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
            process.kill()
            process.wait()


def _wait(started: Processes) -> None:
    for process in started:
        output, _ = process.communicate(timeout=550)
        assert process.returncode == 0, output[-4000:]
