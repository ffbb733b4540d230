"""The batch engine: ``gym.make_vec("HiMAC-ALFWorld-Flat-v0", num_envs=n)``."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from himac_envs.alfworld.engine import NOTHING_HAPPENS
from himac_envs.alfworld.env import ALFWorldEnv
from himac_envs.lanes import LaneVectorEnv
from himac_envs.spaces import MAX_TEXT
from himac_envs.task import Info, Observation

__all__ = ["ALFWorldVectorEnv"]

Array = NDArray[Any]


class ALFWorldVectorEnv(LaneVectorEnv):
    """A batch of `ALFWorldEnv` in one process.

    It answers exactly what a ``SyncVectorEnv`` of the same environments answers, in all three
    autoreset modes, and several times faster: the observation's ``text`` is a tuple of ``str``,
    every key of ``info`` is an array with its ``_key`` mask (``admissible`` an array of lists).

    Args:
        num_envs: How many.
        autoreset_mode: When a finished environment begins anew: NEXT_STEP, SAME_STEP or DISABLED
            (then ``reset(options={"reset_mask": mask})`` resets some).
        copy: As for `LaneVectorEnv`; there is nothing to copy in text.
        **settings: As for `ALFWorldEnv`.
    """

    envs: list[ALFWorldEnv]

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        **settings: Any,
    ) -> None:
        made: list[ALFWorldEnv] = []

        def make() -> ALFWorldEnv:
            env = self._make(settings)
            if made:
                # One library, one pair of spaces: the spaces' own generators are not used here.
                env._library = made[0].library
                env.observation_space = made[0].observation_space
                env.action_space = made[0].action_space
            made.append(env)
            return env

        super().__init__(make, num_envs, autoreset_mode=autoreset_mode, copy=copy)
        first = self.envs[0]
        self._texts = [""] * self.num_envs
        # A subclass with rules of its own is stepped through its own step().
        self._plain = (
            type(first)._outcome is ALFWorldEnv._outcome
            and type(first)._info is ALFWorldEnv._info
            and not first.extra
            and first.backend == "fast"
        )

    def _make(self, settings: dict[str, Any]) -> ALFWorldEnv:
        """One environment of the batch; a subclass may bring its own."""
        return ALFWorldEnv(**settings)

    def _keep(self, lane: int, observation: Observation) -> None:
        self._texts[lane] = observation["text"]

    def _observe(self) -> Observation:
        return {"text": tuple(self._texts)}

    def _step_lanes(
        self, actions: list[Any], rewards: Array, terminations: Array, truncations: Array
    ) -> Info:
        step_all = self._step_plain if self._plain else super()._step_lanes
        return step_all(actions, rewards, terminations, truncations)

    def _step_plain(
        self, commands: list[str], rewards: Array, terminations: Array, truncations: Array
    ) -> Info:
        """The same with `TaskEnv.step` written out, and the infos' columns filled at once."""
        first = self.envs[0]
        original = first.reward_mode == "original"
        sparse = first.reward_mode == "sparse"
        max_steps = first.max_steps
        rendering = self.render_mode is not None
        next_step = self.autoreset_mode is AutoresetMode.NEXT_STEP
        same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        texts = self._texts
        ended = self._ended.tolist()
        invalid: list[int] = []
        won: list[int] = []
        resting: list[int] = []
        fresh: list[tuple[int, Info]] = []
        infos: Info = {}
        for i, env in enumerate(self.envs):
            self._moved = i
            if ended[i]:
                if next_step:
                    observation, info = self._begin(i)
                    texts[i] = observation["text"]
                    fresh.append((i, info))
                else:  # DISABLED, and left alone
                    terminations[i], truncations[i] = self._flags[:, i]
                    resting.append(i)
                continue
            state = env._playing()
            command = commands[i]
            if not isinstance(command, str):
                command = ""
            text = state.act(command)
            if text is None:
                text = NOTHING_HAPPENS
                invalid.append(i)
            env._steps = steps = env._steps + 1
            if rendering:
                env._last = f"> {command}\n{text}"
            texts[i] = text if len(text) <= MAX_TEXT else text[:MAX_TEXT]
            if state.won:
                won.append(i)
                terminations[i] = True
                if original or not env._done:
                    rewards[i] = 1.0 if original or sparse else 10.0
                env._done = True
            elif steps >= max_steps:
                truncations[i] = True
                env._done = True
            else:
                continue
            if same_step:
                final: Info = {
                    "final_obs": {"text": texts[i]},
                    "final_info": {
                        "task_id": env._task_id,
                        "goal": env._goal(),
                        "admissible": state.admissible(),
                        "won": state.won,
                        "score": float(state.won),
                        "invalid": bool(invalid) and invalid[-1] == i,
                        "step": steps,
                    },
                }
                infos = self._add_info(infos, final, i)
                observation, info = self._begin(i)
                texts[i] = observation["text"]
                fresh.append((i, info))
        if not original and not sparse and invalid:
            rewards[invalid] -= 0.1
        infos.update(self._columns(invalid, won, resting))
        for i, info in fresh:
            # A game may be won, and its info is of the new episode, where it just began.
            self._add_info(infos, info, i)
        return infos

    def _columns(self, invalid: list[int], won: list[int], resting: list[int]) -> Info:
        """Every environment's present info in the batch's format."""
        envs, n = self.envs, self.num_envs
        solved = np.zeros(n, dtype=np.bool_)
        solved[won] = True
        wrong = np.zeros(n, dtype=np.bool_)
        wrong[invalid] = True
        columns: Info = {
            "task_id": np.fromiter((env._task_id for env in envs), object, n),
            "goal": np.fromiter((env._goal() for env in envs), object, n),
            "admissible": np.fromiter((env._admissible() for env in envs), object, n),
            "won": solved,
            "score": solved.astype(np.float64),
            "invalid": wrong,
            "step": np.fromiter((env._steps for env in envs), np.int64, n),
        }
        told = np.ones(n, dtype=np.bool_)
        if resting:
            told[resting] = False
            for values in columns.values():
                values[resting] = None if values.dtype == object else 0
        return columns | {f"_{key}": told.copy() for key in columns}
