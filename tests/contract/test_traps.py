"""Each trap of Gymnasium and PettingZoo that bit somebody, as a regression test."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FilterObservation, FlattenObservation
from toy import FruitEnv

from himac_envs import FreeText, HierarchicalEnv
from himac_envs.registry import env_cards


def _hierarchical() -> HierarchicalEnv:
    return HierarchicalEnv(FruitEnv())


def test_free_text_holds_any_string() -> None:
    space = FreeText(20)
    for text in ("", " ", "é √ 🙂", "\x00", "\ud800", "a" * 20):
        assert text in space
    assert "a" * 21 not in space
    assert 3 not in space and None not in space and b"x" not in space
    assert space == FreeText(20) and space != FreeText(21)
    space.seed(0)
    samples = {space.sample() for _ in range(50)}
    assert len(samples) > 40 and all(s in space and s for s in samples)


def test_async_with_shared_memory_is_refused_not_wrong() -> None:
    # With Gymnasium's own handler for Text this returns "000..." for every observation.
    with pytest.raises((gym.error.CustomSpaceError, ValueError), match="shared_memory"):
        AsyncVectorEnv([_hierarchical, _hierarchical])


def test_async_without_shared_memory_equals_sync() -> None:
    asynchronous = AsyncVectorEnv([_hierarchical] * 2, shared_memory=False)
    synchronous = SyncVectorEnv([_hierarchical] * 2)
    try:
        left, _ = asynchronous.reset(seed=4)
        right, _ = synchronous.reset(seed=4)
        assert left["text"] == right["text"] and left["text"][0].startswith("A row of")
        for action in ("1. get the apple", "east", "<sub_done>", "take apple"):
            a, b = asynchronous.step((action,) * 2), synchronous.step((action,) * 2)
            assert a[0]["text"] == b[0]["text"] and a[0]["subgoal"] == b[0]["subgoal"]
            np.testing.assert_array_equal(a[1], b[1])
    finally:
        asynchronous.close()
        synchronous.close()


def test_a_killed_worker_can_be_cleaned_up() -> None:
    envs = AsyncVectorEnv([_hierarchical] * 2, shared_memory=False)
    envs.reset(seed=0)
    envs.processes[0].kill()
    envs.processes[0].join()
    with pytest.raises((BrokenPipeError, EOFError, ConnectionResetError)):
        envs.step(("1. a", "1. b"))
    envs.close(terminate=True)
    assert not any(p.is_alive() for p in envs.processes)


def test_reset_mask_resets_only_the_masked_environments() -> None:
    envs = SyncVectorEnv([_hierarchical] * 3, autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=0)
    envs.step(("1. get the apple",) * 3)
    mask = np.array([False, True, False])
    observation, _ = envs.reset(options={"reset_mask": mask})
    assert list(observation["phase"]) == [1, 0, 1]


def test_attributes_are_reached_through_wrappers() -> None:
    for env_id, card in env_cards().items():
        if card.kind in ("flat", "hierarchical"):
            env = gym.make(env_id)
            assert len(env.get_wrapper_attr("task_ids")("train")) > 0


def test_the_environment_owns_its_step_limit() -> None:
    for env_id, card in env_cards().items():
        # Gymnasium would put a wrapper of this limit around what max_steps makes longer.
        assert gym.spec(env_id).max_episode_steps is None
        if card.kind == "browser":
            continue
        for made in (gym.make(env_id), gym.make(env_id, max_steps=7)):
            assert made.spec is not None
            limit = made.spec.max_episode_steps
            bound = "max_decisions" if card.kind == "hierarchical" else "max_steps"
            assert limit == getattr(made.unwrapped, bound)
            assert made.spec.kwargs.get("max_steps") in (None, 7)
        if card.kind == "flat":
            again = gym.make(made.spec)
            again.reset(seed=0)
            ends = [again.step("nothing like it")[3] for _ in range(7)]
            assert limit == 7 and ends == [False] * 6 + [True]
        assert gym.make(env_id, max_episode_steps=3).spec.max_episode_steps == 3  # type: ignore[union-attr]


def test_text_is_not_flattened_into_numbers() -> None:
    for env_id, card in env_cards().items():
        if card.kind in ("flat", "hierarchical"):
            with pytest.raises(gym.error.CustomSpaceError, match=r"himac_envs\.TextOnly"):
                FlattenObservation(gym.make(env_id))
    space, batch = FreeText(9), gym.spaces.Dict(text=FreeText(9))
    for form in (
        lambda: gym.spaces.flatten_space(space),
        lambda: gym.spaces.flatdim(space),
        lambda: gym.spaces.flatten(space, "é"),
        lambda: gym.spaces.flatten(batch, {"text": "é"}),
        lambda: gym.spaces.unflatten(space, np.zeros(9)),
    ):
        with pytest.raises(gym.error.CustomSpaceError, match="cannot be flattened"):
            form()
    image = FilterObservation(gym.make("HiMAC-Sokoban-Flat-v0", image=True), ["image"])
    assert FlattenObservation(image).reset(seed=0)[0].shape == (96 * 96 * 3,)


def test_module_prefix_registers_by_itself() -> None:
    code = "import gymnasium as gym; gym.make('himac_envs:HiMAC-ALFWorld-v0'); print('made')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "made", done.stderr


@pytest.mark.parametrize("env_id", sorted(i for i, c in env_cards().items() if c.kind != "browser"))
def test_make_vec_works_as_it_comes(env_id: str) -> None:
    envs = gym.make_vec(env_id, num_envs=3)
    envs.reset(seed=0)
    for _ in range(3):
        envs.action_space.seed(0)
        _, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
    assert len(reward) == len(terminated) == len(truncated) == 3
    envs.close()


def test_async_make_vec_names_the_way_out() -> None:
    with pytest.raises((gym.error.CustomSpaceError, ValueError), match="shared_memory"):
        gym.make_vec("HiMAC-ALFWorld-v0", num_envs=2, vectorization_mode="async")
    envs = gym.make_vec(
        "HiMAC-ALFWorld-v0",
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"shared_memory": False},
    )
    texts = envs.reset(seed=0)[0]["text"]
    envs.close()
    assert all("Your task is to" in t for t in texts)


def test_our_own_batches() -> None:
    from himac_envs.vector import make

    for workers in (False, True):
        envs = make("HiMAC-ALFWorld-v0", 2, workers=workers, autoreset_mode=AutoresetMode.DISABLED)
        assert len(envs.reset(seed=1)[0]["text"]) == 2
        envs.close()
    with pytest.raises(ValueError, match="at least one"):
        make("HiMAC-ALFWorld-v0", 0)


_TRACE = """
import hashlib, sys, gymnasium as gym, himac_envs
env = gym.make(sys.argv[1]).unwrapped
digest = hashlib.sha256()
observation, info = env.reset(seed=77)
moves = __import__("numpy").random.default_rng(7)
for _ in range(200):
    digest.update(repr((observation.get("text"), info.get("admissible"))).encode())
    offered = info["admissible"] or ["1. do it"]
    action = offered[int(moves.integers(len(offered)))]
    observation, reward, terminated, truncated, info = env.step(action)
    digest.update(repr((reward, terminated, truncated, info["score"])).encode())
    if terminated or truncated:
        observation, info = env.reset()
print(digest.hexdigest())
"""


def _digest(env_id: str, hash_seed: str) -> str:
    import os

    done = subprocess.run(
        [sys.executable, "-c", _TRACE, env_id],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "env_id", sorted(i for i, c in env_cards().items() if c.kind in ("flat", "hierarchical"))
)
def test_a_seed_is_the_same_episode_in_every_process(env_id: str) -> None:
    assert _digest(env_id, "0") == _digest(env_id, "12345")


def test_no_global_random_state_is_touched() -> None:
    import random

    for env_id, card in env_cards().items():
        if card.kind not in ("flat", "hierarchical"):
            continue
        random.seed(5)
        np.random.seed(5)
        before = (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
        env = gym.make(env_id)
        env.reset(seed=0)
        env.step("1. something")
        env.step("something else")
        assert random.getstate() == before[0], env_id
        assert np.random.get_state()[1].tolist() == before[1], env_id  # type: ignore[index]


def test_partial_makes_equal_copies() -> None:
    make = partial(gym.make, "HiMAC-ALFWorld-Flat-v0")
    assert make().reset(seed=2)[0] == make().reset(seed=2)[0]
