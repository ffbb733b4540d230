"""HiMAC's iteration, its ablations and its flat rivals, in the order of the paper.

One iteration draws some tasks. **Phase A** (macro): the planner writes M blueprints for each task;
the executor, frozen and greedy, carries each out once; the planner's tokens are moved by how well
its blueprints did beside each other. **Phase B** (micro): the best blueprint z* of each task is
frozen; the executor carries it out N times, sampling; its tokens are moved by how well the
executions did beside each other. Each level is part of the other's environment.

Every choice is a field of `TrainConfig` or of `Method`; who gets which advantage is in
`himac_agents.credit`, the formulas in `himac_agents.advantages`, the loss in `himac_agents.losses`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from himac_agents.agent import HiMACAgent
from himac_agents.config import TrainConfig
from himac_agents.credit import Credit, executor_credit, flat_credit, planner_credit
from himac_agents.episodes import Episode, Task
from himac_agents.evaluate import at_temperature
from himac_agents.learner import Learner
from himac_agents.parallel import Team
from himac_agents.rollout import EnvPool, collect, distinct, propose


@dataclass
class Setting:
    """What an iteration works with.

    Attributes:
        config: Every choice.
        agent: Who plays.
        pool: Where.
        planner: Updates the planner's policy.
        executor: Updates the executor's (or the flat agent's); the same object where both roles
            share their parameters.
        draw: Gives so many further tasks to learn on.
        choices: Chooses the blueprint in "himac-random-blueprint".
        rng: Splits samples into mini-batches; the same in all processes.
    """

    config: TrainConfig
    agent: HiMACAgent
    pool: EnvPool
    planner: Learner
    executor: Learner
    draw: Callable[[int], list[str]]
    choices: np.random.Generator
    rng: np.random.Generator

    def sampling(self) -> HiMACAgent:
        """The agent as it explores."""
        return at_temperature(self.agent, self.config.temperature)

    def greedy(self) -> HiMACAgent:
        """The agent at its most likely."""
        return at_temperature(self.agent, 0.0)


@dataclass
class Iteration:
    """What one iteration did.

    Attributes:
        metrics: By phase.
        episodes: The last phase's episodes.
        candidates: The blueprints compared, each with its return and its advantage.
        env_steps: Steps of the tasks that were really taken.
        tokens: Tokens that the policies wrote.
    """

    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    episodes: list[Episode] = field(default_factory=list)
    candidates: list[tuple[Episode, float, float]] = field(default_factory=list)
    env_steps: int = 0
    tokens: int = 0

    def pooled(self, team: Team, weight: float) -> Iteration:
        """The work and the mean metrics of all processes; the episodes are this one's."""
        metrics = {phase: team.mean(found, weight) for phase, found in self.metrics.items()}
        work = team.add({"env_steps": self.env_steps, "tokens": self.tokens})
        return replace(
            self, metrics=metrics, env_steps=int(work["env_steps"]), tokens=int(work["tokens"])
        )

    def book(self, episodes: Sequence[Episode]) -> Sequence[Episode]:
        """Counts the work of episodes that were played, and returns them."""
        self.env_steps += sum(e.steps for e in episodes)
        self.tokens += sum(e.tokens for e in episodes)
        return episodes


def iterate(at: Setting, task_ids: Sequence[str], number: int = 0) -> Iteration:
    """Iteration `number` (from 0) of the method that the configuration names."""
    config, done = at.config, Iteration()
    if not config.traits.hierarchical:
        flat(at, task_ids, done)
    elif not config.traits.alternates:
        joint(at, task_ids, done)
    else:
        if number % config.planner_every == 0:
            chosen = phase_a(at, task_ids, done)
        else:
            chosen = likely_blueprints(at, task_ids, 0, done)
        for _ in range(config.executor_updates):
            phase_b(at, chosen, done)
    return done


