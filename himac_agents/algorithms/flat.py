"""The flat methods' iteration: one agent without a planner."""

from __future__ import annotations

from himac_agents.algorithms.credit import Credit, flat_credit
from himac_agents.algorithms.iteration import Draw, Iteration, Setting, replace_dead, update
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.types import Episode


def flat(at: Setting, tasks: Draw, done: Iteration) -> None:
    """GRPO, RLOO, GiGPO: N episodes a task on the flat environment, compared with each other."""
    config = at.config
    episodes: list[Episode] = []

    def play(tasks: Draw) -> Credit:
        requests = tasks.requests(config.executions)
        played = collect(at.sampling(), at.pool, requests, seed=at.key("flat", tasks.round))
        episodes.extend(done.book(played))
        return flat_credit(config, played)

    credit = replace_dead(at, play(tasks), tasks, play)
    update(at.executor, credit, episodes, "flat", at, done)
