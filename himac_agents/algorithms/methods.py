"""The register of methods: who plans, what is compared with what, who is updated when.

All of them share one rollout (`himac_agents.rollouts.collect`), one loss
(`himac_agents.algorithms.losses`) and one evaluator (`himac_agents.evaluation.evaluate`).

`himac` is the paper's method as far as it is known: its full text was not at hand, the formulas are
reconstructed from its abstract and from summaries. `himac-option` is this project's own: credit a
sub-goal at a time, and an execution that ends with its first failed sub-goal. Both, and the
ablations, are switches of one iteration (`himac_agents.algorithms.himac`): a setting that is given
replaces the method's own, so that any ablation can be run with either's credit.

One's own method is added by `register_method`, or by an entry point of the group `himac.methods`
that names a `Method`; the command line then knows its name.

Example:
    >>> def centred(config, episodes):
    ...     mean = sum(e.reward for e in episodes) / len(episodes)
    ...     return [e.reward - mean for e in episodes]
    >>> register_method("centred", advantage=centred).hierarchical
    False

Nothing here loads torch: evaluation and reports ask for names and titles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from himac_agents import prompts
from himac_agents.algorithms import credit, hiper, stepwise
from himac_agents.algorithms.flat import Flat
from himac_agents.algorithms.himac import CoEvolution, ExecutorCredit, Joint, PlannerCredit
from himac_agents.algorithms.iteration import Iteration, Setting
from himac_agents.config import TrainConfig
from himac_agents.policies.kinds import POLICIES
from himac_agents.register import Register

#: What a method may have values of its own for, and what holds where it has none.
COMMON: Mapping[str, Any] = MappingProxyType(
    {
        "executor_advantage": "trajectory",
        "stop_at_failure": False,
        "kl": 0.0,
        "clip": 0.2,
        "clip_high": 0.28,
        "episode_weight": 1.0,
        "blueprint_credit": "options",
        "graph_ends": "episode",
        "graph_fill": True,
        "graph_sigma": True,
        "graph_weight": 5.0,
        "credit_cut_subgoals": False,
    }
)
_PAPER = {"kl": 0.01, "clip_high": 0.2}
_GRAPH = {"episode_weight": 0.0, "graph_sigma": False}
_OPTION = {"executor_advantage": "option", "stop_at_failure": True}
_BESIDE = {
    **_OPTION,
    "blueprint_credit": "whole",
    "graph_ends": "subgoal",
    "graph_fill": False,
    "graph_weight": 1.0,
}
_BY_GRAPH = CoEvolution(
    stepwise.graph_planner_credit, stepwise.graph_executor_credit, state_keys=True, lines=True
)


@dataclass(frozen=True, slots=True)
class Method:
    """What makes a method.

    Attributes:
        title: Its name in tables.
        iterate: One iteration: (setting, task ids, its number from 0) -> what it did.
            `CoEvolution`, `Joint` and `Flat` are made of parts that can be exchanged; a function
            of one's own may do all of it.
        hierarchical: A planner above an executor; otherwise one flat agent.
        sub_done: The executor ends its sub-goals itself; otherwise a fixed number of steps does.
        defaults: Values of its own for settings that are None unless given; see `COMMON`.
        critic: Makes a module that learns beside a policy from its hidden states; see
            `himac_agents.algorithms.critic`. None: the method needs none.
    """

    title: str
    iterate: Callable[[Setting, Sequence[str], int], Iteration]
    hierarchical: bool = True
    sub_done: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)
    critic: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        if strange := sorted(set(self.defaults) - set(COMMON)):
            raise ValueError(
                f"a method has no values of its own for {', '.join(strange)}: only for "
                f"{', '.join(COMMON)}"
            )


#: Every method by name; `register_method` adds to it.
METHODS: Register[Method] = Register(
    "method",
    "himac.methods",
    {
        "himac": Method("HiMAC", CoEvolution(), defaults=_PAPER),
        "himac-option": Method("HiMAC, option credit", CoEvolution(), defaults=_OPTION),
        "himac-joint": Method("HiMAC, no co-evolution", Joint(), defaults=_PAPER),
        "himac-no-subdone": Method(
            "HiMAC, no <sub_done>",
            CoEvolution(),
            sub_done=False,
            defaults={**_PAPER, "credit_cut_subgoals": True},
        ),
        "himac-random-blueprint": Method(
            "HiMAC, random blueprint", CoEvolution(practised="random"), defaults=_PAPER
        ),
        "himac-all-blueprints": Method(
            "HiMAC, all blueprints", CoEvolution(practised="all"), defaults=_PAPER
        ),
        "grpo": Method("flat GRPO", Flat(credit.grpo), hierarchical=False),
        "rloo": Method("flat RLOO", Flat(credit.rloo), hierarchical=False),
        "gigpo": Method("flat GiGPO", Flat(credit.gigpo), hierarchical=False),
        "crbc": Method("flat CRBC", Flat(stepwise.crbc, state_keys=True), hierarchical=False),
        "hgpo": Method("flat HGPO", Flat(stepwise.hgpo), hierarchical=False),
        "beacon": Method(
            "HiMAC, milestone credit", CoEvolution(executor_credit=stepwise.beacon_credit)
        ),
        "himac-graph": Method("HiMAC, graph credit", _BY_GRAPH, defaults=_GRAPH),
        "graph-beside-options": Method(
            "HiMAC, graph beside option credit", _BY_GRAPH, defaults=_BESIDE
        ),
        "hiper": Method(
            "HiMAC, critics",
            CoEvolution(hiper.planner_credit, hiper.executor_credit, critics=True, lines=True),
            critic=hiper.critic,
        ),
    },
    Method,
)


def register_method(
    name: str,
    method: Method | None = None,
    *,
    title: str | None = None,
    advantage: credit.FlatAdvantage | None = None,
    planner_credit: PlannerCredit | None = None,
    executor_credit: ExecutorCredit | None = None,
    defaults: Mapping[str, Any] | None = None,
    critic: Callable[[Any], Any] | None = None,
    replace: bool = False,
) -> Method:
    """Adds a method and returns it: a whole one, or one that differs from ours by a credit.

    Args:
        name: What `method = "..."` will call it.
        method: The whole of it; then nothing else is said but `replace`.
        title: Its name in tables; None: `name`.
        advantage: A flat method: how episodes are compared. A function of the settings and of the
            episodes (crashed ones are left out) that gives each episode an advantage, or each of
            its turns one. `episode.request.group` tells which episodes belong together.
        planner_credit: A hierarchical method: see `himac_agents.algorithms.credit.planner_credit`.
        executor_credit: A hierarchical method: see `executor_credit` there.
        defaults: See `Method`.
        critic: See `Method`.
        replace: Whether a method of this name may be there already.

    Raises:
        ValueError: There is one of this name, or it is not said what the method is.
    """
    if method is not None:
        if any(x is not None for x in (title, advantage, planner_credit, executor_credit, critic)):
            raise ValueError(f"method {name!r}: a whole Method takes no further arguments")
        return METHODS.add(name, method, replace=replace)
    if (advantage is None) == (planner_credit is None and executor_credit is None):
        raise ValueError(
            f"method {name!r}: give a Method, or an advantage (a flat method), or planner_credit "
            "or executor_credit (a hierarchical one)"
        )
    iterate: Flat | CoEvolution
    if advantage is not None:
        iterate = Flat(advantage)
    else:
        iterate = CoEvolution(
            planner_credit or credit.planner_credit, executor_credit or credit.executor_credit
        )
    flat, own = advantage is not None, defaults or {}
    made = Method(title or name, iterate, hierarchical=not flat, defaults=own, critic=critic)
    return METHODS.add(name, made, replace=replace)


def method_of(config: TrainConfig) -> Method:
    """What a run's method does; a ValueError where there is no such method."""
    try:
        return METHODS.find(config.method)
    except ValueError as error:
        raise ValueError(f"method={config.method!r}: {error}") from None


