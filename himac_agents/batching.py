"""From episodes to training batches: which tokens carry which advantage.

This is the one place where tokens and credit meet, for every method: a method is a choice of
segments (whose tokens carry loss) and of an advantage for each of their turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from himac_agents.episodes import Episode, Segment, Turn
from himac_agents.policy import Role, TokenBatch


def segments_of(episodes: Sequence[Episode], role: Role) -> list[Segment]:
    """The segments of one level, in order; crashed episodes are left out."""
    return [
        segment
        for episode in episodes
        if episode.error is None
        for segment in episode.segments
        if segment.role == role and segment.turns
    ]


def token_batch(
    segments: Sequence[Segment],
    advantages: Mapping[int, float] | Sequence[float] | None = None,
    *,
    restrict: bool = True,
    pad: int = 0,
) -> TokenBatch:
    """One padded batch from segments.

    Args:
        segments: What to learn from; the tokens of their turns carry loss, nothing else does.
        advantages: One a segment; or, by `id(turn)`, one a turn. None: 1 everywhere, which makes
            the policy-gradient loss imitation.
        restrict: Take account of what an answer was chosen from (`Turn.allowed`), as policy
            gradients must. Supervision learns more from the whole vocabulary: every word of a
            command teaches it to copy names, even where the game leaves no choice.
        pad: The id to pad with.
    """
    longest = max(len(s.token_ids) for s in segments)
    shape = (len(segments), longest)
    ids = np.full(shape, pad, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.float32)
    old = np.zeros(shape, dtype=np.float32)
    credit = np.zeros(shape, dtype=np.float32)
    allowed: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in segments]
    for row, segment in enumerate(segments):
        ids[row, : len(segment.token_ids)] = segment.token_ids
        for turn in segment.turns:
            at = slice(turn.start, turn.start + len(turn.output_ids))
            mask[row, at] = 1.0
            for place, ids_ in enumerate(turn.allowed if restrict else ()):
                if len(ids_) == 1:  # nothing was decided here
                    mask[row, turn.start + place] = 0.0
                else:
                    allowed[row].append((turn.start + place, ids_))
            if turn.old_logprobs:
                old[row, at] = turn.old_logprobs
            turn.advantage = credit[row, at] = _credit(advantages, row, turn)
    # A token at position 0 has nothing before it that could predict it.
    mask[:, 0] = 0.0
    old *= mask
    credit *= mask
    temperature = segments[0].temperature
    if any(s.temperature != temperature for s in segments):
        raise ValueError("segments sampled at different temperatures cannot share a batch")
    lengths = np.asarray([len(s.token_ids) for s in segments], dtype=np.int64)
    return TokenBatch(ids, mask, old, credit, lengths, allowed, temperature)


def _credit(
    advantages: Mapping[int, float] | Sequence[float] | None, row: int, turn: Turn
) -> float:
    if advantages is None:
        return 1.0
    if isinstance(advantages, Mapping):
        return advantages[id(turn)]
    return float(advantages[row])


def rows(batch: TokenBatch, index: NDArray[np.int64]) -> TokenBatch:
    """Some rows of a batch, cut to their longest."""
    longest = int(batch.lengths[index].max())
    return TokenBatch(
        batch.token_ids[index, :longest],
        batch.mask[index, :longest],
        batch.old_logprobs[index, :longest],
        batch.advantages[index, :longest],
        batch.lengths[index],
        [batch.allowed[i] for i in index] if batch.allowed else [],
        batch.temperature,
        {k: v[index, :longest] for k, v in batch.extra.items()},
    )


def by_length(
    lengths: NDArray[np.int64], tokens: int, rng: np.random.Generator | None = None
) -> Iterator[NDArray[np.int64]]:
    """Row indices in micro-batches of similar length and at most `tokens` padded tokens each.

    Args:
        lengths: The sequences' lengths.
        tokens: Padded tokens a micro-batch; a longer sequence comes alone.
        rng: Shuffles equal lengths and the order of the micro-batches; None keeps them sorted.
    """
    jitter = np.zeros(len(lengths)) if rng is None else rng.random(len(lengths))
    order = np.lexsort((jitter, lengths))
    groups: list[NDArray[np.int64]] = []
    start = 0
    for stop in range(1, len(order) + 1):
        full = stop == len(order) or (stop + 1 - start) * lengths[order[stop]] > tokens
        if full:
            groups.append(order[start:stop])
            start = stop
    if rng is not None:
        groups = [groups[i] for i in rng.permutation(len(groups))]
    yield from groups
