"""``himac bench sokoban``: speed beside gym-sokoban, in CPU time, interleaved, median of 5.

gym-sokoban runs in this process where it can be imported (an environment made by ``make
reference``); else our own figures stand alone and the ratios are left out. Ours include every
automatic reset, gym-sokoban's do not (they take it milliseconds to minutes), so the rows with
pictures understate the ratio. Steps on bare grids are so cheap that making the next room is most of
the work; there like is compared with like, in two rows: "steps only", neither of them resetting,
and whole episodes of 200 steps, both resetting (for gym-sokoban, the sum of what its steps and its
resets were measured to take).

Jumanji is measured beside, where it is installed; see `himac_envs.sokoban.beside_jumanji`.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from rich.console import Console
from rich.table import Table

from himac_envs.sokoban.beside_jumanji import BATCH, Jumanji
from himac_envs.sokoban.generate import RoomGenerator
from himac_envs.sokoban.solver import solve

__all__ = ["run"]

ENV_ID = "HiMAC-Sokoban-Pixels-v0"
Work = Callable[[], int]

#: Row -> (what gym-sokoban does beside it, the least ratio that the project promises).
BARS: dict[str, tuple[str, float]] = {
    "single, RGB, 6x6/1": ("step RGB 6x6", 60),
    "single, RGB, 10x10/3": ("step RGB 10x10", 60),
    "batch 64, RGB copied, 6x6/1": ("step RGB 6x6", 400),
    "batch 64, RGB copied, 10x10/3": ("step RGB 10x10", 150),
    "batch 64, RGB in place, 10x10/3": ("step RGB 10x10", 150),
    "batch 64, grids, 10x10/3, steps only": ("step without pictures 10x10", 80),
    "batch 64, grids, 10x10/3, episodes": ("episodes without pictures 10x10", 80),
    "rooms fast 6x6/1": ("reset 6x6/1", 100),
    "rooms gym-sokoban 10x10/3": ("reset 10x10/3", 100),
}
#: Row -> units a CPU second that the project promises, whatever the original does.
RATE_BARS = {"rooms fast 10x10/4": 1_000}
BESIDE_JUMANJI = f"batch {BATCH}, grids, 10x10/4, steps only"
#: The least ratio to Jumanji's batch, and the longest that 99 of 100 rooms of 10x10/4 may take.
JUMANJI_BAR, ROOM_BAR_MS = 2.0, 10.0
#: Steps of an episode, in the rows of whole episodes.
_EPISODE = 200


def run(quick: bool = False) -> dict[str, Any]:
    """Measure and print a table.

    Args:
        quick: One short repetition instead of five.

    Returns:
        ``rates`` (units a CPU second), ``reference`` (gym-sokoban's), ``ratios``, ``bars``,
        ``jumanji`` (its ``vmap`` and ``scan`` rates and our ``ratio`` to the first, {} without
        it), ``rooms_p99_ms``, ``solver`` and ``compile_seconds``.
    """
    import himac_envs  # noqa: F401

    repeats, scale = (1, 0.2) if quick else (5, 1.0)
    original = _original()
    ours, theirs = dict(_ours(scale)), dict(_theirs(original, scale)) if original else {}
    for work in [*ours.values(), *theirs.values()]:
        work()  # compile, warm up
    jumanji = Jumanji()
    samples: dict[str, list[float]] = {name: [] for name in [*ours, *theirs]}
    beside_us: dict[str, list[float]] = {"vmap": [], "scan": []}
    for _ in range(repeats):
        for how, found in beside_us.items():
            if jumanji.ready:
                found.append(jumanji.measure(how)[0])
        for name, work in [*theirs.items(), *ours.items()]:
            began = time.process_time()
            units = work()
            samples[name].append(units / max(time.process_time() - began, 1e-9))
    jumanji.close()
    rates = {name: statistics.median(samples[name]) for name in ours}
    reference = {name: statistics.median(samples[name]) for name in theirs}
    if theirs:
        _add_episodes(samples, reference)
    ratios = {
        name: statistics.median(a / b for a, b in zip(samples[name], samples[beside], strict=True))
        for name, (beside, _) in BARS.items()
        if beside in reference and name in rates
    }
    figures = {
        "rates": rates,
        "reference": reference,
        "ratios": ratios,
        "bars": {**{name: bar for name, (_, bar) in BARS.items()}, **RATE_BARS},
        "jumanji": _jumanji_figures(beside_us, samples[BESIDE_JUMANJI]),
        "rooms_p99_ms": _p99_rooms(quick),
        "solver": _solver(quick),
        "compile_seconds": _compile_seconds(),
    }
    _print(figures)
    return figures


def _add_episodes(samples: dict[str, list[float]], reference: dict[str, float]) -> None:
    """Add gym-sokoban's rate in whole episodes: its steps and resets as they were measured."""
    name = "episodes without pictures 10x10"
    samples[name] = [
        _EPISODE / (_EPISODE / step + 1 / reset)
        for step, reset in zip(
            samples["step without pictures 10x10"], samples["reset 10x10/3"], strict=True
        )
    ]
    reference[name] = statistics.median(samples[name])


def _jumanji_figures(theirs: dict[str, list[float]], ours: list[float]) -> dict[str, float]:
    if not theirs["vmap"]:
        return {}
    ratios = [a / b for a, b in zip(ours, theirs["vmap"], strict=True)]
    figures = {how: statistics.median(found) for how, found in theirs.items()}
    return {**figures, "ratio": statistics.median(ratios), "bar": JUMANJI_BAR}


def _stepper(env: gym.Env[Any, Any], steps: int) -> Work:
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 9, steps).tolist()

    def work() -> int:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return len(actions)

    return work


