"""The option interface: `HierarchicalEnv`, its three views and the oracle at either level."""

from himac_envs.hierarchy.env import (
    ACT,
    PLAN,
    HierarchicalEnv,
    load_entry_point,
    make_hierarchical,
)
from himac_envs.hierarchy.records import HierarchySnapshot, OptionState
from himac_envs.hierarchy.views import (
    Actor,
    ExecutorView,
    OptionView,
    OracleExecutor,
    OraclePlanner,
    PlannerView,
    hierarchical,
)

__all__ = [
    "ACT",
    "PLAN",
    "Actor",
    "ExecutorView",
    "HierarchicalEnv",
    "HierarchySnapshot",
    "OptionState",
    "OptionView",
    "OracleExecutor",
    "OraclePlanner",
    "PlannerView",
    "hierarchical",
    "load_entry_point",
    "make_hierarchical",
]
