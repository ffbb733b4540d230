"""Every seed that is accepted works everywhere; the others are refused where they are given."""

from __future__ import annotations

from pathlib import Path

import fruit_runs
import gymnasium as gym
import pytest

from himac_agents.agents.agent import HiMACAgent
from himac_agents.evaluation.evaluate import evaluate_tasks
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.rollouts.pool import EnvPool
from himac_agents.training.trainer import Trainer

LAST = 2**63 - 1
TEXTS = ["go to cabinet 1 and take mug 2", "- get the apple", "east west <sub_done>"]


@pytest.mark.parametrize("seed", [2**32, LAST])
def test_a_run_with_any_seed(seed: int, tmp_path: Path) -> None:
    config = fruit_runs.CONFIG.replace(
        seed=seed, iterations=1, warm_steps=3, baselines=("supervised", "grpo", "demonstrator"),
        method="himac-random-blueprint", demo_noise=0.3,
    )  # fmt: skip
    result = Trainer(config, tmp_path / "run", console=fruit_runs.QUIET).run()
    assert result["seed"] == seed and set(result["baselines"]) == set(config.baselines)
    again = Trainer(config, tmp_path / "run", resume=True, console=fruit_runs.QUIET)
    assert again.at.iteration == 1


def test_evaluation_with_any_seed() -> None:
    """And seeds that lie next to each other are other samples."""
    policy = TinyPolicy.build(TEXTS, TinySize(16, 1, 2, 32), seed=LAST)
    agent = HiMACAgent.shared(policy)
    pool = EnvPool(lambda: gym.make(fruit_runs.CONFIG.env), 8)
    ids = list(pool.task_ids("test"))
    seeds = (0, 2**32, LAST - 1, LAST)
    found = evaluate_tasks(agent, pool, ids, seeds=seeds)
    assert found.seeds == seeds and len(found.records) == len(ids) * len(seeds)
    once = evaluate_tasks(agent, pool, ids, seeds=(LAST,))
    assert [r.tokens for r in once.records] == [r.tokens for r in found.records[-len(ids) :]]
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match=r"between (0|-2\^63) and"):
            evaluate_tasks(agent, pool, ids, seeds=(seed,))
        with pytest.raises(ValueError, match=r"between (0|-2\^63) and"):
            fruit_runs.CONFIG.replace(seed=seed)


@pytest.mark.parametrize("name", ["ALFWorld", "WebShop", "Sokoban"])
def test_environments_with_any_seed(name: str) -> None:
    kwargs = {} if name == "Sokoban" else {"data": "generated"}
    env = gym.make(f"HiMAC-{name}-Flat-v0", **kwargs)
    first, _ = env.reset(seed=LAST)
    again, _ = env.reset(seed=LAST)
    assert first["text"] == again["text"]
    env.close()
