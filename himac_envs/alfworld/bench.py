"""``himac bench alfworld``: CPU time beside the original, interleaved, median of 5.

The original runs in a second interpreter, since it needs old packages: this one where it can
import alfworld, else ``.venv-reference/bin/python`` in the current folder (``make reference``), or
the one named by ``HIMAC_REFERENCE_PYTHON``. Without any, our own figures stand alone. Both play the
same games and the same commands: the installed official games, else generated ones.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from himac_envs.alfworld.archive import load_index
from himac_envs.alfworld.engine import State
from himac_envs.alfworld.env import ALFWorldEnv
from himac_envs.alfworld.vector import ALFWorldVectorEnv
from himac_envs.data import installed
from himac_envs.machine import processor

__all__ = ["run"]

#: Row -> least ratio to the original that the project promises.
BARS = {"step, engine": 5_000, "step, environment": 5_000, "first load": 300, "reset": 50_000}
#: Row -> steps a CPU second that the project promises.
BATCH_BARS = {"batch of 64": 60_000, "batch of 1000": 60_000}
_ROOT = Path(__file__).resolve().parents[2]
_STEPS = 20


def run(quick: bool = False, *, reference: str | None = None) -> dict[str, Any]:
    """Measure and print a table.

    Args:
        quick: One repetition instead of five, and smaller batches of work.
        reference: The interpreter that has the original; None: found as described above.

    Returns:
        ``seconds`` (ours, by row), ``original`` (the same, empty without the original),
        ``ratios``, ``rates`` (batches, steps a CPU second), ``megabytes`` (of 1,000 environments
        above the games), ``index`` (seconds to index the official archives, first and again),
        ``bars`` and ``machine``.
    """
    rounds = 1 if quick else 5
    folder = installed("alfworld")
    settings: dict[str, Any] = {
        "data": "generated" if folder is None else str(folder),
        "split": "valid",
    }
    env = ALFWorldEnv(**settings)
    rng = random.Random(0)
    tasks = rng.sample(list(env.task_ids()), rounds)
    original = _Original(reference, settings["data"])
    mine: dict[str, list[float]] = {row: [] for row in BARS}
    theirs: dict[str, list[float]] = {row: [] for row in BARS}
    for task in tasks:
        commands = _commands(env, task, rng)
        for row, spent in _measure(settings, task, commands).items():
            mine[row].append(spent)
        for row, spent in original.measure(task, commands).items():
            theirs[row].append(spent)
    original.close()
    seconds = {row: statistics.median(values) for row, values in mine.items()}
    reference_seconds = {row: statistics.median(v) for row, v in theirs.items() if v}
    rates, megabytes = _batches(settings, quick)
    index = {} if folder is None else _index(folder)
    figures: dict[str, Any] = {
        "data": env.data_name,
        "seconds": seconds,
        "original": reference_seconds,
        "ratios": {row: reference_seconds[row] / seconds[row] for row in reference_seconds},
        "rates": rates,
        "megabytes": megabytes,
        "index": index,
        "bars": {**BARS, **BATCH_BARS},
        "machine": _machine(),
    }
    _print(figures)
    return figures


def _commands(env: ALFWorldEnv, task: str, rng: random.Random) -> list[str]:
    """Admissible commands at random, a tenth of them broken."""
    _, info = env.reset(options={"task_id": task})
    commands = []
    for _ in range(_STEPS):
        command = "dance" if rng.random() < 0.1 else rng.choice(info["admissible"])
        commands.append(command)
        info = env.step(command)[4]
    return commands


def _clock(work: Any, times: int) -> float:
    """CPU seconds of one of ``times`` calls."""
    begin = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begin) / times


def _measure(settings: dict[str, Any], task: str, commands: Sequence[str]) -> dict[str, float]:
    """Our CPU seconds for each row. A step includes the list of admissible commands."""
    fresh = ALFWorldEnv(**settings)
    fresh.library.task_ids("valid")
    kept = getattr(fresh.library, "_kept", {})
    kept.clear()
    gc.collect()
    first = _clock(lambda: fresh.reset(options={"task_id": task}), 1)
    reset = _clock(lambda: fresh.reset(options={"task_id": task}), 500)
    state = State(fresh.game)

    def play_engine() -> None:
        state.reset()
        for command in commands:
            state.act(command)
            state.admissible()

    def play_environment() -> None:
        for command in commands:
            fresh.step(command)

    return {
        "step, engine": _clock(play_engine, 50) / len(commands),
        "step, environment": _clock(play_environment, 50) / len(commands),
        "first load": first,
        "reset": reset,
    }


def _batches(settings: dict[str, Any], quick: bool) -> tuple[dict[str, float], float]:
    """Steps a CPU second of batches with random play, and the memory of 1,000 environments.

    The games are loaded before the clock starts; resets, and building the infos, are included.
    """
    rates: dict[str, float] = {}
    megabytes = 0.0
    rng = random.Random(0)
    for size in (64, 1000):
        library = ALFWorldEnv(**settings).library
        ids = list(library.task_ids("valid"))[:140]
        for task in ids:
            library.game(task)
        gc.collect()
        before = _resident()
        batch = ALFWorldVectorEnv(size, **settings)
        for i, env in enumerate(batch.envs):
            env._library = library
            env.task_ids = partial(_only, ids[i % len(ids)])  # type: ignore[method-assign]
        _, info = batch.reset(seed=0)
        best = 0.0
        for _ in range(1 if quick else 3):
            spent, steps = 0.0, 0
            while steps < 60_000:
                actions = [a[int(rng.random() * len(a))] for a in info["admissible"]]
                begin = time.process_time()
                info = batch.step(actions)[4]
                spent += time.process_time() - begin
                steps += size
            best = max(best, steps / spent)
        rates[f"batch of {size}"] = best
        megabytes = _resident() - before
    return rates, megabytes


def _index(folder: Path) -> dict[str, float]:
    """CPU seconds that indexing the official archives takes: without a cache, then with one."""
    with tempfile.TemporaryDirectory() as scratch:
        for archive in folder.glob("*.zip"):  # so that the cache beside the data is not used
            (Path(scratch) / archive.name).symlink_to(archive.resolve())
        return {
            "first": _clock(partial(load_index, scratch), 1),
            "again": _clock(partial(load_index, scratch), 3),
        }


def _only(task: str, split: str | None = None) -> list[str]:
    """Instead of `ALFWorldEnv.task_ids`: one of the loaded games."""
    return [task]


def _resident() -> float:
    """This process's resident memory in MB, 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _machine() -> str:
    return f"{processor()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"


