"""Many lanes of one environment: the rules that all vector environments of the suite share.

A *lane* is one of the environments of a batch. `LaneVectorEnv` plays any environment in lanes of
one process, `himac_envs.workers.WorkerVectorEnv` in one process a lane; the batch engines of
ALFWorld and Sokoban keep to the same rules, which are written once, here:

- ``reset(seed=...)``: one seed (lane *i* gets ``seed + i``) or one a lane.
- ``reset(options={"task_id": ..., "reset_mask": mask})``: one task for all lanes or a list of one a
  lane (None: drawn), and the lanes to reset; the others stay as they are.
- ``step(actions)``: one action a lane. With ``autoreset_mode=DISABLED`` a lane that has ended takes
  None, which leaves it alone: it shows what it showed last, brings 0 and stays ended.
- an error in one lane: what the lanes before it did counts, those after it have not moved. A lane
  whose reset failed has no episode and needs another; no other lane does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from numpy.typing import NDArray

from himac_envs.task import Info

__all__ = [
    "LaneVectorEnv", "Reset", "ended", "lane_count", "need_episodes", "read_actions", "read_reset",
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
    begun: Mask,
) -> Reset:
    """Return what a call of ``reset`` asks for; nothing is changed by it.

    Args:
        num: How many lanes there are.
        seed: One seed, one a lane, or None.
        options: ``task_id`` (one, or one a lane), ``reset_mask`` (bool, one a lane), others.
        begun: Which lanes have an episode, going on or ended.

    Raises:
        ValueError: There is not one seed, task or bool for each lane.
        gymnasium.error.ResetNeeded: Some lanes are to be reset, and another has no episode.
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
                f"{len(task_ids)} task ids for {num} environments: give one for all, or one for "
                "each lane (None for a lane that draws its own, or is not reset)"
            )
    return Reset(mask, seeds, task_ids, rest)


def _read_mask(num: int, mask: Any, begun: Mask) -> Mask:
    if mask is None:
        return np.ones(num, np.bool_)
    chosen = np.array(mask)
    if chosen.dtype != np.bool_ or chosen.shape != (num,) or not chosen.any():
        raise ValueError(
            f"reset_mask must be a bool array of shape ({num},) with at least one True, got "
            f"{chosen.dtype} {chosen.shape}"
        )
    if not (begun | chosen).all():
        raise gym.error.ResetNeeded(
            "reset every environment once before resetting some: these lanes have no episode: "
            f"{_listed(~(begun | chosen))}"
        )
    return cast(Mask, chosen)


def need_episodes(begun: Mask) -> None:
    """Make sure that every lane has an episode.

    Args:
        begun: Which lanes have one, going on or ended.

    Raises:
        gymnasium.error.ResetNeeded: A lane has none: never reset, or its reset failed.
    """
    if not begun.any():
        raise gym.error.ResetNeeded("call reset() before step()")
    if not begun.all():
        raise gym.error.ResetNeeded(
            f"these lanes have no episode, since their reset failed: {_listed(~begun)}. Reset them "
            "with reset(options={'reset_mask': mask}) before the next step"
        )


def _listed(lanes: Mask) -> str:
    return ", ".join(map(str, np.flatnonzero(lanes)))


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
            f"actions must be a list of {num}, one for each lane, not a {type(actions).__name__}: "
            f"to send the same to all, write [action] * {num}"
        )
    given = list(actions)
    if len(given) != num:
        raise ValueError(f"{len(given)} actions for {num} environments: give one for each lane")
    resting = np.array([action is None for action in given], np.bool_)
    if mode is AutoresetMode.DISABLED and (over & ~resting).any():
        raise ended(over & ~resting)
    if (resting & ~over).any():
        raise ValueError(
            f"the action of lane {int(np.argmax(resting & ~over))} is None, but the lane has not "
            "ended: None is only for lanes that have"
        )
    return given


def ended(over: Mask) -> gym.error.ResetNeeded:
    """Return the error of an action for lanes that have ended."""
    return gym.error.ResetNeeded(
        f"these lanes have ended: {_listed(over)}. Reset them with "
        "reset(options={'reset_mask': mask}) before the next step, or give them the "
        "action None, which leaves them alone"
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
        self.envs: list[Any] = []
        try:
            for _ in range(self.num_envs):
                self.envs.append(make())
        except BaseException:
            self.close()
            raise
        first = self.envs[0]
        self.metadata = {**first.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = first.render_mode
        self.single_observation_space: spaces.Space[Any] = first.observation_space
        self.single_action_space: spaces.Space[Any] = first.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._begun = np.zeros(self.num_envs, np.bool_)
        self._ended = np.zeros(self.num_envs, np.bool_)
        self._moved = 0  # so many lanes have taken the step that is going on
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
            gymnasium.error.ResetNeeded: Some lanes are to be reset, and another has no episode.
        """
        infos: Info = {}
        for i, own_seed, own in read_reset(self.num_envs, seed, options, self._begun).lanes():
            observation, info = self._begin(i, seed=own_seed, options=own or None)
            self._keep(i, observation)
            self._ended[i] = self._flags[0, i] = self._flags[1, i] = False
            infos = self._add_info(infos, info, i)
        return self._observe(), infos

    def _begin(self, lane: int, **how: Any) -> tuple[Any, Info]:
        """Begin an episode in a lane; it has none where that fails."""
        self._begun[lane] = False
        answer: tuple[Any, Info] = self.envs[lane].reset(**how)
        self._begun[lane] = True
        return answer

    def step(self, actions: Iterable[Any]) -> tuple[Any, Array, Array, Array, Info]:
        """Carry out one action in each lane (or, NEXT_STEP, begin anew where it ended).

        Raises:
            ValueError: There is not one action a lane.
            gymnasium.error.ResetNeeded: A lane has no episode; or DISABLED, and a lane that ended
                was neither reset nor left alone.
        """
        need_episodes(self._begun)
        given = read_actions(actions, self._ended, self.autoreset_mode)
        rewards = np.zeros(self.num_envs)
        terminations = np.zeros(self.num_envs, dtype=np.bool_)
        truncations = np.zeros(self.num_envs, dtype=np.bool_)
        self._moved = 0
        try:
            infos = self._step_lanes(given, rewards, terminations, truncations)
            self._moved = self.num_envs
        finally:
            moved = slice(self._moved)  # all, unless a lane raised an error
            self._flags[:, moved] = terminations[moved], truncations[moved]
            if self.autoreset_mode is not AutoresetMode.SAME_STEP:
                self._ended[moved] = self._flags[:, moved].any(axis=0)
        return self._observe(), rewards, terminations, truncations, infos

    def _step_lanes(
        self, actions: list[Any], rewards: Array, terminations: Array, truncations: Array
    ) -> Info:
        """Fill in the three arrays, lane by lane, and return the infos of one step.

        `_moved` says meanwhile how many lanes are through.
        """
        infos: Info = {}
        over = self._ended.tolist()
        mode = self.autoreset_mode
        for i, env in enumerate(self.envs):
            self._moved = i
            if over[i] and mode is AutoresetMode.DISABLED:
                terminations[i], truncations[i] = self._flags[:, i]
                continue
            if over[i] and mode is AutoresetMode.NEXT_STEP:
                observation, info = self._begin(i)
            else:
                observation, reward, terminated, truncated, info = env.step(actions[i])
                rewards[i], terminations[i], truncations[i] = reward, terminated, truncated
                if (terminated or truncated) and mode is AutoresetMode.SAME_STEP:
                    final = {"final_obs": observation, "final_info": info}
                    infos = self._add_info(infos, final, i)
                    observation, info = self._begin(i)
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
