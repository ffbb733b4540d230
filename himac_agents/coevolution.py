"""HiMAC's training loop: warm start, then co-evolution of planner and executor.

One iteration draws some tasks. **Phase A** (macro): the planner writes M blueprints for each task;
the executor, frozen and greedy, carries each out once; the planner's tokens are moved by how well
its blueprints did beside each other. **Phase B** (micro): the best blueprint z* of each task is
frozen; the executor carries it out N times, sampling; its tokens are moved by how well the
executions did beside each other. Each level is part of the other's environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from himac_agents import advantages
from himac_agents.agent import HiMACAgent
from himac_agents.batching import segments_of
from himac_agents.config import TrainConfig
from himac_agents.episodes import Episode, Segment, Task
from himac_agents.evaluate import at_temperature
from himac_agents.learner import Learner
from himac_agents.parallel import Team
from himac_agents.rollout import EnvPool, collect, distinct, propose


@dataclass
class Iteration:
    """What one iteration did.

    Attributes:
        metrics: By phase.
        episodes: The last phase's episodes.
        candidates: The blueprints proposed, each with its return and its advantage.
        env_steps: Steps of the tasks that were really taken.
        tokens: Tokens that the policies wrote.
    """

    metrics: dict[str, dict[str, float]]
    episodes: list[Episode]
    candidates: list[tuple[Episode, float, float]] = field(default_factory=list)
    env_steps: int = 0
    tokens: int = 0

    def book(self, episodes: Sequence[Episode]) -> None:
        """Counts the work of episodes that were played."""
        self.env_steps += sum(e.steps for e in episodes)
        self.tokens += sum(e.tokens for e in episodes)

    def pooled(self, team: Team, weight: float) -> Iteration:
        """The work and the mean metrics of all processes; the episodes are this one's."""
        metrics = {phase: team.mean(found, weight) for phase, found in self.metrics.items()}
        work = team.add({"env_steps": self.env_steps, "tokens": self.tokens})
        return replace(
            self, metrics=metrics, env_steps=int(work["env_steps"]), tokens=int(work["tokens"])
        )


def himac_iteration(
    config: TrainConfig,
    agent: HiMACAgent,
    pool: EnvPool,
    planner: Learner,
    executor: Learner,
    task_ids: Sequence[str],
    rng: np.random.Generator,
) -> Iteration:
    """One round of co-evolution on some tasks."""
    done = Iteration({}, [])
    best = phase_a(config, agent, pool, planner, task_ids, rng, done)
    for _ in range(config.executor_updates):
        phase_b(config, agent, pool, executor, best, rng, done)
    return done


def phase_a(
    config: TrainConfig,
    agent: HiMACAgent,
    pool: EnvPool,
    learner: Learner,
    task_ids: Sequence[str],
    rng: np.random.Generator,
    done: Iteration,
) -> list[Task]:
    """Macro: updates the planner against the frozen, greedy executor.

    Returns:
        For each task its z*, as a task that is to be executed under it.
    """
    asked = [Task(t, group=g) for g, t in enumerate(task_ids) for _ in range(config.blueprints)]
    plans = propose(at_temperature(agent, config.temperature), pool, asked)
    # A greedy executor plays equal blueprints alike: each is executed once.
    wanted = [Task(p.task.task_id, p.task.group, p.blueprint) for p in plans]
    unique, where = distinct(wanted)
    played = collect(
        at_temperature(agent, 0.0), pool, unique, stop_at_failure=config.stop_at_failure
    )
    done.book(plans)
    done.book(played)
    runs = [played[i] for i in where]
    penalty = config.format_penalty
    returns = [
        run.reward - (0.0 if plan.blueprint_valid else penalty)
        for plan, run in zip(plans, runs, strict=True)
    ]
    groups = [plan.task.group for plan in plans]
    macro = advantages.macro(returns, groups, std=config.advantage_std)
    done.candidates = list(zip(plans, returns, macro, strict=True))
    kept = [i for i, (p, r) in enumerate(zip(plans, runs, strict=True)) if not (p.error or r.error)]
    segments = [plans[i].segments[0] for i in kept]
    metrics = learner.reinforce(segments, [float(macro[i]) for i in kept], rng)
    metrics["return"] = float(np.mean(returns))
    metrics["success"] = float(np.mean([run.success for run in runs]))
    metrics["dead_groups"] = advantages.dead_groups(returns, groups)
    metrics["blueprints"] = len(unique) / len(task_ids)
    metrics["valid"] = float(np.mean([plan.blueprint_valid for plan in plans]))
    done.metrics["planner"] = metrics
    best: list[Task] = []
    for group in range(len(task_ids)):
        members = [i for i, g in enumerate(groups) if g == group]
        star = max(members, key=lambda i: (returns[i], -i))
        best.append(wanted[star])
    return best


