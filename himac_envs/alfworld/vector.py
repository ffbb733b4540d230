"""The batch engine: ``gym.make_vec("HiMAC-ALFWorld-Flat-v0", num_envs=n)``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from himac_envs.alfworld.engine import NOTHING_HAPPENS
from himac_envs.alfworld.env import ALFWorldEnv
from himac_envs.task import MAX_TEXT, Info

__all__ = ["ALFWorldVectorEnv"]

Array = NDArray[Any]
BatchObservation = dict[str, Any]


class ALFWorldVectorEnv(VectorEnv[BatchObservation, Iterable[str], Array]):
    """A batch of `ALFWorldEnv` in one process.

    It answers exactly what a ``SyncVectorEnv`` of the same environments answers, in all three
    autoreset modes, and several times faster: the observation's ``text`` is a tuple of ``str``,
    every key of ``info`` is an array with its ``_key`` mask (``admissible`` an array of lists).

    Args:
        num_envs: How many.
        autoreset_mode: When a finished environment begins anew: NEXT_STEP, SAME_STEP or DISABLED
            (then ``reset(options={"reset_mask": mask})`` resets some).
        **settings: As for `ALFWorldEnv`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **settings: Any,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs}: a batch needs at least one environment")
        self.num_envs = int(num_envs)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.envs: list[ALFWorldEnv] = [self._make(settings) for _ in range(self.num_envs)]
        first = self.envs[0]
        for env in self.envs:
            # One library, one pair of spaces: the spaces' own generators are not used here.
            env._library = first.library
            env.observation_space = first.observation_space
            env.action_space = first.action_space
        self.metadata = {**first.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = first.render_mode
        self.single_observation_space = first.observation_space
        self.single_action_space = first.action_space
        self.observation_space = batch_space(first.observation_space, self.num_envs)
        self.action_space = batch_space(first.action_space, self.num_envs)
        self._texts = [""] * self.num_envs
        self._ended = np.ones(self.num_envs, dtype=np.bool_)
        # A subclass with rules of its own is stepped through its own step().
        self._plain = (
            type(first)._outcome is ALFWorldEnv._outcome
            and type(first)._info is ALFWorldEnv._info
            and not first.extra
            and first.backend == "fast"
        )

    def _make(self, settings: dict[str, Any]) -> ALFWorldEnv:
        """One environment of the batch."""
        return ALFWorldEnv(**settings)

    # --- Gymnasium ---------------------------------------------------------------------------

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[BatchObservation, Info]:
        """Begin an episode in every environment, or in those of ``options["reset_mask"]``.

        Args:
            seed: One seed (environment ``i`` gets ``seed + i``), or one for each.
            options: As for the single environment, and ``reset_mask``, a bool array.
        """
        if seed is None or isinstance(seed, int):
            seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} environments")
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        if mask is not None:
            mask = np.asarray(mask)
            if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
                raise ValueError(
                    f"reset_mask: expected {self.num_envs} bools, at least one of them True"
                )
        infos: Info = {}
        for i in range(self.num_envs) if mask is None else np.flatnonzero(mask):
            observation, info = self.envs[i].reset(seed=seeds[i], options=options)
            self._texts[i] = observation["text"]
            self._ended[i] = False
            infos = self._add_info(infos, info, int(i))
        return {"text": tuple(self._texts)}, infos

    def step(self, actions: Iterable[str]) -> tuple[BatchObservation, Array, Array, Array, Info]:
        """Carry out one command in each environment (or, NEXT_STEP, begin anew where it ended).

        Raises:
            gymnasium.error.ResetNeeded: DISABLED, and an environment that ended was not reset.
        """
        commands = list(actions)
        if len(commands) != self.num_envs:
            raise ValueError(f"{len(commands)} actions for {self.num_envs} environments")
        if self.autoreset_mode == AutoresetMode.DISABLED and self._ended.any():
            raise gym.error.ResetNeeded(
                f"environment {int(np.argmax(self._ended))} has ended: reset it with "
                'reset(options={"reset_mask": mask}) before the next step'
            )
        rewards = np.zeros(self.num_envs)
        terminations = np.zeros(self.num_envs, dtype=np.bool_)
        truncations = np.zeros(self.num_envs, dtype=np.bool_)
        step_all = self._step_plain if self._plain else self._step_any
        infos = step_all(commands, rewards, terminations, truncations)
        self._ended = terminations | truncations
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            self._ended = np.zeros(self.num_envs, dtype=np.bool_)
        return {"text": tuple(self._texts)}, rewards, terminations, truncations, infos

    def _step_any(
        self, commands: list[str], rewards: Array, terminations: Array, truncations: Array
    ) -> Info:
        """Step through each environment's own `step`."""
        infos: Info = {}
        ended = self._ended.tolist()
        for i, env in enumerate(self.envs):
            if ended[i] and self.autoreset_mode == AutoresetMode.NEXT_STEP:
                observation, info = env.reset()
            else:
                observation, reward, terminated, truncated, info = env.step(commands[i])
                rewards[i], terminations[i], truncations[i] = reward, terminated, truncated
                if (terminated or truncated) and self.autoreset_mode == AutoresetMode.SAME_STEP:
                    final = {"final_obs": observation, "final_info": info}
                    infos = self._add_info(infos, final, i)
                    observation, info = env.reset()
            self._texts[i] = observation["text"]
            infos = self._add_info(infos, info, i)
        return infos

    def _step_plain(
        self, commands: list[str], rewards: Array, terminations: Array, truncations: Array
    ) -> Info:
        """The same with `TaskEnv.step` written out, and the infos' columns filled at once."""
        first = self.envs[0]
        original = first.reward_mode == "original"
        sparse = first.reward_mode == "sparse"
        max_steps = first.max_steps
        rendering = self.render_mode is not None
        next_step = self.autoreset_mode == AutoresetMode.NEXT_STEP
        same_step = self.autoreset_mode == AutoresetMode.SAME_STEP
        texts = self._texts
        ended = self._ended.tolist()
        invalid: list[int] = []
        won: list[int] = []
        fresh: list[tuple[int, Info]] = []
        infos: Info = {}
        for i, env in enumerate(self.envs):
            if next_step and ended[i]:
                observation, info = env.reset()
                texts[i] = observation["text"]
                fresh.append((i, info))
                continue
            state = env._state
            assert state is not None, "step() before reset()"
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
                observation, info = env.reset()
                texts[i] = observation["text"]
                fresh.append((i, info))
        if not original and not sparse and invalid:
            rewards[invalid] -= 0.1
        infos.update(self._columns(invalid, won))
        for i, info in fresh:
            # A game may be won, and its info is of the new episode, where it just began.
            self._add_info(infos, info, i)
        return infos

    def _columns(self, invalid: list[int], won: list[int]) -> Info:
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
        return columns | {f"_{key}": np.ones(n, dtype=np.bool_) for key in columns}

    # --- the rest ----------------------------------------------------------------------------

    def render(self) -> tuple[Any, ...]:
        """Return each environment's last exchange (``render_mode="ansi"``)."""
        return tuple(env.render() for env in self.envs)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call each environment's method, or get its attribute, by name."""
        found = [getattr(env, name) for env in self.envs]
        return tuple(each(*args, **kwargs) if callable(each) else each for each in found)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of each environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of each environment, to one value or to one each."""
        each = values if isinstance(values, (list, tuple)) else [values] * self.num_envs
        if len(each) != self.num_envs:
            raise ValueError(f"{len(each)} values for {self.num_envs} environments")
        for env, value in zip(self.envs, each, strict=True):
            setattr(env, name, value)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()
