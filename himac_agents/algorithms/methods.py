"""The methods: each a choice of who plans, what is compared with what, and who is updated when.

All of them share one rollout (`himac_agents.rollouts.collect`), one loss
(`himac_agents.algorithms.losses`) and one evaluator (`himac_agents.evaluation.evaluate`).
`himac_agents.algorithms.himac` asks the fields below, never for a method's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from himac_agents.config import TrainConfig
from himac_agents.prompts import resolve

MethodName = Literal[
    "himac",
    "himac-joint",
    "himac-no-subdone",
    "himac-random-blueprint",
    "grpo",
    "rloo",
    "gigpo",
]
FlatAdvantage = Literal["grpo", "rloo", "gigpo"]


@dataclass(frozen=True, slots=True)
class Method:
    """What makes a method.

    Attributes:
        title: Its name in tables.
        hierarchical: A planner above an executor; otherwise one flat agent.
        alternates: Planner and executor are updated in turns, each with the other frozen (the
            paper's co-evolution); otherwise both at once, from the same episodes.
        sub_done: The executor ends its sub-goals itself; otherwise a fixed number of steps does.
        best_blueprint: The executor practises on z*, the best of the M blueprints; otherwise on a
            random one of them.
        advantage: A flat method's advantage, in `himac_agents.algorithms.advantages`.
    """

    title: str
    hierarchical: bool = True
    alternates: bool = True
    sub_done: bool = True
    best_blueprint: bool = True
    advantage: FlatAdvantage = "grpo"


METHODS: dict[MethodName, Method] = {
    "himac": Method("HiMAC"),
    "himac-joint": Method("HiMAC, no co-evolution", alternates=False),
    "himac-no-subdone": Method("HiMAC, no <sub_done>", sub_done=False),
    "himac-random-blueprint": Method("HiMAC, random blueprint", best_blueprint=False),
    "grpo": Method("flat GRPO", hierarchical=False, advantage="grpo"),
    "rloo": Method("flat RLOO", hierarchical=False, advantage="rloo"),
    "gigpo": Method("flat GiGPO", hierarchical=False, advantage="gigpo"),
}


def method_of(config: TrainConfig) -> Method:
    """What a run's method does.

    Raises:
        ValueError: There is no such method.
    """
    found = METHODS.get(config.method)  # type: ignore[call-overload]
    if found is None:
        raise ValueError(f"method={config.method!r}: choose among {', '.join(METHODS)}")
    method: Method = found
    return method


def supervised_steps(config: TrainConfig) -> int:
    """Optimiser steps of the warm start, of a flat agent or of a hierarchy."""
    if not method_of(config).hierarchical and config.flat_warm_steps:
        return config.flat_warm_steps
    return config.warm_steps


def check(config: TrainConfig) -> TrainConfig:
    """Refuses settings that mean nothing to their method.

    Raises:
        ValueError: The message names the setting, its value and what it may be.
    """
    if not method_of(config).sub_done and not config.subgoal_budget:
        raise ValueError(
            f"method={config.method!r} ends sub-goals after a fixed number of steps: set it with "
            "subgoal_budget"
        )
    resolve(config.prompt)
    if supervised_steps(config) and not (config.demos or config.demo_file):
        raise ValueError("demos=0: a warm start of warm_steps > 0 needs demonstrations")
    if "supervised" in config.baselines and not supervised_steps(config):
        raise ValueError(
            "baselines: 'supervised' trains the warm start on, and warm_steps=0 makes none"
        )
    return config
