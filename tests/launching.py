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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = {**environment(), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = []
    for rank in range(count):
        if count > 1:
            base |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            base |= {"LOCAL_WORLD_SIZE": str(count)}
        command = [sys.executable, *arguments]
        kept = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started.append(subprocess.Popen(command, env=base, cwd=ROOT, text=True, **kept))
    try:
        for process in started:
            output, _ = process.communicate(timeout=550)
            assert process.returncode == 0, output[-4000:]
    finally:
        for process in started:
            process.kill()