def resolve(config: TrainConfig) -> TrainConfig:
    """The settings with the method's own values wherever none was given.

    Raises:
        ValueError: There is no such method.
    """
    own = {**COMMON, **method_of(config).defaults}
    return config.replace(**{k: v for k, v in own.items() if getattr(config, k) is None})


def supervised_steps(config: TrainConfig) -> int:
    """Optimiser steps of the warm start, of a flat agent or of a hierarchy."""
    if not method_of(config).hierarchical and config.flat_warm_steps:
        return config.flat_warm_steps
    return config.warm_steps


def check(config: TrainConfig) -> TrainConfig:
    """Refuses settings that mean nothing to their method; returns them as they are run (`resolve`).

    Raises:
        ValueError: The message names the setting, its value and what it may be.
    """
    config = resolve(config)
    if not method_of(config).sub_done and not config.subgoal_budget:
        raise ValueError(
            f"method={config.method!r} ends sub-goals after a fixed number of steps: set it with "
            "subgoal_budget"
        )
    for name, find in (("prompt", prompts.resolve), ("policy", POLICIES.find)):
        try:
            find(value := getattr(config, name))
        except ValueError as error:
            raise ValueError(f"{name}={value!r}: {error}") from None
    if supervised_steps(config) and not (config.demos or config.demo_file):
        raise ValueError("demos=0: a warm start of warm_steps > 0 needs demonstrations")
    if "supervised" in config.baselines and not supervised_steps(config):
        raise ValueError(
            "baselines: 'supervised' continues the warm start, and with warm_steps=0 there is none"
        )
    within = method_of(config).hierarchical and config.graph_ends == "subgoal"
    if config.graph_credit == "distance" and config.graph_pays == "reward" and not within:
        raise ValueError(
            "graph_credit='distance' counts the steps to a solved end and reads no rewards: with "
            "graph_pays='reward' set graph_credit to 'system', 'visits' or 'hindsight', or leave "
            "graph_pays='success'"
        )
    halves = [name for name in config.baselines if name in ("oracle-planner", "oracle-executor")]
    if halves and not method_of(config).hierarchical:
        raise ValueError(
            f"baselines={halves}: method={config.method!r} is flat and has no planner or executor"
        )
    return config
