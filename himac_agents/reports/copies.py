"""Runs that are there twice: copies of one seed's run do not count as several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from himac_agents.reports.runs import RunData


def without_copies(runs: Sequence[RunData]) -> tuple[list[RunData], list[tuple[RunData, RunData]]]:
    """Leaves out runs that tell what another of the same seed tells too, or its beginning.

    Times are not compared: the same run played again on the same kind of machine is a copy.

    Args:
        runs: Runs of one group, which differ in their seed only.

    Returns:
        The runs that are counted, in order, and (copy, the run that is counted) for the others.
    """
    told = {id(run): _told(run) for run in runs}
    # The longest of a seed comes first: of two that tell the same, the one with a result.
    order = sorted(runs, key=lambda r: (-len(told[id(r)]), not r.finished))
    kept: list[RunData] = []
    copies: list[tuple[RunData, RunData]] = []
    for run in order:
        mine = told[id(run)]
        same = [k for k in kept if k.seed == run.seed and told[id(k)][: len(mine)] == mine]
        if same:
            copies.append((run, same[0]))
        else:
            kept.append(run)
    counted = {id(run) for run in kept}
    return [run for run in runs if id(run) in counted], copies


def twins(runs: Sequence[RunData]) -> list[tuple[RunData, ...]]:
    """Runs of the same seed that are no copies of each other, where there are several."""
    by_seed: dict[int, list[RunData]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, []).append(run)
    return [tuple(same) for same in by_seed.values() if len(same) > 1]


def _told(run: RunData) -> list[dict[str, Any]]:
    """What a run logged, without times."""
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in run.metrics]
