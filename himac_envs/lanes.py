"""Many lanes of one environment: the rules that all vector environments of the suite share.

A *lane* is one of the environments of a batch. `LaneVectorEnv` plays any environment in lanes of
one process, `WorkerVectorEnv` in one process a lane; the batch engines of ALFWorld and Sokoban keep
to the same rules, which are written once, here:

- ``reset(seed=...)``: one seed (lane *i* gets ``seed + i``) or one a lane.
- ``reset(options={"task_id": ..., "reset_mask": mask})``: one task for all lanes or a list of one a
  lane (None: drawn), and the lanes to reset; the others stay as they are.
- ``step(actions)``: one action a lane. With ``autoreset_mode=DISABLED`` a lane that has ended takes
  None, which leaves it alone: it shows what it showed last, brings 0 and stays ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from numpy.typing import NDArray

from himac_envs.task import Info

__all__ = [
    "LaneVectorEnv", "Reset", "WorkerVectorEnv", "ended", "lane_count", "read_actions",
    "read_reset",
]  # fmt: skip

Array = NDArray[Any]
Mask = NDArray[np.bool_]


class Reset(NamedTuple):
    """What a call of ``reset`` asks of the lanes.

    Attributes:
        mask: Which lanes begin anew, bool, shape (num_envs,).
        seeds: One a lane, None for a lane without.
        task_ids: One a lane, None where the lane draws.
        rest: The other options, the same for all lanes.
    """

    mask: Mask
    seeds: list[int | None]
    task_ids: list[str | None]
    rest: dict[str, Any]

    def lanes(self) -> Iterator[tuple[int, int | None, dict[str, Any]]]:
        """Yield each lane that begins anew, with its seed and its options."""
        for i in np.flatnonzero(self.mask).tolist():
            own = {} if self.task_ids[i] is None else {"task_id": self.task_ids[i]}
            yield i, self.seeds[i], {**self.rest, **own}


def lane_count(num_envs: int) -> int:
    """Return a number of lanes that is at least one.

    Raises:
        ValueError: It is less.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs={num_envs}: a batch needs at least one environment")
    return int(num_envs)


def read_reset(
    num: int,
    seed: int | Sequence[int | None] | None,
    options: Mapping[str, Any] | None,
    begun: bool,
) -> Reset:
    """Return what a call of ``reset`` asks for; nothing is changed by it.

    Args:
        num: How many lanes there are.
        seed: One seed, one a lane, or None.
        options: ``task_id`` (one, or one a lane), ``reset_mask`` (bool, one a lane), others.
        begun: Whether every lane has been reset before.

    Raises:
        ValueError: There is not one seed, task or bool for each lane.
        gymnasium.error.ResetNeeded: Some lanes are to be reset before all were.
    """
    if seed is None or isinstance(seed, int | np.integer):
        seeds = [None if seed is None else int(seed) + i for i in range(num)]
    else:
        seeds = [None if s is None else int(s) for s in seed]
        if len(seeds) != num:
            raise ValueError(f"{len(seeds)} seeds for {num} environments: give one for each")
    rest = dict(options or {})
    mask = _read_mask(num, rest.pop("reset_mask", None), begun)
    asked = rest.pop("task_id", None)
    if asked is None or isinstance(asked, str | int | np.integer):
        task_ids = [None if asked is None else str(asked)] * num
    else:
        task_ids = [None if task is None else str(task) for task in asked]
        if len(task_ids) != num:
            raise ValueError(
                f"{len(task_ids)} task ids for {num} environments: give one for all, or one a lane "
                "(None for a lane that draws its own, or is not reset)"
            )
    return Reset(mask, seeds, task_ids, rest)


def _read_mask(num: int, mask: Any, begun: bool) -> Mask:
    if mask is None:
        return np.ones(num, np.bool_)
    chosen = np.array(mask)
    if chosen.dtype != np.bool_ or chosen.shape != (num,) or not chosen.any():
        raise ValueError(
            f"reset_mask must be a bool array of shape ({num},) with at least one True, got "
            f"{chosen.dtype} {chosen.shape}"
        )
    if not begun and not chosen.all():
        raise gym.error.ResetNeeded("reset every environment once before resetting some")
    return cast(Mask, chosen)


