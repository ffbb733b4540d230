"""The batch engine: the same as single environments, in every autoreset mode."""

from __future__ import annotations

import copy
import os
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import himac_envs.vector
from himac_envs.sokoban.vector import SokobanVectorEnv

PIXELS = "HiMAC-Sokoban-Pixels-v0"
KEYS = (
    "action.name", "action.moved_player", "action.moved_box", "task_id", "won", "score", "invalid",
    "step",
)  # fmt: skip


def compare(
    mode: AutoresetMode, num: int, steps: int, engine: str | None = None, **settings: Any
) -> int:
    """Play a batch beside single environments; return how many episodes ended."""
    single = SyncVectorEnv([lambda: gym.make(PIXELS, **settings)] * num, autoreset_mode=mode)
    batch = gym.make_vec(PIXELS, num_envs=num, autoreset_mode=mode, engine=engine, **settings)
    assert isinstance(batch, SokobanVectorEnv)
    assert batch.observation_space == single.observation_space
    assert batch.action_space == single.action_space
    left, right = single.reset(seed=7), batch.reset(seed=7)
    assert np.array_equal(left[0], right[0])
    assert left[1]["data"].tolist() == right[1]["data"].tolist()
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(steps):
        actions = rng.integers(0, single.single_action_space.n, num)  # type: ignore[attr-defined]
        a, b = single.step(actions), batch.step(actions)
        for k in range(4):
            assert np.array_equal(a[k], b[k])
        for key in KEYS:
            assert a[4][key].tolist() == b[4][key].tolist(), key
            assert a[4][f"_{key}"].tolist() == b[4][f"_{key}"].tolist(), key
        over = a[2] | a[3]
        ends += int(over.sum())
        if not over.any():
            continue
        if mode is AutoresetMode.SAME_STEP:
            assert a[4]["_final_obs"].tolist() == b[4]["_final_obs"].tolist()
            for i in np.flatnonzero(over):
                assert np.array_equal(a[4]["final_obs"][i], b[4]["final_obs"][i])
                for key in (*KEYS, "maxsteps_used", "all_boxes_on_target"):
                    assert a[4]["final_info"][key][i] == b[4]["final_info"][key][i]
        else:
            for key in ("maxsteps_used", "all_boxes_on_target"):
                assert a[4][key].tolist() == b[4][key].tolist()
        if mode is AutoresetMode.DISABLED:
            with pytest.raises(gym.error.ResetNeeded, match="reset_mask"):
                batch.step(actions)
            x = single.reset(options={"reset_mask": over.copy()})
            y = batch.reset(options={"reset_mask": over.copy()})
            assert np.array_equal(x[0], y[0])
    return ends


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("engine", ["numba", "numpy"])
def test_batch_is_single(mode: AutoresetMode, engine: str) -> None:
    assert compare(mode, 8, 90, engine, room=(6, 6), boxes=1, max_steps=25) > 10
    settings = {"room": (7, 8), "boxes": 2, "max_steps": 30, "pull": True, "observation": "grid"}
    assert compare(mode, 8, 70, engine, **settings) > 8
    assert compare(mode, 4, 50, engine, data="puzzles", observation="tiny", max_steps=20) > 4


@pytest.mark.slow
def test_batch_is_single_for_500_steps_of_64() -> None:
    for mode in AutoresetMode:
        assert compare(mode, 64, 500, room=(6, 6), boxes=2, max_steps=60) > 300


def test_sparse_rewards_and_chosen_rooms() -> None:
    env = SokobanVectorEnv(3, room=(6, 6), boxes=1, reward="sparse", max_steps=99)
    ids = ["fast:1", "fast:5", "fast:1"]
    frames, infos = env.reset(options={"task_id": ids})
    assert infos["task_id"].tolist() == ids and np.array_equal(frames[0], frames[2])
    single = gym.make(PIXELS, room=(6, 6), boxes=1, max_steps=99).unwrapped
    single.reset(options={"task_id": "fast:1"})
    plan = list(single.oracle())
    for k, action in enumerate(plan):
        _, reward, won, _, _ = env.step(np.array([action, 0, action]))
        last = k == len(plan) - 1
        assert reward.tolist() == [float(last), 0.0, float(last)]
        assert won.tolist() == [last, False, last]
    level = single.board.level
    env.reset(options={"levels": [level], "reset_mask": np.array([False, True, False])})
    assert np.array_equal(env.boards.state[1], np.frombuffer(level.state, np.uint8))


