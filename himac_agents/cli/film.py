"""``--record FILE``: the film of one episode of an agent, for environments that have pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himac_envs import registry
from himac_envs.sokoban.record import Recorder

if TYPE_CHECKING:
    from himac_agents.agents.agent import HiMACAgent


def film(
    agent: HiMACAgent,
    env_id: str,
    split: str,
    path: Path,
    *,
    temperature: float = 1.0,
    env_kwargs: Mapping[str, Any],
) -> Path:
    """Let an agent play the split's first task and write the film of it.

    The episode is played as in the evaluation and then played again, action by action, before the
    camera: environments answer the same actions in the same way.

    Args:
        agent: Who plays.
        env_id: A registered id with ``render_mode="rgb_array"``.
        split: Which tasks.
        path: Where the film goes, .gif or .mp4.
        temperature: Of sampling.
        env_kwargs: What the environment is made with.
    """
    from himac_agents.agents.agent import at_temperature
    from himac_agents.rollouts.collect import collect
    from himac_agents.rollouts.pool import EnvPool
    from himac_agents.rollouts.types import EpisodeRequest

    made_with = {**env_kwargs, "split": split}
    stage = registry.make(env_id, **made_with, render_mode="rgb_array")
    recorder = Recorder(stage, path)
    pool = EnvPool(lambda: registry.make(env_id, **made_with), 1)
    task_id = pool.task_ids(split)[0]
    player = at_temperature(agent, temperature)
    (episode,) = collect(player, pool, [EpisodeRequest(task_id)], transcripts=True)
    recorder.reset(options={"task_id": task_id})
    for action, _ in episode.transcript[1:]:
        recorder.step(action)
    recorder.close()
    return path
