"""How fast the shop is: ``himac bench webshop``.

Generated shops of 1,000, 100,000 and 1,000,000 products (their descriptions carry a long tail of
coined words, as a real catalogue's do) are compiled once and kept; then episodes are played and
searches made, all with queries not seen before. Rates are per second of CPU time.

Each shop is compiled, and each is measured, in a process of its own. ``python -m
himac_envs.webshop.bench COUNT [FOLDER]`` compiles one (into FOLDER, else where they are kept) and
prints the time and memory that it took, as JSON.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym

from himac_envs.webshop.catalogue import Catalogue, _opened, open_catalogue
from himac_envs.webshop.env import WebShopEnv
from himac_envs.webshop.generate import compile_generated
from himac_envs.webshop.goals import Goal
from himac_envs.webshop.store import MANIFEST

#: Coined words a description: documents of about 110 terms, as the published ones.
WORDS = 45
SIZES = (1_000, 100_000, 1_000_000)
QUICK_SIZES = (1_000,)
#: What was recorded of the original with 1,000 real products, in text mode.
ORIGINAL = {
    "open ms": "350-500",
    "searches/s": "27-45",
    "all steps/s": "20-120",
    "reset/s": "244",
    "search/s": "37",
    "click/s": "44",
    "buy/s": "85",
    "memory MB, 1 environment": "685",
}
#: Steps between two searches of an episode, as agents make them.
_SEARCH_EVERY = 6


def _query(goal: Goal, style: int) -> str:
    """Return a query as agents write them: from three words to the whole instruction."""
    wanted = " ".join(goal.attributes)
    options = " ".join(goal.option_values())
    return (
        f"{goal.query} {wanted}",
        f"{wanted} {goal.query} {options}",
        goal.instruction_text.partition(", and price")[0],
        goal.name,
    )[style % 4]


def _memory() -> float:
    """Return the process's resident memory in MB, 0.0 where it cannot be read."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 1e6
    except OSError:
        return 0.0


