"""The same hierarchy as a PettingZoo AEC environment: ``planner_0`` and ``executor_0``.

Needs pettingzoo: ``pip install 'himac[multiagent]'``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
from gymnasium import spaces

from himac_envs import registry
from himac_envs.errors import MissingDependencyError
from himac_envs.hierarchy import PLAN, HierarchicalEnv, hierarchical
from himac_envs.spaces import FreeText

try:
    from pettingzoo import AECEnv
except ImportError as error:
    raise MissingDependencyError(
        "pettingzoo", "the multi-agent form of the hierarchy", "multiagent"
    ) from error

PLANNER, EXECUTOR = "planner_0", "executor_0"


class HierarchicalAEC(AECEnv):  # type: ignore[misc]
    """Planner and executor as two agents that take turns.

    ``planner_0`` moves in phase plan (its action is a blueprint), ``executor_0`` in phase act. Both
    observe the same dictionary, both get the task's reward, and both end with the episode.

    Args:
        env: A hierarchical environment, or a name of one (`himac_envs.registry.find_id`).
        **kwargs: For the environment where ``env`` is a name.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "himac_hierarchy_v0",
        "render_modes": ["ansi", "rgb_array"],
        "is_parallelizable": False,
    }

    def __init__(self, env: gym.Env[Any, Any] | str, **kwargs: Any) -> None:
        super().__init__()
        made = registry.make(env, **kwargs) if isinstance(env, str) else env
        # Played with all its wrappers; whose turn it is, the hierarchy in it tells.
        self.env: gym.Env[Any, Any] = made
        self.core: HierarchicalEnv = hierarchical(made)
        self.render_mode = self.env.render_mode
        self.possible_agents = [PLANNER, EXECUTOR]
        self._observation_space = self.env.observation_space
        self._action_spaces = {PLANNER: FreeText(), EXECUTOR: FreeText()}
        self.observation_spaces: dict[str, spaces.Space[Any]] = {
            a: self._observation_space for a in self.possible_agents
        }
        self.action_spaces: dict[str, spaces.Space[Any]] = dict(self._action_spaces)
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Return the space of observations: the hierarchy's, the same object at each call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """Return the agent's space of actions, the same object at each call."""
        return self.action_spaces[agent]

    def observe(self, agent: str) -> Any:
        """Return what the agent sees now."""
        return dict(self._observed)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Begin an episode; the planner moves first.

        Of ``options`` only "task_id" is read: PettingZoo's own test passes keys of its own.
        """
        chosen = {k: v for k, v in (options or {}).items() if k == "task_id"}
        self._observed, info = self.env.reset(seed=seed, options=chosen)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {a: dict(info) for a in self.agents}
        self.agent_selection = PLANNER

    def step(self, action: str | None) -> None:
        """Take the selected agent's action."""
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[agent] = 0.0
        self._observed, reward, terminated, truncated, info = self.env.step(action or "")
        for a in self.agents:
            self.rewards[a] = float(reward)
            self.terminations[a] = terminated
            self.truncations[a] = truncated
            self.infos[a] = dict(info)
        self.agent_selection = PLANNER if self.core.phase == PLAN else EXECUTOR
        self._accumulate_rewards()

    def render(self) -> Any:
        """Return the environment's rendering."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def env(env_id: str = "HiMAC-ALFWorld-v0", **kwargs: Any) -> HierarchicalAEC:
    """Build the AEC environment of a hierarchical id, as PettingZoo names its factories."""
    return HierarchicalAEC(env_id, **kwargs)
