"""One contract for the batches of every id: resets, ended lanes, bad calls, ways to build them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from toy import FruitEnv

import himac_envs.vector
from himac_envs.lanes import LaneVectorEnv
from himac_envs.registry import env_cards
from himac_envs.testing import same

IDS = sorted(i for i, card in env_cards().items() if card.kind != "browser")
#: Ids whose batches are lanes; the engines' equality has tests of its own.
LANES = [i for i in IDS if env_cards()[i].vector_entry_point is None]
DISABLED = AutoresetMode.DISABLED


def tasks(env_id: str) -> list[str]:
    """Three tasks of an id."""
    return list(gym.make(env_id).get_wrapper_attr("task_ids")()[:3])


def action(envs: VectorEnv[Any, Any, Any]) -> Any:
    """Something that every lane can be told."""
    return 0 if isinstance(envs.single_action_space, gym.spaces.Discrete) else "1. look"


def part(observation: Any, lanes: list[int]) -> Any:
    """What some lanes see."""
    if isinstance(observation, dict):
        return {key: part(value, lanes) for key, value in observation.items()}
    return [np.asarray(observation[i]).tolist() for i in lanes]


def play_a_group(envs: VectorEnv[Any, Any, Any], a: str, b: str, c: str) -> None:
    """Two groups of two lanes: one dies, is left alone, and begins anew on another task."""
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        envs.step([action(envs)] * 4)
    with pytest.raises(gym.error.ResetNeeded, match="every environment once"):
        envs.reset(options={"reset_mask": np.array([True, False, False, False])})
    _, infos = envs.reset(seed=0, options={"task_id": [a, a, b, b]})
    assert infos["task_id"].tolist() == [a, a, b, b]
    act = action(envs)
    envs.step([act] * 4)
    later = np.array([False, False, True, True])
    _, infos = envs.reset(options={"task_id": [None, None, c, c], "reset_mask": later})
    assert infos["task_id"][2:].tolist() == [c, c] and infos["_task_id"].tolist() == later.tolist()
    over = np.zeros(4, bool)
    while not over.any():
        seen, _, terminated, truncated, _ = envs.step([act] * 4)
        over = terminated | truncated
    assert over.tolist() == [True, True, False, False]
    with pytest.raises(gym.error.ResetNeeded, match=r"lanes have ended: 0, 1\. .*reset_mask"):
        envs.step([act] * 4)
    with pytest.raises(gym.error.ResetNeeded, match=r"lanes have ended: 1\. "):
        envs.step([None, act, act, act])
    with pytest.raises(ValueError, match="lane 2 is None, but the lane has not ended"):
        envs.step([None, None, None, act])
    again, reward, terminated, truncated, infos = envs.step([None, None, act, act])
    assert part(again, [0, 1]) == part(seen, [0, 1])
    assert reward[:2].tolist() == [0.0, 0.0]
    assert (terminated | truncated)[:2].all()
    assert infos["_task_id"].tolist() == [False, False, True, True]
    # The dead begin anew, together, on another task; the others do not notice.
    first = np.array([True, True, False, False])
    fresh, infos = envs.reset(options={"task_id": [c, c, None, None], "reset_mask": first})
    assert infos["task_id"][:2].tolist() == [c, c]
    assert part(fresh, [2, 3]) == part(again, [2, 3])
    assert part(fresh, [0]) == part(fresh, [1])
    # Lanes 2 and 3 may have ended meanwhile, and are left alone in their turn.
    rest = (terminated | truncated) & ~first
    _, _, terminated, truncated, infos = envs.step([None if r else act for r in rest])
    assert not (terminated | truncated)[:2].any() and infos["_task_id"][:2].all()


@pytest.mark.parametrize("env_id", IDS)
def test_groups_are_reset_alike(env_id: str) -> None:
    a, b, c = tasks(env_id)
    envs = gym.make_vec(env_id, num_envs=4, autoreset_mode=DISABLED, max_steps=2)
    play_a_group(envs, a, b, c)
    envs.close()


@pytest.mark.parametrize("env_id", IDS)
def test_groups_are_reset_alike_in_processes(env_id: str) -> None:
    a, b, c = tasks(env_id)
    envs = himac_envs.vector.make(env_id, 4, workers=True, autoreset_mode=DISABLED, max_steps=2)
    try:
        play_a_group(envs, a, b, c)
    finally:
        envs.close()


@pytest.mark.parametrize("env_id", IDS)
def test_bad_calls_are_refused_alike(env_id: str) -> None:
    envs = gym.make_vec(env_id, num_envs=4)
    envs.reset(seed=0)
    for bad in ("look", b"look", {"text": ["look"] * 4}, 3):
        with pytest.raises(ValueError, match="one for each lane, not a"):
            envs.step(bad)
    with pytest.raises(ValueError, match="3 actions for 4"):
        envs.step([action(envs)] * 3)
    with pytest.raises(ValueError, match="lane 1 is None"):
        envs.step([action(envs), None, action(envs), action(envs)])
    for mask in (np.zeros(4, bool), np.ones(3, bool), np.ones(4)):
        with pytest.raises(ValueError, match="reset_mask must be"):
            envs.reset(options={"reset_mask": mask})
    with pytest.raises(ValueError, match="2 task ids for 4"):
        envs.reset(options={"task_id": tasks(env_id)[:2]})
    with pytest.raises(ValueError, match="3 seeds for 4"):
        envs.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="unknown reset options"):
        envs.reset(options={"maps": 1})
    with pytest.raises(ValueError, match="at least one"):
        gym.make_vec(env_id, num_envs=0)
    envs.close()


@pytest.mark.parametrize("env_id", IDS)
def test_every_way_to_build_works_for_every_id(env_id: str) -> None:
    plain = himac_envs.vector.make(env_id, 2, autoreset_mode="Disabled")
    ways = [
        gym.make_vec(env_id, num_envs=2, autoreset_mode=DISABLED),
        gym.make_vec(env_id, num_envs=2, autoreset_mode="Disabled"),
        gym.make_vec(env_id, num_envs=2, vector_kwargs={"autoreset_mode": DISABLED, "copy": False}),
        himac_envs.vector.make(env_id, 2, vector_kwargs={"autoreset_mode": DISABLED}),
        gym.make_vec(
            env_id,
            num_envs=2,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": DISABLED},
        ),
    ]
    first = plain.reset(seed=3)[0]
    for envs in ways:
        assert envs.metadata["autoreset_mode"] is DISABLED
        assert part(envs.reset(seed=3)[0], [0, 1]) == part(first, [0, 1])
        envs.close()
    with pytest.raises(ValueError, match="'shared_memory': a batch in one process"):
        himac_envs.vector.make(env_id, 2, vector_kwargs={"shared_memory": False})
    with pytest.raises(gym.error.Error, match="vector_kwargs"):
        gym.make_vec(env_id, num_envs=2, vector_kwargs={"shared_memory": False})


class Told(gym.Wrapper[Any, Any, Any, Any]):
    """Says in info that it is there."""

    def reset(self, **kwargs: Any) -> Any:
        observation, info = self.env.reset(**kwargs)
        return observation, {**info, "told": True}


@pytest.mark.parametrize("env_id", IDS)
def test_wrappers_and_step_limits_reach_each_lane(env_id: str) -> None:
    envs = gym.make_vec(env_id, num_envs=2, wrappers=[Told], max_episode_steps=1)
    assert isinstance(envs, LaneVectorEnv)
    assert envs.reset(seed=0)[1]["told"].tolist() == [True, True]
    assert envs.step([action(envs)] * 2)[3].tolist() == [True, True]


@pytest.mark.parametrize("env_id", IDS)
def test_a_batch_is_made_again_from_its_spec(env_id: str) -> None:
    envs = gym.make_vec(env_id, num_envs=2, vector_kwargs={"autoreset_mode": "Disabled"})
    assert envs.spec is not None
    spec = EnvSpec.from_json(json.dumps(json.loads(envs.spec.to_json())))
    again = gym.make_vec(spec)
    assert again.num_envs == 2 and again.metadata["autoreset_mode"] is DISABLED


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("env_id", LANES)
def test_lanes_equal_gymnasiums(env_id: str, mode: AutoresetMode) -> None:
    ours = himac_envs.vector.make(env_id, 3, autoreset_mode=mode, max_steps=2)
    theirs = SyncVectorEnv([lambda: gym.make(env_id, max_steps=2)] * 3, autoreset_mode=mode)
    assert ours.observation_space == theirs.observation_space
    assert same(ours.reset(seed=5), theirs.reset(seed=5))
    for _ in range(8):
        actions = [action(ours)] * 3
        mine, other = ours.step(actions), theirs.step(actions)
        assert same(mine, other)
        over = mine[2] | mine[3]
        if mode is DISABLED and over.any():
            pair = [e.reset(options={"reset_mask": over.copy()}) for e in (ours, theirs)]
            assert same(*pair)


def test_pictures_are_copied_unless_told_otherwise() -> None:
    for copy in (True, False):
        envs = himac_envs.vector.make(
            "HiMAC-Sokoban-Flat-v0", 2, vector_kwargs={"copy": copy}, image=True
        )
        first = envs.reset(seed=0)[0]["image"]
        assert first.shape == (2, 96, 96, 3)
        assert (envs.step(["up"] * 2)[0]["image"] is first) is not copy


def test_environments_of_others_join_by_one_line() -> None:
    env_id = "LanesFruit-Flat-v0"
    gym.register(env_id, entry_point=FruitEnv, vector_entry_point=f"himac_envs.vector:{env_id}")
    try:
        envs = gym.make_vec(env_id, num_envs=4, autoreset_mode=DISABLED, max_steps=2)
        play_a_group(envs, "train:00", "train:01", "train:02")
    finally:
        del gym.registry[env_id]
    with pytest.raises(AttributeError, match="no attribute"):
        himac_envs.vector.anything  # noqa: B018


class _Enough(Exception):
    """Ends the documentation's endless loop."""


def test_the_documentations_groups_share_their_tasks() -> None:
    page = (Path(__file__).parents[2] / "docs" / "batches.md").read_text(encoding="utf-8")
    loop = next(b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "groups, size" in b)
    seen: list[list[str]] = []
    calls = 0

    def policy(observation: Any, info: Any) -> list[str]:
        nonlocal calls
        calls += 1
        if "data" in info:  # of a reset
            seen.append([t for t in info["task_id"] if t is not None])
        if calls == 160:
            raise _Enough
        return ["look"] * 6

    names = {"himac_envs": himac_envs, "np": np, "AutoresetMode": AutoresetMode, "policy": policy}
    with pytest.raises(_Enough):
        exec(loop.replace("groups, size = 16, 8", "groups, size = 3, 2"), names)
    assert len(seen) == 4 and all(len(ids) == 6 for ids in seen)  # 50 steps an episode
    assert all(ids[::2] == ids[1::2] and len(set(ids)) == 3 for ids in seen)
    assert len({ids[0] for ids in seen}) == 4
