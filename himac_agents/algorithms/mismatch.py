"""What is learned from answers of a sampler that is not quite the model that learns.

A server that rounds differently draws its answers from a distribution mu near the policy's pi. The
gradient's mean over mu's answers is right where each counts pi / mu; that ratio is cut off at a
cap, since a few answers would outweigh all others (truncated importance sampling; Ionides 2008).
PPO's own ratio is then taken between the policy now and the policy that sampling meant, both as the
model that learns computes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Form = Literal["token", "sequence"]


@dataclass(frozen=True, slots=True)
class Correction:
    """What `correct` found.

    Attributes:
        weights: [batch, time] what each token's advantage is multiplied by; 1 off the mask.
        metrics: The mean ratio before it is cut off, the share that is cut off, an estimate of
            KL(mu || pi) in nats a token, and the greatest difference of log-probabilities.
    """

    weights: NDArray[np.float32]
    metrics: dict[str, float]


def correct(
    ours: NDArray[np.float32],
    theirs: NDArray[np.float32],
    mask: NDArray[np.float32],
    form: Form,
    cap: float,
) -> Correction:
    """Weights for tokens that another sampler drew.

    Args:
        ours: [batch, time] log-probabilities under the model that learns, before its update.
        theirs: [batch, time] log-probabilities that the sampler gave.
        mask: [batch, time] 1 on tokens that carry loss.
        form: "token": the ratio of each token. "sequence": of all of a sequence's tokens together,
            which has no bias but for the cap, and a variance that grows with the length.
        cap: The greatest weight.
    """
    counted = mask > 0
    delta = np.where(counted, ours.astype(np.float64) - theirs, 0.0)
    if form == "sequence":
        shared = delta.sum(axis=1, keepdims=True)
        exponent = np.where(counted, shared, 0.0)
        counts = counted.any(axis=1)
        of = shared[counts, 0]
    else:
        exponent, of = delta, delta[counted]
    # Beyond e^30 nothing but the cap is known; the mean is still to be a number.
    ratios = np.exp(np.minimum(of, 30.0))
    tokens = delta[counted]
    k3 = np.exp(np.clip(tokens, None, 30.0)) - 1.0 - tokens
    metrics = {
        "sampler_ratio": float(ratios.mean()) if ratios.size else 1.0,
        "sampler_truncated": float((ratios > cap).mean()) if ratios.size else 0.0,
        "sampler_kl": float(k3.mean()) if tokens.size else 0.0,
        "sampler_gap": float(np.abs(tokens).max()) if tokens.size else 0.0,
    }
    weights = np.minimum(np.exp(np.minimum(exponent, 30.0)), np.where(counted, cap, 1.0))
    return Correction(weights.astype(np.float32), metrics)
