"""Stable-Baselines3 trains on Sokoban as it is, and on the batch engine through the adapter."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("stable_baselines3", reason="needs stable-baselines3: pip install 'himac[dev]'")

from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env

import himac_envs  # noqa: F401
from himac_envs.sokoban.sb3 import SB3SokobanVecEnv, make_sb3
from himac_envs.sokoban.vector import SokobanVectorEnv


def test_trains_unchanged() -> None:
    env = make_vec_env("HiMAC-Sokoban-Pixels-v0", n_envs=4, env_kwargs={"preset": "small-v0"})
    model = A2C("CnnPolicy", env, n_steps=8, seed=0, device="cpu")
    model.learn(256)
    assert model.num_timesteps >= 256


@pytest.mark.slow
def test_trains_5000_steps_unchanged() -> None:
    env = make_vec_env("HiMAC-Sokoban-Pixels-v0", n_envs=4)
    model = A2C("CnnPolicy", env, n_steps=16, seed=0, device="cpu")
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(5_000)
    assert model.num_timesteps >= 5_000
    after = list(model.policy.parameters())
    assert any(
        not np.array_equal(a.numpy(), b.detach().numpy())
        for a, b in zip(before, after, strict=True)
    )


def test_the_batch_engine_trains_too() -> None:
    env = make_sb3(8, room=(6, 6), boxes=1, max_steps=30)
    model = PPO("CnnPolicy", env, n_steps=8, batch_size=64, n_epochs=1, seed=0, device="cpu")
    model.learn(128)
    assert model.num_timesteps >= 128


def test_the_adapter_speaks_sb3() -> None:
    env = make_sb3(5, room=(6, 6), boxes=1, max_steps=12, observation="grid")
    env.seed(3)
    frames = env.reset()
    assert frames.shape == (5, 6, 6) and len(env.reset_infos) == 5
    plain = SokobanVectorEnv(5, room=(6, 6), boxes=1, max_steps=12, observation="grid")
    assert np.array_equal(plain.reset(seed=3)[0], frames)
    ended = 0
    rng = np.random.default_rng(0)
    for _ in range(40):
        frames, reward, done, infos = env.step(rng.integers(0, 9, 5))
        assert reward.dtype == np.float32 and len(infos) == 5
        for i, info in enumerate(infos):
            assert ("terminal_observation" in info) == bool(done[i])
            if done[i]:
                ended += 1
                assert info["TimeLimit.truncated"] != info["is_success"]
                assert info["terminal_observation"].shape == (6, 6)
                assert not np.array_equal(info["terminal_observation"], frames[i])
    assert ended > 10
    assert env.get_attr("num_envs", [0, 1]) == [5, 5] and env.env_is_wrapped(object) == [False] * 5
    with pytest.raises(AttributeError, match="other settings"):
        env.set_attr("max_steps", 3)
    with pytest.raises(ValueError, match="SameStep"):
        SB3SokobanVecEnv(plain)
    env.close()
