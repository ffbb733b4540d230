"""The batch engine as a Stable-Baselines3 ``VecEnv``.

SB3 takes its own kind of vector environment, not Gymnasium's. Single environments need nothing
from here (``make_vec_env("HiMAC-Sokoban-Pixels-v0", n_envs=4)``); a whole batch is one line::

    from stable_baselines3 import PPO
    from himac_envs.sokoban.sb3 import make_sb3

    model = PPO("CnnPolicy", make_sb3(64, room=(7, 7), boxes=2), n_steps=64)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from himac_envs.sokoban.vector import SokobanVectorEnv

try:
    from stable_baselines3.common.vec_env.base_vec_env import VecEnv
except ImportError:
    raise ImportError("the SB3 adapter needs it: pip install stable-baselines3") from None

__all__ = ["SB3SokobanVecEnv", "make_sb3"]


def make_sb3(num_envs: int, **settings: Any) -> SB3SokobanVecEnv:
    """Build the batch engine behind SB3's interface; settings as for `SokobanPixelsEnv`."""
    return SB3SokobanVecEnv(
        SokobanVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **settings)
    )


class SB3SokobanVecEnv(VecEnv):
    """A `SokobanVectorEnv` as SB3 wants it: same-step resets, one info dict an environment.

    Args:
        env: A batch engine with ``autoreset_mode=SAME_STEP``.
    """

    def __init__(self, env: SokobanVectorEnv) -> None:
        if env.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise ValueError("SB3 resets in the same step: pass autoreset_mode='SameStep'")
        self.env = env
        self.render_mode = env.render_mode
        self._actions: Any = None
        self._seed: int | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Begin every episode anew; uses the seed set by `seed`, once."""
        frames, infos = self.env.reset(seed=self._seed)
        self._seed = None
        self.reset_infos = [{"task_id": str(task_id)} for task_id in infos["task_id"]]
        return frames

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Seed the next `reset`: environment *i* gets ``seed + i``."""
        self._seed = seed
        return [None if seed is None else seed + i for i in range(self.num_envs)]

    def step_async(self, actions: Any) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, Any, Any, list[dict[str, Any]]]:
        """Play the kept actions."""
        frames, reward, won, truncated, infos = self.env.step(self._actions)
        done = won | truncated
        answers: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done).tolist():
            answers[i] = {
                "terminal_observation": infos["final_obs"][i],
                "TimeLimit.truncated": bool(truncated[i]),
                "is_success": bool(won[i]),
                "task_id": str(infos["final_info"]["task_id"][i]),
            }
        return frames, reward.astype(np.float32), done, answers

    def close(self) -> None:
        """Close the engine."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the engine, once for each environment asked for."""
        value = getattr(self.env, attr_name)
        return [value for _ in self._chosen(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: the environments of a batch share their settings."""
        raise AttributeError(
            f"{attr_name!r} cannot be set on single environments of a batch: build it with other "
            "settings"
        )

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Refuse: the environments of a batch are no objects of their own."""
        raise AttributeError(f"the batch engine has no single environments to call {method_name!r}")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Return False for each: nothing is wrapped."""
        return [False for _ in self._chosen(indices)]

    def get_images(self) -> Sequence[Any]:
        """Return a frame of each environment."""
        return list(self.env.render() or [])

    def _chosen(self, indices: Any) -> Sequence[int]:
        if indices is None:
            return range(self.num_envs)
        return [indices] if isinstance(indices, int) else list(indices)