def phase_b(
    config: TrainConfig,
    agent: HiMACAgent,
    pool: EnvPool,
    learner: Learner,
    best: Sequence[Task],
    rng: np.random.Generator,
    done: Iteration,
) -> None:
    """Micro: updates the executor on sampled executions of each task's z*."""
    tasks = [task for task in best for _ in range(config.executions)]
    episodes = collect(
        at_temperature(agent, config.temperature),
        pool,
        tasks,
        stop_at_failure=config.stop_at_failure,
    )
    done.book(episodes)
    segments, credit, metrics = executor_credit(config, episodes)
    metrics.update(learner.reinforce(segments, credit, rng))
    metrics.update(summary(episodes))
    done.metrics["executor"] = metrics
    done.episodes = episodes


def executor_credit(
    config: TrainConfig, episodes: Sequence[Episode]
) -> tuple[list[Segment], list[float], dict[str, float]]:
    """Which advantage each executor segment carries.

    Returns:
        Segments, one advantage a segment, and metrics on the groups.
    """
    whole = [e for e in episodes if e.error is None]
    groups = [e.task.group for e in whole]
    returns = [e.reward for e in whole]
    metrics = {"dead_groups": advantages.dead_groups(returns, groups)}
    trajectory = advantages.micro(returns, groups, std=config.advantage_std)
    segments = segments_of(whole, "executor")
    owner = [i for i, e in enumerate(whole) for s in e.segments if s.role == "executor" and s.turns]
    credit = np.asarray([trajectory[i] for i in owner])
    if config.executor_advantage == "trajectory":
        return segments, credit.tolist(), metrics
    values, keys, comparable = [], [], []
    clean = dict.fromkeys(range(len(whole)), True)
    for segment, i in zip(segments, owner, strict=True):
        option = segment.option or {"achieved": False, "steps": 0}
        value = advantages.option_value(
            option["achieved"], option["steps"], step_cost=config.step_cost
        )
        # A sub-goal that the environment does not understand is judged by the whole episode.
        values.append(returns[i] if value is None else value)
        keys.append((groups[i], segment.index, segment.subgoal))
        comparable.append(clean[i])
        clean[i] = clean[i] and option["achieved"] is not False
    option_credit = advantages.option_level(values, keys, comparable, std=config.advantage_std)
    alive = [k for k, ok in enumerate(comparable) if ok]
    metrics["dead_options"] = advantages.dead_groups(
        [values[k] for k in alive], [keys[k] for k in alive]
    )
    metrics["option_value"] = float(np.mean([values[k] for k in alive])) if alive else 0.0
    if config.executor_advantage == "both":
        option_credit = option_credit + credit
    return segments, option_credit.tolist(), metrics


def flat_iteration(
    config: TrainConfig,
    agent: HiMACAgent,
    pool: EnvPool,
    learner: Learner,
    task_ids: Sequence[str],
    rng: np.random.Generator,
) -> Iteration:
    """GRPO on the flat environment: N episodes a task, compared as wholes."""
    done = Iteration({}, [])
    tasks = [Task(t, group=g) for g, t in enumerate(task_ids) for _ in range(config.executions)]
    episodes = collect(at_temperature(agent, config.temperature), pool, tasks)
    done.book(episodes)
    whole = [e for e in episodes if e.error is None]
    groups = [e.task.group for e in whole]
    returns = [e.reward for e in whole]
    credit = advantages.grpo(returns, groups, std=config.advantage_std)
    kept = [(e.segments[0], float(a)) for e, a in zip(whole, credit, strict=True) if e.segments]
    metrics = learner.reinforce([s for s, _ in kept], [a for _, a in kept], rng)
    metrics["dead_groups"] = advantages.dead_groups(returns, groups)
    metrics.update(summary(episodes))
    done.metrics["flat"] = metrics
    done.episodes = episodes
    return done


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
