"""Long runs: many games through the hierarchy, many steps of broken text, flat memory."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil

from himac_envs import SUB_DONE, HierarchicalEnv, OracleExecutor
from himac_envs.testing import MALFORMED, check_hierarchy, same


def _env(env_id: str = "HiMAC-ALFWorld-v0", **kwargs: Any) -> HierarchicalEnv:
    env = gym.make(env_id, **kwargs).unwrapped
    assert isinstance(env, HierarchicalEnv)
    return env


def _spread(ids: Any, n: int) -> list[str]:
    return [ids[i * len(ids) // n] for i in range(min(n, len(ids)))]


def _snapshot_in_mid_option(env: HierarchicalEnv, task_id: str, rng: np.random.Generator) -> None:
    env.reset(options={"task_id": task_id})
    executor = OracleExecutor(env)
    observation, *_, info = env.step(env.oracle_blueprint().render())
    for _ in range(int(rng.integers(1, 6))):
        observation, _, terminated, truncated, info = env.step(executor(observation, info))
        if terminated or truncated:
            return
    state = env.snapshot()
    words = [*info["admissible"][:3], "nonsense", SUB_DONE, info["admissible"][-2]]
    tail = []
    for word in words:
        tail.append(env.step(word))
        if tail[-1][2] or tail[-1][3]:
            break
    env.restore(state)
    assert same(tail, [env.step(word) for word, _ in zip(words, tail, strict=False)]), task_id


def test_300_generated_games_through_the_hierarchy() -> None:
    env = _env(data="generated", split="valid")
    rng = np.random.default_rng(0)
    for task_id in _spread(env.task_ids(), 300):
        check_hierarchy(env, task_id)
        _snapshot_in_mid_option(env, task_id, rng)


def test_300_official_games_through_the_hierarchy(real_data: Path) -> None:
    env = _env(data=str(real_data / "alfworld"), split="all")
    rng = np.random.default_rng(1)
    for task_id in _spread(env.task_ids(), 300):
        check_hierarchy(env, task_id)
        _snapshot_in_mid_option(env, task_id, rng)


def test_100000_steps_of_random_and_broken_text_in_flat_memory() -> None:
    env = _env(data="generated", max_steps=500)
    rng = np.random.default_rng(2)
    ids = _spread(env.task_ids(), 40)
    process = psutil.Process()
    memory = []
    for part in range(10):
        steps = 0
        while steps < 10_000:
            env.reset(options={"task_id": ids[int(rng.integers(len(ids)))]})
            action: Any = "1. look around\n2. find and take a mug"
            over = False
            while not over and steps < 10_000:
                *_, terminated, truncated, info = env.step(action)
                steps += 1
                over = terminated or truncated
                offered = info["admissible"]
                if rng.random() < 0.3:
                    action = MALFORMED[int(rng.integers(len(MALFORMED)))]
                elif rng.random() < 0.2:
                    word = offered[int(rng.integers(len(offered)))]
                    action = word[: int(rng.integers(len(word) + 1))] + "\x00é"
                else:
                    action = offered[int(rng.integers(len(offered)))]
        gc.collect()
        memory.append(process.memory_info().rss / 2**20)
        del part
    assert max(memory[4:]) - memory[3] < 16, f"memory grows: {memory} MiB"


def test_the_oracle_wins_every_valid_seen_and_300_training_games(real_data: Path) -> None:
    from himac_envs.testing import check_oracle

    for split, n in (("valid_seen", 140), ("train", 300)):
        task = _env(data=str(real_data / "alfworld"), split=split).task
        for task_id in _spread(task.task_ids(), n):
            assert check_oracle(task, task_id) <= 50
