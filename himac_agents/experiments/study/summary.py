"""Several seeds as one figure: intervals of recorded cells, over seeds and tasks.

Every figure is computed from what is recorded when it is shown. New recordings hold the outcome of
every task; of older ones only each seed's mean is known and how sure it is over tasks, and what is
made of them is marked as `counted` (see `himac_agents.evaluation.intervals`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from himac_agents.algorithms.methods import METHODS
from himac_agents.evaluation.intervals import (
    Z95,
    Floats,
    Interval,
    difference_from_means,
    difference_over_seeds,
    success_from_means,
    success_over_seeds,
    unpack,
)
from himac_envs import registry

Run = Mapping[str, Any]
Cell = Mapping[str, Any]
#: Under which key of a recorded evaluation the outcomes of a figure stand.
OUTCOMES = {"success": "outcomes", "greedy": "greedy_outcomes"}


def older(cell: Cell) -> list[str]:
    """What has changed in a cell's tasks since the first of its runs was recorded."""
    versions = [str(run["version"]) for run in cell["runs"] if "version" in run]
    benchmark = registry.benchmark_of(str(cell.get("env", "")))
    changes = [c for v in versions for c in registry.changes_since(benchmark, v)]
    return list(dict.fromkeys(f"Since {c.version}: {c.what}" for c in changes))


def success(scores: Sequence[Mapping[str, Any]], episodes: int, key: str = "success") -> Interval:
    """The success of several seeds' evaluations on the same tasks.

    Args:
        scores: Recorded evaluations, one a seed (see `results.score`).
        episodes: How many tasks they played.
        key: "success" (at temperature 1) or "greedy".
    """
    packed = _outcomes(scores, key)
    if packed is None:
        return success_from_means([float(s[key]) for s in scores], episodes)
    return _success(packed, episodes)


def difference(
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    recorded: Sequence[Mapping[str, Any]],
    episodes: int,
    key: str = "success",
) -> Interval:
    """`after` minus `before`, paired by task and seed.

    Args:
        before: Recorded evaluations, one a seed.
        after: Others of the same seeds, in the same order.
        recorded: What was recorded of each seed's difference (mean and `ci95` over tasks): it is
            used where outcomes were not kept.
        episodes: How many tasks they played.
        key: "success" or "greedy".
    """
    first, second = _outcomes(before, key), _outcomes(after, key)
    if first is not None and second is not None:
        return _difference(first, second, episodes)
    widths = [row["ci95"][1] - row["ci95"][0] for row in recorded]
    return difference_from_means([row["mean"] for row in recorded], [w / 2 / Z95 for w in widths])


def change(runs: Sequence[Run], begin: str, end: str, recorded: str, episodes: int) -> Interval:
    """How far the seeds of one method came between two of their evaluations.

    Args:
        runs: Recorded runs that have both.
        begin: Where they are counted from: "warm_start", "supervised".
        end: Where they came to: "final".
        recorded: The key of the recorded difference: "gain", "greedy_gain", "over_supervised".
        episodes: How many tasks they played.
    """
    key = "greedy" if recorded.startswith("greedy") else "success"
    before, after = [r[begin] for r in runs], [r[end] for r in runs]
    return difference(before, after, [r[recorded] for r in runs], episodes, key)


def paired(cell: Cell, rows: Sequence[Mapping[str, Any]], kind: str) -> Interval:
    """A cell's base minus another method, over the seeds that both have.

    Args:
        cell: The recorded cell.
        rows: Its recorded pairs of the two, one a seed, each with this kind.
        kind: "difference", "greedy_difference" (at the end) or "token_difference" (after as many
            tokens).
    """
    runs = {(run["method"], run["seed"]): run for run in cell["runs"]}
    where = "at_tokens" if kind == "token_difference" else "final"
    key = "greedy" if kind == "greedy_difference" else "success"
    base = [runs.get((row["base"], row["seed"]), {}).get(where, {}) for row in rows]
    others = [runs.get((row["against"], row["seed"]), {}).get(where, {}) for row in rows]
    return difference(others, base, [row[kind] for row in rows], int(cell["episodes"]), key)


def by_counts(cell: Cell) -> bool:
    """Whether outcomes of single tasks are missing in some of a cell's runs."""
    return any(OUTCOMES["success"] not in run["final"] for run in cell["runs"])


def _outcomes(scores: Sequence[Mapping[str, Any]], key: str) -> tuple[str, ...] | None:
    """Each seed's outcomes as they are recorded; None where one of the evaluations holds none."""
    if not all(OUTCOMES[key] in score for score in scores):
        return None
    return tuple(str(score[OUTCOMES[key]]) for score in scores)


# Ten thousand draws each: a study shows all its intervals anew whenever a run ends.


@cache
def _success(packed: tuple[str, ...], episodes: int) -> Interval:
    return success_over_seeds(_unpacked(packed, episodes))


@cache
def _difference(before: tuple[str, ...], after: tuple[str, ...], episodes: int) -> Interval:
    return difference_over_seeds(_unpacked(before, episodes), _unpacked(after, episodes))


def _unpacked(packed: tuple[str, ...], episodes: int) -> Floats:
    """[seeds, tasks] outcomes."""
    return np.stack([unpack(text, episodes) for text in packed])


# -- names and numbers as pages write them -------------------------------------------------------


def by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by method, by seed: in the order of `METHODS`, then methods that it does not know."""
    order = dict.fromkeys([*METHODS, *(str(run["method"]) for run in runs)])
    found = {name: [run for run in runs if run["method"] == name] for name in order}
    return {
        name: sorted(rows, key=lambda r: int(r["seed"])) for name, rows in found.items() if rows
    }


def titled(method: str) -> str:
    """A method's title in Markdown, where a bare `<sub_done>` would be taken for a tag."""
    return title(method).replace("<sub_done>", "`<sub_done>`")


def title(method: str) -> str:
    """A method's title; its name where the register does not know it (any more)."""
    return METHODS[method].title if method in METHODS else method


def seeds_of(scores: Sequence[Mapping[str, Any]], key: str = "success") -> str:
    """Every seed's success, in percent."""
    return " · ".join(percent(score[key]) for score in scores)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> list[str]:
    """The lines of a Markdown table.

    Args:
        heads: The columns' heads.
        rows: The rows' cells.
        words: How many columns hold words; those behind them hold numbers.
    """
    ruled = "|" + "---|" * words + "--:|" * (len(heads) - words)
    first, *further = (f"| {' | '.join(cells)} |" for cells in (heads, *rows))
    return [first, ruled, *further]


def within(found: Interval) -> str:
    """A success with its interval, in percent."""
    return f"{percent(found.mean)} [{percent(found.low)}, {percent(found.high)}]"


def points(found: Interval) -> str:
    """A difference with its interval, in points of success."""
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def percent(value: float) -> str:
    """A share, in percent."""
    return f"{100 * value:.1f}"
