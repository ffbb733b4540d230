"""The planner's credit: what each line of a blueprint was truly worth, and what estimators say.

A blueprint is written before anything is done, line after line. With p the lines before line k and
the planner and the executor as they are,

    A_k = Q(p, line k) - Q(p)        Q(p) = P(the task is solved | the blueprint begins with p)

which is what the tokens of line k would have to be told.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from himac_agents.agents.agent import Executor, HiMACAgent
from himac_agents.experiments.credit.estimators import LINE_ESTIMATORS, Estimator
from himac_agents.experiments.credit.measure import (
    Size,
    collected,
    compared,
    drawn_tasks,
    in_groups,
    sums,
)
from himac_agents.experiments.credit.policy import SLIPS, Scripted, Simulator, Strength
from himac_agents.policies import noise
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest, Segment, Turn
from himac_envs.blueprint import Blueprint
from himac_envs.hierarchy import HierarchicalEnv

#: Chance that a line of a scripted planner is another than the oracle's.
LINE_NOISE = 0.3


class ScriptedPlanner:
    """Writes the oracle's blueprint with mistakes: always the same ones in a place of a task.

    Each line is written by itself: the oracle's with chance 1 - noise, else one of `SLIPS` others,
    which are sub-goals from elsewhere in this blueprint, or of other tasks.

    Args:
        oracle: The oracle's blueprints, by task.
        noise: Chance of a mistake in a line.
    """

    def __init__(self, oracle: Mapping[str, Sequence[str]], noise: float = LINE_NOISE) -> None:
        self.oracle, self.noise = oracle, noise
        everywhere = sorted({line for lines in oracle.values() for line in lines})
        self.choices = {
            task_id: [
                [line, *_slips(task_id, place, line, everywhere)]
                for place, line in enumerate(lines)
            ]
            for task_id, lines in oracle.items()
        }

    def chances(self, task_id: str, place: int) -> list[float]:
        """The probabilities of a place's choices."""
        others = len(self.choices[task_id][place]) - 1
        return [1.0 - self.noise, *[self.noise / others] * others] if others else [1.0]

    def write(self, task_id: str, rng: random.Random, begun: Sequence[str] = ()) -> tuple[str, ...]:
        """The lines of a blueprint, the first of them given."""
        lines = list(begun)
        for place in range(len(lines), len(self.oracle[task_id])):
            options = self.choices[task_id][place]
            reach = list(accumulate(self.chances(task_id, place)))
            lines.append(options[min(bisect_right(reach, rng.random()), len(options) - 1)])
        return tuple(lines)


def _slips(task_id: str, place: int, line: str, everywhere: Sequence[str]) -> list[str]:
    others = [other for other in everywhere if other != line]
    drawn = noise.generator("lines", task_id, place).permutation(len(others))[:SLIPS]
    return [others[int(i)] for i in sorted(drawn)]


@dataclass(frozen=True, slots=True)
class Tried:
    """A task's blueprints, executed once each, and what some of their lines were worth.

    Attributes:
        plans: [groups][blueprints] the planner's episodes, with `Turn.lines`.
        runs: For each the episode that executed it (the same one, where it holds both).
        places: Group, blueprint and line of those whose truth is known.
        truths: For each place A of the line.
    """

    plans: Sequence[Sequence[Episode]]
    runs: Sequence[Sequence[Episode]]
    places: Sequence[tuple[int, int, int]]
    truths: Sequence[float]

    def sums(self, estimator: Estimator, count: int) -> list[float]:
        """See `Known`."""
        plans = [group[:count] for group in self.plans]
        runs = [run for group in self.runs for run in group[:count]]
        estimator.credit_lines([plan for group in plans for plan in group], runs)
        return _line_sums(plans, self.places, self.truths)


def measure_lines(
    make: Callable[[], HierarchicalEnv],
    strength: Strength,
    size: Size,
    *,
    seed: int = 0,
    estimators: Mapping[str, Estimator] = LINE_ESTIMATORS,
) -> dict[str, Any]:
    """Measures the credit of a scripted planner's lines; each blueprint is executed once.

    Args:
        make: Makes the environment.
        strength: The executor's, who samples.
        size: How much; its continuations are blueprints written on from a beginning, each executed
            once.
        seed: Of tasks, blueprints, episodes and continuations.
        estimators: What is compared.

    Returns:
        As `measure`, each line being a decision.
    """
    policy = Scripted(strength, seed)
    agent, pool = HiMACAgent(None, Executor(policy)), EnvPool(make, 1)
    simulator = Simulator(make(), policy)
    oracle = {}
    for task_id in drawn_tasks(simulator.env, size.tasks, seed):
        simulator.env.reset(options={"task_id": task_id})
        oracle[task_id] = tuple(simulator.env.oracle_blueprint().texts())
    planner = ScriptedPlanner(oracle)

    def tried() -> Iterator[Tried]:
        for task_id in oracle:
            rng = random.Random(noise.key(seed, "lines", task_id))
            groups = [
                [planner.write(task_id, rng) for _ in range(max(size.episodes))]
                for _ in range(size.groups)
            ]
            runs = _executed(agent, pool, task_id, groups, seed)
            plans = [[_plan(lines, g) for lines in group] for g, group in enumerate(groups)]
            worth = Worth(simulator, planner, task_id, size.continuations, rng)
            places = drawn_lines(plans, size, rng)
            known = [worth.advantage(groups[g][e][: k + 1]) for g, e, k in places]
            policy.forget()
            yield Tried(plans, runs, places, known)

    return {"strength": asdict(strength), **compared(tried(), size, seed, estimators)}


