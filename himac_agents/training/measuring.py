"""Held-out success of a run: at temperature 1 and greedy, each task once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from himac_agents.agents.agent import HiMACAgent, forget
from himac_agents.config import TrainConfig
from himac_agents.distributed import Team
from himac_agents.evaluation.evaluate import evaluate_tasks
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.trace import Sample
from himac_agents.rollouts.types import Episode
from himac_agents.training import result
from himac_agents.training.progress import Display


class Measuring(Protocol):
    """What is used here of a `Trainer`."""

    config: TrainConfig
    team: Team
    display: Display
    pool: EnvPool
    eval_ids: list[str]


def measured(
    trainer: Measuring, agent: HiMACAgent, samples: Mapping[str, Sample], *, greedy: bool
) -> dict[str, Any]:
    """An agent's success on the held-out tasks.

    Args:
        trainer: Whose tasks, and where its progress is shown.
        agent: Who plays; of several processes all call this, and each plays its share.
        samples: Told the episodes, by "temperature 1" and "greedy".
        greedy: Whether it plays greedily, too.
    """

    def played(temperature: float, look: Sample | None) -> dict[str, Any]:
        count = len(trainer.team.share(trainer.eval_ids))
        with trainer.display.stage(f"evaluation, temperature {temperature:g}", count) as tick:

            def ended(episode: Episode) -> None:
                if look is not None:
                    look(episode)
                tick()

            found = evaluate_tasks(
                agent, trainer.pool, trainer.eval_ids, temperature=temperature,
                split=trainer.config.eval_split, on_episode=ended,
            )  # fmt: skip
        return result.record(found)

    forget(agent)
    found = played(1.0, samples.get("temperature 1"))
    if greedy:
        found["greedy"] = played(0.0, samples.get("greedy"))
    forget(agent)
    return found