def phase_a(at: Setting, task_ids: Sequence[str], done: Iteration) -> list[Task]:
    """Macro: updates the planner against the frozen executor.

    A_j = (R(z_j) - mean_M R) / (std_M R + eps), on the tokens of z_j and no others.

    Returns:
        For each task its z* (the first of the best; in "himac-random-blueprint" any of the M), as
        a task that is to be executed under it.
    """
    config = at.config
    plans: list[Episode] = []
    runs: list[Episode] = []
    returns: list[float] = []
    executed = 0

    def compare(ids: Sequence[str], start: int) -> Credit:
        nonlocal executed
        own = propose(at.sampling(), at.pool, groups_of(ids, config.blueprints, start))
        wanted = [Task(p.task.task_id, p.task.group, p.blueprint) for p in own]
        # A greedy executor plays equal blueprints alike: each is executed once.
        unique, where = distinct(wanted) if config.greedy_execution else (wanted, None)
        executor = at.greedy() if config.greedy_execution else at.sampling()
        played = collect(executor, at.pool, unique, stop_at_failure=config.stop_at_failure)
        done.book(own)
        done.book(played)
        executed += len(unique)
        own_runs = played if where is None else [played[i] for i in where]
        credit, values = planner_credit(config, own, own_runs)
        plans.extend(own)
        runs.extend(own_runs)
        returns.extend(values)
        return credit

    first = compare(task_ids, 0)
    count = len(plans)
    credit = replace_dead(at, first, len(task_ids), compare)
    metrics = at.planner.reinforce(credit.segments, credit.by_turn, at.rng)
    done.candidates = [
        (plan, value, next((credit.by_turn.get(id(t), 0.0) for t in plan.turns()), 0.0))
        for plan, value in zip(plans, returns, strict=True)
    ]
    metrics.update(credit.metrics)
    metrics["return"] = float(np.mean(returns))
    metrics["success"] = float(np.mean([run.success for run in runs]))
    metrics["blueprints"] = executed / (len(plans) / config.blueprints)
    metrics["valid"] = float(np.mean([plan.blueprint_valid for plan in plans]))
    done.metrics["planner"] = metrics
    chosen: list[Task] = []
    for members in np.split(np.arange(count), len(task_ids)):
        if config.traits.best_blueprint:
            star = max(members, key=lambda i: (returns[i], -i))
        else:
            star = at.choices.choice(members)
        plan = plans[int(star)]
        chosen.append(Task(plan.task.task_id, plan.task.group, plan.blueprint))
    return chosen


def phase_b(at: Setting, chosen: Sequence[Task], done: Iteration) -> None:
    """Micro: updates the executor on N sampled executions of each task's frozen blueprint.

    A_i = (R(tau_i) - mean_N R) / (std_N R + eps), or sub-goal by sub-goal, on the tokens of
    commands, `<sub_done>` included, and no others.
    """
    config = at.config
    episodes: list[Episode] = []

    def practise(tasks: Sequence[Task]) -> Credit:
        repeated = [task for task in tasks for _ in range(config.executions)]
        played = collect(at.sampling(), at.pool, repeated, stop_at_failure=config.stop_at_failure)
        episodes.extend(done.book(played))
        return executor_credit(config, played)

    def further(ids: Sequence[str], start: int) -> Credit:
        return practise(likely_blueprints(at, ids, start, done))

    credit = replace_dead(at, practise(chosen), len(chosen), further)
    update(at.executor, credit, episodes, "executor", at, done)


def likely_blueprints(
    at: Setting, task_ids: Sequence[str], start: int, done: Iteration
) -> list[Task]:
    """Tasks under the planner's most likely blueprint ("himac-random-blueprint": a sampled one)."""
    agent = at.greedy() if at.config.traits.best_blueprint else at.sampling()
    plans = done.book(propose(agent, at.pool, groups_of(task_ids, 1, start)))
    return [Task(plan.task.task_id, plan.task.group, plan.blueprint) for plan in plans]


