"""The methods: each a choice of who plans, what is compared with what, and who is updated when.

All of them share one rollout (`himac_agents.rollout`), one loss (`himac_agents.losses`) and one
evaluator (`himac_agents.evaluate`). `himac_agents.coevolution` asks the fields below, never for a
method's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
        advantage: A flat method's advantage, in `himac_agents.advantages`.
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
