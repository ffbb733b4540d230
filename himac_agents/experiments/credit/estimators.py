"""The estimators that are compared: the credit of the register's own methods, switches included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np

from himac_agents.algorithms.batching import by_group, segments_of
from himac_agents.algorithms.credit import Credit, flat_credit
from himac_agents.algorithms.flat import Flat
from himac_agents.algorithms.graphs import Graph, Path, returns_to_go
from himac_agents.algorithms.himac import CoEvolution
from himac_agents.algorithms.methods import METHODS, resolve
from himac_agents.config import TrainConfig
from himac_agents.rollouts.types import Episode


@cache
def _config(method: str, settings: tuple[tuple[str, Any], ...]) -> TrainConfig:
    return resolve(TrainConfig(method=method, **dict(settings)))


class Crediting(Protocol):
    """Whatever tells turns their advantages."""

    def credit(self, episodes: Sequence[Episode]) -> Sequence[Episode]:
        """Tells them, and returns the episodes that were told: others are not compared."""
        ...


@dataclass(frozen=True, slots=True)
class Estimator:
    """A method's credit for the executor's turns.

    Attributes:
        method: Its name in the register.
        settings: What is set otherwise than by the method itself.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def credit(self, episodes: Sequence[Episode]) -> Sequence[Episode]:
        """Tells each turn its advantage, by the object that training uses.

        Returns:
            The episodes that were told: all of them.

        Raises:
            TypeError: The method's iteration is of one's own kind.
        """
        config = _config(self.method, tuple(self.settings.items()))
        iterate = METHODS.find(self.method).iterate
        if isinstance(iterate, Flat):
            flat_credit(config, episodes, iterate.advantage)
        elif isinstance(iterate, CoEvolution):
            if iterate.critics:
                _judge(config, [], episodes)
            iterate.executor_credit(config, episodes)
        else:
            raise TypeError(f"method {self.method!r} has no credit of its own to be measured")
        return episodes

    def credit_lines(self, plans: Sequence[Episode], runs: Sequence[Episode]) -> Credit:
        """The same for the planner's turns and the lines in them; `runs` executed `plans`.

        Raises:
            TypeError: The method has no planner.
        """
        config = _config(self.method, tuple(self.settings.items()))
        iterate = METHODS.find(self.method).iterate
        if not isinstance(iterate, CoEvolution):
            raise TypeError(f"method {self.method!r} has no planner's credit to be measured")
        if iterate.critics:
            _judge(config, plans, runs)
        return iterate.planner_credit(config, plans, runs)[0]


def _judge(config: TrainConfig, plans: Sequence[Episode], runs: Sequence[Episode]) -> None:
    """In the place of critics: a table of the mean returns to go of these episodes.

    By (state, sub-goal), and for the planner by task. It is what a critic with a cell for each
    could learn from them at best.
    """
    for places in by_group(runs):
        own = [segments_of([runs[i]], "executor") for i in places]
        turns = [[turn for segment in each for turn in segment.turns] for each in own]
        names = [[segment.subgoal for segment in each for _ in segment.turns] for each in own]
        graph = Graph.of(
            [
                Path(
                    [(turn.state, name) for turn, name in zip(walk, named, strict=True)],
                    [turn.action for turn in walk],
                    0.0,
                    [turn.reward for turn in walk],
                )
                for walk, named in zip(turns, names, strict=True)
            ]
        )
        to_go = returns_to_go(graph, config.gae_discount)
        means = graph.by_state(to_go)[graph.state]
        for walk, values in zip(turns, graph.split(means), strict=True):
            for turn, value in zip(walk, values, strict=True):
                turn.value = float(value)
        first = float(np.mean([part[0] for part in graph.split(to_go)]))
        for plan in (plans[i] for i in places if plans):
            for turn in plan.turns():
                turn.value = first


#: Of the executor's credit, by the name in tables. `himac`'s is GRPO's where every group has one
#: blueprint, as here.
ESTIMATORS: Mapping[str, Estimator] = {
    "grpo": Estimator("grpo"),
    "himac": Estimator("himac"),
    "himac-option": Estimator("himac-option"),
    "gigpo": Estimator("gigpo"),
    "hgpo": Estimator("hgpo"),
    "beacon": Estimator("beacon"),
    "hiper, a table": Estimator("hiper"),
    "graphgpo": Estimator("crbc", {"graph_credit": "distance"}),
    "graphhca": Estimator("crbc", {"graph_credit": "hindsight"}),
    "crbc, K = 0": Estimator("crbc", {"graph_credit": "visits"}),
    "crbc": Estimator("crbc"),
    "himac-graph": Estimator("himac-graph"),
    "himac-graph, no fill": Estimator("himac-graph", {"graph_fill": False}),
    "himac-graph, sigma": Estimator("himac-graph", {"graph_sigma": True}),
    "himac-graph, clock": Estimator("himac-graph", {"graph_clock": 10}),
    "himac-graph, centred": Estimator("himac-graph", {"graph_centred": True}),
    "himac-graph, sub-goals": Estimator(
        "himac-graph", {"graph_ends": "subgoal", "graph_centred": True}
    ),
    "graph-beside-options": Estimator("graph-beside-options"),
    "himac-graph, observations": Estimator("himac-graph", {"graph_keys": "observation"}),
    "himac-graph, histories": Estimator("himac-graph", {"graph_keys": "history"}),
}
#: The one that restores states, only where the policy is scripted; see `vine.py` beside this.
VINE = "vine"
#: Of the planner's credit, line by line. `himac-option`'s is `himac`'s.
LINE_ESTIMATORS: Mapping[str, Estimator] = {
    "himac": Estimator("himac"),
    "hiper, a table": Estimator("hiper"),
    "himac-graph": Estimator("himac-graph"),
    "himac-graph, observations": Estimator("himac-graph", {"graph_keys": "observation"}),
    "himac-graph, prefixes": Estimator("himac-graph", {"blueprint_credit": "prefixes"}),
}
