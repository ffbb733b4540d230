"""The batch engine: ``gym.make_vec("HiMAC-Sokoban-Pixels-v0", num_envs=n)``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from himac_envs.lanes import Reset, lane_count, read_actions, read_reset
from himac_envs.sokoban.batch import BatchBoards
from himac_envs.sokoban.pixels import PixelSettings
from himac_envs.sokoban.rules import Level
from himac_envs.sokoban.source import GeneratedSource

__all__ = ["SokobanVectorEnv"]

Array = NDArray[Any]


class SokobanVectorEnv(VectorEnv[Array, Array, Array]):
    """A batch of `SokobanPixelsEnv` played by one kernel.

    It answers what a ``SyncVectorEnv`` of single environments with the same seeds answers: the same
    rooms, frames, rewards, flags and final observations, in all three autoreset modes.

    Infos are arrays with their ``_key`` masks: ``action.name, action.moved_player,
    action.moved_box, task_id, won, score, invalid, step`` and, at an end, ``maxsteps_used`` and
    ``all_boxes_on_target``. The constants of the single environment (``goal``, ``admissible``) are
    left out.

    Args:
        num_envs: How many.
        autoreset_mode: When a finished environment begins anew (NEXT_STEP, SAME_STEP, DISABLED).
        copy: Whether each step returns a fresh array of frames. With False it returns the engine's
            own array, which the next step changes in place: faster by far for those who read it
            at once.
        engine: "numba", "numpy", or None for numba where it is installed.
        render_mode: None or "rgb_array" (``render`` returns a tuple of frames).
        **settings: As for `SokobanPixelsEnv`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        engine: str | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        self.num_envs = lane_count(num_envs)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r}: the batch engine has 'rgb_array'")
        self.settings = PixelSettings(**settings)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": 8,
            "autoreset_mode": self.autoreset_mode,
        }
        self.copy, self.render_mode = bool(copy), render_mode
        self.single_observation_space = self.settings.space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.single_action_space = gym.spaces.Discrete(self.settings.num_actions)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        source = self.settings.source
        self._grid = self.settings.observation == "grid"
        self._sparse = self.settings.reward_mode == "sparse"
        tiles = None if self._grid else self.settings.tiles
        self.boards = BatchBoards(
            self.num_envs, source.rows, source.cols, self.settings.max_steps, tiles,
            self.settings.num_actions, engine,
        )  # fmt: skip
        self._rngs: list[np.random.Generator] = []
        self._seeds: list[int] = []
        self._task_ids = np.full(self.num_envs, None, object)
        self._names = np.array(self.settings.action_names, object)
        self._over = np.zeros(self.num_envs, np.bool_)
        self._won = np.zeros(self.num_envs, np.bool_)  # of those that are over
        self._any_over = False
        # Constant arrays, handed out in every info: read-only, so that nobody can spoil them.
        self._everyone = _constant(np.ones(self.num_envs, np.bool_))
        self._nobody = _constant(np.zeros(self.num_envs, np.bool_))
        self._ready = False
        self._pool: list[Array] = []

    # ---- Gymnasium -------------------------------------------------------------------------
    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Begin new episodes.

        Args:
            seed: One seed (environment *i* gets ``seed + i``), one for each, or None.
            options: ``task_id`` (one for all, or one for each environment) and ``reset_mask`` (bool
                array: reset only these), as for every batch of the suite; or ``levels`` (a room for
                each environment that is reset).
        """
        n = self.num_envs
        asked = read_reset(n, seed, options, np.full(n, self._ready))
        chosen, which = asked.mask, np.flatnonzero(asked.mask)
        levels, drawn = self._asked_for(asked, which)
        self._ready = False  # until all is done: an error in between leaves boards half begun
        if not self._rngs:
            made = [seeding.np_random(s) for s in asked.seeds]
            self._rngs, self._seeds = [r for r, _ in made], [s for _, s in made]
        else:
            for i in which.tolist():
                if asked.seeds[i] is not None:
                    self._rngs[i], self._seeds[i] = seeding.np_random(asked.seeds[i])
        self._begin(which[~drawn], levels)
        self._begin(which[drawn], None)
        self._over[chosen] = False
        self._any_over = bool(self._over.any())
        self._ready = True
        boards = self.boards
        infos = self._infos(
            self._names[np.zeros(n, np.int64)], self._nobody, self._nobody, boards.empty == 0,
            (boards.num_boxes - boards.empty) / np.maximum(boards.num_boxes, 1), chosen,
        )  # fmt: skip
        infos["data"] = np.full(n, self.settings.source.name, object)
        infos["_data"] = chosen
        return self._observe(None), infos

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Play one action on every board.

        Raises:
            ValueError: There is not one valid action for each environment.
            gymnasium.error.ResetNeeded: No reset yet, or (DISABLED) a finished board was neither
                reset nor left alone.
        """
        if not self._ready:
            raise gym.error.ResetNeeded("call reset() before step()")
        moves = self._actions(actions)
        boards, grid = self.boards, self._grid
        fresh = resting = None
        if not self._any_over:
            answer = boards.step(moves, None, grid)
        elif self.autoreset_mode is AutoresetMode.NEXT_STEP:
            fresh = self._over
            answer = boards.step(moves, ~fresh, False)
            self._begin(np.flatnonzero(fresh), None)
            moves = np.where(fresh, 0, moves)
            answer.score[fresh] = 0.0
            won_at_start = fresh & (boards.empty == 0)
        else:  # DISABLED, and left alone
            resting = self._over
            answer = boards.step(moves, ~resting, grid)
        won, truncated = answer.won, answer.truncated
        reward = won.astype(np.float64) if self._sparse else answer.reward
        infos = self._infos(
            self._names[moves], answer.moved, answer.pushed, won.copy(), answer.score,
            None if resting is None else ~resting,
        )  # fmt: skip
        if fresh is not None:
            infos["won"] = won | won_at_start
            infos["score"] = (boards.num_boxes - boards.empty) / boards.num_boxes
        grids = answer.grids if fresh is None else None
        over = won | truncated
        if answer.ended > 0:
            infos["maxsteps_used"] = over & (boards.steps == boards.max_steps)
            infos["all_boxes_on_target"] = won.copy()
            infos["_maxsteps_used"] = infos["_all_boxes_on_target"] = over.copy()
        if resting is not None:
            won = won | (resting & self._won)
            truncated = truncated | (resting & ~self._won)
            over = over | resting
        self._any_over = answer.ended > 0 or resting is not None
        self._over, self._won = over, won.copy()
        if self._any_over and self.autoreset_mode is AutoresetMode.SAME_STEP:
            infos = self._restart(over, infos, grids)
            grids, self._any_over, self._over = None, False, np.zeros_like(over)
        return self._observe(grids), reward, won, truncated, infos

    def render(self) -> tuple[Array, ...] | None:
        """Return a frame of every environment ("rgb_array")."""
        if self.render_mode is None:
            return None
        if self.boards.frames is not None:
            return tuple(self.boards.frames.copy())
        from himac_envs.sokoban.render import picture

        return tuple(picture(self.boards.grids(), self.settings.tiles))

    # ---- parts -----------------------------------------------------------------------------
    def _actions(self, actions: Any) -> NDArray[np.int64]:
        late = self._any_over and self.autoreset_mode is AutoresetMode.DISABLED
        if late or not isinstance(actions, np.ndarray):
            given = read_actions(actions, self._over, self.autoreset_mode)
            actions = [0 if action is None else action for action in given]
        moves = np.asarray(actions)
        if moves.shape != (self.num_envs,) or moves.dtype.kind not in "iu":
            raise ValueError(
                f"actions must be {self.num_envs} integers, got {moves.dtype} {moves.shape}"
            )
        return np.ascontiguousarray(moves, np.int64)

    def _asked_for(
        self, asked: Reset, which: NDArray[np.int64]
    ) -> tuple[list[Level], NDArray[np.bool_]]:
        """Return the rooms that are given, and which of the boards draw theirs."""
        source, options = self.settings.source, dict(asked.rest)
        levels: list[Level] | None = options.pop("levels", None)
        if options:
            raise ValueError(
                f"unknown reset options {sorted(options)}: 'reset_mask', 'task_id' (one, or one "
                "for each environment) or 'levels'"
            )
        ids = [asked.task_ids[i] for i in which.tolist()]
        drawn = np.array([task_id is None and levels is None for task_id in ids], np.bool_)
        if levels is None:
            levels = [source.level(task_id) for task_id in ids if task_id is not None]
        elif len(levels) != len(which):
            raise ValueError(
                f"{len(levels)} rooms for {len(which)} environments: give one for each"
            )
        return [level.padded(source.rows, source.cols) for level in levels], drawn

    def _begin(self, which: NDArray[np.int64], levels: list[Level] | None) -> None:
        """Start an episode on these boards, with rooms drawn by each board's own generator."""
        source, task_ids = self.settings.source, self._task_ids
        if not len(which):
            return
        if levels is None:
            ids = self.settings.ids
            drawn = [ids[int(self._rngs[i].integers(len(ids)))] for i in which.tolist()]
            if isinstance(source, GeneratedSource):
                arrays = source.arrays([source.number(task_id) for task_id in drawn])
                self.boards.load_arrays(which, *arrays)
                for i, task_id in zip(which.tolist(), drawn, strict=True):
                    task_ids[i] = task_id
                return
            levels = [source.level(task_id) for task_id in drawn]
        self.boards.load(which.tolist(), levels)
        for i, level in zip(which.tolist(), levels, strict=True):
            task_ids[i] = level.name

    def _restart(
        self, over: NDArray[np.bool_], infos: dict[str, Any], grids: Array | None
    ) -> dict[str, Any]:
        """SAME_STEP: keep what was last seen and begin anew."""
        last = grids if self.boards.frames is None else self.boards.frames
        assert last is not None
        final = np.full(self.num_envs, None, object)
        for i in np.flatnonzero(over):
            final[i] = last[i].copy()
        final_info = {key: value for key, value in infos.items() if not key.startswith("_")}
        final_info |= {f"_{key}": over.copy() for key in list(final_info)}
        self._begin(np.flatnonzero(over), None)
        boards, going = self.boards, ~over
        again = self._infos(
            np.where(over, self._names[0], infos["action.name"]),
            infos["action.moved_player"] & going, infos["action.moved_box"] & going,
            boards.empty == 0, (boards.num_boxes - boards.empty) / boards.num_boxes, None,
        )  # fmt: skip
        again |= {"final_obs": final, "_final_obs": over.copy()}
        return again | {"final_info": final_info, "_final_info": over.copy()}

    def _infos(
        self, names: Array, moved: Array, pushed: Array, won: Array, score: Array,
        mask: NDArray[np.bool_] | None,
    ) -> dict[str, Any]:  # fmt: skip
        known = self._everyone if mask is None else mask
        return {
            "action.name": names,
            "_action.name": known,
            "action.moved_player": moved,
            "_action.moved_player": known,
            "action.moved_box": pushed,
            "_action.moved_box": known,
            "task_id": self._task_ids.copy(),
            "_task_id": known,
            "won": won,
            "_won": known,
            "score": score,
            "_score": known,
            "invalid": self._nobody,
            "_invalid": known,
            "step": self.boards.steps.copy(),
            "_step": known,
        }

    def _observe(self, grids: Array | None) -> Array:
        frames = self.boards.frames
        if frames is None:
            return self.boards.grids() if grids is None else grids
        if not self.copy:
            return frames
        # A fresh array costs more in page faults than in copying. An array that was handed out
        # and that nobody holds any more (no reference, view or buffer) is as good as a fresh one.
        for k in range(len(self._pool)):
            if sys.getrefcount(self._pool[k]) == _UNSHARED:
                np.copyto(self._pool[k], frames)
                return self._pool[k]
        made = frames.copy()
        if len(self._pool) < 3:
            self._pool.append(made)
        return made

    # ---- state -----------------------------------------------------------------------------
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": []}

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The environments' seeds."""
        return tuple(self._seeds)

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The environments' generators."""
        return tuple(self._rngs)

    def close_extras(self, **kwargs: Any) -> None:
        """Let the arrays go."""
        self._pool.clear()


def _constant(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _unshared() -> int:
    """References to an array that only a list holds, as ``sys.getrefcount`` counts them here."""
    held = [np.empty(1)]
    return sys.getrefcount(held[0])


_UNSHARED = _unshared()
