"""What an error in one lane leaves behind: the others' ends and episodes, and no process."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from toy import FruitEnv

import himac_envs.vector
from himac_envs.errors import UnknownTaskError
from himac_envs.lanes import LaneVectorEnv
from himac_envs.workers import LaneGoneError, WorkerVectorEnv

DISABLED = AutoresetMode.DISABLED


class OddError(Exception):
    """An error that cannot be made from its message, and does not pickle either."""

    def __init__(self, what: str, more: object) -> None:
        super().__init__(f"{what} broke")
        self.more = more


class Fragile(FruitEnv):
    """Breaks when it is told to."""

    def __init__(self, made: list[Fragile] | None = None, **kwargs: Any) -> None:
        if made is not None and len(made) == 2:
            raise OSError("no third environment")
        super().__init__(max_steps=1, **kwargs)
        self.closed = 0
        self.resets = True
        if made is not None:
            made.append(self)

    def reset(self, **kwargs: Any) -> Any:
        if not self.resets:
            raise OSError("no reset")
        return super().reset(**kwargs)

    def step(self, action: str) -> Any:
        if action == "break":
            raise OddError("it", lambda: None)
        return super().step(action)

    def close(self) -> None:
        self.closed += 1


def test_the_ends_before_a_failing_lane_are_kept() -> None:
    envs = LaneVectorEnv(Fragile, 3, autoreset_mode=DISABLED)
    envs.reset(seed=0)
    with pytest.raises(OddError):
        envs.step(["look", "break", "look"])
    with pytest.raises(gym.error.ResetNeeded, match=r"have ended: 0\. "):
        envs.step(["look"] * 3)
    _, _, terminated, truncated, _ = envs.step([None, "look", "look"])
    assert not terminated.any() and truncated.all()


def test_the_ends_before_a_failing_game_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    envs: Any = gym.make_vec(
        "HiMAC-ALFWorld-Flat-v0", 2, data="generated", max_steps=1,
        vector_kwargs={"autoreset_mode": DISABLED},
    )  # fmt: skip
    envs.reset(seed=0)
    with monkeypatch.context() as patch:
        patch.delattr(envs.envs[1], "_state")
        with pytest.raises(AttributeError):
            envs.step(["look", "look"])
    assert envs.step([None, "look"])[3].tolist() == [True, True]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_lane_that_cannot_begin_anew_is_named(mode: AutoresetMode) -> None:
    envs = LaneVectorEnv(Fragile, 2, autoreset_mode=mode)
    envs.reset(seed=0)
    envs.envs[1].resets = False
    with pytest.raises(OSError, match="no reset"):
        for _ in range(2):
            envs.step(["look"] * 2)
    envs.envs[1].resets = True
    with pytest.raises(gym.error.ResetNeeded, match=r"no episode.*: 1\. "):
        envs.step(["look"] * 2)
    envs.reset(options={"reset_mask": np.array([False, True])})
    assert envs.step(["look"] * 2)[3].tolist() == [True, True]


def test_a_reset_that_fails_leaves_one_lane_without_an_episode() -> None:
    envs = LaneVectorEnv(Fragile, 3, autoreset_mode=DISABLED)
    with pytest.raises(UnknownTaskError):
        envs.reset(options={"task_id": ["train:00", "train:01", "none"]})
    with pytest.raises(gym.error.ResetNeeded, match="no episode: 2"):
        envs.reset(options={"reset_mask": np.array([True, False, False])})
    envs.reset(options={"reset_mask": np.array([False, False, True])})
    envs.step(["look"] * 3)
    with pytest.raises(UnknownTaskError):
        envs.reset(options={"task_id": ["train:03", "none", "train:04"]})
    # Lane 0 has its new task, lane 1 has none, lane 2 is as it was: at its end.
    for actions in (["look"] * 3, [None] * 3):
        with pytest.raises(gym.error.ResetNeeded, match=r"no episode.*: 1\. "):
            envs.step(actions)
    envs.reset(options={"reset_mask": np.array([False, True, False])})
    with pytest.raises(gym.error.ResetNeeded, match=r"have ended: 2\. "):
        envs.step(["look"] * 3)
    _, _, _, truncated, infos = envs.step(["look", "look", None])
    assert truncated.all() and infos["task_id"][0] == "train:03"


def test_lanes_are_closed_where_another_cannot_be_made() -> None:
    made: list[Fragile] = []
    with pytest.raises(OSError, match="no third"):
        LaneVectorEnv(lambda: Fragile(made), 3)
    assert [env.closed for env in made] == [1, 1]


def test_an_environment_is_closed_where_its_wrapper_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []
    monkeypatch.setattr(FruitEnv, "close", lambda env: closed.append(env))
    gym.register("LaneErrors-Flat-v0", entry_point=FruitEnv)
    try:
        with pytest.raises(ZeroDivisionError):
            himac_envs.vector.make("LaneErrors-Flat-v0", 2, wrappers=[lambda env: 1 / 0])
    finally:
        del gym.registry["LaneErrors-Flat-v0"]
    assert len(closed) == 1


def test_what_workers_do_not_know_is_refused() -> None:
    make = himac_envs.vector.make
    with pytest.raises(ValueError, match=r"'speed': AsyncVectorEnv takes .*'shared_memory'"):
        make("HiMAC-Sokoban-Flat-v0", 2, workers=True, vector_kwargs={"speed": 2})
    with pytest.raises(ValueError, match="shared_memory=False"):
        make("HiMAC-Sokoban-Flat-v0", 2, workers=True, vector_kwargs={"shared_memory": True})


@pytest.mark.filterwarnings("ignore::UserWarning")  # Gymnasium tells the error once more
def test_errors_come_out_of_processes_as_they_are() -> None:
    envs = WorkerVectorEnv(Fragile, 2, autoreset_mode=DISABLED)
    try:
        with pytest.raises(UnknownTaskError, match="no task 'none'"):
            envs.reset(options={"task_id": [None, "none"]})
        for call in (envs.reset, lambda: envs.step(["look"] * 2)):
            with pytest.raises(LaneGoneError, match=r"error: 1\. close"):
                call()
    finally:
        envs.close()
    envs = WorkerVectorEnv(Fragile, 1)
    try:
        envs.reset(seed=0)
        with pytest.raises(RuntimeError, match="OddError: it broke"):
            envs.step(["break"])
    finally:
        envs.close()


def test_a_reset_of_workers_counts_when_it_is_answered() -> None:
    envs = WorkerVectorEnv(Fragile, 1, autoreset_mode=DISABLED)
    try:
        envs.reset_async()
        with pytest.raises(gym.error.ResetNeeded, match="call reset"):
            envs.step_async(["look"])
        envs.reset_wait()
        assert envs.step(["look"])[3].tolist() == [True]
        envs.reset_async()
        with pytest.raises(gym.error.ResetNeeded, match="call reset"):
            envs.step_async(["look"])
        envs.reset_wait()
    finally:
        envs.close()