class Worth:
    """How often a task is solved when its blueprint begins in some way.

    Args:
        simulator: Plays blueprints.
        planner: Writes them on.
        task_id: The task.
        times: Blueprints that are written on from each beginning.
        rng: Draws them, and the commands.
    """

    def __init__(
        self,
        simulator: Simulator,
        planner: ScriptedPlanner,
        task_id: str,
        times: int,
        rng: random.Random,
    ) -> None:
        self.simulator, self.planner, self.task_id = simulator, planner, task_id
        self.times, self.rng = times, rng
        self._known: dict[tuple[str, ...], float] = {}

    def of(self, begun: tuple[str, ...]) -> float:
        """Q: success when the blueprint begins with these lines."""
        if begun not in self._known:
            drawn: dict[tuple[str, ...], int] = {}
            for _ in range(self.times):
                lines = self.planner.write(self.task_id, self.rng, begun)
                drawn[lines] = drawn.get(lines, 0) + 1
            won = 0.0
            for lines, times in drawn.items():
                start = self.simulator.begin(self.task_id, Blueprint.of(lines))
                limit = self.simulator.limit
                won += times * self.simulator.success(start, limit, times, self.rng)
            self._known[begun] = won / self.times
        return self._known[begun]

    def advantage(self, lines: tuple[str, ...]) -> float:
        """A of the last of these lines."""
        return self.of(lines) - self.of(lines[:-1])


def _executed(
    agent: HiMACAgent,
    pool: EnvPool,
    task_id: str,
    groups: Sequence[Sequence[tuple[str, ...]]],
    seed: int,
) -> list[list[Episode]]:
    requests = [
        EpisodeRequest(task_id, g, g * len(group) + k, Blueprint.of(lines))
        for g, group in enumerate(groups)
        for k, lines in enumerate(group)
    ]
    runs = collected(agent, pool, requests, seed=noise.key(seed, "runs"), state_keys=True)
    return in_groups(runs, len(groups[0]))


def _plan(lines: Sequence[str], group: int) -> Episode:
    """A planner's episode in which each line is one token."""
    places = tuple(range(len(lines)))
    turn = Turn("planner", 0, places, (0.0,) * len(lines), "", "", lines=places)
    segment = Segment("planner", group, token_ids=list(places), turns=[turn])
    return Episode(EpisodeRequest("", group), [segment], Blueprint.of(lines))


def planner_turn(plan: Episode) -> Turn:
    """The turn in which its blueprint was written."""
    return next(turn for turn in plan.turns() if turn.role == "planner")


def drawn_lines(
    plans: Sequence[Sequence[Episode]], size: Size, rng: random.Random
) -> list[tuple[int, int, int]]:
    """Places of lines (group, blueprint, line) among the first blueprints of all groups.

    A blueprint that cannot be read line by line has none.
    """
    places = [
        (g, e, k)
        for g, group in enumerate(plans)
        for e, plan in enumerate(group[: min(size.episodes)])
        for k in sorted({line for line in planner_turn(plan).lines if line >= 0})
    ]
    return sorted(rng.sample(places, min(size.decisions, len(places))))


def _line_sums(
    plans: Sequence[Sequence[Episode]],
    places: Sequence[tuple[int, int, int]],
    truths: Sequence[float],
) -> list[float]:
    """The sums for an estimator that has just told the lines their advantages."""
    own = [[_told(plan) for plan in group] for group in plans]
    said: dict[tuple[str, ...], dict[int, list[float]]] = {}
    for g, group in enumerate(plans):
        for plan, told in zip(group, own[g], strict=True):
            for k, value in told.items():
                said.setdefault(_begun(plan, k), {}).setdefault(g, []).append(value)
    return sums(
        [own[g][e][k] for g, e, k in places],
        truths,
        [[float(np.mean(v)) for v in said[_begun(plans[g][e], k)].values()] for g, e, k in places],
    )


def _begun(plan: Episode, line: int) -> tuple[str, ...]:
    """The lines of a blueprint up to one of them."""
    assert plan.blueprint is not None
    return tuple(plan.blueprint.texts()[: line + 1])


def _told(plan: Episode) -> dict[int, float]:
    """What the tokens of each line were told; those of one line are all told the same."""
    turn = planner_turn(plan)
    values = turn.token_advantages or [turn.advantage or 0.0] * len(turn.lines)
    return {line: value for line, value in zip(turn.lines, values, strict=True) if line >= 0}
