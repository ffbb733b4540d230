"""Commands in several processes, started as a launcher starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment() -> dict[str, str]:
    """The variables of a process that sees the tests' modules, and no GPU."""
    return {
        **os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip


def launch(count: int, *arguments: str) -> None:
    """Runs a command in so many processes, with the variables that a launcher sets."""
    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_port())}
    told = []
    for rank in range(count):
        if count > 1:
            own |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            own |= {"LOCAL_WORLD_SIZE": str(count)}
        told.append((list(arguments), dict(own)))
    _run(told)


def launch_nodes(*arguments: str) -> None:
    """Runs a command on two "nodes" of this machine, by torchrun, in one process on each."""
    port = str(_port())
    told: list[tuple[list[str], dict[str, str]]] = []
    for node in ("0", "1"):
        command = ["-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", node]
        command += ["--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", port]
        told.append(([*command, *arguments], {}))
    _run(told)


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _run(told: list[tuple[list[str], dict[str, str]]]) -> None:
    """Runs commands, each with variables of its own, at the same time and to their ends."""
    base = environment()
    started = []
    for arguments, own in told:
        kept = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        command = [sys.executable, *arguments]
        started.append(subprocess.Popen(command, env={**base, **own}, cwd=ROOT, text=True, **kept))
    try:
        for process in started:
            output, _ = process.communicate(timeout=550)
            assert process.returncode == 0, output[-4000:]
    finally:
        for process in started:
            process.kill()
