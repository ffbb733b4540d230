"""Intervals and comparisons, against known numbers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from toy import FruitEnv

from himac_agents.agents.agent import Executor, HiMACAgent, Planner
from himac_agents.agents.expert import Expert
from himac_agents.evaluation.evaluate import EvalResult, evaluate, evaluate_tasks, spread
from himac_agents.evaluation.intervals import wilson
from himac_agents.evaluation.metrics import Record, success_of, summarise
from himac_agents.rollouts.pool import EnvPool


def test_spread() -> None:
    ids = [f"{i}" for i in range(1000)]
    assert spread(ids, 4) == ["0", "250", "500", "750"]
    assert spread(ids, 5000) == ids and len(set(spread(ids, 500))) == 500


def test_evaluation_of_the_oracle_and_of_chance() -> None:
    def agent(expert: str) -> HiMACAgent:
        policy = Expert(expert, seed=1)  # type: ignore[arg-type]
        return HiMACAgent(Planner(policy), Executor(policy))

    generated = {"data": "generated"}
    found = evaluate(agent("oracle"), "HiMAC-ALFWorld-v0", "valid", 12, env_kwargs=generated)
    assert found.success == 1.0 and found.errors == 0
    told = found.to_json()
    assert told["sub_done_precision"] == 1.0 and told["blueprint_valid"] == 1.0
    assert told["invalid_actions"] == 0.0 and 2 <= told["subgoals"] <= 6
    assert set(told["option_ends"]) == {"done", "terminated"}
    assert sum(kind["episodes"] for kind in told["by_type"].values()) == 12
    assert len(told["by_type"]) > 2 and all(told["by_type"].values())
    assert told["over"] == "tasks" and told["steps"] == pytest.approx(
        found.env_steps / 12, abs=1e-3
    )
    assert found.to_json()["ci95"][0] > 0.7 and found.to_json()["episodes"] == 12
    pool = EnvPool(lambda: gym.make("HiMAC-ALFWorld-v0", data="generated", max_steps=10), 8)
    chance = evaluate_tasks(agent("random"), pool, pool.task_ids("valid")[:8], seeds=(0, 1))
    assert chance.success < 0.3 and len(chance.successes) == 16 and chance.seeds == (0, 1)
    assert chance.env_steps >= 100


def _record(task: str, seed: int, **values: object) -> Record:
    plain = {
        "task_type": "", "success": False, "score": 0.0, "reward": 0.0, "steps": 10, "tokens": 7,
        "invalid": 0, "subgoals": None, "blueprint_valid": True, "options": (), "error": None,
    }  # fmt: skip
    return Record(task_id=task, seed=seed, **{**plain, **values})  # type: ignore[arg-type]


def _option(reason: str, achieved: bool | None, steps: int = 2) -> dict[str, object]:
    return {"reason": reason, "achieved": achieved, "steps": steps}


def test_what_episodes_were_like() -> None:
    options = (_option("done", True), _option("done", False), _option("truncated", False, 6))
    records = [
        _record("a", 0, success=True, score=1.0, subgoals=3, options=options, invalid=5),
        _record("b", 0, score=0.5, subgoals=1, options=(_option("done", None),), tokens=9,
                blueprint_valid=False, cut=3),
    ]  # fmt: skip
    told = summarise(records)
    assert told["cut_answers"] == 0.5
    assert [Record.from_json(record.to_json()) for record in records] == records
    assert told["score"] == 0.75 and told["tokens_per_episode"] == 8 and told["steps"] == 10
    assert told["invalid_actions"] == 0.25 and told["subgoals"] == 2
    assert told["blueprint_valid"] == 0.5 and told["option_steps"] == 3
    assert told["option_ends"] == {"done": 0.75, "truncated": 0.25}
    # One sub-goal is not understood: it can be neither achieved nor wrongly ended.
    assert told["sub_done_precision"] == 0.5 and told["sub_dones"] == 2
    assert told["achieved"] == pytest.approx(1 / 3, abs=1e-6)
    assert "by_type" not in told
    flat = summarise([_record("a", 0)])
    assert "subgoals" not in flat and "sub_done_precision" not in flat


def test_intervals_are_taken_over_tasks_when_seeds_repeat_them() -> None:
    # Two tasks, always solved or never: more seeds of the same tasks are no more evidence.
    records = [_record(t, s, success=t == "a") for s in range(50) for t in "ab"]
    assert success_of(records)["ci95"] == pytest.approx(wilson(1, 2), abs=1e-6)
    successes = np.asarray([float(r.success) for r in records])
    result = EvalResult(successes, successes, 0, 0, seeds=tuple(range(50)))
    assert result.ci95 == pytest.approx(wilson(1, 2))
    one = EvalResult(successes[:2], successes[:2], 0, 0)
    assert one.ci95 == pytest.approx(wilson(1, 2))
    # A task half solved counts as half a success.
    half = [_record("a", 0, success=True), _record("a", 1), *(_record("b", s) for s in (0, 1))]
    assert success_of(half)["ci95"] == pytest.approx(wilson(0.5, 2), abs=1e-6)


def test_an_environment_may_call_its_arguments_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, float]] = []

    class Orchard(FruitEnv):
        def __init__(self, *, lanes: int = 1, temperature: float = 0.0, **kwargs: Any) -> None:
            made.append((lanes, temperature))
            super().__init__(**kwargs)

    monkeypatch.setitem(gym.registry, "Names-Flat-v0", EnvSpec("Names-Flat-v0", Orchard))
    agent = HiMACAgent(None, Executor(Expert("oracle")))
    found = evaluate(
        agent, "Names-Flat-v0", "valid", 2, lanes=2, env_kwargs={"lanes": 7, "temperature": 20.5}
    )
    assert found.success == 1.0 and set(made) == {(7, 20.5)}
