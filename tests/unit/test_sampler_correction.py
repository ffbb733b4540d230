"""Learning from a sampler that is not quite the model: ratios, caps, and their place in updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tinymodels import CHATML, save_text_model

from himac_agents.algorithms.learner import Learner
from himac_agents.algorithms.mismatch import correct
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Message
from himac_agents.policies.hf import HFPolicy
from himac_agents.rollouts.types import Segment, Turn

MASK = np.asarray([[0, 1, 1, 0], [0, 1, 0, 0]], dtype=np.float32)


def _arrays(*rows: list[float]) -> Any:
    return np.asarray(rows, dtype=np.float32)


def test_tokens_and_sequences() -> None:
    ours = _arrays([9, -1.0, -2.0, 9], [9, -1.0, 9, 9])
    theirs = _arrays([0, -1.5, -1.8, 0], [0, -3.0, 0, 0])
    token = correct(ours, theirs, MASK, "token", 2.0)
    wanted = [[1, np.exp(0.5), np.exp(-0.2), 1], [1, 2.0, 1, 1]]
    np.testing.assert_allclose(token.weights, wanted, rtol=1e-6)
    ratios = np.exp([0.5, -0.2, 2.0])
    assert token.metrics["sampler_ratio"] == pytest.approx(ratios.mean(), rel=1e-6)
    assert token.metrics["sampler_truncated"] == pytest.approx(1 / 3)
    assert token.metrics["sampler_gap"] == pytest.approx(2.0, rel=1e-6)
    whole = correct(ours, theirs, MASK, "sequence", 5.0)
    wanted = [[1, np.exp(0.3), np.exp(0.3), 1], [1, 5.0, 1, 1]]
    np.testing.assert_allclose(whole.weights, wanted, rtol=1e-6)
    assert whole.metrics["sampler_truncated"] == 0.5
    nothing = correct(ours, theirs, np.zeros_like(MASK), "sequence", 2.0)
    assert (nothing.weights == 1).all() and nothing.metrics["sampler_gap"] == 0.0
    far = correct(ours * 0 + 800.0, theirs, MASK, "token", 2.0)
    assert np.isfinite(far.weights).all() and np.isfinite(list(far.metrics.values())).all()


def test_without_a_cap_the_mean_over_the_sampler_is_the_policys() -> None:
    pi, mu = np.asarray([0.7, 0.2, 0.1]), np.asarray([0.4, 0.3, 0.3])
    value = np.asarray([1.0, -2.0, 5.0])
    one = np.ones((3, 1), dtype=np.float32)
    logs = [np.log(p).astype(np.float32)[:, None] for p in (pi, mu)]
    found = correct(*logs, one, "token", 1e9)
    assert (mu * found.weights[:, 0] * value).sum() == pytest.approx((pi * value).sum(), rel=1e-5)
    # k3's mean over mu is KL(mu || pi) exactly.
    kl = (mu * np.log(mu / pi)).sum()
    delta = np.log(pi / mu)
    assert (mu * (np.exp(delta) - 1 - delta)).sum() == pytest.approx(kl, rel=1e-6)


def _segments(policy: Any, shift: float) -> list[Segment]:
    """Two answers to one question, with log-probabilities that are off by `shift`."""
    found = []
    for text, advantage in (("look", 1.0), ("go to cabinet 1", -1.0)):
        ids, answer = policy.encode([Message("user", "What?")]), policy.encode_reply(text)
        segment = Segment("executor", 0, token_ids=[*ids, *answer])
        turn = Turn("executor", len(ids), answer, (), text, text)
        segment.turns.append(turn)
        from himac_agents.algorithms.batching import token_batch

        with torch.no_grad():
            logp = policy.logprobs(token_batch([segment], imitate=True))[0]
        turn.old_logprobs = tuple(float(p) + shift for p in logp[len(ids) :])
        turn.advantage = advantage
        found.append(segment)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return save_text_model(tmp_path_factory.mktemp("correction") / "tiny", CHATML, layers=1)


def _updated(folder: Any, correction: str, shift: float, cap: float = 2.0) -> tuple[Any, Any]:
    policy = HFPolicy.load(folder, device="cpu", dtype="float32")
    config = TrainConfig(
        policy="hf", model=str(folder), kl=0.0, lr=1e-3, minibatches=1, max_grad_norm=1e9,
        sampler_correction=correction, sampler_cap=cap,
    )  # fmt: skip
    segments = _segments(policy, shift)
    metrics = Learner(policy, config).reinforce(segments, np.random.default_rng(0))
    return policy.model.state_dict(), metrics


def test_an_update_weighs_what_another_sampler_drew(folder: Any) -> None:
    plain, before = _updated(folder, "none", 0.0)
    same, told = _updated(folder, "token", 0.0)
    for name, tensor in plain.items():
        assert torch.allclose(tensor, same[name], atol=1e-6)
    assert told["sampler_ratio"] == pytest.approx(1.0, abs=1e-4)
    assert "sampler_ratio" not in before
    # Each token was drawn e^0.5 times too seldom: the gradient grows by that, or up to the cap.
    _, seldom = _updated(folder, "token", -0.5)
    assert seldom["grad_norm"] == pytest.approx(told["grad_norm"] * np.exp(0.5), rel=1e-3)
    assert seldom["logprob_gap"] < 1e-4, "PPO's ratio begins at the model's own log-probabilities"
    assert seldom["sampler_gap"] == pytest.approx(0.5, abs=1e-3)
    _, capped = _updated(folder, "token", -0.5, cap=1.2)
    assert capped["grad_norm"] == pytest.approx(told["grad_norm"] * 1.2, rel=1e-3)
    assert capped["sampler_truncated"] == 1.0
    _, whole = _updated(folder, "sequence", -0.5, cap=1.3)
    assert whole["grad_norm"] == pytest.approx(told["grad_norm"] * 1.3, rel=1e-3)
