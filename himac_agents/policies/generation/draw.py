"""Drawing a token of what a model says: from all it knows, or from those that are allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from himac_agents.policies.base import Sampling

#: The logits [rows, ids] of the ids that are given.
Among = Callable[[NDArray[np.int64]], Tensor]


def draw(
    logits: Tensor, sampling: Sampling, barred: Tensor | None, drawn: NDArray[np.float64] | None
) -> tuple[list[int], list[float]]:
    """One token of the whole vocabulary for each row; ids and their log-probabilities.

    Each row has one random number of its own, and takes the first token at which the sum of
    probabilities exceeds it.

    Args:
        logits: [rows, vocabulary].
        sampling: How they are drawn.
        barred: Ids that are never written.
        drawn: [rows] numbers in [0, 1); None: the most likely token is taken.
    """
    logits = _tempered(logits, sampling)
    if barred is not None:
        logits = logits.index_fill(-1, barred, -math.inf)
    found, logps = _drawn(logits, drawn)
    return found.tolist(), logps.tolist()


def draw_among(
    among: Among,
    options: Sequence[Sequence[int]],
    sampling: Sampling,
    barred: Collection[int],
    drawn: NDArray[np.float64] | None,
) -> tuple[list[int], list[float]]:
    """The same where each row may write few ids only: what is not allowed is not looked at.

    Args:
        among: Gives the logits of some ids.
        options: For each row the ids it may write, in ascending order.
        sampling: See `draw`.
        barred: See `draw`.
        drawn: See `draw`.
    """
    counts = np.asarray([len(ids) for ids in options])
    flat = np.asarray([token for ids in options for token in ids], dtype=np.int64)
    known, place = np.unique(flat, return_inverse=True)
    row, begins = np.arange(len(counts)).repeat(counts), counts.cumsum() - counts
    found = _tempered(among(known), sampling).cpu().numpy()[row, place]
    if barred:
        found[np.isin(flat, list(barred))] = -np.inf
    # Rows with fewer ids than others are filled up with what has no probability. A few numbers
    # on their own: to start an operation of torch takes longer than to work them out.
    logits = np.full((len(counts), int(counts.max())), -np.inf)
    logits[row, np.arange(len(flat)) - begins[row]] = found
    logits -= logits.max(-1, keepdims=True)
    likely = np.exp(logits)
    sums = likely.cumsum(-1)
    places = logits.argmax(-1) if drawn is None else _first_above(sums, drawn)
    logps = logits[np.arange(len(counts)), places] - np.log(sums[:, -1])
    return flat[begins + places].tolist(), logps.tolist()


def _tempered(logits: Tensor, sampling: Sampling) -> Tensor:
    logits = logits.float()
    # A greedy answer is scored under the model at temperature 1.
    return logits if sampling.temperature in (0.0, 1.0) else logits / sampling.temperature


def _drawn(logits: Tensor, drawn: NDArray[np.float64] | None) -> tuple[Tensor, Tensor]:
    """Places [rows] in the logits and their log-probabilities."""
    logp = torch.log_softmax(logits, dim=-1)
    if drawn is None:
        places = logp.argmax(-1)
    else:
        places = inverse(logp, torch.as_tensor(drawn, device=logits.device))
    return places, logp.gather(-1, places[:, None])[:, 0]


def inverse(logp: Tensor, drawn: Tensor) -> Tensor:
    """The places [rows] at which the sums of probabilities first exceed the numbers drawn.

    Sums are taken in double precision: over a vocabulary of 150,000, those in single precision
    are off by more than rare tokens weigh. A place of probability 0 is never taken.

    Args:
        logp: [rows, places] log-probabilities.
        drawn: [rows] numbers in [0, 1).
    """
    places: Tensor = _first_above(logp.exp().double().cumsum(-1), drawn)
    return places


def _first_above(sums: Any, drawn: Any) -> Any:
    """The same for sums [rows, places], as tensors or as arrays."""
    total = sums[:, -1:]
    places = (sums <= drawn[:, None] * total).sum(-1)
    # Rounding may put a number drawn near 1 behind the last token that has any probability.
    return places.clip(None, (sums < total).sum(-1))
