"""What moves weights, and what must not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from crediting import advantages_of, credited
from toy import FruitEnv

from himac_agents.agents.agent import HiMACAgent
from himac_agents.algorithms import losses
from himac_agents.algorithms.batching import by_length, rows, segments_of, token_batch
from himac_agents.algorithms.credit import executor_credit
from himac_agents.algorithms.himac import CoEvolution, Proposals
from himac_agents.algorithms.iteration import Iteration, Setting
from himac_agents.algorithms.learner import Learner, cosine
from himac_agents.algorithms.methods import method_of, resolve
from himac_agents.config import TrainConfig
from himac_agents.files import latest_checkpoint
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.prompts import CompactPrompts
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest
from himac_agents.training import checkpoint
from himac_agents.training.demonstrations import Supervision, demonstrate, texts_of
from himac_envs.blueprint import Blueprint
from himac_envs.hierarchy import HierarchicalEnv

PROMPTS = CompactPrompts()
CONFIG = resolve(
    TrainConfig("himac-option", tasks=4, blueprints=4, executions=4, lr=1e-3, minibatches=2)
)


def _pool(size: int = 16) -> EnvPool:
    return EnvPool(lambda: HierarchicalEnv(FruitEnv(max_steps=12)), size)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    pool = _pool()
    shown = demonstrate(
        pool, pool.task_ids("train")[:30], prompts=PROMPTS, expert="oracle", transcripts=True
    )
    return texts_of(shown, PROMPTS)


@pytest.fixture
def policy(texts: list[str]) -> TinyPolicy:
    return TinyPolicy.build(texts, TinySize(32, 2, 2, 64), seed=0)


@pytest.fixture
def episodes(policy: TinyPolicy) -> list[Episode]:
    agent = HiMACAgent.shared(policy)
    agent.executor.constrained = True
    pool = _pool()
    ids = [t for t in pool.task_ids("train")[:4] for _ in range(6)]
    return collect(agent, pool, [EpisodeRequest(t, group=i // 6) for i, t in enumerate(ids)])


def _weights(policy: TinyPolicy) -> list[torch.Tensor]:
    return [p.detach().clone() for p in policy.parameters()]


def _gradient(policy: TinyPolicy, batch, weights, pieces) -> torch.Tensor:
    for parameter in policy.parameters():
        parameter.grad = None
    for index in pieces:
        part = rows(batch, np.asarray(index))
        logp = policy.logprobs(part)
        width = logp.shape[1]
        tensors = [part.old_logprobs, part.advantages, weights[index][:, :width]]
        loss = losses.clipped_policy_gradient(logp, *map(torch.tensor, tensors)).loss
        loss.backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


def test_one_batch_of_eight_and_eight_of_one_give_one_gradient(
    policy: TinyPolicy, episodes: list[Episode]
) -> None:
    segments = segments_of(episodes, "executor")[:8]
    rng = np.random.default_rng(0)
    batch = token_batch(credited(segments, rng.normal(size=8)))
    batch.old_logprobs += (rng.normal(0, 0.2, batch.mask.shape) * batch.mask).astype(np.float32)
    for mean in ("sequence", "token", "constant"):
        weights = losses.token_weights(batch.mask, mean)  # type: ignore[arg-type]
        whole = _gradient(policy, batch, weights, [list(range(8))])
        single = _gradient(policy, batch, weights, [[i] for i in range(8)])
        assert whole.abs().max() > 1e-4
        assert (whole - single).abs().max() < 1e-5


def test_prompt_tokens_and_the_other_roles_tokens_carry_no_gradient(
    policy: TinyPolicy, episodes: list[Episode]
) -> None:
    for role in ("planner", "executor"):
        segments = segments_of(episodes, role)  # type: ignore[arg-type]
        assert segments and all(s.role == role for s in segments)
        batch = token_batch(credited(segments, [1.0] * len(segments)))
        written = np.zeros_like(batch.mask)
        for row, segment in enumerate(segments):
            for turn in segment.turns:
                written[row, turn.start : turn.start + len(turn.output_ids)] = 1
        assert (batch.mask <= written).all() and batch.mask.sum() > 0
        logp = policy.logprobs(batch)
        logp.retain_grad()
        weights = torch.tensor(losses.token_weights(batch.mask))
        losses.clipped_policy_gradient(
            logp, torch.tensor(batch.old_logprobs), torch.tensor(batch.advantages), weights
        ).loss.backward()
        assert logp.grad is not None
        assert (logp.grad[batch.mask == 0] == 0).all()
        assert (logp.grad[batch.mask > 0] != 0).all()


def test_a_group_of_equal_returns_moves_nothing(
    policy: TinyPolicy, episodes: list[Episode]
) -> None:
    learner = Learner(policy, CONFIG)
    segments = segments_of(episodes, "executor")
    rng = np.random.default_rng(0)
    # Momentum from a real update must not move weights later either.
    learner.reinforce(credited(segments, rng.normal(size=len(segments))), rng)
    before = _weights(policy)
    metrics = learner.reinforce(credited(segments, [0.0] * len(segments)), rng)
    assert metrics["updates"] == 0 and metrics["live"] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, _weights(policy), strict=True))


def test_what_was_rewarded_becomes_likelier(policy: TinyPolicy, episodes: list[Episode]) -> None:
    segments = segments_of(episodes, "executor")[:6]
    advantages = [1.0, -1.0] * 3
    batch = token_batch(credited(segments, advantages))
    before = policy.logprobs(batch).detach().sum(1).numpy()
    learner = Learner(policy, CONFIG.replace(minibatches=1))
    metrics = learner.reinforce(segments, np.random.default_rng(0))
    after = policy.logprobs(batch).detach().sum(1).numpy()
    assert metrics["logprob_gap"] < 1e-4
    assert ((after - before) * np.array(advantages)).sum() > 0


def test_a_restored_optimiser_learns_at_the_runs_own_rate(
    policy: TinyPolicy, episodes: list[Episode], tmp_path: Path
) -> None:
    segments = segments_of(episodes, "executor")
    advantages = [1.0 if k % 2 else -1.0 for k in range(len(segments))]
    saved = Learner(policy, CONFIG)
    checkpoint.save(tmp_path, 0, {}, {"policy": policy}, {"policy": saved.optimizer})
    step = latest_checkpoint(tmp_path)
    moved = []
    for lr in (CONFIG.lr, 0.0):
        forked = Learner(TinyPolicy.load(step / "policy"), CONFIG.replace(lr=lr))
        checkpoint.restore_optimizer(step, "policy", forked.optimizer)
        before = _weights(forked.policy)
        forked.reinforce(credited(segments, advantages), np.random.default_rng(0))
        after = _weights(forked.policy)
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
    assert moved == [True, False]


def test_kl_holds_the_policy_back(texts: list[str], episodes: list[Episode]) -> None:
    segments = segments_of(episodes, "executor")
    credited(segments, np.random.default_rng(1).normal(size=len(segments)))
    moved = {}
    for kl in (0.0, 100.0):
        policy, reference = (
            TinyPolicy.build(texts, TinySize(32, 2, 2, 64), seed=0) for _ in range(2)
        )
        learner = Learner(policy, CONFIG.replace(kl=kl, epochs=12, lr=3e-3), reference)
        found = learner.reinforce(segments, np.random.default_rng(0))
        batch = token_batch(segments)
        gap = policy.logprobs(batch) - reference.logprobs(batch)
        moved[kl] = float(gap.detach().abs().mean())
        assert (found["kl"] > 0) == (kl > 0)
    assert moved[100.0] < 0.9 * moved[0.0]


def test_an_iteration_books_its_work_and_plans_once_for_equal_blueprints(
    policy: TinyPolicy,
) -> None:
    agent, pool = HiMACAgent.shared(policy), _pool()
    learner = Learner(policy, CONFIG)
    rng = np.random.default_rng(0)
    setting = Setting(CONFIG, agent, pool, learner, learner, lambda rng: "", 0, 0, rng)
    done = method_of(CONFIG).iterate(setting, pool.task_ids("train")[:4], 0)
    assert set(done.metrics) == {"planner", "executor"}
    assert done.env_steps > 0 and done.tokens > 0
    assert len(done.episodes) == 16
    for group in range(4):
        plans = {e.blueprint for e in done.episodes if e.request.group == group}
        assert len(plans) == 1, "phase B executes one z* a task"


def test_phase_a_moves_no_executor_and_keeps_the_best_blueprint(texts: list[str]) -> None:
    planner, executor = (TinyPolicy.build(texts, TinySize(32, 2, 2, 64), seed=s) for s in (0, 1))
    agent = HiMACAgent.shared(planner)
    agent.executor.policy = executor
    pool = _pool()
    before = _weights(executor)
    setting = Setting(
        CONFIG, agent, pool, Learner(planner, CONFIG), Learner(executor, CONFIG),
        lambda rng: "", 0, 0, np.random.default_rng(0),
    )  # fmt: skip
    ids = pool.task_ids("train")[:3]
    best = CoEvolution().phase_a(setting, setting.drawn(ids), Iteration())
    assert all(torch.equal(a, b) for a, b in zip(before, _weights(executor), strict=True))
    assert [t.group for t in best] == [0, 1, 2] and all(t.blueprint for t in best)


def test_what_crashed_is_not_chosen(texts: list[str]) -> None:
    """A blueprint whose execution crashed has a return of 0: more than one that lost points."""
    policy, pool = TinyPolicy.build(texts, TinySize(32, 2, 2, 64)), _pool()
    learner = Learner(policy, CONFIG)
    setting = Setting(
        CONFIG.replace(blueprints=3), HiMACAgent.shared(policy), pool, learner, learner,
        lambda rng: "", 0, 0, np.random.default_rng(0),
    )  # fmt: skip
    plans = [
        Episode(EpisodeRequest("t", g, 3 * g), blueprint=Blueprint.of([str(k)]))
        for g in (0, 1)
        for k in "abc"
    ]
    runs = [Episode(EpisodeRequest("t", g), error=e) for g in (0, 1) for e in (None, "broke", None)]
    runs[3].error = runs[5].error = "broke too"
    tried = Proposals(plans, runs, 6, [-1.5, 0.0, -1.0, 0.0, 0.0, 0.0])
    chosen = CoEvolution().choose(setting, tried)
    assert [task.blueprint.texts() for task in chosen] == [["c"], ["a"]]  # type: ignore[union-attr]


def test_options_after_a_failure_get_no_credit(policy: TinyPolicy) -> None:
    agent, pool = HiMACAgent.shared(policy), _pool()
    plan = Blueprint.of([f"get the {fruit}" for fruit in ("apple", "plum", "cherry")])
    ids = [t for t in pool.task_ids("train")[:4] for _ in range(6)]
    agent.executor.constrained = True
    episodes = collect(agent, pool, [EpisodeRequest(t, i // 6, i, plan) for i, t in enumerate(ids)])
    config = CONFIG.replace(executor_advantage="option")
    credit = executor_credit(config, episodes)
    owner = {id(s): e for e in episodes for s in e.segments}
    seen_failure: set[int] = set()
    for segment in credit.segments:
        episode = owner[id(segment)]
        if id(episode) in seen_failure:
            assert not any(advantages_of(segment))
        if segment.option is not None and segment.option["achieved"] is False:
            seen_failure.add(id(episode))
    assert seen_failure and 0 <= credit.metrics["dead_options"] <= 1
    assert credit.segments == segments_of(episodes, "executor")


def test_supervision_is_resumable_and_sees_every_sequence(episodes: list[Episode]) -> None:
    segments = segments_of(episodes, "executor")
    stream = Supervision(segments, 200, seed=5)
    first = [b.token_ids for b, _ in zip(stream.batches(), range(12), strict=False)]
    again = [b.token_ids for b, _ in zip(stream.batches(start=7), range(5), strict=False)]
    assert all(np.array_equal(a, b) for a, b in zip(first[7:], again, strict=True))
    with pytest.raises(ValueError, match="no demonstrations"):
        Supervision([], 200, 0)


def test_micro_batches_hold_every_row_once() -> None:
    lengths = np.random.default_rng(0).integers(1, 90, 200)
    found = list(by_length(lengths, 300, np.random.default_rng(1)))
    assert sorted(np.concatenate(found).tolist()) == list(range(200))
    assert all(len(i) * lengths[i].max() <= 300 for i in found)


def test_imitation_learns(policy: TinyPolicy) -> None:
    pool = _pool()
    shown = demonstrate(
        pool, pool.task_ids("train")[:20], prompts=PROMPTS, codec=policy, expert="oracle"
    )
    segments = [s for e in shown for s in e.segments]
    learner = Learner(policy, CONFIG)
    learner.begin_supervision()
    stream = Supervision(segments, 512, 0).batches()
    losses_ = [learner.imitate(next(stream), cosine(i, 80, 3e-3)) for i in range(80)]
    assert np.mean(losses_[-10:]) < 0.5 * np.mean(losses_[:10])