def read_actions(actions: Any, over: Mask, mode: AutoresetMode) -> list[Any]:
    """Return one action a lane.

    Args:
        actions: What was given to ``step``.
        over: Which lanes have ended.
        mode: What happens to those.

    Raises:
        ValueError: It is not one action a lane, or None for a lane that plays on.
        gymnasium.error.ResetNeeded: DISABLED, and a lane that has ended got an action.
    """
    num = len(over)
    if isinstance(actions, str | bytes | Mapping) or not isinstance(actions, Iterable):
        raise ValueError(
            f"actions must be a list of {num}, one a lane; one {type(actions).__name__} is no "
            f"batch: write [action] * {num} to send the same to all"
        )
    given = list(actions)
    if len(given) != num:
        raise ValueError(f"{len(given)} actions for {num} environments: give one a lane")
    resting = np.array([action is None for action in given], np.bool_)
    if mode is AutoresetMode.DISABLED and (over & ~resting).any():
        raise ended(over & ~resting)
    if (resting & ~over).any():
        raise ValueError(
            f"the action of lane {int(np.argmax(resting & ~over))} is None, and the lane plays on: "
            "None is for lanes that have ended"
        )
    return given


def ended(over: Mask) -> gym.error.ResetNeeded:
    """Return the error of an action for lanes that have ended."""
    lanes = ", ".join(map(str, np.flatnonzero(over)))
    return gym.error.ResetNeeded(
        f"these lanes have ended: {lanes}. Reset them with reset(options={{'reset_mask': mask}}) "
        "before the next step, or give them the action None, which leaves them alone"
    )


