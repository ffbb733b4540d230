"""Servers for the tests of OpenEnv: in the test's own event loop, or as a process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from himac_envs.adapters.serving import address, listen

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def here(app: Any) -> AsyncIterator[str]:
    """The server in the test's own event loop, so that the test may look into it."""
    bound = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    running = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        yield address(bound)
    finally:
        server.should_exit = True
        await running


async def until(what: Callable[[], bool]) -> None:
    """Let the event loop go on until something is so."""
    async with asyncio.timeout(60):
        while not what():
            await asyncio.sleep(0.01)


class Clock:
    """The time, as a test says it is."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def served(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`himac serve-env`, as a process, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "himac_agents", "serve-env", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " at http://127.0.0.1:" in line, line
        yield process, line.split(" at ")[1].split()[0]
    finally:
        process.kill()
        process.wait()
