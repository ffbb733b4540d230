"""What several processes do in `test_sharded.py`; see `main`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fruit_runs  # noqa: F401  (registers the toy's ids)
import numpy as np
import torch
from crediting import share_of
from safetensors.torch import save_file
from toy import FruitEnv

from himac_agents import distributed
from himac_agents.agents.agent import HiMACAgent
from himac_agents.algorithms import passes
from himac_agents.algorithms.batching import rows, token_batch
from himac_agents.algorithms.finite import NonFiniteError
from himac_agents.algorithms.learner import Learner
from himac_agents.config import TrainConfig
from himac_agents.policies import selective
from himac_agents.policies.base import Message, Prompt, Sampling, TokenBatch
from himac_agents.policies.loading import load_policies, load_reference, make_policies
from himac_agents.prompts import CompactPrompts
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import EpisodeRequest, Segment
from himac_agents.training import checkpoint
from himac_agents.training.demonstrations import Supervision, demonstrate
from himac_envs.hierarchy import HierarchicalEnv

#: What is learned, by name: settings, and how far the weights of one process and of two may be
#: apart, at most and in the mean.
CASES: dict[str, tuple[dict[str, Any], float, float]] = {
    "whole": ({"kl": 0.1, "epochs": 2}, 1e-5, 1e-7),
    "adapters": (
        {
            "kl": 0.1, "lora_rank": 4, "separate_adapters": True,
            "lora_targets": ("q_proj", "up_proj"),
        },
        1e-5,
        1e-7,
    ),
    "recomputed": (
        {"kl": 0.0, "gradient_checkpointing": True, "loss_mean": "token"},
        1e-5,
        1e-7,
    ),
    # What is sharded is gathered in bfloat16, what is whole is cast: rounded at other places. Where
    # a gradient is all rounding, a step of AdamW goes its rate either way.
    "bfloat16": ({"kl": 0.0, "dtype": "bfloat16"}, 1e-2, 2e-4),
    # The base is in bfloat16, and the adapter beside it in float32. How a row rounds depends on
    # those that are read with it, which differ with the processes: here each is read by itself.
    # What is left is how gradients add up, which a processor with bfloat16 units rounds once more
    # (measured on one: 1.6e-5 and 3.8e-7; without: below 1e-5 and 1e-7). A step goes 1e-3.
    "bfloat16-adapter": ({"kl": 0.0, "dtype": "bfloat16", "lora_rank": 4}, 5e-5, 2e-6),
}  # fmt: skip

#: Of these: how they make logits a few rows at a time.
CHUNKED = ("whole", "adapters", "recomputed")


def config_of(model: str, case: str, processes: int) -> TrainConfig:
    """A case's settings."""
    common: dict[str, Any] = {"dtype": "float32", "shard": processes > 1, **CASES[case][0]}
    return TrainConfig(
        policy="hf", model=model, minibatches=2, least_minibatch=2, micro_tokens=400,
        lr=1e-3, max_grad_norm=0.05, clip=0.2, clip_high=0.2, **common,
    )  # fmt: skip


