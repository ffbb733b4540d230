"""The evaluation protocol that resamples its games: for comparison with figures that come from it.

In the widespread set-up (verl-agent's for ALFWorld) 128 workers each hold all games of the split in
an order of their own, shuffled by the worker's seed, and a validation plays each worker's next
game. So a validation is not of the split's tasks but of 128 draws, with repeats: of 140 games it
misses about 56 and plays others up to five times, and the next validation draws others. Its figure
spreads around the split's even where the agent and the sampling stay the same. A fixed panel
(`evaluate.evaluate`) has no such spread.

The orders here are those of NumPy's legacy shuffle over our own sorted ids; the original shuffles
files in the order of their folder listing, so that single games differ and the law does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from himac_agents.agents.agent import HiMACAgent
from himac_agents.config import check_seeds
from himac_agents.evaluation.evaluate import EvalResult, play_requests, pool_of, summed_up
from himac_agents.evaluation.metrics import Record
from himac_agents.rollouts.types import Episode, EpisodeRequest

#: The original adds this to the training seed for its validation workers.
VALIDATION_SEED = 1000


@dataclass(frozen=True)
class Spread:
    """What the same agent scores in repeated draws of the tasks.

    Attributes:
        result: All draws together; a record's seed is its draw.
        tasks: The tasks of each draw, in the order of the workers.
    """

    result: EvalResult
    tasks: tuple[tuple[str, ...], ...]

    @property
    def successes(self) -> list[float]:
        """Mean success of each draw."""
        return [float(x.mean()) for x in np.split(self.result.successes, len(self.tasks))]

    def to_json(self) -> dict[str, Any]:
        """Each draw's success and their spread, as JSON values."""
        found = self.successes
        several = len(found) > 1
        return {
            "workers": len(self.tasks[0]),
            "successes": [round(x, 6) for x in found],
            "mean": round(float(np.mean(found)), 6),
            "sd": round(float(np.std(found, ddof=1)), 6) if several else None,
            "least": round(min(found), 6),
            "most": round(max(found), 6),
            "distinct_tasks": [len(set(tasks)) for tasks in self.tasks],
        }


def worker_tasks(ids: Sequence[str], draw: int, workers: int = 128, seed: int = 0) -> list[str]:
    """The tasks of one validation: each worker's next one.

    Args:
        ids: The split's tasks.
        draw: Which validation, from 0. A worker that has played every task shuffles anew.
        workers: How many.
        seed: The workers' seeds count up from it.
    """
    found = []
    for worker in range(workers):
        rng = np.random.RandomState(seed + VALIDATION_SEED + worker)
        order = np.arange(len(ids))
        for _ in range(1 + draw // len(ids)):
            rng.shuffle(order)
        found.append(ids[int(order[draw % len(ids)])])
    return found


def evaluate_resampled(
    agent: HiMACAgent,
    env_id: str,
    split: str = "test",
    workers: int = 128,
    draws: int = 1,
    seed: int = 0,
    *,
    temperature: float = 1.0,
    lanes: int = 128,
    on_record: Callable[[Record, Episode], None] | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
) -> Spread:
    """Evaluates an agent in repeated draws of a split's tasks.

    Args:
        agent: A hierarchical agent for a hierarchical id, a flat one for a flat id.
        env_id: A registered id.
        split: Which tasks.
        workers: Tasks of a draw, with repeats.
        draws: How many draws.
        seed: Of the workers' orders and of sampling.
        temperature: 0 is greedy.
        lanes: Environments that play at the same time.
        on_record: Called with what each episode amounts to, once it has ended, and the episode.
        env_kwargs: What the environment is made with, ``split`` apart.

    Raises:
        ValueError: There is nothing to draw.
    """
    check_seeds(seed)
    if workers < 1 or draws < 1:
        raise ValueError(f"workers={workers}, draws={draws}: both must be at least 1")
    pool = pool_of(env_id, split, env_kwargs, lanes)
    ids = pool.task_ids(split)
    tasks = tuple(tuple(worker_tasks(ids, draw, workers, seed)) for draw in range(draws))
    records: list[Record] = []
    for draw, chosen in enumerate(tasks):
        # The worker's number keeps repeats of a game apart: each is sampled anew.
        requests = [EpisodeRequest(task, i, i) for i, task in enumerate(chosen)]
        records += play_requests(
            agent, pool, requests, seed + draw, temperature, on_record=on_record
        )
    played = [task for chosen in tasks for task in chosen]
    seeds = range(seed, seed + draws)
    result = summed_up(
        agent, pool, played, records, seeds, temperature, split=split, resampled=True
    )
    return Spread(result, tasks)
