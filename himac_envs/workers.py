"""Lanes in processes of their own, by the rules of `himac_envs.lanes`.

For tasks, wrappers and executors that are slow; the suite's own engines are faster in one process.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from himac_envs.errors import HiMACError
from himac_envs.lanes import lane_count, need_episodes, read_actions, read_reset
from himac_envs.task import Info

__all__ = ["LaneGoneError", "WorkerVectorEnv", "asynchronous"]


class LaneGoneError(HiMACError, RuntimeError):
    """A batch is used after the process of one of its lanes has ended with an error."""

    def __init__(self, lanes: Sequence[int]) -> None:
        super().__init__(
            f"the processes of these lanes have ended with an error: {', '.join(map(str, lanes))}. "
            "close() this batch and make it again"
        )


@cache
def asynchronous() -> frozenset[str]:
    """Return what Gymnasium's ``AsyncVectorEnv`` can be told, in the release that is installed."""
    return frozenset(inspect.signature(AsyncVectorEnv.__init__).parameters) - {"self", "env_fns"}


class _Carried(Exception):
    """An error on its way out of a worker's process.

    ``AsyncVectorEnv`` raises ``type(error)(error)``, which not every error can be made by. So the
    error travels in this one, and to make one of this one is to take it out again.
    """

    def __new__(cls, error: Any) -> Any:
        if isinstance(error, _Carried):
            return error.args[0]
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # whatever somebody's error raises: it must not be lost on the way
            error = RuntimeError(f"{type(error).__name__}: {error}")
        carried = super().__new__(cls)
        carried.args = (error,)
        return carried

    def __init__(self, error: Any) -> None:
        """Leave ``args`` as they are."""


@contextmanager
def _carrying() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _Carried(error) from error


class _Worker(gym.Wrapper[Any, Any, Any, Any]):
    """One lane in a process of its own: it knows its own part of a reset, and rests on None."""

    def __init__(self, env: gym.Env[Any, Any], lane: int) -> None:
        super().__init__(env)
        self.lane = lane
        self._last: tuple[Any, bool, bool] = (None, False, False)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Info]:
        """Begin an episode with this lane's task."""
        own = dict(options or {})
        task_id = (own.pop("task_ids", None) or {}).get(self.lane)
        if task_id is not None:
            own["task_id"] = task_id
        with _carrying():
            observation, info = self.env.reset(seed=seed, options=own or None)
        self._last = (observation, False, False)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:
        """Carry out one action; None after the end leaves the lane alone."""
        observation, terminated, truncated = self._last
        if action is None and (terminated or truncated):
            return observation, 0.0, terminated, truncated, {}
        with _carrying():
            observation, reward, terminated, truncated, info = self.env.step(action)
        self._last = (observation, terminated, truncated)
        return observation, reward, terminated, truncated, info


def _worker(make: Callable[[], gym.Env[Any, Any]], lane: int) -> _Worker:
    return _Worker(make(), lane)


class WorkerVectorEnv(AsyncVectorEnv):
    """Gymnasium's ``AsyncVectorEnv``, one process a lane, with the rules of `himac_envs.lanes`.

    An error in a lane is raised here as it was there, and ends that lane's process: the batch is
    of no use then but to be closed.

    Args:
        make: Makes one environment, and is called in each process.
        num_envs: How many lanes.
        autoreset_mode: See `himac_envs.lanes.LaneVectorEnv`.
        **kwargs: As for ``AsyncVectorEnv``. Shared memory is off unless it is asked for: it holds
            pictures and grids, and text is refused.
    """

    def __init__(
        self,
        make: Callable[[], gym.Env[Any, Any]],
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **kwargs: Any,
    ) -> None:
        self._begun = np.zeros(lane_count(num_envs), np.bool_)
        self._ended = np.zeros(num_envs, np.bool_)
        self._resetting = np.zeros(num_envs, np.bool_)
        super().__init__(
            [partial(_worker, make, lane) for lane in range(num_envs)],
            autoreset_mode=AutoresetMode(autoreset_mode),
            **{"shared_memory": False, **kwargs},
        )

    def reset_async(
        self,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Send a reset to the lanes; see `himac_envs.lanes.LaneVectorEnv.reset`."""
        self._need_processes()
        asked = read_reset(self.num_envs, seed, options, self._begun)
        own = {i: task for i, task in enumerate(asked.task_ids) if task is not None}
        sent = {**asked.rest, **({"task_ids": own} if own else {})}
        if not asked.mask.all():
            sent["reset_mask"] = asked.mask
        super().reset_async(seed=asked.seeds, options=sent)
        self._resetting = asked.mask
        self._begun = self._begun & ~asked.mask

    def reset_wait(self, timeout: float | None = None) -> Any:
        """Return what the lanes show; from here on they have an episode."""
        answer = super().reset_wait(timeout)
        self._begun = self._begun | self._resetting
        self._ended = self._ended & ~self._resetting
        return answer

    def step_async(self, actions: Any) -> None:
        """Send one action to each lane; see `himac_envs.lanes.LaneVectorEnv.step`."""
        self._need_processes()
        need_episodes(self._begun)
        super().step_async(tuple(read_actions(actions, self._ended, self.autoreset_mode)))

    def step_wait(self, timeout: float | None = None) -> Any:
        """Return what the lanes answered."""
        answer = super().step_wait(timeout)
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._ended = answer[2] | answer[3]
        return answer

    def _need_processes(self) -> None:
        """Raise `LaneGoneError` where a lane's process has ended."""
        gone = [i for i, pipe in enumerate(self.parent_pipes) if pipe is None]
        if gone:
            raise LaneGoneError(gone)