def learn(model: str, case: str, folder: Path) -> None:
    """A warm start, rollouts and a phase's policy gradient, each on this process's share."""
    team = distributed.team()
    config = config_of(model, case, team.size)
    pool = EnvPool(lambda: HierarchicalEnv(FruitEnv(max_steps=3)), 16)
    ids, prompts = pool.task_ids("train"), CompactPrompts()
    policies = make_policies(config, True, None, list)
    policy = policies.get("policy") or policies["executor"]
    if case == "bfloat16-adapter":
        policy.trees = None
    learner = Learner(policy, config)
    learner.begin_supervision()
    batches = _batches(policy, pool)
    imitated = next(batches)
    losses = [learner.imitate(imitated, 1e-3)]
    # Of one row a process has nothing.
    losses.append(learner.imitate(rows(imitated, np.arange(1)), 1e-3))
    if config.kl:
        place = folder / f"warm-{case}-{team.size}"
        checkpoint.save_policies(place, {"policy": policy})
        learner.reference = load_reference(policy, place / "policy", config, fresh=False)
    policy.forget()
    agent = HiMACAgent.shared(policy, prompts)
    agent.executor.constrained, agent.planner.sampling = True, Sampling(1.0, 12)
    # Every process plays everything, alike, and then keeps its share.
    episodes = collect(agent, pool, [EpisodeRequest(t, i // 3) for i, t in enumerate(ids[:5])])
    answer = policy.generate([Prompt((), _ids(policy), noise=3)], Sampling(1.0, 12))[0]
    learner.begin_reinforcement()
    segments = share_of(episodes)
    metrics = learner.reinforce(segments, np.random.default_rng(team.rank))
    # Phases in which one process has nothing to learn from, in which one row is live, and none is.
    few = segments if team.leads else []
    learner.reinforce(few[:3], np.random.default_rng(5))
    learner.reinforce(few[:1], np.random.default_rng(5))
    assert learner.reinforce([], np.random.default_rng(6))["updates"] == 0
    taken = _taken(learner)
    policy.forget()
    if policy.shards is not None:
        taken["played"] = sum(p.nbytes for p in policy.model.parameters())
    found = {f"bytes.{k}": torch.tensor(v) for k, v in taken.items()}
    found |= {f"metric.{k}": torch.tensor(v) for k, v in metrics.items()}
    found |= {"losses": torch.tensor(losses), "answer": torch.tensor(answer.token_ids)}
    save_file(found, folder / f"{case}-rank{team.rank}-of-{team.size}.safetensors")
    place = folder / f"{case}-{team.size}" / "checkpoints"
    optimizers = {"policy": learner.optimizer}
    checkpoint.save(place, 1, {}, {"policy": policy}, optimizers)
    if case == "recomputed":
        _refused(learner, imitated, folder / f"refused-rank{team.rank}-of-{team.size}.txt")
    if case == "whole":
        learner.imitate(imitated, 1e-3)
        checkpoint.save_policies(folder / f"after-{team.size}", {"policy": policy})


def _refused(learner: Learner, batch: TokenBatch, told: Path) -> None:
    """A step in which the last process meets a number that is none: nothing moves, anywhere."""
    team, policy = distributed.team(), learner.policy
    before = [distributed.local(p).clone() for p in policy.parameters()]
    real = policy.logprobs_and_entropy  # type: ignore[attr-defined]

    def spoiled(batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
        logp, entropy = real(batch)
        return (logp * float("nan") if team.rank == team.size - 1 else logp), entropy

    policy.logprobs_and_entropy = spoiled  # type: ignore[attr-defined]
    try:
        learner.imitate(batch, 1e-3)
    except NonFiniteError as error:
        told.write_text(str(error))
    policy.logprobs_and_entropy = real  # type: ignore[attr-defined]
    after = [distributed.local(p) for p in policy.parameters()]
    assert all(map(torch.equal, before, after)) and all(p.grad is None for p in after)
    assert np.isfinite(learner.imitate(batch, 1e-3))


def in_chunks(model: str, case: str, folder: Path) -> None:
    """What a batch is worth to a model, its logits made at once, and a few rows at a time.

    Of the batch's three rows one process has two, the other one: so one makes more chunks.
    """
    team = distributed.team()
    policy = next(iter(make_policies(config_of(model, case, team.size), True, None, list).values()))
    pool = EnvPool(lambda: HierarchicalEnv(FruitEnv(max_steps=3)), 16)
    batch = token_batch(_shown(policy, pool)[:3], imitate=True)
    mine = rows(batch, np.asarray(team.share(range(3))))
    asked: list[int] = []
    policy.model.get_output_embeddings().register_forward_hook(
        lambda _, __, output: asked.append(int(output.shape[-2]))
    )
    found: dict[str, torch.Tensor] = {}
    before = selective.CHUNK
    for name, chunk in (("whole", before), ("chunked", 3 * policy.vocabulary)):
        asked.clear()
        selective.CHUNK = chunk
        passes.begin(policy)
        logp, entropy = policy.logprobs_and_entropy(mine)
        weights = torch.arange(logp.numel(), dtype=torch.float32).reshape(logp.shape) / 100
        (logp * weights).sum().backward()
        gradients = [distributed.local(p.grad).flatten() for p in policy.parameters()]
        for parameter in policy.parameters():
            parameter.grad = None
        with torch.no_grad():
            again = policy.logprobs(mine)
        # The others have no rows: they make an empty pass beside it.
        few = mine if team.leads else passes.empty(mine)
        policy.logprobs(few).sum().backward()
        for parameter in policy.parameters():
            parameter.grad = None
        parts = {"logp": logp, "entropy": entropy, "gradient": torch.cat(gradients), "again": again}
        found |= {f"{name}.{k}": v.detach().clone() for k, v in parts.items()}
        found[f"{name}.asked"] = torch.tensor(max(asked))
    selective.CHUNK = before
    save_file(found, folder / f"chunks-{case}-rank{team.rank}-of-{team.size}.safetensors")


def go_on(model: str, folder: Path, saved: Path) -> None:
    """The step after a checkpoint, by those who read it."""
    team = distributed.team()
    config = config_of(model, "whole", team.size)
    policy = load_policies(saved, config, True)["policy"]
    learner = Learner(policy, config)
    checkpoint.restore_optimizer(saved, "policy", learner.optimizer)
    pool = EnvPool(lambda: HierarchicalEnv(FruitEnv(max_steps=3)), 16)
    learner.imitate(next(_batches(policy, pool)), 1e-3)
    checkpoint.save_policies(folder / f"resumed-{team.size}", {"policy": policy})


def _batches(policy: Any, pool: EnvPool) -> Any:
    return Supervision(_shown(policy, pool), 300, 0).batches()


def _shown(policy: Any, pool: EnvPool) -> list[Segment]:
    shown = demonstrate(
        pool, pool.task_ids("train")[:4], prompts=CompactPrompts(), codec=policy, expert="oracle"
    )
    return [segment for episode in shown for segment in episode.segments]


def _ids(policy: Any) -> list[int]:
    return list(policy.encode([Message("user", "You are in a room. What next?")]))


def _taken(learner: Learner) -> dict[str, int]:
    """Bytes of what this process holds of weights that learn and of their moments."""
    own = [distributed.local(p) for p in learner.policy.parameters()]
    moments = [
        distributed.local(value)
        for state in learner.optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    ]
    return {"weights": sum(t.nbytes for t in own), "moments": sum(t.nbytes for t in moments)}


def main(model: str, folder: Path, saved: Path | None = None) -> None:
    """The work of one process: updates of each kind, a checkpoint, and a step more.

    Args:
        model: The model's folder.
        folder: Where what was found is written.
        saved: A checkpoint: only the step more, by those who read it.
    """
    torch.set_num_threads(1)
    distributed.join()
    if saved is None:
        for case in CASES:
            learn(model, case, folder)
        for case in CHUNKED if distributed.team().size > 1 else ():
            in_chunks(model, case, folder)
    else:
        go_on(model, folder, saved)
    distributed.leave()
