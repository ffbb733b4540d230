"""Hierarchical Gymnasium environments for ALFWorld, WebShop and Sokoban.

Importing the package registers every id found in the registry's cards with Gymnasium and loads
nothing but numpy and gymnasium.
"""

from importlib import import_module
from typing import Any

from himac_envs._version import __version__
from himac_envs.blueprint import SUB_DONE, Blueprint, Subgoal
from himac_envs.errors import HiMACError
from himac_envs.hierarchy import (
    ExecutorView,
    HierarchicalEnv,
    OptionView,
    OracleExecutor,
    OraclePlanner,
    PlannerView,
)
from himac_envs.registry import register_all
from himac_envs.spaces import FreeText
from himac_envs.task import Outcome, TaskEnv, TextOnly

__all__ = [
    "SUB_DONE",
    "Blueprint",
    "ExecutorView",
    "FreeText",
    "HiMACError",
    "HierarchicalEnv",
    "OptionView",
    "OracleExecutor",
    "OraclePlanner",
    "Outcome",
    "PlannerView",
    "Subgoal",
    "TaskEnv",
    "TextOnly",
    "__version__",
]

register_all()


def __getattr__(name: str) -> Any:
    """`himac_envs.vector` and the other modules, loaded when they are first asked for."""
    if name in ("data", "multiagent", "testing", "vector"):
        return import_module(f"himac_envs.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