def _batch_stepper(num: int, steps: int, **settings: Any) -> Work:
    env = gym.make_vec(ENV_ID, num_envs=num, **settings)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 9, (steps, num))

    def work() -> int:
        for row in actions:
            env.step(row)
        return int(actions.size)

    return work


def _ours(scale: float) -> Iterator[tuple[str, Work]]:
    small: dict[str, Any] = {"room": (6, 6), "boxes": 1, "max_steps": 120}
    large: dict[str, Any] = {"room": (10, 10), "boxes": 3, "max_steps": _EPISODE}
    n = max(20, int(300 * scale))
    yield "single, RGB, 6x6/1", _stepper(gym.make(ENV_ID, **small), 20 * n)
    yield "single, RGB, 10x10/3", _stepper(gym.make(ENV_ID, **large), 20 * n)
    yield "batch 64, RGB copied, 6x6/1", _batch_stepper(64, n, **small)
    yield "batch 64, RGB copied, 10x10/3", _batch_stepper(64, n, **large)
    yield "batch 64, RGB in place, 10x10/3", _batch_stepper(64, n, copy=False, **large)
    yield (
        "batch 64, grids, 10x10/3, episodes",
        _batch_stepper(64, 4 * n, observation="grid", **large),
    )
    endless = {**large, "max_steps": 10**9}
    yield (
        "batch 64, grids, 10x10/3, steps only",
        _batch_stepper(64, 4 * n, observation="grid", **endless),
    )
    yield (
        BESIDE_JUMANJI,
        _batch_stepper(BATCH, n, observation="grid", **{**endless, "boxes": 4}),
    )
    for name, rows, boxes, rooms in (
        ("fast", 6, 1, 4000),
        ("fast", 10, 4, 200),
        ("gym-sokoban", 6, 1, 200),
        ("gym-sokoban", 10, 3, 20),
        ("verl-agent", 6, 1, 400),
    ):
        count = max(10, int(rooms * scale))
        maker = RoomGenerator(name, rows, rows, boxes)  # type: ignore[arg-type]
        yield f"rooms {name} {rows}x{rows}/{boxes}", partial(_make_rooms, maker, count)


def _make_rooms(maker: RoomGenerator, count: int) -> int:
    return len(maker.rooms(range(count)))


def _original() -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            from gym_sokoban.envs.sokoban_env import SokobanEnv
        except ImportError:
            return None
    return SokobanEnv


def _theirs(original: Any, scale: float) -> Iterator[tuple[str, Work]]:
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for rows, boxes in ((6, 1), (10, 3)):
        level = RoomGenerator("fast", rows, rows, boxes).room(0)
        env = original(dim_room=(rows, rows), num_boxes=boxes, max_steps=10**9, reset=False)
        blind = original(dim_room=(rows, rows), num_boxes=boxes, max_steps=10**9, reset=False)
        blind.render = lambda *args, **kwargs: None
        for each in (env, blind):
            each.room_fixed, each.room_state = level.room_fixed, level.room_state
            each.player_position = np.argwhere(each.room_state == 5)[0]
            each.num_env_steps = each.boxes_on_target = 0
        size = f"{rows}x{rows}"
        yield f"step RGB {size}", _original_stepper(env, max(20, int(200 * scale)))
        yield f"step without pictures {size}", _original_stepper(blind, max(500, int(5000 * scale)))
        # Each work resets as often as it has to for a steady mean; 10x10 takes seconds.
        resets = max(2, int((100 if rows == 6 else 3) * scale))

        def reset(env: Any = env, resets: int = resets) -> int:
            with contextlib.redirect_stdout(io.StringIO()):
                for _ in range(resets):
                    env.reset(render_mode="tiny_rgb_array")
            return resets

        yield f"reset {size}/{boxes}", reset


