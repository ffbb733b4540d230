"""Evaluation: success and return with intervals, and comparisons on the same tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import himac_envs  # noqa: F401  (registers the environments)
from himac_agents.agents.agent import HiMACAgent, at_temperature
from himac_agents.config import check_seeds
from himac_agents.distributed import team
from himac_agents.evaluation.metrics import Record, summarise, wilson
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, Task


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found.

    Attributes:
        successes: [episodes] 0 or 1, in the order of tasks (and seeds).
        returns: [episodes] sums of rewards.
        env_steps: Steps of the tasks, all episodes together.
        tokens: Tokens the policies wrote.
        seeds: The sampling seeds.
        errors: Episodes whose environment crashed; they count as failures.
        temperature: Sampling temperature, 0 for greedy.
        records: [episodes] what each was like, in the same order.
        usage: What remote models were asked and what it cost, by model.
    """

    successes: NDArray[np.float64]
    returns: NDArray[np.float64]
    env_steps: int
    tokens: int
    seeds: tuple[int, ...] = (0,)
    errors: int = 0
    temperature: float = 1.0
    records: tuple[Record, ...] = ()
    usage: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        records: Sequence[Record],
        seeds: Sequence[int],
        temperature: float,
        usage: Mapping[str, Any] | None = None,
    ) -> EvalResult:
        """The result of episodes: all tasks with the first seed, then all with the next, ..."""
        return cls(
            successes=np.asarray([float(r.success) for r in records]),
            returns=np.asarray([r.reward for r in records]),
            env_steps=sum(r.steps for r in records),
            tokens=sum(r.tokens for r in records),
            seeds=tuple(seeds),
            errors=sum(r.error is not None for r in records),
            temperature=temperature,
            records=tuple(records),
            usage=usage or {},
        )

    @property
    def success(self) -> float:
        """Mean success."""
        return float(self.successes.mean()) if len(self.successes) else 0.0

    @property
    def ci95(self) -> tuple[float, float]:
        """Wilson's 95% interval of the success, over tasks (see `evaluation.metrics`)."""
        tasks = len(self.successes) / max(1, len(self.seeds))
        return wilson(self.success * tasks, tasks)

    def to_json(self) -> dict[str, Any]:
        """The form that `himac eval --json` writes; see also `measure.summarise`."""
        low, high = self.ci95
        found = {
            "success": round(self.success, 6),
            "episodes": len(self.successes),
            "seeds": list(self.seeds),
            "ci95": [round(low, 6), round(high, 6)],
            "return": round(float(self.returns.mean()), 6) if len(self.returns) else 0.0,
            "env_steps": self.env_steps,
            "tokens": self.tokens,
            "errors": self.errors,
            "temperature": self.temperature,
        }
        if self.records:
            found |= summarise(self.records)
        if self.usage:
            found["usage"] = dict(self.usage)
        return found


def paired_difference(
    before: NDArray[np.float64], after: NDArray[np.float64], *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of `after - before` on the same tasks, with its 95% bootstrap interval over tasks.

    Raises:
        ValueError: The two are not of the same length.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} against {len(after)} episodes: not the same tasks")
    delta = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for start in range(0, draws, 500):
        stop = min(draws, start + 500)
        index = rng.integers(len(delta), size=(stop - start, len(delta)))
        means[start:stop] = delta[index].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(delta.mean()), float(low), float(high)


def spread(ids: Sequence[str], count: int) -> list[str]:
    """`count` ids spread evenly over a split: the same on every machine, all kinds of tasks."""
    if count >= len(ids):
        return list(ids)
    return [ids[i * len(ids) // count] for i in range(count)]


def play(
    agent: HiMACAgent,
    pool: EnvPool,
    task_ids: Sequence[str],
    *,
    temperature: float = 1.0,
    seeds: Sequence[int] = (0,),
    on_episode: Callable[[Episode], None] | None = None,
    on_record: Callable[[Record], None] | None = None,
) -> EvalResult:
    """Plays each task once a seed and sums up. The policies' own random state is put back.

    Of several processes each plays its share, and all get the whole.

    Args:
        agent: Who plays.
        pool: Where.
        task_ids: What.
        temperature: 0 is greedy.
        seeds: Each task is played once a seed.
        on_episode: Called with each finished episode.
        on_record: Called with what each finished episode amounts to.
    """
    check_seeds(*seeds)
    player, together = at_temperature(agent, temperature), team()
    records: list[Record] = []
    generators = [p.generator for p in agent.policies() if hasattr(p, "generator")]
    before = [g.get_state() for g in generators]
    seeded = [p for p in agent.policies() if hasattr(p, "reseed")]
    for seed in seeds:
        for policy in seeded:
            policy.reseed(seed)
        for generator in generators:
            generator.manual_seed((1_000_003 * (seed + 1) + together.rank) % 2**63)
        tasks = [Task(task_id, i) for i, task_id in enumerate(task_ids)]
        mine: list[Record] = []

        def told(episode: Episode, seed: int = seed, mine: list[Record] = mine) -> None:
            mine.append(Record.of(episode, seed))
            if on_episode is not None:
                on_episode(episode)
            if on_record is not None:
                on_record(mine[-1])

        collect(player, pool, together.share(tasks), on_episode=told)
        records += [record for part in together.gather(mine) for record in part]
    for generator, state in zip(generators, before, strict=True):
        generator.set_state(state)
    return EvalResult.of(records, seeds, temperature, usage(agent))


def usage(agent: HiMACAgent) -> dict[str, Any]:
    """What the agent's remote models were asked so far and what it cost, by model."""
    counted = [p for p in agent.policies() if hasattr(p, "usage") and hasattr(p, "name")]
    return {str(policy.name): policy.usage.to_json() for policy in counted}


def evaluate(
    agent: HiMACAgent,
    env_id: str,
    split: str = "test",
    episodes: int = 500,
    seeds: Sequence[int] = (0,),
    *,
    temperature: float = 1.0,
    lanes: int = 128,
    known: Sequence[Record] = (),
    on_record: Callable[[Record], None] | None = None,
    **env_kwargs: Any,
) -> EvalResult:
    """Evaluates an agent on an environment's split.

    Args:
        agent: A hierarchical agent for a hierarchical id, a flat one for a flat id.
        env_id: A registered id.
        split: Which tasks.
        episodes: How many tasks, spread over the split.
        seeds: Each task is played once a seed.
        temperature: 0 is greedy.
        lanes: Environments that play at the same time.
        known: Episodes of an interrupted evaluation: they are not played again.
        on_record: Called with each episode that is played, once it has ended.
        **env_kwargs: For the environment.
    """
    pool = EnvPool(lambda: gym.make(env_id, split=split, **env_kwargs), lanes)
    ids = spread(pool.task_ids(split), episodes)
    records: list[Record] = []
    for seed in seeds:
        have = {r.task_id: r for r in known if r.seed == seed}
        left = [task_id for task_id in ids if task_id not in have]
        played = play(
            agent, pool, left, temperature=temperature, seeds=(seed,), on_record=on_record
        )
        have |= {record.task_id: record for record in played.records}
        records += [have[task_id] for task_id in ids]
    return EvalResult.of(records, seeds, temperature, usage(agent))
