"""The losses: clipped policy gradient, Kullback-Leibler penalty, cross-entropy.

Each is a weighted sum over tokens, with the weights made beforehand over the *whole* mini-batch
(`token_weights`). So a mini-batch may be cut into micro-batches of any size, or spread over
processes, and the sum of their gradients is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LossMean = Literal["sequence", "token", "constant"]


def token_weights(
    mask: NDArray[np.float32], mean: LossMean = "sequence", constant: float = 512.0
) -> NDArray[np.float32]:
    """How much each token counts, [sequences, time]; zero off the mask.

    Args:
        mask: [sequences, time], 1 on tokens that carry loss.
        mean: "sequence": each sequence weighs the same, 1 / (B n_b). "token": each token weighs
            the same, 1 / sum_b n_b. "constant": 1 / (B `constant`), so that long sequences weigh
            more but a token's weight does not depend on its neighbours (Dr. GRPO).
        constant: The divisor of "constant".

    Raises:
        ValueError: `mean` is not one of the three.
    """
    count = mask.sum(axis=1, keepdims=True)
    present = float((count > 0).sum())
    if present == 0:
        return np.zeros_like(mask)
    if mean == "sequence":
        weights = mask / np.maximum(count, 1.0) / present
    elif mean == "token":
        weights = mask / count.sum()
    elif mean == "constant":
        weights = mask / (present * constant)
    else:
        raise ValueError(f"loss_mean={mean!r}: choose sequence, token or constant")
    return np.asarray(weights, dtype=np.float32)


def evidence(mask: NDArray[np.float32], live: NDArray[np.int64], mean: LossMean) -> float:
    """How much of a phase carries an advantage, counted in what its loss is a mean of.

    Args:
        mask: [sequences, time], 1 on tokens that carry loss.
        live: The sequences with an advantage.
        mean: "sequence" counts sequences; "token" and "constant", where a token's weight does not
            depend on its sequence, count tokens.

    Returns:
        A share; 1 where every sequence that carries loss is live.
    """
    counted = mask.sum(axis=1, dtype=np.float64)
    if mean == "sequence":
        counted = (counted > 0).astype(np.float64)
    return float(counted[live].sum() / max(1.0, counted.sum()))


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """What `clipped_policy_gradient` returns.

    Attributes:
        loss: The scalar to differentiate.
        clipped: Weighted share of tokens whose gradient the clip cut off (detached).
        approx_kl: Weighted mean of the k3 estimate of KL(old || new) (detached).
    """

    loss: Tensor
    clipped: Tensor
    approx_kl: Tensor


def clipped_policy_gradient(
    logp: Tensor,
    old_logp: Tensor,
    advantage: Tensor,
    weights: Tensor,
    clip: float = 0.2,
    clip_high: float | None = None,
) -> PolicyLoss:
    """PPO's clipped objective, token by token.

    L = -sum_t w_t min(r_t A_t, clip(r_t, 1 - c, 1 + c_high) A_t), r_t = exp(logp_t - old_logp_t)

    Args:
        logp: [batch, time] log-probabilities now, differentiable.
        old_logp: [batch, time] log-probabilities when sampled.
        advantage: [batch, time].
        weights: [batch, time], from `token_weights`; 0 takes a token out.
        clip: c.
        clip_high: c_high; None uses c. A wider upper clip ("clip-higher") lets rare good tokens
            grow faster than it lets common ones shrink.
    """
    high = clip if clip_high is None else clip_high
    counted = weights > 0
    delta = torch.where(counted, logp - old_logp, torch.zeros_like(logp))
    ratio = delta.exp()
    plain = ratio * advantage
    held = ratio.clamp(1.0 - clip, 1.0 + high) * advantage
    loss = -(weights * torch.minimum(plain, held)).sum()
    with torch.no_grad():
        clipped = (weights * (held < plain)).sum()
        approx_kl = (weights * (ratio - 1.0 - delta)).sum()
    return PolicyLoss(loss, clipped, approx_kl)


def kl_penalty(logp: Tensor, reference: Tensor, weights: Tensor) -> Tensor:
    """The low-variance estimate k3 = exp(d) - d - 1, d = log p_ref - log p, as a weighted sum."""
    delta = torch.where(weights > 0, reference - logp, torch.zeros_like(logp))
    return (weights * (delta.exp() - delta - 1.0)).sum()


def cross_entropy(logp: Tensor, weights: Tensor) -> Tensor:
    """-sum_t w_t log p_t: supervision on demonstrations."""
    return -(weights * logp).sum()
