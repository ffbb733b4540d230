"""The estimators that are compared: the credit of the register's own methods, switches included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from himac_agents.algorithms.credit import Credit, flat_credit
from himac_agents.algorithms.flat import Flat
from himac_agents.algorithms.himac import CoEvolution
from himac_agents.algorithms.methods import METHODS, resolve
from himac_agents.config import TrainConfig
from himac_agents.rollouts.types import Episode


@cache
def _config(method: str, settings: tuple[tuple[str, Any], ...]) -> TrainConfig:
    return resolve(TrainConfig(method=method, **dict(settings)))


@dataclass(frozen=True, slots=True)
class Estimator:
    """A method's credit for the executor's turns.

    Attributes:
        method: Its name in the register.
        settings: What is set otherwise than by the method itself.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def credit(self, episodes: Sequence[Episode]) -> Credit:
        """Tells each turn its advantage, by the object that training uses.

        Raises:
            TypeError: The method's iteration is of one's own kind.
        """
        config = _config(self.method, tuple(self.settings.items()))
        iterate = METHODS.find(self.method).iterate
        if isinstance(iterate, Flat):
            return flat_credit(config, episodes, iterate.advantage)
        if isinstance(iterate, CoEvolution):
            return iterate.executor_credit(config, episodes)
        raise TypeError(f"method {self.method!r} has no credit of its own to be measured")


#: By the name in tables. `himac`'s credit is GRPO's where every group has one blueprint, as here.
ESTIMATORS: Mapping[str, Estimator] = {
    "grpo": Estimator("grpo"),
    "himac": Estimator("himac"),
    "himac-option": Estimator("himac-option"),
    "gigpo": Estimator("gigpo"),
    "hgpo": Estimator("hgpo"),
    "beacon": Estimator("beacon"),
    "graphgpo": Estimator("crbc", {"graph_credit": "distance"}),
    "graphhca": Estimator("crbc", {"graph_credit": "hindsight"}),
    "crbc, K = 0": Estimator("crbc", {"graph_credit": "visits"}),
    "crbc": Estimator("crbc"),
    "himac-graph": Estimator("himac-graph"),
    "himac-graph, no fill": Estimator("himac-graph", {"graph_fill": False}),
    "himac-graph, sigma": Estimator("himac-graph", {"graph_sigma": True}),
    "himac-graph, observations": Estimator("himac-graph", {"graph_keys": "observation"}),
    "himac-graph, histories": Estimator("himac-graph", {"graph_keys": "history"}),
}
