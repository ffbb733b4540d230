"""Losses against a NumPy reference, and the invariances that training relies on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from himac_agents.algorithms import losses


def _reference(logp, old, advantage, weights, low, high):
    total = 0.0
    for index in np.ndindex(logp.shape):
        if weights[index] == 0:
            continue
        ratio = np.exp(logp[index] - old[index])
        held = np.clip(ratio, 1 - low, 1 + high)
        total -= weights[index] * min(ratio * advantage[index], held * advantage[index])
    return total


def _sample(seed: int, shape: tuple[int, int] = (5, 9)):
    rng = np.random.default_rng(seed)
    logp = rng.normal(-1, 0.5, shape).astype(np.float32)
    old = (logp + rng.normal(0, 0.4, shape)).astype(np.float32)
    advantage = rng.normal(0, 1, shape).astype(np.float32)
    mask = (rng.random(shape) < 0.6).astype(np.float32)
    return logp, old, advantage, mask


@pytest.mark.parametrize("mean", ["sequence", "token", "constant"])
@pytest.mark.parametrize("high", [None, 0.28])
def test_clipped_policy_gradient_is_the_formula(mean: losses.LossMean, high: float | None) -> None:
    logp, old, advantage, mask = _sample(1)
    weights = losses.token_weights(mask, mean)
    found = losses.clipped_policy_gradient(
        *map(torch.tensor, (logp, old, advantage, weights)), clip=0.2, clip_high=high
    )
    expected = _reference(logp, old, advantage, weights, 0.2, 0.2 if high is None else high)
    assert float(found.loss) == pytest.approx(expected, abs=1e-5)


def test_one_token_by_hand() -> None:
    # Ratio e^0.5 = 1.6487, clipped to 1.2: with advantage 2 the loss is -2.4 and has no gradient;
    # with advantage -2 the unclipped 3.2974 counts.
    logp = torch.tensor([[-0.5]], requires_grad=True)
    old, one = torch.tensor([[-1.0]]), torch.ones(1, 1)
    part = losses.clipped_policy_gradient(logp, old, 2 * one, one)
    part.loss.backward()
    assert float(part.loss) == pytest.approx(-2.4) and float(logp.grad) == 0.0
    assert float(part.clipped) == 1.0
    part = losses.clipped_policy_gradient(logp, old, -2 * one, one)
    assert float(part.loss) == pytest.approx(2 * np.exp(0.5))


def test_weights_by_hand() -> None:
    mask = np.array([[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=np.float32)
    sequence = losses.token_weights(mask, "sequence")
    assert sequence[0].tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 0])
    assert sequence[1, 1] == pytest.approx(0.5) and sequence[2].sum() == 0
    assert losses.token_weights(mask, "token")[1, 1] == pytest.approx(0.25)
    assert losses.token_weights(mask, "constant", 8)[1, 1] == pytest.approx(1 / 16)
    assert losses.token_weights(np.zeros((2, 3), np.float32)).sum() == 0
    with pytest.raises(ValueError, match="choose sequence"):
        losses.token_weights(mask, "median")  # type: ignore[arg-type]


def test_kl_is_k3_and_never_negative() -> None:
    logp, reference, _, mask = _sample(2)
    weights = losses.token_weights(mask, "token")
    delta = reference - logp
    expected = float((weights * (np.exp(delta) - delta - 1)).sum())
    found = losses.kl_penalty(*map(torch.tensor, (logp, reference, weights)))
    assert float(found) == pytest.approx(expected, abs=1e-6)
    assert float(losses.kl_penalty(*map(torch.tensor, (logp, logp, weights)))) == 0.0
    assert expected > 0


def test_tokens_off_the_mask_get_no_gradient_even_where_numbers_are_wild() -> None:
    logp = torch.tensor([[-1.0, -800.0]], requires_grad=True)
    old = torch.tensor([[-1.2, 0.0]])
    weights = torch.tensor([[1.0, 0.0]])
    part = losses.clipped_policy_gradient(logp, old, torch.ones(1, 2), weights)
    (part.loss + losses.kl_penalty(logp, old, weights)).backward()
    assert logp.grad is not None and torch.isfinite(logp.grad).all()
    assert logp.grad[0, 1] == 0.0 and logp.grad[0, 0] != 0.0
