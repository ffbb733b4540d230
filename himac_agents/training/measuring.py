"""How well a run plays: on a small, fixed panel while it learns, on held-out tasks at its ends.

The panel's tasks are of the "valid" split, never of the split that the result is measured on, so
that the best checkpoint can be chosen by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from himac_agents.agents.agent import HiMACAgent, forget
from himac_agents.config import TrainConfig
from himac_agents.evaluation.evaluate import evaluate_tasks, spread
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.trace import Sample
from himac_agents.rollouts.types import Episode
from himac_agents.training import result
from himac_agents.training.state import Progressed, Running

#: The folder in a run's that holds the best policies by the panel.
BEST = "best"
SPLIT = "valid"


class Panel:
    """The tasks of one run's panel.

    Attributes:
        task_ids: The tasks; () where nobody looks.

    Args:
        config: The run's settings.
        pool: Its environments.
    """

    def __init__(self, config: TrainConfig, pool: EnvPool) -> None:
        self._every, self._pool = config.eval_every, pool
        self.task_ids: Sequence[str] = ()
        if self._every:
            self.task_ids = spread(pool.task_ids(SPLIT), config.panel_episodes)

    def due(self, at: Progressed) -> bool:
        """Whether the run is to be looked at now: the warm start is, then every so many times."""
        seen = any(look["iteration"] == at.iteration for look in at.looks)
        return self._every > 0 and at.iteration % self._every == 0 and not seen

    def look(self, agent: HiMACAgent, at: Progressed) -> tuple[dict[str, float], dict[str, Any]]:
        """Plays the panel at temperature 1, and notes what was seen.

        Returns:
            The metrics, and what is to be written beside the policies if these are the best so far
            (of equal ones the first is): {} if they are not.
        """
        forget(agent)
        success = evaluate_tasks(agent, self._pool, self.task_ids).success
        forget(agent)
        best = max((float(look["success"]) for look in at.looks), default=-1.0)
        at.looks.append({"iteration": at.iteration, "success": success})
        work = {"env_steps_total": at.env_steps, "tokens_total": at.tokens}
        label = {"split": SPLIT, "episodes": len(self.task_ids), "temperature": 1.0}
        label |= {"iteration": at.iteration, "success": success}
        return {"success": success, **work}, label if success > best else {}


def measured(
    trainer: Running, agent: HiMACAgent, samples: Mapping[str, Sample], *, greedy: bool
) -> dict[str, Any]:
    """An agent's success on the held-out tasks, each played once.

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
