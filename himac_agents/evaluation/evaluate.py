"""Evaluation: success and return with intervals, and comparisons on the same tasks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from himac_agents.agents.agent import HiMACAgent, at_temperature
from himac_agents.config import check_seeds
from himac_agents.distributed import team
from himac_agents.evaluation.intervals import wilson
from himac_agents.evaluation.manifest import manifest_of
from himac_agents.evaluation.metrics import Record, summarise
from himac_agents.policies import noise
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest
from himac_envs import registry


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
        manifest: What the evaluation was of; see `evaluation.manifest`.
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
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        records: Sequence[Record],
        seeds: Sequence[int],
        temperature: float,
        usage: Mapping[str, Any] | None = None,
        manifest: Mapping[str, Any] | None = None,
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
            manifest=manifest or {},
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
        """The form that `himac eval --json` writes; see also `metrics.summarise`."""
        low, high = self.ci95
        found = {
            "success": round(self.success, 6),
            "episodes": len(self.successes),
            "seeds": list(self.seeds),
            "ci95": [round(low, 6), round(high, 6)],
            "over": "tasks",
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
        if self.manifest:
            found["manifest"] = dict(self.manifest)
        return found


def pool_of(env_id: str, split: str, env_kwargs: Mapping[str, Any] | None, lanes: int) -> EnvPool:
    """Environments of a split, so many of which may play at the same time."""
    made_with = {**(env_kwargs or {}), "split": split}
    return EnvPool(lambda: registry.make(env_id, **made_with), lanes)


def spread(ids: Sequence[str], count: int) -> list[str]:
    """`count` ids spread evenly over a split: the same on every machine, all kinds of tasks."""
    if count >= len(ids):
        return list(ids)
    return [ids[i * len(ids) // count] for i in range(count)]


def panel_of(
    pool: EnvPool, split: str, count: int, say: Callable[[str], None] = warnings.warn
) -> list[str]:
    """The `spread` of a split, with a word where it has fewer tasks than were asked for."""
    ids = pool.task_ids(split)
    if count > len(ids):
        say(
            f"{count:,} tasks were asked for, but split {split!r} has {len(ids):,}: each is played "
            "once for each seed (more seeds give more episodes of the same tasks)"
        )
    return spread(ids, count)


def evaluate_tasks(
    agent: HiMACAgent,
    pool: EnvPool,
    task_ids: Sequence[str],
    *,
    temperature: float = 1.0,
    seeds: Sequence[int] = (0,),
    split: str = "",
    known: Sequence[Record] = (),
    on_episode: Callable[[Episode], None] | None = None,
    on_record: Callable[[Record, Episode], None] | None = None,
) -> EvalResult:
    """Plays each task once a seed and sums up.

    Of several processes each plays its share, and all get the whole.

    Args:
        agent: Who plays.
        pool: Where.
        task_ids: What.
        temperature: 0 is greedy.
        seeds: Each task is played once a seed. An episode depends on its task and seed alone.
        split: What the tasks are called together, for the manifest.
        known: Episodes of an interrupted evaluation: they are not played again.
        on_episode: Called with each finished episode, in the order in which they end.
        on_record: Called with what each finished episode amounts to, and the episode.

    Raises:
        ValueError: A task or a seed is named twice.
    """
    check_seeds(*seeds)
    check_once(task_ids, "task")
    check_once(seeds, "seed")
    records: list[Record] = []
    for seed in seeds:
        have = {record.task_id: record for record in known if record.seed == seed}
        left = [EpisodeRequest(t, i) for i, t in enumerate(task_ids) if t not in have]
        played = play_requests(
            agent, pool, left, seed, temperature, on_episode=on_episode, on_record=on_record
        )
        have |= {record.task_id: record for record in played}
        records += [have[task_id] for task_id in task_ids]
    return summed_up(agent, pool, task_ids, records, seeds, temperature, split=split)


def summed_up(
    agent: HiMACAgent,
    pool: EnvPool,
    task_ids: Sequence[str],
    records: Sequence[Record],
    seeds: Sequence[int],
    temperature: float,
    **told: Any,
) -> EvalResult:
    """The result of records, with what models were asked, and the manifest (`told` is in it)."""
    manifest = manifest_of(
        agent, pool[0], task_ids, records, temperature=temperature, seeds=seeds, **told
    )
    return EvalResult.of(records, seeds, temperature, usage(agent), manifest)


def play_requests(
    agent: HiMACAgent,
    pool: EnvPool,
    requests: Sequence[EpisodeRequest],
    seed: int,
    temperature: float,
    *,
    on_episode: Callable[[Episode], None] | None = None,
    on_record: Callable[[Record, Episode], None] | None = None,
) -> list[Record]:
    """The records of requests played with one seed of sampling; see `evaluate_tasks`."""
    player, together = at_temperature(agent, temperature), team()

    def told(episode: Episode) -> None:
        if on_episode is not None:
            on_episode(episode)
        if on_record is not None:
            on_record(Record.of(episode, seed), episode)

    key = noise.key("evaluation", seed)
    played = collect(player, pool, together.share(requests), seed=key, on_episode=told)
    mine = [Record.of(episode, seed) for episode in played]
    return [record for part in together.gather(mine) for record in part]


def check_once(values: Sequence[Any], kind: str) -> None:
    """Refuses, by a ValueError, a panel that names something twice."""
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise ValueError(
                f"{kind} {value!r} is twice in the panel: each task is played exactly once for "
                "each seed, so give different ones"
            )
        seen.add(value)


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
    on_record: Callable[[Record, Episode], None] | None = None,
    say: Callable[[str], None] = warnings.warn,
    env_kwargs: Mapping[str, Any] | None = None,
) -> EvalResult:
    """Evaluates an agent on an environment's split.

    Args:
        agent: A hierarchical agent for a hierarchical id, a flat one for a flat id.
        env_id: A registered id.
        split: Which tasks.
        episodes: How many tasks, spread over the split; all of them where it has no more.
        seeds: Each task is played once a seed.
        temperature: 0 is greedy.
        lanes: Environments that play at the same time.
        known: Episodes of an interrupted evaluation: they are not played again.
        on_record: Called with what each episode amounts to, once it has ended, and the episode.
        say: Called with a word where the split has fewer tasks than were asked for.
        env_kwargs: What the environment is made with, ``split`` apart.

    Raises:
        ValueError: A seed is named twice.
    """
    check_seeds(*seeds)
    check_once(seeds, "seed")
    pool = pool_of(env_id, split, env_kwargs, lanes)
    ids = panel_of(pool, split, episodes, say)
    return evaluate_tasks(
        agent, pool, ids, temperature=temperature, seeds=seeds, split=split, known=known,
        on_record=on_record,
    )  # fmt: skip
