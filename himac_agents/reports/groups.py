"""Puts runs together: seeds of one method into a group, groups on one environment into a family."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from himac_agents.config import INCIDENTAL
from himac_agents.evaluation.intervals import (
    Z95,
    Interval,
    difference_from_means,
    difference_over_seeds,
    paired_difference,
    success_from_means,
    success_over_seeds,
    wilson,
)
from himac_agents.reports.marks import Series
from himac_agents.reports.runs import Evaluation, RunData

#: Curves of more points than this are drawn as running means.
SMOOTH_FROM = 60


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only.

    Attributes:
        label: The method's title, with the settings that set it apart where there are several
            groups of the method.
        runs: By seed, without copies.
        colour: Index into the palette.
        copies: (copy, the run that is counted in its place).
    """

    label: str
    runs: tuple[RunData, ...]
    colour: int
    copies: tuple[tuple[RunData, RunData], ...] = ()

    @property
    def finished(self) -> int:
        """How many runs came to their end."""
        return sum(run.finished for run in self.runs)

    def pooled(self, name: str) -> Evaluation | None:
        """An evaluation over the seeds that have it (`runs` tells how many); None if none has."""
        known = [e for r in self.runs for e in r.evaluations if e.name == name]
        return pool(known) if known else None

    def gain(self, kind: str = "temperature_1") -> Interval | None:
        """The rise from warm start to end over the seeds that have both, paired by task and seed.

        Args:
            kind: "temperature_1" or "greedy".

        Returns:
            None where no run has come to its end.
        """
        ended = [run for run in self.runs if run.gain(kind) is not None]
        if not ended:
            return None
        found = [{e.name: e for e in run.evaluations} for run in ended]
        key = "outcomes" if kind == "temperature_1" else "greedy_outcomes"
        before = [getattr(e.get("warm_start"), key, ()) for e in found]
        after = [getattr(e.get("final"), key, ()) for e in found]
        if len({len(row) for row in (*before, *after)}) == 1 and before[0]:
            return difference_over_seeds(np.asarray(before), np.asarray(after))
        stated = [gain for run in ended if (gain := run.gain(kind)) is not None]
        widths = [(high - low) if low is not None and high is not None else 0.0
                  for _, low, high in stated]  # fmt: skip
        return difference_from_means([g[0] for g in stated], [w / 2 / Z95 for w in widths])

    def kinds(self) -> dict[str, tuple[Interval, int]]:
        """Success at the end by kind of task, over the seeds that tell it; and how many tasks."""
        told = [e.kinds for r in self.runs for e in r.evaluations if e.name == "final" and e.kinds]
        found = {}
        for kind in sorted({kind for one in told for kind in one}):
            means, tasks = zip(*(one[kind] for one in told if kind in one), strict=True)
            if len(means) == 1:
                low, high = wilson(means[0] * tasks[0], tasks[0])
                found[kind] = (Interval(means[0], low, high, "tasks"), tasks[0])
            else:
                found[kind] = (success_from_means(means, min(tasks)), min(tasks))
        return found

    def evaluations(self) -> list[Evaluation]:
        """The evaluations of the runs, in order, each over the seeds that have it."""
        every = [e for run in self.runs for e in run.evaluations]
        names = dict.fromkeys(e.name for e in every)
        return [pool([e for e in every if e.name == name]) for name in names]

    def phases(self) -> list[str]:
        """The phases of learning of the runs, in order."""
        return list(dict.fromkeys(p for run in self.runs for p in run.phases()))


@dataclass(frozen=True)
class Family:
    """Groups on the same tasks, to be drawn into the same charts.

    Attributes:
        title: The environment's name, with its arguments where several families share the name.
        name: The environment's name.
        detail: The environment's ids and keyword arguments.
        groups: The groups.
    """

    title: str
    name: str
    detail: str
    groups: tuple[Group, ...]


