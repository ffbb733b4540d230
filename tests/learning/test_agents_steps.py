"""How far a step goes, what stops one, and what its metrics mean."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import fruit_runs
import numpy as np
import pytest
import torch
from crediting import credited
from torch import Tensor

from himac_agents.algorithms import losses, optimiser
from himac_agents.algorithms.batching import token_batch
from himac_agents.algorithms.finite import NonFiniteError
from himac_agents.algorithms.learner import Learner
from himac_agents.config import TrainConfig
from himac_agents.files import latest_checkpoint
from himac_agents.policies.base import TokenBatch
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.rollouts.types import Segment, Turn
from himac_agents.training.stopping import StoppedError
from himac_agents.training.trainer import Trainer

TEXTS = ["go to cabinet 1 and take mug 2", "open the drawer 3 and look at the apple 4"]
CONFIG = TrainConfig("himac-option", lr=1e-3, minibatches=2, least_minibatch=32)
TOTAL = 120


def _policy(seed: int = 0) -> TinyPolicy:
    return TinyPolicy.build(TEXTS, TinySize(16, 1, 2, 32), seed=seed)


def _segments(policy: TinyPolicy, live: int, seed: int = 0, longest: int = 3) -> list[Segment]:
    """Sequences of random tokens, as if they were sampled; the first `live` carry an advantage."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(TOTAL):
        ids = rng.integers(8, len(policy.tokenizer), 4 + longest).tolist()
        segment = Segment("executor", 0, token_ids=ids)
        length = int(rng.integers(1, longest + 1))
        segment.turns = [Turn(segment, 4, tuple(ids[4 : 4 + length]), (0.0,) * length, "", "")]
        found.append(segment)
    with torch.no_grad():
        logp = policy.logprobs(token_batch(found)).numpy()
    for row, segment in enumerate(found):
        (turn,) = segment.turns
        turn.old_logprobs = tuple(logp[row, 4 : 4 + len(turn.output_ids)].tolist())
    signs = rng.choice([-1.0, 1.0], TOTAL)
    return credited(found, np.where(np.arange(TOTAL) < live, signs, 0.0))


def _flat(policy: TinyPolicy) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in policy.parameters()])


def _phase(learner: Learner, live: int, seed: int) -> float:
    """How far one phase moves the weights."""
    policy: Any = learner.policy
    before = _flat(policy)
    learner.reinforce(_segments(policy, live, seed), np.random.default_rng(seed))
    return float((_flat(policy) - before).norm())


@pytest.mark.parametrize("mean", ["sequence", "token", "constant"])
@pytest.mark.parametrize("warmed", [0, 3])
@pytest.mark.parametrize("kl", [0.0, 0.01])
def test_a_step_shrinks_with_the_evidence(mean: Any, warmed: int, kl: float) -> None:
    """One live sequence of 120 goes a hundredth of the way, whatever momentum it meets."""
    moved = {}
    for live in (1, 30, TOTAL):
        config = CONFIG.replace(loss_mean=mean, kl=kl)
        learner = Learner(_policy(), config, _policy() if kl else None)
        for seed in range(warmed):
            _phase(learner, TOTAL, 10 + seed)
        moved[live] = _phase(learner, live, 1)
    assert 0 < moved[1] < 0.05 * moved[TOTAL]
    # A quarter of the evidence, in one step instead of two: a quarter of the way, or so.
    assert 0.1 * moved[TOTAL] < moved[30] < 0.6 * moved[TOTAL]


def test_little_evidence_leaves_little_momentum() -> None:
    """A full phase after one with a single live sequence goes where it would have gone."""
    ends = {}
    for between in (0, 1, TOTAL):
        policy = _policy()
        learner = Learner(policy, CONFIG)
        full = _segments(policy, TOTAL, 3)
        learner.reinforce(full, np.random.default_rng(3))
        start = _flat(policy)
        other = _segments(policy, between, 4)
        learner.reinforce(other, np.random.default_rng(4))
        # Only the momentum counts here: the weights go back.
        torch.nn.utils.vector_to_parameters(start.clone(), policy.parameters())
        learner.reinforce(full, np.random.default_rng(3))
        ends[between] = _flat(policy) - start
    apart = {n: float((ends[n] - ends[0]).norm() / ends[0].norm()) for n in (1, TOTAL)}
    assert apart[1] < 0.05 < 0.3 < apart[TOTAL]


def test_with_everything_live_the_step_is_adamws_own() -> None:
    policy, plain = _policy(), _policy()
    segments = _segments(policy, TOTAL)
    learner = Learner(policy, CONFIG.replace(minibatches=1))
    optimizer = torch.optim.AdamW(
        plain.parameters(), lr=CONFIG.lr, betas=(0.9, 0.95), weight_decay=0.0
    )
    for _ in range(3):
        metrics = learner.reinforce(segments, np.random.default_rng(0))
        assert metrics["updates"] == 1 and metrics["step_share"] == 1.0
        batch = token_batch(segments)
        weights = losses.token_weights(batch.mask)
        tensors = (torch.tensor(x) for x in (batch.old_logprobs, batch.advantages, weights))
        losses.clipped_policy_gradient(plain.logprobs(batch), *tensors, 0.2, 0.28).loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert (_flat(policy) - _flat(plain)).abs().max() < 2e-6


