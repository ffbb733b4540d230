"""Credit for models that have learned nothing: rewards and advantages by whim."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from himac_agents.algorithms.credit import planner_credit
from himac_agents.config import TrainConfig


def whims(config: TrainConfig, plans: Any, runs: Any) -> Any:
    """Blueprints of a model that writes none are alike: all but the first get an advantage."""
    found, returns = planner_credit(config, plans, runs)
    for place, segment in enumerate(found.segments):
        for turn in segment.turns:
            turn.advantage = (-0.5) ** place if place else 0.0
    return found, returns


class Whim(gym.Wrapper[Any, Any, Any, Any]):
    """Rewards what it likes: a model that has learned nothing earns differently each time.

    Args:
        env: What is rewarded.
        seed: What it likes; environments beside each other are to like different things.
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int = 5) -> None:
        super().__init__(env)
        self._likes = np.random.default_rng(seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward) + self._likes.random(), terminated, truncated, info
