"""Environments that are made once and used again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from himac_agents.config import TrainConfig
from himac_agents.rollouts.types import Episode, EpisodeRequest
from himac_envs import registry


class EnvPool:
    """Environments that are made once and used again and again, with all their wrappers.

    Args:
        make: Makes one environment.
        size: How many play at the same time.

    Raises:
        ValueError: That is none.
    """

    def __init__(self, make: Callable[[], gym.Env[Any, Any]], size: int) -> None:
        if size < 1:
            raise ValueError(f"lanes={size}: must be at least 1")
        self._make = make
        self.size = size
        self._envs: list[gym.Env[Any, Any] | None] = []

    def __getitem__(self, index: int) -> gym.Env[Any, Any]:
        while len(self._envs) <= index:
            self._envs.append(None)
        env = self._envs[index]
        if env is None:
            env = self._envs[index] = self._make()
        return env

    def discard(self, index: int) -> None:
        """Drops an environment that has crashed; the next use makes a new one."""
        self._envs[index] = None

    def task_ids(self, split: str | None = None) -> Sequence[str]:
        """The ids of a split's tasks (see `TaskEnv.task_ids`)."""
        ids: Sequence[str] = self[0].unwrapped.task_ids(split)  # type: ignore[attr-defined]
        return ids


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be played elsewhere.

    Attributes:
        request: The episode.
        seed: See `himac_agents.rollouts.episode.Play`.
        plans: The planner's temperature.
        acts: The executor's temperature.
        proposal: The planner is asked for its blueprint, and nothing is executed.
        lines: Of a blueprint it is told which of its tokens write which sub-goal.
        stop_at_failure: See `Play`.
        state_keys: See `Play`.
    """

    request: EpisodeRequest
    seed: int = 0
    plans: float = 1.0
    acts: float = 1.0
    proposal: bool = False
    lines: bool = False
    stop_at_failure: bool = False
    state_keys: bool = False


class AwayPool(EnvPool):
    """Environments that are elsewhere, with whoever plays them.

    `himac_agents.rollouts.collect` hands over what is to be played, and nothing is played here.

    Args:
        play: Has jobs played; the episodes in order.
        task_ids: Gives a split's tasks.
    """

    def __init__(
        self,
        play: Callable[[Sequence[Job]], list[Episode]],
        task_ids: Callable[[str | None], Sequence[str]],
    ) -> None:
        super().__init__(_nowhere, 1)
        self.play, self._task_ids = play, task_ids

    def task_ids(self, split: str | None = None) -> Sequence[str]:
        """See `EnvPool.task_ids`."""
        return self._task_ids(split)


def _nowhere() -> gym.Env[Any, Any]:
    raise ValueError("these environments are elsewhere: `collect` and `propose` have them played")


def make_pool(config: TrainConfig, *, flat: bool, sub_done: bool = True) -> EnvPool:
    """The environments of a run.

    Raises:
        ValueError: There is no such environment, it is of the other kind, or it lacks what agents
            need; see `himac_envs.registry.find_env`.
    """
    arguments = config.env_arguments()
    found = registry.find_env(config.env_id(flat=flat), **arguments)
    if not (found.flat if flat else found.hierarchical):
        setting, wanted = ("flat_env", "flat") if flat else ("env", "hierarchical")
        raise ValueError(
            f"{setting}={found.id!r} is {found.kind}, and {config.method!r} plays a {wanted} one: "
            "`himac list` shows them"
        )
    if not flat:
        arguments.update(hierarchy_arguments(config, sub_done))
    return EnvPool(lambda: registry.make(found.id, **arguments), config.lanes)


def hierarchy_arguments(config: TrainConfig, sub_done: bool) -> dict[str, Any]:
    """What a run's settings ask of the hierarchical environment, where they differ from its own.

    An agent is to be evaluated with what it was trained with.
    """
    found: dict[str, Any] = {}
    if config.subgoal_budget:
        found["subgoal_budget"] = config.subgoal_budget
    if config.replans:
        found["replans"] = config.replans
    if not sub_done:
        found["sub_done"] = False
    return found
