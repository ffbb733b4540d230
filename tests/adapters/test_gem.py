"""GEM's own make, vectors and wrappers over the environments."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

gem = pytest.importorskip("gem", reason="GEM is not installed: pip install gem-llm")

from himac_envs.adapters import EpisodeOverError  # noqa: E402
from himac_envs.adapters.gem import HiMACGemEnv, register  # noqa: E402
from himac_envs.errors import UnknownTaskError  # noqa: E402
from himac_envs.registry import UnknownEnvError  # noqa: E402


def make(env_id: str, **kwargs: Any) -> Any:
    return gem.make(env_id, data="generated", **kwargs)


def test_an_expert_wins(env_id: str) -> None:
    env = make(env_id)
    assert isinstance(env, gem.Env) and isinstance(env.unwrapped, HiMACGemEnv)
    text, info = env.reset(seed=3)
    assert info["goal"] in text
    total, over = 0.0, False
    while not over:
        text, reward, terminated, truncated, info = env.step(env.session.expert())
        assert type(text) is str and type(terminated) is type(truncated) is bool
        total, over = total + reward, terminated or truncated
    assert info["won"] and terminated and total == env.session.episode_return
    with pytest.raises(EpisodeOverError, match="reset"):
        env.step("look")
    env.close()


def test_spawned_members_go_on_from_one_state(env_id: str) -> None:
    env = make(env_id)
    env.reset(seed=5)
    env.step(env.session.expert())
    group = [env.spawn(same_state=True) for _ in range(3)]
    said = env.session.expert()
    answers = [one.step(said)[:4] for one in (env, *group)]
    assert all(answer == answers[0] for answer in answers)
    fresh = env.spawn(seed=5, max_steps=2)
    assert fresh.reset()[1]["task_id"] == env.session.task_id
    assert fresh.session.env.unwrapped.max_steps == 2


@pytest.mark.parametrize("threads", [False, True])
def test_vectors_play_and_begin_anew(env_id: str, threads: bool) -> None:
    batch = gem.make_vec([env_id] * 4, seed=2, async_mode=threads, data="generated", max_steps=60)
    _, infos = batch.reset()
    tasks = [info["task_id"] for info in infos]
    assert len(set(tasks)) > 1
    assert tasks == [make(env_id, seed=2 + i).reset()[1]["task_id"] for i in range(4)]
    ended = np.zeros(4, dtype=bool)
    for _ in range(60):
        answers = [env.session.expert() for env in batch.envs]
        _, rewards, terminated, _, infos = batch.step(answers)
        ended |= terminated
        if ended.all():
            break
    assert ended.all() and rewards.shape == (4,)
    assert any(info["task_id"] != task for info, task in zip(infos, tasks, strict=True))


def test_no_global_generator_is_touched() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist()
    env = make("HiMAC-Sokoban-Flat-v0")
    env.reset(seed=1)
    env.step(env.sample_random_action())
    assert before == (random.getstate(), np.random.get_state()[1].tolist())


def test_random_answers_are_possible(env_id: str) -> None:
    env = make(env_id, seed=4, max_steps=10)
    env.reset()
    while not env.session.done:
        answer = env.sample_random_action()
        info = env.step(answer)[4]
        # With no sub-goal left, <sub_done> is an invalid command of the task.
        assert not info["invalid"] or answer == "<sub_done>"


def test_bad_input_is_answered() -> None:
    env = make("HiMAC-Sokoban-Flat-v0", max_steps=2, image=True)
    with pytest.raises(EpisodeOverError, match="no episode has begun"):
        env.step("up")
    with pytest.raises(UnknownTaskError):
        env.reset(task_id="no such task")
    _, info = env.reset(seed=0)
    assert info["image"].shape[2] == 3
    assert env.step(None)[4]["invalid"] and env.step("\x00")[3]
    with pytest.raises(ValueError, match="not found in registry"):
        gem.make("HiMAC-Nothing-v0")
    with pytest.raises(UnknownEnvError):
        HiMACGemEnv("HiMAC-Nothing-v0")
    register()  # twice does no harm


def test_the_example_runs(run_example: Any) -> None:
    assert "fast:" in run_example("gem_vector.py")
