"""The flat methods' iteration: one agent without a planner."""

from __future__ import annotations

from collections.abc import Sequence

from himac_agents.algorithms.credit import Credit, flat_credit
from himac_agents.algorithms.iteration import Iteration, Setting, groups_of, replace_dead, update
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.types import Episode


def flat(at: Setting, task_ids: Sequence[str], done: Iteration) -> None:
    """GRPO, RLOO, GiGPO: N episodes a task on the flat environment, compared with each other."""
    config = at.config
    episodes: list[Episode] = []

    def play(ids: Sequence[str], start: int) -> Credit:
        played = collect(at.sampling(), at.pool, groups_of(ids, config.executions, start))
        episodes.extend(done.book(played))
        return flat_credit(config, played)

    credit = replace_dead(at, play(task_ids, 0), len(task_ids), play)
    update(at.executor, credit, episodes, "flat", at, done)
