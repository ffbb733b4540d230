"""From episodes to training batches: which tokens carry which advantage.

This is the one place where tokens and credit meet, for every method: a method is a choice of
segments (whose tokens carry loss) and of an advantage for each of their turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from himac_agents.policies.base import Image, Role, TokenBatch
from himac_agents.rollouts.types import Episode, Segment, Turn


def segments_of(episodes: Sequence[Episode], role: Role) -> list[Segment]:
    """The segments of one level, in order; crashed episodes are left out."""
    return [
        segment
        for episode in episodes
        if episode.error is None
        for segment in episode.segments
        if segment.role == role and segment.turns
    ]


@dataclass(frozen=True, slots=True)
class _Row:
    """One training sequence: where it comes from, its ids, the turns in it."""

    segment: int
    token_ids: Sequence[int]
    turns: list[Turn]


def _training_rows(segments: Sequence[Segment]) -> list[_Row]:
    """A row a segment; several where a segment's context was rewritten between its turns."""
    found: list[_Row] = []
    for number, segment in enumerate(segments):
        own: dict[int, _Row] = {}
        for turn in segment.turns:
            ids = segment.token_ids if turn.sequence is None else turn.sequence
            own.setdefault(id(ids), _Row(number, ids, [])).turns.append(turn)
        found.extend(own.values() or [_Row(number, segment.token_ids, [])])
    return found


def token_batch(
    segments: Sequence[Segment],
    advantages: Mapping[int, float] | Sequence[float] | None = None,
    *,
    restrict: bool = True,
    pad: int = 0,
) -> TokenBatch:
    """One padded batch from segments.

    Args:
        segments: What to learn from; the tokens of their turns carry loss, nothing else does. A
            segment is one row, or several where its context was rewritten (`Turn.sequence`).
        advantages: One a segment; or, by `id(turn)`, one a turn. None: 1 everywhere, which makes
            the policy-gradient loss imitation.
        restrict: Take account of what an answer was chosen from (`Turn.allowed`), as policy
            gradients must. Supervision learns more from the whole vocabulary: every word of a
            command teaches it to copy names, even where the game leaves no choice.
        pad: The id to pad with.
    """
    made = _training_rows(segments)
    longest = max(len(row.token_ids) for row in made)
    shape = (len(made), longest)
    ids = np.full(shape, pad, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.float32)
    old = np.zeros(shape, dtype=np.float32)
    credit = np.zeros(shape, dtype=np.float32)
    allowed: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in made]
    for row, held in enumerate(made):
        ids[row, : len(held.token_ids)] = held.token_ids
        for turn in held.turns:
            at = slice(turn.start, turn.start + len(turn.output_ids))
            mask[row, at] = 1.0
            for place, ids_ in enumerate(turn.allowed if restrict else ()):
                if len(ids_) == 1:  # nothing was decided here
                    mask[row, turn.start + place] = 0.0
                else:
                    allowed[row].append((turn.start + place, ids_))
            if turn.old_logprobs:
                old[row, at] = turn.old_logprobs
            turn.advantage = credit[row, at] = _credit(advantages, held.segment, turn)
    # A token at position 0 has nothing before it that could predict it.
    mask[:, 0] = 0.0
    old *= mask
    credit *= mask
    temperature = segments[0].temperature
    if any(s.temperature != temperature for s in segments):
        raise ValueError("segments sampled at different temperatures cannot share a batch")
    lengths = np.asarray([len(row.token_ids) for row in made], dtype=np.int64)
    images: list[tuple[Image, ...]] = []
    if any(segment.images for segment in segments):
        images = [_images(segments[row.segment], row) for row in made]
    return TokenBatch(ids, mask, old, credit, lengths, allowed, temperature, images)


def _images(segment: Segment, row: _Row) -> tuple[Image, ...]:
    """The pictures that a row's tokens stand for."""
    if row.token_ids is segment.token_ids:
        return tuple(segment.images)
    return tuple(segment.images[: max(turn.images for turn in row.turns)])


def join(batches: Sequence[TokenBatch | None]) -> TokenBatch | None:
    """Batches one below the other, in order; None where there is none.

    Raises:
        ValueError: They were sampled at different temperatures.
    """
    whole = [batch for batch in batches if batch is not None]
    if len(whole) <= 1:
        return whole[0] if whole else None
    if len({batch.temperature for batch in whole}) > 1:
        raise ValueError("batches sampled at different temperatures cannot be joined")
    longest = max(batch.token_ids.shape[1] for batch in whole)

    def stack(name: str) -> NDArray[Any]:
        parts = [getattr(batch, name) for batch in whole]
        return np.concatenate([np.pad(p, ((0, 0), (0, longest - p.shape[1]))) for p in parts])

    pictured = any(batch.images for batch in whole)
    return TokenBatch(
        stack("token_ids"),
        stack("mask"),
        stack("old_logprobs"),
        stack("advantages"),
        np.concatenate([batch.lengths for batch in whole]),
        [pairs for batch in whole for pairs in (batch.allowed or [[]] * len(batch))],
        whole[0].temperature,
        [i for b in whole for i in (b.images or [()] * len(b))] if pictured else [],
    )


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
        [batch.images[i] for i in index] if batch.images else [],
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
