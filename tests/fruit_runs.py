"""Runs on the toy environment: its ids, with and without a hierarchy, and settings that are quick.

The ids name this module, so that Gymnasium imports it wherever they are made, also in a process of
a study's own: nothing has to be registered there, and none of the project's ids is touched.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from rich.console import Console
from toy import FruitEnv

from himac_agents.config import TrainConfig
from himac_envs.hierarchy import HierarchicalEnv

QUIET = Console(quiet=True)

CONFIG = TrainConfig(
    method="himac-option",
    env="fruit_runs:Fruit-v0", flat_env="fruit_runs:Fruit-Flat-v0", expert="oracle", demos=8,
    warm_steps=30, warm_tokens=256, hidden=32, layers=2, heads=2, feedforward=64, tasks=3,
    blueprints=3, executions=4, iterations=4, eval_episodes=5, lanes=16, checkpoint_every=2,
    constrained=True, max_command_tokens=8, max_blueprint_tokens=24, threads=1,
)  # fmt: skip


#: Settings of runs of a small chat model in which both phases learn: fruit is taken or not within
#: two steps.
BRIEF: dict[str, Any] = {
    "policy": "hf", "env": "fruit_runs:Brief-v0", "flat_env": "fruit_runs:Brief-Flat-v0",
    "expert": "oracle", "demos": 2, "warm_tokens": 128, "blueprints": 3, "executions": 4,
    "eval_episodes": 2, "lanes": 4, "lr": 1e-2, "constrained": True, "max_command_tokens": 6,
    "dtype": "float32", "max_blueprint_tokens": 8, "threads": 1,
    "executor_advantage": "trajectory", "greedy_execution": False, "least_minibatch": 1,
    "prompt": "compact", "loggers": (),
}  # fmt: skip


def _flat(**kwargs: Any) -> FruitEnv:
    return FruitEnv(max_steps=12, **kwargs)


def _hierarchical(**kwargs: Any) -> HierarchicalEnv:
    return HierarchicalEnv(_flat(), **kwargs)


def _brief(data: str = "", **kwargs: Any) -> FruitEnv:
    """Episodes of two steps, for models that take their time; `data` as presets name it."""
    return FruitEnv(max_steps=2, **kwargs)


def _brief_hierarchical(data: str = "", **kwargs: Any) -> HierarchicalEnv:
    return HierarchicalEnv(_brief(), **kwargs)


gym.register("Fruit-v0", entry_point=_hierarchical, disable_env_checker=True)
gym.register("Fruit-Flat-v0", entry_point=_flat, disable_env_checker=True)
gym.register("Brief-v0", entry_point=_brief_hierarchical, disable_env_checker=True)
gym.register("Brief-Flat-v0", entry_point=_brief, disable_env_checker=True)