def _original_stepper(env: Any, steps: int) -> Work:
    actions = np.random.default_rng(0).integers(0, 9, steps).tolist()

    def work() -> int:
        for action in actions:
            env.step(action)
        return steps

    return work


def _p99_rooms(quick: bool) -> float:
    """99th percentile of the CPU time of one 10x10/4 room, milliseconds."""
    maker = RoomGenerator("fast", 10, 10, 4)
    taken = []
    for n in range(100 if quick else 1000):
        began = time.process_time()
        maker.room(n)
        taken.append(time.process_time() - began)
    return float(np.percentile(taken, 99) * 1e3)


def _solver(quick: bool) -> dict[str, float]:
    """CPU milliseconds of push-optimal solutions of 10x10/4 rooms."""
    taken = []
    for level in RoomGenerator("fast", 10, 10, 4).rooms(range(100 if quick else 500)):
        began = time.process_time()
        solve(level)
        taken.append(time.process_time() - began)
    return {
        "median_ms": float(np.median(taken) * 1e3),
        "p99_ms": float(np.percentile(taken, 99) * 1e3),
    }


_FIRST_CALL = """
import time
began = time.process_time()
import gymnasium, himac_envs, numpy
env = gymnasium.make_vec("HiMAC-Sokoban-Pixels-v0", num_envs=2, room=(6, 6), boxes=1)
env.reset(seed=0)
env.step(numpy.zeros(2, int))
from himac_envs.sokoban.beside_jumanji import BATCH, Jumanji
from himac_envs.sokoban.generate import RoomGenerator
from himac_envs.sokoban.solver import solve
solve(RoomGenerator().room(0))
print(time.process_time() - began)
"""


def _compile_seconds() -> dict[str, float]:
    """CPU seconds of a first use of everything in a fresh process, without and with the cache."""
    import os
    import tempfile

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "NUMBA_CACHE_DIR": folder,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        for name in ("first", "cached"):
            done = subprocess.run(
                [sys.executable, "-c", _FIRST_CALL],
                env=environment, capture_output=True, text=True, check=True,
            )  # fmt: skip
            found[name] = float(done.stdout)
    return found


def _promised(name: str, ratio: float) -> str:
    """What a row promises, with its unit: a ratio to gym-sokoban, or a rate of its own."""
    if ratio:
        return f"at least {ratio:g}x"
    return f"at least {RATE_BARS[name]:,}/s" if name in RATE_BARS else ""


def _print(figures: dict[str, Any]) -> None:
    table = Table(title="Sokoban, units a CPU second", title_justify="left", box=None)
    for column in ("what", "ours", "gym-sokoban", "ratio", "promised"):
        first = column == "what"
        table.add_column(column, justify="left" if first else "right", no_wrap=first)
    for name, rate in figures["rates"].items():
        beside, bar = BARS.get(name, ("", 0.0))
        reference = figures["reference"].get(beside)
        ratio = figures["ratios"].get(name)
        table.add_row(
            name,
            f"{rate:,.0f}",
            "" if reference is None else f"{reference:,.1f}",
            "" if ratio is None else f"{ratio:,.0f}x",
            _promised(name, bar),
        )
    console = Console(markup=False)
    console.print(table)
    if not figures["reference"]:
        console.print(
            "gym-sokoban cannot be imported here: for the ratios run this in an environment with "
            "pip install 'himac[reference,sokoban]' (in a checkout `make reference` makes one)"
        )
    if figures["jumanji"]:
        beside = figures["jumanji"]
        console.print(
            f"{BESIDE_JUMANJI}: {beside['ratio']:.1f} times Jumanji's jit(vmap(step)), "
            f"{beside['vmap']:,.0f} (promised: at least {JUMANJI_BAR:g} times); its lax.scan, "
            f"which leaves no room for an agent outside JAX: {beside['scan']:,.0f}"
        )
    else:
        console.print(
            "Jumanji was not measured: name an interpreter that has it in HIMAC_JUMANJI_PYTHON"
        )
    solver, seconds = figures["solver"], figures["compile_seconds"]
    console.print(
        f"a fast 10x10/4 room: 99% within {figures['rooms_p99_ms']:.2f} ms (promised: "
        f"at most {ROOM_BAR_MS:g} ms); its push-optimal "
        f"solution: median {solver['median_ms']:.2f} ms, 99% within {solver['p99_ms']:.1f} ms\n"
        f"first use of everything: {seconds['first']:.1f} s with compiling, "
        f"{seconds['cached']:.1f} s from the cache on disk"
    )
