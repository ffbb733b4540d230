"""What the hierarchy keeps beside the task: the option in progress, and whole states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from himac_envs.blueprint import Blueprint
from himac_envs.task import Snapshot


@dataclass(frozen=True, slots=True)
class OptionState:
    """The option (sub-goal execution) in progress."""

    index: int
    subgoal: str
    steps: int = 0
    reward: float = 0.0


@dataclass(frozen=True, slots=True)
class HierarchySnapshot:
    """The state of the hierarchy and of the task below it."""

    task: Snapshot
    phase: int
    blueprint: Blueprint | None
    option: OptionState | None
    tail: bool
    replans_left: int
    options_begun: int
    text: str
    task_info: dict[str, Any]
    done: bool
    kept: bool = True
