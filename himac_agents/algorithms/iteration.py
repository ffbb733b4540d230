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
from himac_agents.policies import noise
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest, Segment


@dataclass(frozen=True, slots=True)
class Draw:
    """Tasks that were drawn together, each to become a group of episodes.

    Attributes:
        task_ids: The tasks.
        places: For each its place among the iteration's tasks; a redrawn one takes over the place
            of the one that it replaces.
        start: The first group's number.
        round: 0 for the iteration's own tasks, then how often there was a redraw.
    """

    task_ids: tuple[str, ...]
    places: tuple[int, ...]
    start: int = 0
    round: int = 0

    def groups(self) -> range:
        """The groups' numbers."""
        return range(self.start, self.start + len(self.task_ids))

    def requests(self, size: int) -> list[EpisodeRequest]:
        """Each task `size` times, as one group."""
        return [
            EpisodeRequest(task_id, group, place * size + k)
            for task_id, group, place in zip(self.task_ids, self.groups(), self.places, strict=True)
            for k in range(size)
        ]


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
        draw: Gives a further task to learn on.
        seed: Seeds all sampling and all choices of this iteration.
        first: The place of this process's first task among all of the iteration's. Noise goes by
            places, so that it is the same on any number of processes.
        rng: Splits samples into mini-batches; the same in all processes.
    """

    config: TrainConfig
    agent: HiMACAgent
    pool: EnvPool
    planner: Learns
    executor: Learns
    draw: Callable[[np.random.Generator], str]
    seed: int
    first: int
    rng: np.random.Generator

    def drawn(self, task_ids: Sequence[str]) -> Draw:
        """This process's tasks of the iteration."""
        return Draw(tuple(task_ids), tuple(self.first + i for i in range(len(task_ids))))

    def key(self, *what: str | int) -> int:
        """The seed of one part of the iteration."""
        return noise.key(self.seed, *what)

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


def noted(state_keys: bool, config: TrainConfig) -> bool:
    """Whether states are to be noted: where the credit compares them, by the environment's keys."""
    return state_keys and config.graph_keys == "state"


def replace_dead(
    at: Setting, credit: Credit, first: Draw, play: Callable[[Draw], Credit]
) -> Credit:
    """Replaces groups without credit by groups of newly drawn tasks, `resample_dead` times at most.

    Args:
        at: The setting.
        credit: That of the first draw; its metrics are kept.
        first: What was drawn first.
        play: Plays what is drawn.
    """
    place_of = dict(zip(first.groups(), first.places, strict=True))
    for number in range(1, at.config.resample_dead + 1):
        dead = credit.dead()
        if not dead:
            break
        places = tuple(place_of[group] for group in sorted(dead))
        fresh = Draw(
            tuple(at.draw(noise.generator(at.seed, "redraw", number, p)) for p in places),
            places,
            start=len(place_of),
            round=number,
        )
        place_of |= zip(fresh.groups(), places, strict=True)
        credit = credit.replace(dead, play(fresh))
    credit.metrics["resampled_groups"] = float(len(place_of) - len(first.places))
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