def joint(at: Setting, task_ids: Sequence[str], done: Iteration) -> None:
    """No co-evolution: both levels are updated at once, from the same sampled episodes.

    M blueprints a task, each executed once, sampling; macro and micro advantages come from the
    same returns. Neither level can take the other for a part of its world.
    """
    config = at.config
    episodes: list[Episode] = []

    def play(ids: Sequence[str], start: int) -> Credit:
        played = collect(
            at.sampling(),
            at.pool,
            groups_of(ids, config.blueprints, start),
            stop_at_failure=config.stop_at_failure,
        )
        episodes.extend(done.book(played))
        plans, _ = planner_credit(config, played, played)
        commands = executor_credit(config, played)
        return Credit(
            [*plans.segments, *commands.segments],
            {**plans.by_turn, **commands.by_turn},
            commands.metrics,
        )

    credit = replace_dead(at, play(task_ids, 0), len(task_ids), play)
    if at.planner is not at.executor:
        plans = credit.only("planner")
        moved = at.planner.reinforce(plans.segments, plans.by_turn, at.rng)
        done.metrics["planner"] = moved
        credit = credit.only("executor")
    update(at.executor, credit, episodes, "joint", at, done)
    done.metrics["joint"]["valid"] = float(np.mean([e.blueprint_valid for e in episodes]))


def flat(at: Setting, task_ids: Sequence[str], done: Iteration) -> None:
    """GRPO, RLOO, GiGPO: N episodes a task on the flat environment, compared with each other."""
    config = at.config
    episodes: list[Episode] = []

    def play(ids: Sequence[str], start: int) -> Credit:
        played = collect(at.sampling(), at.pool, groups_of(ids, config.executions, start))
        episodes.extend(done.book(played))
        return flat_credit(config, played)

    credit = replace_dead(at, play(task_ids, 0), len(task_ids), play)
    update(at.executor, credit, episodes, "flat", at, done)


def groups_of(task_ids: Sequence[str], size: int, start: int) -> list[Task]:
    """Each task `size` times, as one group; groups are numbered from `start`."""
    return [Task(t, group=start + g) for g, t in enumerate(task_ids) for _ in range(size)]


def replace_dead(
    at: Setting, credit: Credit, groups: int, play: Callable[[Sequence[str], int], Credit]
) -> Credit:
    """Replaces groups without credit by groups of newly drawn tasks, `resample_dead` times at most.

    Args:
        at: The setting.
        credit: That of the first draw; its metrics are kept.
        groups: How many groups there are.
        play: Plays tasks as groups that are numbered from the second argument.
    """
    redrawn = 0
    for _ in range(at.config.resample_dead):
        dead = credit.dead()
        if not dead:
            break
        fresh = play(at.draw(len(dead)), groups + redrawn)
        redrawn += len(dead)
        credit = credit.replace(dead, fresh)
    credit.metrics["resampled_groups"] = float(redrawn)
    return credit


def update(
    learner: Learner,
    credit: Credit,
    episodes: list[Episode],
    phase: str,
    at: Setting,
    done: Iteration,
) -> None:
    """Moves a policy by its credit, and notes what the episodes were like."""
    metrics = learner.reinforce(credit.segments, credit.by_turn, at.rng)
    done.metrics[phase] = {**metrics, **credit.metrics, **summary(episodes)}
    done.episodes = episodes


def summary(episodes: Sequence[Episode]) -> dict[str, float]:
    """What episodes looked like on average."""
    options = [o for e in episodes for o in e.options]
    said = [o for o in options if o["reason"] == "done"]
    turns = [t for e in episodes for t in e.turns()]
    found: dict[str, Any] = {
        "success": np.mean([e.success for e in episodes]),
        "return": np.mean([e.reward for e in episodes]),
        "env_steps": np.mean([e.steps for e in episodes]),
        "errors": np.mean([e.error is not None for e in episodes]),
        "invalid": np.mean([t.invalid for t in turns]) if turns else 0.0,
    }
    if options:
        found["option_steps"] = np.mean([o["steps"] for o in options])
        found["achieved"] = np.mean([bool(o["achieved"]) for o in options])
        for reason in ("done", "budget", "terminated", "truncated"):
            found[f"ended_{reason}"] = np.mean([o["reason"] == reason for o in options])
    if said:
        found["sub_done_precision"] = np.mean([bool(o["achieved"]) for o in said])
    return {key: float(value) for key, value in found.items()}
