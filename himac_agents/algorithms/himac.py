"""HiMAC's iteration and that of its ablations, in the order of the paper.

The paper's full text was not at hand: the formulas here are reconstructed from its abstract and
from summaries of others, and what these leave open is this project's choice.

One iteration draws some tasks. **Phase A** (macro): the planner writes M blueprints for each task;
the executor, frozen and greedy, carries each out once; the planner's tokens are moved by how well
its blueprints did beside each other. **Phase B** (micro): the best blueprint z* of each task is
frozen; the executor carries it out N times, sampling; its tokens are moved by how well the
executions did beside each other. Each level is part of the other's environment.

Every choice is a field of `TrainConfig` or of the classes below; who gets which advantage is in
`himac_agents.algorithms.credit`, the formulas in `advantages` beside it, the loss in `losses`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from himac_agents.algorithms.advantages import best
from himac_agents.algorithms.batching import by_group, segments_of
from himac_agents.algorithms.credit import Credit, executor_credit, planner_credit, settled
from himac_agents.algorithms.iteration import (
    Draw,
    Iteration,
    Setting,
    noted,
    replace_dead,
    update,
)
from himac_agents.config import TrainConfig
from himac_agents.policies import noise
from himac_agents.rollouts.collect import collect, distinct, propose
from himac_agents.rollouts.types import Episode, EpisodeRequest

#: (settings, plans, the episodes that executed them) -> the planner's credit, and what each
#: blueprint is worth.
PlannerCredit = Callable[
    [TrainConfig, Sequence[Episode], Sequence[Episode]], tuple[Credit, list[float]]
]
#: (settings, episodes) -> the executor's credit.
ExecutorCredit = Callable[[TrainConfig, Sequence[Episode]], Credit]


@dataclass(frozen=True, slots=True)
class CoEvolution:
    """Planner and executor are updated in turns, each with the other frozen.

    Attributes:
        planner_credit: Macro.
        executor_credit: Micro.
        practised: What the executor practises on: z*, the "best" of the M blueprints, a "random"
            one of them, or "all" in turns (its executions are then compared across blueprints).
        state_keys: Whether the credit compares states; see `himac_agents.rollouts.episode.Play`.
        critics: Whether the method has critics, and the credit reads what they say (`turn.value`).
        lines: Whether the credit tells the lines of a blueprint apart (`turn.lines`).
    """

    planner_credit: PlannerCredit = planner_credit
    executor_credit: ExecutorCredit = executor_credit
    practised: Literal["best", "random", "all"] = "best"
    state_keys: bool = False
    critics: bool = False
    lines: bool = False

    def __call__(self, at: Setting, task_ids: Sequence[str], number: int = 0) -> Iteration:
        """Iteration `number` (from 0)."""
        config, done, tasks = at.config, Iteration(), at.drawn(task_ids)
        if number % config.planner_every == 0:
            chosen = self.phase_a(at, tasks, done)
        else:
            chosen = self.likely_blueprints(at, tasks, done)
        for update_number in range(config.executor_updates):
            self.phase_b(at, tasks, chosen, done, update_number)
        return done

    def phase_a(self, at: Setting, tasks: Draw, done: Iteration) -> list[EpisodeRequest]:
        """Macro: updates the planner against the frozen executor.

        A_j = (R(z_j) - mean_M R) / (std_M R + eps), on the tokens of z_j and no others.

        Returns:
            For each task its z* (or others of the M; see `practised`), as requests to execute them
            whose number is the task's place.
        """
        drawn: list[Proposals] = []

        def compare(tasks: Draw) -> Credit:
            keys = noted(self.state_keys, at.config)
            drawn.append(try_blueprints(at, tasks, done, keys, self.lines))
            plans, runs = drawn[-1].plans, drawn[-1].runs
            self.judge(at, plans, runs)
            credit, drawn[-1].returns = self.planner_credit(at.config, plans, runs)
            return credit

        credit = replace_dead(at, compare(tasks), tasks, compare)
        metrics = at.planner.reinforce(credit.segments, at.rng, "planner")
        done.candidates = [
            (plan, value, next((t.advantage or 0.0 for t in plan.turns()), 0.0))
            for proposals in drawn
            for plan, value in zip(proposals.plans, proposals.returns, strict=True)
        ]
        done.metrics["planner"] = {**metrics, **credit.summary(), **proposals_summary(drawn)}
        return self.choose(at, drawn[0])

    def choose(self, at: Setting, proposals: Proposals) -> list[EpisodeRequest]:
        """For each task z*: the first of its best blueprints, or others where the method says so.

        What crashed was not tried, and is chosen only where nothing else is left.
        """
        chosen: list[EpisodeRequest] = []
        tried = [
            not (plan.error or run.error)
            for plan, run in zip(proposals.plans, proposals.runs, strict=True)
        ]
        size = at.config.blueprints
        for first in range(0, len(proposals.plans), size):
            every = range(first, first + size)
            members = [i for i in every if tried[i]] or list(every)
            place = proposals.plans[first].request.number // size
            if self.practised == "best":
                members = [members[best([proposals.returns[i] for i in members])]]
            elif self.practised == "random":
                rng = noise.generator(at.seed, "choice", place)
                members = [members[int(rng.integers(len(members)))]]
            for plan in (proposals.plans[i] for i in members):
                chosen.append(replace(plan.request, number=place, blueprint=plan.blueprint))
        return chosen

    def phase_b(
        self,
        at: Setting,
        tasks: Draw,
        chosen: Sequence[EpisodeRequest],
        done: Iteration,
        number: int = 0,
    ) -> None:
        """Micro: updates the executor on N sampled executions of each task's frozen blueprint.

        A_i = (R(tau_i) - mean_N R) / (std_N R + eps), or sub-goal by sub-goal, on the tokens of
        commands, `<sub_done>` included, and no others.

        Args:
            at: The setting.
            tasks: The iteration's tasks.
            chosen: For each its blueprint or blueprints, as `phase_a` returns them.
            done: What is noted.
            number: The update's, among those of this iteration.
        """
        config = at.config
        episodes: list[Episode] = []

        def practise(chosen: Sequence[EpisodeRequest], round: int) -> Credit:
            size = config.executions
            own: dict[int, list[EpisodeRequest]] = {}
            for request in chosen:
                own.setdefault(request.number, []).append(request)
            repeated = [
                replace(blueprints[k % len(blueprints)], number=place * size + k)
                for place, blueprints in own.items()
                for k in range(size)
            ]
            seed = at.key("executions", number, round)
            played = collect(
                at.sampling(), at.pool, repeated, seed=seed, stop_at_failure=stops(config),
                state_keys=noted(self.state_keys, config),
            )  # fmt: skip
            episodes.extend(done.book(played))
            self.judge(at, [], played)
            return self.executor_credit(config, played)

        def further(tasks: Draw) -> Credit:
            return practise(self.likely_blueprints(at, tasks, done), tasks.round)

        credit = replace_dead(at, practise(chosen, 0), tasks, further)
        update(at.executor, credit, episodes, "executor", at, done)

    def judge(self, at: Setting, plans: Sequence[Episode], runs: Sequence[Episode]) -> None:
        """Notes what the critics say of the states in which episodes were written."""
        if self.critics:
            for learner, segments in (
                (at.planner, segments_of(plans, "planner")),
                (at.executor, segments_of(runs, "executor")),
            ):
                for segment, values in zip(segments, learner.values(segments), strict=True):
                    for turn, value in zip(segment.turns, values, strict=True):
                        turn.value = value

    def likely_blueprints(self, at: Setting, tasks: Draw, done: Iteration) -> list[EpisodeRequest]:
        """Tasks under the planner's most likely blueprint (or sampled ones, where any will do)."""
        agent = at.greedy() if self.practised == "best" else at.sampling()
        size = at.config.blueprints if self.practised == "all" else 1
        seed = at.key("likely blueprints", tasks.round)
        plans = done.book(propose(agent, at.pool, tasks.requests(size), seed=seed))
        return [
            replace(plan.request, number=plan.request.number // size, blueprint=plan.blueprint)
            for plan in plans
        ]


@dataclass(frozen=True, slots=True)
class Joint:
    """No co-evolution: both levels are updated at once, from the same sampled episodes.

    M blueprints a task, each executed once, sampling; macro and micro advantages come from the
    same returns. Neither level can take the other for a part of its world.

    Attributes:
        planner_credit: Macro.
        executor_credit: Micro.
    """

    planner_credit: PlannerCredit = planner_credit
    executor_credit: ExecutorCredit = executor_credit

    def __call__(self, at: Setting, task_ids: Sequence[str], number: int = 0) -> Iteration:
        """One iteration."""
        config, done = at.config, Iteration()
        episodes: list[Episode] = []

        def play(tasks: Draw) -> Credit:
            asked, seed = tasks.requests(config.blueprints), at.key("joint", tasks.round)
            played = collect(
                at.sampling(), at.pool, asked, seed=seed, stop_at_failure=stops(config)
            )
            episodes.extend(done.book(played))
            plans, _ = self.planner_credit(config, played, played)
            commands = self.executor_credit(config, played)
            return Credit([*plans.segments, *commands.segments], commands.metrics)

        tasks = at.drawn(task_ids)
        credit = replace_dead(at, play(tasks), tasks, play)
        if at.planner is not at.executor:
            plans = credit.only("planner").segments
            done.metrics["planner"] = at.planner.reinforce(plans, at.rng, "planner")
            credit = credit.only("executor")
        update(at.executor, credit, episodes, "joint", at, done)
        done.metrics["joint"]["valid"] = float(np.mean([e.blueprint_valid for e in episodes]))
        return done


def stops(config: TrainConfig) -> bool:
    """Whether an execution ends with its first failed sub-goal while learning."""
    return settled(config.stop_at_failure, "stop_at_failure")


@dataclass
class Proposals:
    """Blueprints of some tasks, M a task, one after the other, and what became of them.

    Attributes:
        plans: The planner's episodes: a segment and a blueprint each.
        runs: For each plan the episode that executed it.
        different: How many are not the same as another of their task; a greedy executor carries
            out only these.
        returns: What each blueprint is worth, format penalty included.
    """

    plans: Sequence[Episode]
    runs: Sequence[Episode]
    different: int
    returns: list[float] = field(default_factory=list)


def try_blueprints(
    at: Setting, tasks: Draw, done: Iteration, state_keys: bool = False, lines: bool = False
) -> Proposals:
    """Samples M blueprints a task and lets the executor carry each out once."""
    config = at.config
    asked = tasks.requests(config.blueprints)
    seed = at.key("blueprints", tasks.round)
    plans = done.book(propose(at.sampling(), at.pool, asked, seed=seed, lines=lines))
    wanted = [replace(plan.request, blueprint=plan.blueprint) for plan in plans]
    different, where = distinct(wanted)
    if config.greedy_execution:
        # A greedy executor plays equal blueprints alike: each is executed once.
        executor, tried = at.greedy(), different
    else:
        executor, tried, where = at.sampling(), wanted, list(range(len(wanted)))
    seed = at.key("trials", tasks.round)
    played = done.book(
        collect(
            executor, at.pool, tried, seed=seed, stop_at_failure=stops(config),
            state_keys=state_keys,
        )
    )  # fmt: skip
    return Proposals(plans, [played[i] for i in where], len(different))


def proposals_summary(drawn: Sequence[Proposals]) -> dict[str, float]:
    """What a phase's blueprints were like on average.

    `lead` is what choosing can give: how far the best return of a task's blueprints lies above
    their mean, that is above a random one's.
    """
    plans = [plan for proposals in drawn for plan in proposals.plans]
    runs = [run for proposals in drawn for run in proposals.runs]
    returns = [value for proposals in drawn for value in proposals.returns]
    groups = [[returns[i] for i in places] for places in by_group(plans)]
    return {
        "return": float(np.mean(returns)),
        "success": float(np.mean([run.success for run in runs])),
        "lead": float(np.mean([max(own) - np.mean(own) for own in groups])),
        "blueprints": sum(proposals.different for proposals in drawn) / len(groups),
        "valid": float(np.mean([plan.blueprint_valid for plan in plans])),
    }