def pool(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Several seeds' evaluations as one: means, with intervals over seeds and tasks.

    Of a single one: itself, with its interval over tasks. Evaluations without greedy play leave
    the whole without it.
    """
    if len(evaluations) == 1:
        return evaluations[0]
    greedy = [e.greedy for e in evaluations if e.greedy is not None]
    plain = _over_seeds(evaluations, [e.success for e in evaluations], "outcomes")
    whole = len(greedy) == len(evaluations)
    greedily = _over_seeds(evaluations, greedy, "greedy_outcomes") if whole else None
    return Evaluation(
        evaluations[0].name,
        float(np.mean([e.env_steps for e in evaluations])),
        float(np.mean([e.tokens for e in evaluations])),
        plain.mean,
        plain.ci95,
        None if greedily is None else greedily.mean,
        None if greedily is None else greedily.ci95,
        sum(e.episodes for e in evaluations),
        seeds=tuple(e.success for e in evaluations),
        greedy_seeds=tuple(greedy) if whole else (),
        over=plain.over,
        seconds=float(np.mean([e.seconds for e in evaluations])),
    )


def _over_seeds(
    evaluations: Sequence[Evaluation], means: Sequence[float], outcomes: str
) -> Interval:
    table = [getattr(e, outcomes) for e in evaluations]
    if table[0] and len({len(row) for row in table}) == 1:
        return success_over_seeds(np.asarray(table))
    return success_from_means(means, min(e.episodes for e in evaluations))


def families(runs: Sequence[RunData]) -> list[Family]:
    """Sorts runs into families and groups; the order of first appearance is kept."""
    by_task: dict[str, list[RunData]] = {}
    for run in runs:
        by_task.setdefault(_task_key(run), []).append(run)
    titles = [_title(members[0].env) for members in by_task.values()]
    found = []
    for name, members in zip(titles, by_task.values(), strict=True):
        title = name
        by_group: dict[str, list[RunData]] = {}
        for run in members:
            by_group.setdefault(_group_key(run), []).append(run)
        sorted_out = [without_copies(group) for group in by_group.values()]
        grouped = [sorted(kept, key=lambda r: r.seed) for kept, _ in sorted_out]
        labels = _labels(grouped)
        arguments = members[0].settings.get("env_kwargs") or {}
        plain = ", ".join(f"{k}={_short(v, 60)}" for k, v in arguments.items())
        ids = ", ".join(dict.fromkeys(run.env for run in members))
        if titles.count(title) > 1 and arguments:
            title += f" ({', '.join(_argument(k, v) for k, v in arguments.items())})"
        groups = tuple(
            Group(label, tuple(group), colour, tuple(copies))
            for colour, (label, group, (_, copies)) in enumerate(
                zip(labels, grouped, sorted_out, strict=True)
            )
        )
        found.append(Family(title, name, ids + (f" · {plain}" if plain else ""), groups))
    return found


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


def differing(runs: Sequence[RunData]) -> dict[str, list[Any]]:
    """The settings in which runs differ: by name, one value a run (None where a run has none)."""
    names = dict.fromkeys(key for run in runs for key in run.settings)
    found = {}
    for name in names:
        values = [run.settings.get(name) for run in runs]
        if any(value != values[0] for value in values[1:]):
            found[name] = values
    return found


def mean_line(
    curves: Sequence[tuple[Sequence[float], Sequence[float]]],
    label: str,
    colour: int,
) -> Series | None:
    """Several seeds' curves as one line: their mean, with a band from the lowest to the highest.

    Seeds measure at different places, so each is interpolated linearly at all places; the mean is
    drawn where every seed has values, and the seeds themselves thinly over their whole length.

    Args:
        curves: One (x, y) a seed, x ascending. Empty ones are passed over.
        label: The line's name.
        colour: Index into the palette.

    Returns:
        None where there is nothing to draw.
    """
    kept = [(np.asarray(x, float), np.asarray(y, float)) for x, y in curves if len(x)]
    if not kept:
        return None
    if len(kept) == 1:
        x, y = kept[0]
        return Series(label, x.tolist(), y.tolist(), colour=colour)
    begin = max(x[0] for x, _ in kept)
    end = min(x[-1] for x, _ in kept)
    places = np.unique(np.concatenate([x for x, _ in kept]))
    places = places[(places >= begin) & (places <= end)]
    thin = [(x.tolist(), y.tolist()) for x, y in kept]
    if len(places) == 0:  # the seeds' stretches do not meet: a run has only begun
        return Series(label, [], [], colour=colour, thin=thin)
    values = np.stack([np.interp(places, x, y) for x, y in kept])
    return Series(
        label,
        places.tolist(),
        values.mean(axis=0).tolist(),
        values.min(axis=0).tolist(),
        values.max(axis=0).tolist(),
        colour,
        thin,
    )


def smoothed(
    x: Sequence[float], y: Sequence[float], longest: int = SMOOTH_FROM
) -> tuple[Sequence[float], Sequence[float]]:
    """A curve of more than `longest` points as its running mean over a thirtieth of its length.

    Near the ends the window is cut, so that the mean stays centred on its place.
    """
    count = len(y)
    if count <= longest:
        return x, y
    half = max(1, count // 60)
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(y, float))])
    places = np.arange(count)
    reach = np.minimum(half, np.minimum(places, count - 1 - places))
    means = (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)
    return x, means.tolist()


def _title(env: str) -> str:
    """The name of an environment's tasks: "ALFWorld Long" for HiMAC-ALFWorld-Long-Flat-v0."""
    parts = [p for p in env.split("-") if p not in ("HiMAC", "Flat")]
    if len(parts) > 1 and parts[-1].startswith("v") and parts[-1][1:].isdigit():
        parts = parts[:-1]
    return " ".join(parts) or env


def _argument(key: str, value: Any) -> str:
    """An environment's argument as part of a name: data sets by their last part."""
    if key == "data":
        return str(value).rstrip("/").rsplit("/", 1)[-1]
    return f"{key}={_short(value)}"


def _task_key(run: RunData) -> str:
    arguments = run.settings.get("env_kwargs") or {}
    return _title(run.env) + json.dumps(arguments, sort_keys=True, default=str)


def _group_key(run: RunData) -> str:
    kept = {k: v for k, v in run.settings.items() if k not in INCIDENTAL}
    return json.dumps([run.method, run.env, kept], sort_keys=True, default=str)


def _labels(grouped: Sequence[Sequence[RunData]]) -> list[str]:
    """Each group's name; groups of one method are told apart by the settings that differ."""
    labels = []
    for group in grouped:
        label = group[0].title
        rivals = [g[0] for g in grouped if g[0].method == group[0].method]
        apart = {k: v for k, v in differing(rivals).items() if k not in INCIDENTAL}
        mine = [f"{k}={_short(group[0].settings.get(k))}" for k in apart]
        if mine:
            label += " · " + ", ".join(mine[:3]) + (" …" if len(mine) > 3 else "")
        labels.append(label)
    return labels


def _short(value: Any, most: int = 24) -> str:
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


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
    """Every group of a family against its first one, as far as seeds and tasks can be paired."""
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