def test_a_share_of_a_step_is_a_share_in_everything() -> None:
    """By hand: two steps of a half with one gradient decay, correct and move as one step does."""
    whole, halves = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    gradient = torch.tensor([0.5, -2.0, 1e-3])
    for parameter, shares in ((whole, [1.0, 1.0]), (halves, [0.5, 0.5, 0.5, 0.5])):
        optimizer = optimiser.make([parameter], [], 0.1)
        for share in shares:
            parameter.grad = gradient.clone()
            optimiser.step(optimizer, [share])
        state = optimizer.state[parameter]
        assert float(state["step"]) == pytest.approx(2.0)
        assert torch.allclose(state["exp_avg"], (1 - 0.9**2) * gradient)
        assert torch.allclose(state["exp_avg_sq"], (1 - 0.95**2) * gradient**2)
        assert torch.allclose(parameter.detach(), 1 - 0.2 * gradient.sign(), atol=1e-4)
        assert optimizer.param_groups[0]["betas"] == optimiser.BETAS
        assert optimizer.param_groups[0]["lr"] == 0.1


def test_mini_batches_hold_as_many_live_sequences_as_is_said() -> None:
    policy = _policy()
    learner = Learner(policy, CONFIG.replace(minibatches=8, kl=0.01), _policy(1))
    found: list[TokenBatch] = []
    learner._minibatch = lambda batch, share, phase: found.append(batch) or {  # type: ignore
        "loss": 0.0, "logprob_gap": 0.0,
    }  # fmt: skip
    for live in (120, 70, 33, 5):
        found.clear()
        metrics = learner.reinforce(_segments(policy, live), np.random.default_rng(0))
        counts = [int((b.advantages != 0).any(axis=1).sum()) for b in found]
        assert sum(counts) == live == metrics["live"]
        assert min(counts) >= min(live, CONFIG.least_minibatch)
        assert sum(len(b) for b in found) == TOTAL, "the KL penalty holds them all"
        if live < CONFIG.least_minibatch:
            assert len(found) == 1 and metrics["step_share"] == pytest.approx(live / TOTAL * 3)


def test_metrics_are_means_whatever_the_loss_is() -> None:
    """The entropy of a model that knows nothing is log V, and so on, under each mean."""
    found = {}
    for mean in ("sequence", "token", "constant"):
        policy = _policy()
        with torch.no_grad():
            policy.model.lm_head.weight.zero_()
        config = CONFIG.replace(
            loss_mean=mean, minibatches=1, kl=0.1, clip=0.01, clip_high=0.01, loss_constant=7.0
        )
        segments = _segments(policy, TOTAL, longest=5)
        for segment in segments:  # sampled at other probabilities: every token by a factor of 2
            (turn,) = segment.turns
            turn.old_logprobs = tuple(x + math.log(2.0) for x in turn.old_logprobs)
            turn.advantage = -1.0
        found[mean] = Learner(policy, config, _policy(1)).reinforce(
            segments, np.random.default_rng(0)
        )
        vocabulary = policy.vocabulary
        assert found[mean]["entropy"] == pytest.approx(math.log(vocabulary), rel=1e-4)
        assert found[mean]["clipped"] == pytest.approx(1.0, rel=1e-4)
        assert found[mean]["approx_kl"] == pytest.approx(0.5 - 1 + math.log(2.0), rel=1e-3)
        assert found[mean]["kl"] > 0
    assert found["constant"]["kl"] == pytest.approx(found["token"]["kl"], rel=1e-4)


def test_the_constant_can_be_set() -> None:
    config = CONFIG.replace(loss_mean="constant", minibatches=1)
    loss = {}
    for constant in (512.0, 64.0):
        policy = _policy()
        segments = credited(_segments(policy, TOTAL), [1.0] * TOTAL)
        learner = Learner(policy, config.replace(loss_constant=constant))
        loss[constant] = learner.reinforce(segments, np.random.default_rng(0))["loss"]
    assert loss[64.0] == pytest.approx(8 * loss[512.0], rel=1e-3)
    with pytest.raises(ValueError, match="loss_constant"):
        TrainConfig(loss_constant=0.0)


def test_evidence_is_counted_in_what_the_loss_is_a_mean_of() -> None:
    mask = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], np.float32)
    live = np.array([0])
    assert losses.evidence(mask, live, "sequence") == pytest.approx(1 / 3)
    assert losses.evidence(mask, live, "token") == pytest.approx(4 / 6)
    assert losses.evidence(mask, live, "constant") == pytest.approx(4 / 6)
    assert losses.evidence(mask, np.arange(3), "sequence") == 1.0


def test_a_turn_without_credit_is_refused() -> None:
    policy = _policy()
    segments = _segments(policy, TOTAL)
    segments[5].turns[0].advantage = None
    with pytest.raises(ValueError, match="no advantage"):
        Learner(policy, CONFIG).reinforce(segments, np.random.default_rng(0))


