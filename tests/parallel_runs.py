"""What two processes do in `test_agents_parallel.py`: run with a launcher's environment variables.

python parallel_runs.py update FOLDER METHOD
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from crediting import credited
from safetensors.torch import save_file
from toy import FruitEnv

from himac_agents import distributed
from himac_agents.agents.agent import HiMACAgent
from himac_agents.algorithms.batching import segments_of
from himac_agents.algorithms.learner import Learner
from himac_agents.config import TrainConfig
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.prompts import CompactPrompts
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import EpisodeRequest
from himac_agents.training.demonstrations import Supervision, demonstrate, texts_of
from himac_envs.hierarchy import HierarchicalEnv


def update(folder: Path, mean: str) -> None:
    """A supervised step, then a phase's policy gradient, each on this process's share."""
    team = distributed.join()
    pool = EnvPool(lambda: HierarchicalEnv(FruitEnv(max_steps=12)), 16)
    prompts, ids = CompactPrompts(), pool.task_ids("train")
    shown = demonstrate(pool, ids[:30], prompts=prompts, expert="oracle", transcripts=True)
    policy, reference = (
        TinyPolicy.build(texts_of(shown, prompts), TinySize(32, 2, 2, 64), seed=s) for s in (0, 1)
    )
    agent = HiMACAgent.shared(policy)
    agent.executor.constrained = True
    # Every process plays everything, alike, and then keeps its share: uneven, as in real runs.
    episodes = collect(agent, pool, [EpisodeRequest(t, i // 3) for i, t in enumerate(ids[:21])])
    advantages = np.random.default_rng(0).normal(size=len(episodes)).tolist()
    config = TrainConfig(
        minibatches=3, least_minibatch=4, epochs=2, kl=0.1, loss_mean=mean, micro_tokens=600
    )  # type: ignore[arg-type]
    learner = Learner(policy, config, reference)
    learner.begin_supervision()
    demonstrated = demonstrate(pool, ids[:8], prompts=prompts, codec=policy, expert="oracle")
    batches = Supervision([s for e in demonstrated for s in e.segments], 500, 0).batches()
    losses = [learner.imitate(next(batches), 1e-3) for _ in range(3)]
    learner.begin_reinforcement()
    mine = team.share(list(zip(episodes, advantages, strict=True)))
    segments = [s for e, _ in mine for s in segments_of([e], "executor")]
    credit = [a for e, a in mine for _ in segments_of([e], "executor")]
    metrics = learner.reinforce(credited(segments, credit), np.random.default_rng(team.rank))
    # A phase in which one process has nothing to learn from, and one in which none has.
    few = segments if team.leads else []
    learner.reinforce(few[:6], np.random.default_rng(5))
    assert learner.reinforce([], np.random.default_rng(6))["updates"] == 0
    found = {k: v.detach().clone() for k, v in policy.model.named_parameters()}
    found |= {f"metric.{k}": torch.tensor(v) for k, v in metrics.items()}
    found["losses"] = torch.tensor(losses)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(found, folder / f"rank{team.rank}-of-{team.size}.safetensors")
    distributed.leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    update(Path(sys.argv[1]), sys.argv[2])