def _print(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"ALFWorld ({figures['data']}): CPU time, median, interleaved")
    for column in ("", "here", "original", "times faster", "promised"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row, bar in BARS.items():
        theirs = figures["original"].get(row)
        table.add_row(
            row,
            _time(figures["seconds"][row]),
            "-" if theirs is None else _time(theirs),
            "-" if theirs is None else f"{figures['ratios'][row]:,.0f}x",
            f"at least {bar:,}x",
        )
    for row, bar in BATCH_BARS.items():
        table.add_row(row, f"{figures['rates'][row]:,.0f}/s", "", "", f"at least {bar:,}/s")
    if figures["index"]:
        first, again = figures["index"]["first"], figures["index"]["again"]
        table.add_row("index of the archives", _time(first), "", "", "at most 1,500 ms")
        table.add_row("index, again", _time(again), "", "", "")
    table.add_row("1,000 environments", f"{figures['megabytes']:.0f} MB", "", "", "at most 100 MB")
    console = Console(markup=False)
    console.print(table)
    console.print(figures["machine"])
    if not figures["original"]:
        console.print(
            "The original was not measured: name an interpreter that has it in "
            "HIMAC_REFERENCE_PYTHON (pip install 'himac[reference]' in an environment of its own; "
            "in a checkout `make reference` makes one)."
        )


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} µs"
    return f"{seconds * 1e3:.1f} ms"


class _Original:
    """The original in an interpreter of its own; measures nothing where there is none."""

    def __init__(self, interpreter: str | None, data: str) -> None:
        self.process: subprocess.Popen[str] | None = None
        command = _find_interpreter(interpreter)
        if command is None:
            return
        search = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        self.process = subprocess.Popen(
            [command, "-m", "himac_envs.alfworld.bench", data],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search},
            text=True,
        )

    def measure(self, task: str, commands: Sequence[str]) -> dict[str, float]:
        """The original's CPU seconds for each row, {} where it is not there."""
        if self.process is None:
            return {}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([task, list(commands)]) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
            return dict(json.loads(answer))
        except (OSError, ValueError) as error:
            code = self.process.wait()
            raise RuntimeError(
                f"the original ended with code {code} ({error}); see its message above"
            ) from error

    def close(self) -> None:
        """End the second interpreter."""
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait()


def _find_interpreter(interpreter: str | None) -> str | None:
    named = interpreter or os.environ.get("HIMAC_REFERENCE_PYTHON")
    if named:
        return named
    if importlib.util.find_spec("textworld") and importlib.util.find_spec("alfworld"):
        return sys.executable
    beside = Path(".venv-reference") / "bin" / "python"
    return str(beside) if beside.is_file() else None


def _serve(data: str) -> None:
    """In the second interpreter: answer each game on stdin with the original's CPU seconds."""
    from himac_envs.alfworld.reference import Original

    library: Any = ALFWorldEnv(data=data, split="valid").library
    original = Original()
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        task, commands = json.loads(line)
        if data == "generated":
            from himac_envs.alfworld.generate.export import find_logic, game_file

            content = game_file(library.world(task), find_logic())
        else:
            content = json.loads(library.read(task))
        load = _clock(partial(original.load, content), 1)
        reset = _clock(original.reset, 1)
        begin = time.process_time()
        for command in commands:
            original.act(command)
            original.admissible()
        step = (time.process_time() - begin) / len(commands)
        rows = {
            "step, engine": step, "step, environment": step, "first load": load, "reset": reset,
        }  # fmt: skip
        print(json.dumps(rows), file=answers, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