def test_bad_calls_teach() -> None:
    env = SokobanVectorEnv(2, room=(6, 6), boxes=1)
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        env.step(np.zeros(2, int))
    env.reset(seed=[3, None])
    for actions in (np.zeros(3, int), np.array([0, 9]), np.array([-1, 0]), np.zeros(2), "no"):
        with pytest.raises(ValueError, match="actions must"):
            env.step(actions)  # type: ignore[arg-type]
    for options, why in (
        ({"reset_mask": np.zeros(2, bool)}, "at least one"),
        ({"reset_mask": np.ones(2)}, "bool array"),
        ({"task_id": ["fast:1"]}, "1 task ids for 2"),
        ({"task_id": "slow:1"}, "fast:1"),
        ({"maps": 1}, "unknown reset options"),
    ):
        with pytest.raises(ValueError, match=why):
            env.reset(options=options)
    with pytest.raises(ValueError, match="3 seeds"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="at least one"):
        SokobanVectorEnv(0)
    with pytest.raises(ValueError, match="'numpy'"):
        SokobanVectorEnv(1, engine="cuda")


def test_frames_handed_out_stay_as_they_are() -> None:
    env = SokobanVectorEnv(4, room=(6, 6), boxes=1, max_steps=9)
    kept = [env.reset(seed=0)[0]]
    rng = np.random.default_rng(0)
    copies = [kept[0].copy()]
    part = None
    for t in range(40):
        frames = env.step(rng.integers(0, 9, 4))[0]
        if t % 3 == 0:
            kept.append(frames[1:3])  # a view keeps its array
            copies.append(frames[1:3].copy())
        part = memoryview(frames)
        before = bytes(part)
        del frames
        env.step(rng.integers(0, 9, 4))
        assert bytes(part) == before  # a buffer does, too
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))
    in_place = SokobanVectorEnv(4, room=(6, 6), boxes=1, copy=False)
    first = in_place.reset(seed=0)[0]
    assert in_place.step(np.zeros(4, int))[0] is first


def test_pickle_and_copy_in_mid_episode() -> None:
    env = SokobanVectorEnv(3, room=(6, 6), boxes=1, max_steps=12)
    env.reset(seed=2)
    rng = np.random.default_rng(0)
    for _ in range(5):
        env.step(rng.integers(0, 9, 3))
    others = [pickle.loads(pickle.dumps(env)), copy.deepcopy(env)]
    for _ in range(30):
        actions = rng.integers(0, 9, 3)
        answer = env.step(actions)
        for other in others:
            again = other.step(actions)
            assert all(np.array_equal(answer[k], again[k]) for k in range(4))


def test_made_through_the_suite() -> None:
    env = himac_envs.vector.make(
        PIXELS, 3, autoreset_mode=AutoresetMode.SAME_STEP, room=(6, 6), boxes=1
    )
    assert isinstance(env, SokobanVectorEnv) and env.autoreset_mode is AutoresetMode.SAME_STEP
    env.reset(seed=0)
    shown = SokobanVectorEnv(2, room=(6, 6), boxes=1, observation="grid", render_mode="rgb_array")
    shown.reset(seed=0)
    pictures = shown.render()
    assert pictures is not None and [p.shape for p in pictures] == [(96, 96, 3)] * 2


def storm(steps: int) -> None:
    """Random play of a batch: no exception, and memory stands still."""
    import psutil

    process = psutil.Process(os.getpid())
    num = 256
    env = SokobanVectorEnv(num, room=(6, 6), boxes=2, max_steps=60)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    warm = 0
    for t in range(steps // num):
        env.step(rng.integers(0, 9, num))
        if t == steps // num // 3:
            warm = process.memory_info().rss
    assert process.memory_info().rss - warm < 20_000_000


def test_20000_batch_steps() -> None:
    storm(20_000)


@pytest.mark.slow
def test_2000000_batch_steps() -> None:
    storm(2_000_000)


@pytest.mark.slow
def test_the_bench_measures_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    from himac_envs.sokoban import bench

    figures = bench.run(quick=True)
    assert set(figures["bars"]) <= set(figures["rates"])
    assert all(rate > 0 for rate in figures["rates"].values())
    assert figures["compile_seconds"]["cached"] < figures["compile_seconds"]["first"]
    assert "batch 64, RGB copied" in capsys.readouterr().out
