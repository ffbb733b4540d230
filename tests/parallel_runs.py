"""What two processes do in `test_agents_parallel.py`: run with a launcher's environment variables.

python parallel_runs.py FOLDER MEAN          an update of each kind
python parallel_runs.py FOLDER MEAN broken   a run in which one process meets a NaN
"""

from __future__ import annotations

import sys
from pathlib import Path

import fruit_runs
import numpy as np
import torch
from crediting import share_of
from safetensors.torch import save_file
from toy import FruitEnv

from himac_agents import distributed
from himac_agents.agents.agent import HiMACAgent
from himac_agents.algorithms.learner import Learner
from himac_agents.config import TrainConfig
from himac_agents.policies.base import TokenBatch
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.prompts import CompactPrompts
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import EpisodeRequest
from himac_agents.training.demonstrations import Supervision, demonstrate, texts_of
from himac_agents.training.stopping import StoppedError
from himac_agents.training.trainer import Trainer
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
    # Every process plays everything, alike, and then keeps its share.
    episodes = collect(agent, pool, [EpisodeRequest(t, i // 3) for i, t in enumerate(ids[:21])])
    config = TrainConfig(
        minibatches=3, least_minibatch=4, epochs=2, kl=0.1, loss_mean=mean, micro_tokens=600
    )  # type: ignore[arg-type]
    learner = Learner(policy, config, reference)
    learner.begin_supervision()
    demonstrated = demonstrate(pool, ids[:8], prompts=prompts, codec=policy, expert="oracle")
    batches = Supervision([s for e in demonstrated for s in e.segments], 500, 0).batches()
    losses = [learner.imitate(next(batches), 1e-3) for _ in range(3)]
    learner.begin_reinforcement()
    segments = share_of(episodes)
    metrics = learner.reinforce(segments, np.random.default_rng(team.rank))
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


def broken(folder: Path, _: str) -> None:
    """A run whose last process meets a gradient that is none: every process is to stop."""
    team = distributed.join()
    config = fruit_runs.CONFIG.replace(
        warm_steps=6, iterations=2, tasks=4, stop_at_failure=False, least_minibatch=1
    )
    trainer = Trainer(config, folder / "run", console=fruit_runs.QUIET)
    policy = trainer.policies["policy"]
    real, asked = policy.logprobs_and_entropy, []

    def spoiled(batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(len(batch))
        logp, entropy = real(batch)
        last = team.rank == team.size - 1
        return (logp * float("nan") if last and len(asked) == 4 else logp), entropy

    policy.logprobs_and_entropy = spoiled
    try:
        trainer.run()
    except StoppedError as error:
        (folder / f"rank{team.rank}.txt").write_text(str(error))
    distributed.leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    (broken if sys.argv[3:] else update)(Path(sys.argv[1]), sys.argv[2])
