"""HiMAC's agent layer: what a researcher imports, loaded when it is asked for.

`import himac_agents` loads neither torch nor transformers.

Example:
    >>> from himac_agents import Trainer, TrainConfig
    >>> Trainer(TrainConfig.preset("quickstart"), "runs/first").run()  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from himac_envs.errors import explained

if TYPE_CHECKING:
    from himac_agents.agents.agent import Executor, HiMACAgent, Planner
    from himac_agents.algorithms.methods import register_method
    from himac_agents.config import TrainConfig
    from himac_agents.evaluation.evaluate import evaluate
    from himac_agents.evaluation.loading import load_agent
    from himac_agents.policies.base import Policy, Sampling
    from himac_agents.policies.kinds import register_policy
    from himac_agents.prompts import ChatPrompts, register_prompts
    from himac_agents.rollouts.collect import collect
    from himac_agents.training.trainer import Trainer

_PLACES = {
    "ChatPrompts": "prompts",
    "Executor": "agents.agent",
    "HiMACAgent": "agents.agent",
    "Planner": "agents.agent",
    "Policy": "policies.base",
    "Sampling": "policies.base",
    "TrainConfig": "config",
    "Trainer": "training.trainer",
    "collect": "rollouts.collect",
    "evaluate": "evaluation.evaluate",
    "load_agent": "evaluation.loading",
    "register_method": "algorithms.methods",
    "register_policy": "policies.kinds",
    "register_prompts": "prompts",
}

__all__ = [
    "ChatPrompts",
    "Executor",
    "HiMACAgent",
    "Planner",
    "Policy",
    "Sampling",
    "TrainConfig",
    "Trainer",
    "collect",
    "evaluate",
    "load_agent",
    "register_method",
    "register_policy",
    "register_prompts",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    except ImportError as error:
        raise explained(error, f"himac_agents.{name}") from error


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
