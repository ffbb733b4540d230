"""What the iterations of all methods share: their setting, their books, groups drawn again.

The methods themselves are in `himac_agents.algorithms.himac` and `flat` beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from himac_agents.agents.agent import HiMACAgent, at_temperature
from himac_agents.algorithms.credit import Credit
from himac_agents.config import TrainConfig
from himac_agents.distributed import Team
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, Segment, Task


class Learns(Protocol):
    """What methods use of a `himac_agents.algorithms.learner.Learner`; here nothing loads torch."""

    def reinforce(
        self, segments: Sequence[Segment], rng: np.random.Generator, phase: str = "flat"
    ) -> dict[str, float]:
        """See `Learner.reinforce`."""
        ...

    def values(self, segments: Sequence[Segment]) -> list[list[float]]:
        """See `Learner.values`."""
        ...


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
    planner: Learns
    executor: Learns
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
    learner: Learns,
    credit: Credit,
    episodes: list[Episode],
    phase: str,
    at: Setting,
    done: Iteration,
) -> None:
    """Moves a policy by its credit, and notes what the episodes were like."""
    metrics = learner.reinforce(credit.segments, at.rng, phase)
    done.metrics[phase] = {**metrics, **credit.summary(), **summary(episodes)}
    done.episodes = episodes


def summary(episodes: Sequence[Episode]) -> dict[str, float]:
    """What episodes looked like on average."""
    options = [o for e in episodes for o in e.options]
    # As in evaluation: a sub-goal that the environment does not understand is not judged.
    judged = [o for o in options if o["achieved"] is not None]
    said = [o for o in judged if o["reason"] == "done"]
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
        for reason in ("done", "budget", "terminated", "truncated"):
            found[f"ended_{reason}"] = np.mean([o["reason"] == reason for o in options])
    if judged:
        found["achieved"] = np.mean([o["achieved"] for o in judged])
    if said:
        found["sub_done_precision"] = np.mean([o["achieved"] for o in said])
    return {key: float(value) for key, value in found.items()}
