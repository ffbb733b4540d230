"""The flat methods' iteration: one agent without a planner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from himac_agents.algorithms.credit import Credit, FlatAdvantage, flat_credit
from himac_agents.algorithms.iteration import (
    Draw,
    Iteration,
    Setting,
    noted,
    replace_dead,
    update,
)
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.types import Episode


@dataclass(frozen=True, slots=True)
class Flat:
    """GRPO and its like: N episodes a task on the flat environment, compared with each other.

    Attributes:
        advantage: How they are compared: `himac_agents.algorithms.credit.grpo`, say.
        state_keys: Whether it compares states by the environment's keys.
    """

    advantage: FlatAdvantage
    state_keys: bool = False

    def __call__(self, at: Setting, task_ids: Sequence[str], number: int = 0) -> Iteration:
        """One iteration."""
        config, done = at.config, Iteration()
        episodes: list[Episode] = []

        def play(tasks: Draw) -> Credit:
            requests = tasks.requests(config.executions)
            seed, keys = at.key("flat", tasks.round), noted(self.state_keys, config)
            played = collect(at.sampling(), at.pool, requests, seed=seed, state_keys=keys)
            episodes.extend(done.book(played))
            return flat_credit(config, played, self.advantage)

        tasks = at.drawn(task_ids)
        credit = replace_dead(at, play(tasks), tasks, play)
        update(at.executor, credit, episodes, "flat", at, done)
        return done
