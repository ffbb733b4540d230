"""Real vLLM servers on this machine, started once; everything here skips where vLLM is missing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tinymodels import save_served_model

ROOT = Path(__file__).resolve().parents[2]
#: Seconds that a server may take until it answers; three start at the same time.
START = 500.0


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

    def kill(self) -> None:
        """Ends it and what it has started at once, as a machine that fails does."""
        family = psutil.Process(self.process.pid)
        for one in [*family.children(recursive=True), family]:
            one.kill()
        self.process.wait()


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def start(folder: Path, log: Path, *options: str) -> Started:
    """Starts a server, and does not wait for it."""
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
def started(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Started]]:
    """Servers that start side by side: two take whole models, the third adapters.

    Only those that the tests of this session ask for.
    """
    place = tmp_path_factory.mktemp("served")
    folder = save_served_model(place / "tied", tied=True)
    options: dict[str, list[str]] = {"whole": [], "second": [], "adapters": ["--lora-rank", "8"]}
    asked = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    found = {
        name: start(folder, place / f"{name}.log", *own)
        for name, own in options.items()
        if name in asked
    }
    try:
        yield found
    finally:
        stop(*found.values())


@contextmanager
def running(folder: Path, log: Path, *options: str) -> Iterator[Started]:
    """A server for as long as the block runs."""
    one = start(folder, log, *options)
    try:
        one.wait()
        yield one
    finally:
        stop(one)


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[Started]]:
    """Starts a server for a block: (the model's folder, a file for what it prints, options)."""
    return running


def stop(*servers: Started) -> None:
    """Ends servers as Ctrl-C does, all at the same time."""
    for one in servers:
        one.process.send_signal(signal.SIGINT)
    for one in servers:
        try:
            one.process.wait(60)
        except subprocess.TimeoutExpired:
            one.kill()


@pytest.fixture(scope="session")
def whole(started: dict[str, Started]) -> Started:
    started["whole"].wait()
    return started["whole"]


@pytest.fixture(scope="session")
def second(started: dict[str, Started]) -> Started:
    """Beside `whole`, with the same model; a test may end it."""
    started["second"].wait()
    return started["second"]


@pytest.fixture(scope="session")
def adapters(started: dict[str, Started]) -> Started:
    started["adapters"].wait()
    return started["adapters"]
