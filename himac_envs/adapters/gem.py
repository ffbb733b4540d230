"""GEM: the environments under `gem.make`, with `spawn` and vectors.

Install: ``pip install himac gem-llm``.

Use::

    import gem
    import himac_envs.adapters.gem  # registers the ids

    env = gem.make("HiMAC-ALFWorld-Flat-v0", split="train")
    text, info = env.reset(seed=0)
    text, reward, terminated, truncated, info = env.step(model(text))
    batch = gem.make_vec(["HiMAC-Sokoban-v0"] * 8, seed=7)

- Blueprint, sub-goals, ``<sub_done>``: on a hierarchical id the first answer is the blueprint; from
  then on each text ends with the current sub-goal, and ``<sub_done>`` begins the next.
- Rewards: of the step, as the environment's ``reward=`` has them.
- Admissible commands: ``info["admissible"]``; below each text with ``list_admissible=True``.
- Invalid text: an invalid command; ``info["invalid"]`` is True and it costs a step.
- After the end: `EpisodeOverError`, as GEM asks for ``reset`` then. GEM's vectors reset by
  themselves, in the same step.
- Pictures: ``info["image"]``, where the environment was made with ``image=True``.
- Groups: members are spawned (``env.spawn(same_state=True)`` after a reset), or reset with one
  seed or one ``task_id``. `gem.make_vec` gives each environment a seed of its own.
- Time limits: ``truncated``, at the environment's ``max_steps``.
- Many at once: ``async_mode=True`` steps in threads; environments share nothing that changes.
- Closing: ``close()``; nothing is left open without it.

GEM's own base class seeds Python's, NumPy's and torch's global generators in ``reset``; these
environments do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from himac_envs.adapters.errors import MissingStackError
from himac_envs.adapters.session import Session
from himac_envs.registry import env_cards

try:
    import gem.envs.registration
    from gem.core import Env
except ImportError as error:
    raise MissingStackError("gem", "pip install gem-llm", error) from error


class HiMACGemEnv(Env):
    """One of the suite's environments, as GEM wants it.

    Args:
        env_id: A flat or a hierarchical id, or another name of `himac_envs.registry.find_id`.
        seed: Of the first reset that brings none; `gem.make_vec` gives each environment its own.
        **kwargs: For `Session` and the environment.
    """

    def __init__(self, env_id: str, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__()
        self._use(Session(env_id, **kwargs), seed)

    def _use(self, session: Session, seed: int | None) -> None:
        self._session = session
        self._seed = seed
        self._rng = np.random.default_rng(seed)

    @property
    def session(self) -> Session:
        """The session that is played."""
        return self._session

    def reset(
        self, seed: int | None = None, task_id: str | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Draws the task.
            task_id: The task itself.
        """
        seed = self._seed if seed is None else seed
        self._seed = None
        text = self._session.reset(task_id, seed)
        return text, self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Give one answer, as a model wrote it."""
        text = self._session.step(action)
        played = self._session
        return text, played.reward, played.terminated, played.truncated, self._info()

    def _info(self) -> dict[str, Any]:
        info = dict(self._session.info)
        if self._session.image is not None:
            info["image"] = self._session.image
        return info

    def sample_random_action(self) -> str:
        """Return one of the admissible commands; the task's goal where a blueprint is wanted."""
        offered = self._session.admissible
        if self._session.planning or not offered:
            return f"1. {self._session.goal}"
        return offered[int(self._rng.integers(len(offered)))]

    def spawn(self, same_state: bool = False, **kwargs: Any) -> HiMACGemEnv:
        """Return another environment like this one.

        Args:
            same_state: At the same place of the same episode.
            **kwargs: Settings in which it differs.
        """
        seed = kwargs.pop("seed", None)
        other = HiMACGemEnv.__new__(HiMACGemEnv)
        Env.__init__(other)
        other._use(self._session.fork(state=same_state, **kwargs), seed)
        return other

    def close(self) -> None:
        """Close the environment."""
        self._session.close()


def register() -> None:
    """Register every id of the suite that is played in text; those that are there are left."""
    for card in env_cards().values():
        if card.kind != "pixels" and card.id not in gem.envs.registration.ENV_REGISTRY:
            entry = "himac_envs.adapters.gem:make"
            gem.envs.registration.register(card.id, entry, himac_id=card.id)


def make(himac_id: str, **kwargs: Any) -> HiMACGemEnv:
    """Make the environment behind an id; what `gem.make` calls."""
    return HiMACGemEnv(himac_id, **kwargs)


register()
