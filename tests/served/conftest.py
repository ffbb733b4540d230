"""Real vLLM servers on this machine, started once; everything here skips where vLLM is missing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tinymodels import save_served_model

ROOT = Path(__file__).resolve().parents[2]
#: Seconds that a server may take until it answers; two start at the same time.
START = 300.0


@dataclass
class Started:
    """A server, and the process that serves it."""

    url: str
    folder: Path
    process: subprocess.Popen[str]
    log: Path

    def wait(self) -> None:
        """Returns once it has told the options to pass."""
        end = time.monotonic() + START
        while f"--servers {self.url}" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.2)


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def _start(folder: Path, log: Path, *options: str) -> Started:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", str(folder), "--port", str(port), "--max-num-seqs", "32", *options]
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "himac_agents", *words],
            stdout=out, stderr=subprocess.STDOUT, text=True, env=environment(), cwd=ROOT,
        )  # fmt: skip
    return Started(f"http://127.0.0.1:{port}", folder, process, log)


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Started]]:
    """Two servers that start side by side: one takes whole models, the other adapters."""
    place = tmp_path_factory.mktemp("served")
    folder = save_served_model(place / "tied", tied=True)
    found = {
        "whole": _start(folder, place / "whole.log"),
        "adapters": _start(folder, place / "adapters.log", "--lora-rank", "8"),
    }
    try:
        yield found
    finally:
        for one in found.values():
            one.process.send_signal(signal.SIGINT)
        for one in found.values():
            try:
                one.process.wait(60)
            except subprocess.TimeoutExpired:
                one.process.kill()


@pytest.fixture(scope="session")
def whole(started: dict[str, Started]) -> Started:
    started["whole"].wait()
    return started["whole"]


@pytest.fixture(scope="session")
def adapters(started: dict[str, Started]) -> Started:
    started["adapters"].wait()
    return started["adapters"]
