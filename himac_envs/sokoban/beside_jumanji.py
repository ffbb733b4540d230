"""Jumanji's Sokoban beside ours, for ``himac bench sokoban``: one vmapped batch, steps only.

Jumanji and JAX run in a second interpreter: this one where it can import them, else the one named
by ``HIMAC_JUMANJI_PYTHON`` (``python -m venv V && V/bin/pip install 'himac[jumanji]'``). Its
batch is ``jit(vmap(env.step))`` over 1,024 boards of 10x10 with 4 boxes from its own generator,
without resets, and with all its threads' CPU time counted, as ours is.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

__all__ = ["Jumanji"]

BATCH = 1024

_SERVE = """
import json, sys, time
import jax, numpy as np
from jumanji.environments.routing.sokoban.env import Sokoban
from jumanji.environments.routing.sokoban.generator import SimpleSolveGenerator
batch, steps = int(sys.argv[1]), int(sys.argv[2])
env = Sokoban(generator=SimpleSolveGenerator(), time_limit=10**9)
state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.PRNGKey(0), batch))
step = jax.jit(jax.vmap(env.step))
actions = jax.numpy.asarray(np.random.default_rng(0).integers(0, 4, (steps, batch)), "int32")
rows = [actions[i] for i in range(steps)]
def walk(state):
    for row in rows:
        state, shown = step(state, row)
    jax.block_until_ready((state, shown))
    return state
many = jax.jit(lambda state: jax.lax.scan(lambda s, a: (step(s, a)[0], ()), state, actions)[0])
works = {"vmap": walk, "scan": lambda state: jax.block_until_ready(many(state))}
for work in works.values():
    work(state)
for name in map(str.strip, sys.stdin):
    begun, wall = time.process_time(), time.perf_counter()
    state = works[name](state)
    spent = [time.process_time() - begun, time.perf_counter() - wall]
    print(json.dumps([batch * steps / s for s in spent]), flush=True)
"""


class Jumanji:
    """Jumanji in an interpreter of its own.

    Args:
        steps: Steps of the batch in one measurement.

    Attributes:
        ready: Whether there is one.
    """

    def __init__(self, steps: int = 300) -> None:
        self._process: subprocess.Popen[str] | None = None
        interpreter = os.environ.get("HIMAC_JUMANJI_PYTHON") or (
            sys.executable if importlib.util.find_spec("jumanji") else None
        )
        if interpreter is not None:
            self._process = subprocess.Popen(
                [interpreter, "-c", _SERVE, str(BATCH), str(steps)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
            )  # fmt: skip

    @property
    def ready(self) -> bool:
        """Whether an interpreter with Jumanji was found."""
        return self._process is not None

    def measure(self, how: str) -> tuple[float, float]:
        """Return steps a second of CPU and of wall time.

        Args:
            how: "vmap" (a call for each step, as an agent steps a batch) or "scan" (all steps in
                one compiled loop, which leaves no room for an agent outside JAX).

        Raises:
            RuntimeError: The interpreter ended.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(how + "\n")
            process.stdin.flush()
            cpu, wall = json.loads(process.stdout.readline())
        except (OSError, ValueError) as error:
            raise RuntimeError(
                f"Jumanji's interpreter ended with code {process.wait()} ({error}); see its "
                "message above"
            ) from error
        return float(cpu), float(wall)

    def close(self) -> None:
        """End the interpreter."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