# -- numbers that are none ---------------------------------------------------------------------


def _state(learner: Learner) -> dict[str, Tensor]:
    content = learner.optimizer.state_dict()["state"]
    return {
        f"{k}.{n}": torch.as_tensor(v).clone() for k, s in content.items() for n, v in s.items()
    }


def _spoil(what: str, learner: Learner, segments: list[Segment]) -> str:
    """Makes one number none; returns what the error is to name."""
    policy: Any = learner.policy
    if what == "weight":
        with torch.no_grad():
            policy.model.model.layers[0].mlp.up_proj.weight[0, 0] = math.nan
        return "the weight of model.layers.0.mlp.up_proj.weight"
    if what == "unused weight":  # a word that nobody says: no log-probability shows it
        with torch.no_grad():
            policy.model.model.embed_tokens.weight[0, 0] = math.inf
        return "the weight of model.embed_tokens.weight"
    if what == "gradient":
        weight = policy.model.model.layers[0].self_attn.q_proj.weight
        weight.register_hook(lambda g: g * math.inf)
        return "the gradient of model.layers.0.self_attn.q_proj.weight"
    if what == "moment":
        learner.optimizer.state[policy.parameters()[0]]["exp_avg"][0] = math.nan
        return "exp_avg of model.embed_tokens.weight"
    if what == "log-probability":
        real = policy.logprobs_and_entropy
        policy.logprobs_and_entropy = lambda batch: tuple(x - math.inf for x in real(batch))
        return "a log-probability is not finite"
    if what == "advantage":
        segments[3].turns[0].advantage = math.nan
        return "an advantage is not finite"
    old = segments[3].turns[0]
    old.old_logprobs = (-math.inf,) * len(old.old_logprobs)
    return "a log-probability of the rollout is not finite"


@pytest.mark.parametrize(
    ("what", "phase"),
    [
        *((w, "executor") for w in ("weight", "unused weight", "gradient", "moment")),
        *((w, "executor") for w in ("log-probability", "advantage", "old")),
        *((w, "warm start") for w in ("weight", "gradient", "moment", "log-probability")),
    ],
)
def test_a_step_with_a_number_that_is_none_is_refused(what: str, phase: str) -> None:
    policy = _policy()
    # Untied: else the output layer shows every word's weight to every token.
    policy.model.lm_head.weight = torch.nn.Parameter(policy.model.lm_head.weight.clone())
    learner = Learner(policy, CONFIG, name="executor")
    segments = _segments(policy, TOTAL)
    learner.reinforce(segments, np.random.default_rng(0))
    said = _spoil(what, learner, segments)
    weights, state = _flat(policy), _state(learner)
    with pytest.raises(NonFiniteError) as caught:
        if phase == "warm start":
            learner.imitate(token_batch(segments, imitate=True), 1e-3)
        else:
            learner.reinforce(segments, np.random.default_rng(0), phase)
    assert said in caught.value.quantity and caught.value.phase == phase
    assert "policy 'executor'" in str(caught.value) and phase in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert torch.equal(weights, _flat(policy)) or "weight" in what
    after = _state(learner)
    assert state.keys() == after.keys()
    assert all(torch.equal(state[k].nan_to_num(), after[k].nan_to_num()) for k in state)
    assert all(p.grad is None for p in policy.parameters()), "nothing is left for the next step"


@pytest.mark.parametrize("phase", ["warm start", "executor"])
def test_a_run_stops_with_its_last_good_weights_and_goes_on_from_them(
    phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = fruit_runs.CONFIG.replace(
        warm_steps=12, iterations=3, checkpoint_every=100, stop_at_failure=False, least_minibatch=1
    )
    trainer = Trainer(config, tmp_path / "run", console=fruit_runs.QUIET)
    learner = trainer.learners["policy"]
    real, steps = learner._step, []

    def step(where: str, share: float = 1.0) -> float:
        steps.append(where)
        if steps.count(phase) == 4:
            good.append(_flat(learner.policy))  # type: ignore[arg-type]
            next(iter(learner.policy.parameters())).grad[0] = math.nan  # type: ignore[index]
        return real(where, share)

    good: list[Tensor] = []
    monkeypatch.setattr(learner, "_step", step)
    with pytest.raises(StoppedError, match="--resume") as caught:
        trainer.run()
    assert f"{phase}, policy 'policy': the gradient of model.embed_tokens" in str(caught.value)
    place = "supervised step 4" if phase == "warm start" else "iteration "
    assert place in str(caught.value) and "last" not in str(caught.value).split(":")[0]
    newest = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert torch.equal(_flat(TinyPolicy.load(newest / "policy")), good[0])
    trainer.run_folder.close()
    again = Trainer(config, tmp_path / "run", resume=True, console=fruit_runs.QUIET)
    result = again.run()
    assert result["work"]["iterations"] == 3 and again.at.warm == 12
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["final"]["episodes"] == 5
