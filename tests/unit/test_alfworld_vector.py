"""The batch engine answers what SyncVectorEnv answers, faster."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import himac_envs  # noqa: F401  (registers the ids)
from himac_envs.alfworld.vector import ALFWorldVectorEnv

ID = "HiMAC-ALFWorld-Flat-v0"


def same(a: Any, b: Any, where: str) -> None:
    """Equal in value, type and dtype, through nested infos."""
    assert type(a) is type(b), f"{where}: {type(a)} and {type(b)}"
    if isinstance(a, dict):
        assert a.keys() == b.keys(), f"{where}: {a.keys() ^ b.keys()}"
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{i}]")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, f"{where}: {a.dtype} and {b.dtype}"
        assert a.shape == b.shape, where
        if a.dtype == object:
            for x, y in zip(a, b, strict=True):
                same(x, y, where)
        else:
            np.testing.assert_array_equal(a, b, err_msg=where)
    else:
        assert a == b, where


def commands(info: dict[str, Any], rng: random.Random, experts: list[Any]) -> list[str]:
    """Random admissible commands, some nonsense, and the oracle's in a third of the batch."""
    chosen = []
    for i, admissible in enumerate(info["admissible"]):
        if i % 3 == 0:
            chosen.append(next(experts[i].oracle(), "look"))
        else:
            chosen.append("dance" if rng.random() < 0.1 else rng.choice(admissible))
    return chosen


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("reward", ["original", "sparse", "verl-agent"])
def test_equal_to_sync_over_500_steps(mode: AutoresetMode, reward: str) -> None:
    n, steps = 6, 500 if reward == "original" else 150
    settings: dict[str, Any] = {
        "data": "generated", "split": "valid", "max_steps": 20, "reward": reward,
        "domain_randomization": reward == "sparse",
    }  # fmt: skip
    make = partial(gym.make, ID, disable_env_checker=True, **settings)
    theirs = SyncVectorEnv([make] * n, autoreset_mode=mode)
    ours = gym.make_vec(ID, num_envs=n, autoreset_mode=mode, **settings)
    assert isinstance(ours, ALFWorldVectorEnv)
    assert ours.observation_space == theirs.observation_space
    assert ours.metadata["autoreset_mode"] is mode
    begin = ours.reset(seed=3), theirs.reset(seed=3)
    same(*begin, "reset")
    info = begin[0][1]
    rng = random.Random(1)
    wins = ends = 0
    for step in range(steps):
        actions = commands(info, rng, ours.envs)
        mine, other = ours.step(actions), theirs.step(actions)
        same(mine, other, f"step {step}")
        info = mine[4]
        wins += int(mine[2].sum())
        ended = mine[2] | mine[3]
        ends += int(ended.sum())
        if mode is AutoresetMode.DISABLED and ended.any():
            with pytest.raises(gym.error.ResetNeeded, match="reset_mask"):
                ours.step(actions)
            pair = tuple(e.reset(options={"reset_mask": ended.copy()}) for e in (ours, theirs))
            same(*pair, f"reset after step {step}")
            for key, values in pair[0][1].items():
                if not key.startswith("_") and key in info:
                    info[key][ended] = values[ended]
    assert wins > steps // 20
    assert ends > wins
    ours.close()
    theirs.close()


@pytest.mark.parametrize("settings", [{"extra": ("expert", "task_type")}, {"dialect": "2.1.1"}])
def test_equal_to_sync_with_options(settings: dict[str, Any]) -> None:
    make = partial(gym.make, ID, disable_env_checker=True, data="generated", **settings)
    theirs = SyncVectorEnv([make] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    ours = gym.make_vec(
        ID, num_envs=3, data="generated", autoreset_mode=AutoresetMode.SAME_STEP, **settings
    )
    same(ours.reset(seed=5), theirs.reset(seed=5), "reset")
    for step in range(60):
        actions = [next(env.oracle(), "look") for env in ours.envs]
        same(ours.step(actions), theirs.step(actions), f"step {step}")


def test_masked_and_listed_resets() -> None:
    ours = ALFWorldVectorEnv(4, data="generated")
    ids = ours.envs[0].task_ids("valid")[:4]
    ours.reset(options={"task_id": ids[1]})
    assert set(ours.get_attr("task_id")) == {ids[1]}
    with pytest.raises(ValueError, match="reset_mask"):
        ours.reset(options={"reset_mask": np.zeros(4, dtype=bool)})
    with pytest.raises(ValueError, match="3 seeds for 4"):
        ours.reset(seed=[1, 2, 3])
    first, _ = ours.reset(seed=[4, 4, 5, 5])
    assert first["text"][0] == first["text"][1] != first["text"][2]
    with pytest.raises(ValueError, match="2 actions for 4"):
        ours.step(["look"] * 2)
    with pytest.raises(ValueError, match="at least one"):
        ALFWorldVectorEnv(0)
