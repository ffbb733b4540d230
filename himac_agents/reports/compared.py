"""Groups of runs against each other: differences on the same tasks, paired by seed and task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from himac_agents.evaluation.intervals import Interval, difference_over_seeds, paired_difference
from himac_agents.reports.groups import Family, Group
from himac_agents.reports.runs import Evaluation


@dataclass(frozen=True)
class Difference:
    """What one group ends with, less what another does.

    Attributes:
        group: The one.
        base: The other.
        sampled: At temperature 1; None where outcomes of the same tasks are not known of both.
        greedy: The same at temperature 0.
        seeds: Seeds that both have.
    """

    group: Group
    base: Group
    sampled: Interval | None
    greedy: Interval | None
    seeds: int


def differences(family: Family) -> list[Difference]:
    """Every group of a family against its first one, as far as they can be paired."""
    base, *others = family.groups
    found = []
    for group in others:
        ours, theirs = _ends(group), _ends(base)
        seeds = sorted(set(ours) & set(theirs)) if _split(group) == _split(base) else []
        pairs = [(theirs[seed], ours[seed]) for seed in seeds]
        sampled = _paired([(a.outcomes, b.outcomes) for a, b in pairs])
        greedy = _paired([(a.greedy_outcomes, b.greedy_outcomes) for a, b in pairs])
        if sampled is not None or greedy is not None:
            found.append(Difference(group, base, sampled, greedy, len(seeds)))
    return found


def _split(group: Group) -> set[str]:
    """Which held-out tasks its runs were measured on; as many of one split are the same ones."""
    return {str(run.settings.get("eval_split")) for run in group.runs}


def _ends(group: Group) -> dict[int, Evaluation]:
    """By seed: how its run ended."""
    return {run.seed: e for run in group.runs for e in run.evaluations if e.name == "final"}


def _paired(pairs: list[tuple[tuple[float, ...], tuple[float, ...]]]) -> Interval | None:
    """Second less first over seeds and tasks; of one seed over tasks."""
    lengths = {len(outcomes) for pair in pairs for outcomes in pair}
    if len(lengths) != 1 or lengths == {0}:
        return None
    before, after = (np.asarray(side, np.float64) for side in zip(*pairs, strict=True))
    if len(pairs) > 1:
        return difference_over_seeds(before, after)
    return Interval(*paired_difference(before[0], after[0]), "tasks")
