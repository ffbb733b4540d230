"""Intervals and comparisons, against known numbers."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from himac_agents.agent import Executor, HiMACAgent, Planner
from himac_agents.evaluate import evaluate, paired_difference, play, spread, wilson
from himac_agents.policies.scripted import ScriptedPolicy
from himac_agents.rollout import EnvPool


def test_wilson_against_published_values() -> None:
    # Newcombe (1998), table I, method 3: 81/263 gives 0.2553 to 0.3662; 0/20 gives 0 to 0.1611.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(20, 20)[1] == pytest.approx(1.0)
    assert wilson(0, 0) == (0.0, 1.0)


def test_paired_difference_sees_through_shared_difficulty() -> None:
    rng = np.random.default_rng(0)
    before = (rng.random(400) < 0.5).astype(float)
    after = before.copy()
    after[np.flatnonzero(before == 0)[:40]] = 1.0
    mean, low, high = paired_difference(before, after)
    assert mean == pytest.approx(0.1) and 0.06 < low < 0.1 < high < 0.14
    assert paired_difference(before, after) == (mean, low, high), "the same draws every time"
    assert paired_difference(before, before) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="not the same tasks"):
        paired_difference(before, after[:-1])


def test_spread() -> None:
    ids = [f"{i}" for i in range(1000)]
    assert spread(ids, 4) == ["0", "250", "500", "750"]
    assert spread(ids, 5000) == ids and len(set(spread(ids, 500))) == 500


def test_evaluation_of_the_oracle_and_of_chance() -> None:
    def agent(expert: str) -> HiMACAgent:
        policy = ScriptedPolicy(expert, seed=1)  # type: ignore[arg-type]
        return HiMACAgent(Planner(policy), Executor(policy))

    found = evaluate(agent("oracle"), "HiMAC-ALFWorld-v0", "valid", 12, data="generated")
    assert found.success == 1.0 and found.errors == 0
    assert found.to_json()["ci95"][0] > 0.7 and found.to_json()["episodes"] == 12
    pool = EnvPool(lambda: gym.make("HiMAC-ALFWorld-v0", data="generated", max_steps=10), 8)
    chance = play(agent("random"), pool, pool.task_ids("valid")[:8], seeds=(0, 1))
    assert chance.success < 0.3 and len(chance.successes) == 16 and chance.seeds == (0, 1)
    assert chance.env_steps >= 100