class LaneVectorEnv(VectorEnv[Any, Any, Array]):
    """A batch of environments in one process.

    It answers what Gymnasium's ``SyncVectorEnv`` of the same environments answers, in all three
    autoreset modes, and keeps to the rules of this module besides. Every key of ``info`` is an
    array with its ``_key`` mask.

    Args:
        make: Makes one environment, and is called for each lane.
        num_envs: How many lanes.
        autoreset_mode: When a finished lane begins anew: NEXT_STEP, SAME_STEP or DISABLED (then
            ``reset(options={"reset_mask": mask})`` resets some).
        copy: Whether observations that are arrays are new at each step. With False the next step
            changes them in place.
    """

    def __init__(
        self,
        make: Callable[[], gym.Env[Any, Any]],
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        copy: bool = True,
    ) -> None:
        self.num_envs = lane_count(num_envs)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.copy = bool(copy)
        self.envs: list[Any] = [make() for _ in range(self.num_envs)]
        first = self.envs[0]
        self.metadata = {**first.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = first.render_mode
        self.single_observation_space: spaces.Space[Any] = first.observation_space
        self.single_action_space: spaces.Space[Any] = first.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._begun = False
        self._ended = np.zeros(self.num_envs, np.bool_)
        self._flags = np.zeros((2, self.num_envs), np.bool_)  # terminated, truncated
        self._seen: list[Any] = [None] * self.num_envs
        self._buffer: Any = None

    # --- Gymnasium ---------------------------------------------------------------------------

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Any, Info]:
        """Begin an episode in every lane, or in those of ``options["reset_mask"]``.

        Args:
            seed: One seed (lane ``i`` gets ``seed + i``), or one a lane.
            options: As for the single environment, where ``task_id`` may be a list of one a lane,
                and ``reset_mask``, a bool array.

        Raises:
            ValueError: There is not one seed, task or bool for each lane.
            gymnasium.error.ResetNeeded: Some lanes are to be reset before all were.
        """
        infos: Info = {}
        for i, own_seed, own in read_reset(self.num_envs, seed, options, self._begun).lanes():
            observation, info = self.envs[i].reset(seed=own_seed, options=own or None)
            self._keep(i, observation)
            self._ended[i] = False
            infos = self._add_info(infos, info, i)
        self._begun = True
        return self._observe(), infos

    def step(self, actions: Iterable[Any]) -> tuple[Any, Array, Array, Array, Info]:
        """Carry out one action in each lane (or, NEXT_STEP, begin anew where it ended).

        Raises:
            ValueError: There is not one action a lane.
            gymnasium.error.ResetNeeded: No reset yet; or DISABLED, and a lane that ended was
                neither reset nor left alone.
        """
        if not self._begun:
            raise gym.error.ResetNeeded("call reset() before step()")
        given = read_actions(actions, self._ended, self.autoreset_mode)
        rewards = np.zeros(self.num_envs)
        terminations = np.zeros(self.num_envs, dtype=np.bool_)
        truncations = np.zeros(self.num_envs, dtype=np.bool_)
        infos = self._step_lanes(given, rewards, terminations, truncations)
        self._flags[0], self._flags[1] = terminations, truncations
        self._ended = terminations | truncations
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            self._ended = np.zeros(self.num_envs, dtype=np.bool_)
        return self._observe(), rewards, terminations, truncations, infos

    def _step_lanes(
        self, actions: list[Any], rewards: Array, terminations: Array, truncations: Array
    ) -> Info:
        """Fill in the three arrays and return the infos of one step."""
        infos: Info = {}
        over = self._ended.tolist()
        mode = self.autoreset_mode
        for i, env in enumerate(self.envs):
            if over[i] and mode is AutoresetMode.DISABLED:
                terminations[i], truncations[i] = self._flags[:, i]
                continue
            if over[i] and mode is AutoresetMode.NEXT_STEP:
                observation, info = env.reset()
            else:
                observation, reward, terminated, truncated, info = env.step(actions[i])
                rewards[i], terminations[i], truncations[i] = reward, terminated, truncated
                if (terminated or truncated) and mode is AutoresetMode.SAME_STEP:
                    final = {"final_obs": observation, "final_info": info}
                    infos = self._add_info(infos, final, i)
                    observation, info = env.reset()
            self._keep(i, observation)
            infos = self._add_info(infos, info, i)
        return infos

    def _keep(self, lane: int, observation: Any) -> None:
        self._seen[lane] = observation

    def _observe(self) -> Any:
        space = self.single_observation_space
        if self._buffer is None:
            self._buffer = create_empty_array(space, n=self.num_envs, fn=np.zeros)
        self._buffer = concatenate(space, self._seen, self._buffer)
        return deepcopy(self._buffer) if self.copy else self._buffer

    # --- the lanes ---------------------------------------------------------------------------

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The lanes' seeds."""
        return self.get_attr("np_random_seed")

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The lanes' generators."""
        return self.get_attr("np_random")

    def render(self) -> tuple[Any, ...]:
        """Return each lane's rendering."""
        return tuple(env.render() for env in self.envs)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call each lane's method, or get its attribute, by name."""
        found = [env.get_wrapper_attr(name) for env in self.envs]
        return tuple(each(*args, **kwargs) if callable(each) else each for each in found)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of each lane."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of each lane, to one value or to one each."""
        each = values if isinstance(values, (list, tuple)) else [values] * self.num_envs
        if len(each) != self.num_envs:
            raise ValueError(f"{len(each)} values for {self.num_envs} environments")
        for env, value in zip(self.envs, each, strict=True):
            env.set_wrapper_attr(name, value)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the lanes."""
        for env in self.envs:
            env.close()


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
        observation, info = self.env.reset(seed=seed, options=own or None)
        self._last = (observation, False, False)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:
        """Carry out one action; None after the end leaves the lane alone."""
        observation, terminated, truncated = self._last
        if action is None and (terminated or truncated):
            return observation, 0.0, terminated, truncated, {}
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._last = (observation, terminated, truncated)
        return observation, reward, terminated, truncated, info


def _worker(make: Callable[[], gym.Env[Any, Any]], lane: int) -> _Worker:
    return _Worker(make(), lane)


class WorkerVectorEnv(AsyncVectorEnv):
    """Gymnasium's ``AsyncVectorEnv``, one process a lane, with the rules of this module.

    Args:
        make: Makes one environment, and is called in each process.
        num_envs: How many lanes.
        autoreset_mode: See `LaneVectorEnv`.
        **kwargs: As for ``AsyncVectorEnv``. Shared memory is off: it cannot hold text.
    """

    def __init__(
        self,
        make: Callable[[], gym.Env[Any, Any]],
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **kwargs: Any,
    ) -> None:
        self._begun = False
        self._ended = np.zeros(lane_count(num_envs), np.bool_)
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
        """Send a reset to the lanes; see `LaneVectorEnv.reset`."""
        asked = read_reset(self.num_envs, seed, options, self._begun)
        own = {i: task for i, task in enumerate(asked.task_ids) if task is not None}
        sent = {**asked.rest, **({"task_ids": own} if own else {})}
        if not asked.mask.all():
            sent["reset_mask"] = asked.mask
        super().reset_async(seed=asked.seeds, options=sent)
        self._ended = self._ended & ~asked.mask
        self._begun = True

    def step_async(self, actions: Any) -> None:
        """Send one action to each lane; see `LaneVectorEnv.step`."""
        if not self._begun:
            raise gym.error.ResetNeeded("call reset() before step()")
        super().step_async(tuple(read_actions(actions, self._ended, self.autoreset_mode)))

    def step_wait(self, timeout: float | None = None) -> Any:
        """Return what the lanes answered."""
        answer = super().step_wait(timeout)
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._ended = answer[2] | answer[3]
        return answer
