"""Whether servers write with the weights that learn: log-probabilities of both, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from himac_agents.policies.base import Message, Prompt, Sampling, TokenBatch
from himac_agents.policies.served.policy import ServedPolicy

#: How the answers are drawn.
SAMPLING = Sampling(1.0, 8)
#: What is asked. The last is long: of short ones a server keeps no beginning from before a sync.
_ASKED = (
    "Where is the mug?",
    "You are in the middle of a room. What do you do next?",
    "1 2 3 4 5 6 7",
    "Push the box to the wall, go around it, and push it back. " * 16,
)


def questions(policy: ServedPolicy) -> list[Prompt]:
    """What is asked of every server after a sync."""
    asked = [policy.encode([Message("user", text)]) for text in _ASKED]
    return [Prompt((), ids, noise=number) for number, ids in enumerate(asked)]


def gap(
    policy: ServedPolicy,
    asked: Sequence[Prompt],
    said: Sequence[Mapping[str, Any]],
    logprobs: Callable[[TokenBatch], NDArray[np.float32]],
) -> tuple[float, float]:
    """How far log-probabilities of a server's answers are from the learning model's, in nats.

    Returns:
        The mean gap of a token, and the largest.

    Raises:
        RolloutError: An answer cannot be read.
    """
    rows, marks, theirs = [], [], []
    for prompt, choice in zip(asked, said, strict=True):
        completion = policy.read(choice, prompt, SAMPLING)
        rows.append([*prompt.token_ids, *completion.token_ids])
        marks.append(len(prompt.token_ids))
        theirs.append(completion.logprobs)
    longest = max(len(row) for row in rows)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask, old = (np.zeros((len(rows), longest), dtype=np.float32) for _ in range(2))
    for number, (row, mark, told) in enumerate(zip(rows, marks, theirs, strict=True)):
        ids[number, : len(row)] = row
        mask[number, mark : len(row)] = 1.0
        old[number, mark : len(row)] = told
    lengths = np.asarray([len(row) for row in rows], dtype=np.int64)
    batch = TokenBatch(ids, mask, old, np.zeros_like(old), lengths)
    apart = np.abs(logprobs(batch) - old)[mask > 0]
    return float(apart.mean()), float(apart.max())