class _Clock:
    """Adds up CPU time by kind of action."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.count: Counter[str] = Counter()

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        start = time.process_time_ns()
        yield
        self.spent[what] += time.process_time_ns() - start
        self.count[what] += 1

    def rates(self) -> dict[str, float]:
        return {w: round(self.count[w] / (self.spent[w] / 1e9), 1) for w in sorted(self.count)}


def _play(env: WebShopEnv, steps: int, seed: int) -> dict[str, float]:
    """Play random episodes; return rates by kind of action and over all of them."""
    rng, clock = random.Random(seed), _Clock()
    goals = len(env.goals)
    info: dict[str, Any] = {}
    since = _SEARCH_EVERY
    begun = False
    for number in range(steps):
        if not begun:
            with clock.measure("reset"):
                _, info = env.reset(options={"task_id": str(rng.randrange(goals))})
            since, begun = _SEARCH_EVERY, True
        clickables = info["available_actions"]["clickables"]
        if since >= _SEARCH_EVERY or clickables == ["search"]:
            action, kind, since = (
                f"search[{_tidy(_query(env.goals[rng.randrange(goals)], number))}]",
                "search",
                0,
            )
        else:
            action = f"click[{rng.choice(clickables)}]"
            kind = "buy" if action == "click[buy now]" else "click"
        since += 1
        with clock.measure(kind):
            _, _, terminated, truncated, info = env.step(action)
        begun = not (terminated or truncated)
    total = sum(clock.spent.values()) - clock.spent["reset"]
    return {"all steps": round(steps / (total / 1e9), 1), **clock.rates()}


def _tidy(query: str) -> str:
    return query.replace("[", " ").replace("]", " ")


def _searches(catalogue: Catalogue, env: WebShopEnv, count: int) -> dict[str, float]:
    """Search with distinct queries; compare pruned and whole scoring."""
    rng = random.Random(1)
    queries = [
        _query(env.goals[i], n)
        for n, i in enumerate(rng.sample(range(len(env.goals)), min(count, len(env.goals))))
    ]
    for query in queries[:20]:
        catalogue.index.search(query)
    start = time.process_time()
    found = [catalogue.index.search(query) for query in queries]
    rate = len(queries) / (time.process_time() - start)
    same = sum(
        catalogue.index.search(query, prune=False)
        == catalogue.index.search(query, prune=True)
        == numbers
        for query, numbers in zip(queries, found, strict=True)
    )
    return {
        "searches/s": round(rate, 1),
        "queries": len(queries),
        "pruned = unpruned": same,
    }


def _compile(size: int) -> tuple[Path, dict[str, float]]:
    """Compile a shop in a process of its own, or find it; return its folder and what that took."""
    report = _apart(f"_build({size}, None)")
    return Path(report.pop("folder")), report


def _apart(call: str) -> dict[str, Any]:
    """Make a call of this module in a fresh process; return its answer."""
    search = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *sys.path])
    code = f"import json; from himac_envs.webshop import bench; print(json.dumps(bench.{call}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": search}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _build(size: int, root: Path | None) -> dict[str, Any]:
    """Compile a shop here; return its folder, and seconds and resident memory where it was new."""
    import resource  # not on every system

    begun, worked = time.perf_counter(), time.process_time()
    folder = compile_generated(size, words=WORDS, root=root)
    seconds, work = time.perf_counter() - begun, time.process_time() - worked
    built = (folder / MANIFEST).stat().st_mtime > time.time() - seconds
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    size_on_disk = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    return {
        "folder": str(folder),
        "compile s": round(seconds, 1) if built else 0.0,
        "compile s of CPU": round(work, 1) if built else 0.0,
        "compile, peak MB": round(peak, 1) if built else 0.0,
        "MB on disk": round(size_on_disk, 1),
    }


def run_size(size: int, *, steps: int = 20_000, queries: int = 1_000) -> dict[str, Any]:
    """Measure one size of shop.

    Args:
        size: Its number of products.
        steps: Steps to play.
        queries: Distinct queries to search.
    """
    folder, compiled = _compile(size)
    open_catalogue(folder)
    _opened.cache_clear()
    start, begun = time.perf_counter(), time.process_time()
    catalogue = open_catalogue(folder)
    opened, worked = time.perf_counter() - start, time.process_time() - begun

    def make() -> WebShopEnv:
        made = gym.make("HiMAC-WebShop-Flat-v0", data=str(folder), split="all").unwrapped
        assert isinstance(made, WebShopEnv)
        return made

    env = make()
    result: dict[str, Any] = {
        "products": catalogue.size,
        "goals": len(env.goals),
        **compiled,
        "open ms": round(opened * 1e3, 2),
        "open ms of CPU": round(worked * 1e3, 2),
        "steps/s": _play(env, steps, seed=0),
        "memory MB, 1 environment": round(_memory(), 1),
    }
    before = _memory()
    more = [make() for _ in range(63)]
    for number, other in enumerate(more):
        other.reset(seed=number)
    result["memory MB, 64 environments"] = round(_memory(), 1)
    result["KB a further environment"] = round((_memory() - before) / 63 * 1e3, 1)
    # Last, since it does to a small shop what only a large one needs.
    return result | _searches(catalogue, env, queries)


def run(quick: bool = False) -> dict[str, Any]:
    """Measure every size, print a table and return the figures.

    Args:
        quick: Only 1,000 products, and fewer steps.

    Returns:
        Results by number of products.
    """
    results: dict[str, Any] = {}
    for size in QUICK_SIZES if quick else SIZES:
        print(
            f"WebShop with {size:,} products (the first time, compiling takes a while)",
            file=sys.stderr,
            flush=True,
        )
        steps, queries = (5_000, 200) if quick else (20_000, 1_000)
        results[str(size)] = _apart(f"run_size({size}, steps={steps}, queries={queries})")
    _print_table(results)
    return results


def _print_table(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="WebShop: rates per second of CPU time")
    table.add_column("", no_wrap=True)
    columns = [{**r, **{f"{k}/s": v for k, v in r["steps/s"].items()}} for r in results.values()]
    for column in columns:
        table.add_column(f"{column['products']:,}", justify="right")
        del column["steps/s"]
    table.add_column("original, 1,000", justify="right")
    for row in columns[0]:
        table.add_row(row, *(f"{column[row]:,}" for column in columns), ORIGINAL.get(row, ""))
    Console().print(table)


if __name__ == "__main__":
    print(json.dumps(_build(int(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None)))
