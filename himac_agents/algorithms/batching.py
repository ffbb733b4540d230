"""From episodes to training batches: which tokens carry which advantage.

This is the one place where tokens and credit meet, for every method: a method is a choice of
segments (whose tokens carry loss) and of an advantage for each of their turns (`turn.advantage`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from himac_agents.policies.base import Image, Role, TokenBatch
from himac_agents.rollouts.types import Episode, Segment, Turn


def by_group(episodes: Sequence[Episode]) -> list[list[int]]:
    """The places of the episodes of each group."""
    found: dict[int, list[int]] = {}
    for i, episode in enumerate(episodes):
        found.setdefault(episode.request.group, []).append(i)
    return list(found.values())


def segments_of(episodes: Sequence[Episode], role: Role) -> list[Segment]:
    """The segments of one level, in order; crashed episodes are left out."""
    return [
        segment
        for episode in episodes
        if episode.error is None
        for segment in episode.segments
        if segment.role == role and segment.turns
    ]


class Place(NamedTuple):
    """Which sub-goal of an episode one is.

    Attributes:
        blueprint: The number of its blueprint among the episode's, from 0; see `replans`.
        line: Its place in that blueprint.
    """

    blueprint: int
    line: int


def places_of(episode: Episode) -> list[Place]:
    """The places of an episode's executor segments, in the order of `segments_of`.

    A further blueprint is written when all sub-goals of the one before have ended: its segment
    stands between theirs and its own, and places begin again. A first one that was given has none.
    """
    found: list[Place] = []
    number, asked = 0, False
    for segment in episode.segments if episode.error is None else ():
        if segment.role == "planner":
            asked = bool(found)
        elif segment.role == "executor" and segment.turns:
            again = asked or (bool(found) and segment.index < found[-1].line)
            number, asked = number + again, False
            found.append(Place(number, segment.index))
    return found


@dataclass(frozen=True, slots=True)
class Row:
    """One training sequence.

    Attributes:
        segment: The number of the segment that it comes from.
        token_ids: Its ids.
        turns: The turns in it.
        numbers: Their places in the segment.
    """

    segment: int
    token_ids: Sequence[int]
    turns: list[Turn]
    numbers: list[int]


def training_rows(segments: Sequence[Segment]) -> list[Row]:
    """A row a segment; several where a segment's context was rewritten between its turns.

    They are the rows of `token_batch`, in its order.
    """
    found: list[Row] = []
    for number, segment in enumerate(segments):
        own: dict[int, Row] = {}
        for place, turn in enumerate(segment.turns):
            ids = segment.token_ids if turn.sequence is None else turn.sequence
            row = own.setdefault(id(ids), Row(number, ids, [], []))
            row.turns.append(turn)
            row.numbers.append(place)
        found.extend(own.values() or [Row(number, segment.token_ids, [], [])])
    return found


def starts(segments: Sequence[Segment]) -> list[list[tuple[int, int]]]:
    """For each segment, for each turn: its row of `token_batch`, and where in it it begins."""
    found = [[(0, 0)] * len(segment.turns) for segment in segments]
    for row, held in enumerate(training_rows(segments)):
        for place, turn in zip(held.numbers, held.turns, strict=True):
            found[held.segment][place] = (row, turn.start)
    return found


def token_batch(
    segments: Sequence[Segment], *, imitate: bool = False, states: bool = False, pad: int = 0
) -> TokenBatch:
    """One padded batch from segments; they stay as they are.

    Args:
        segments: What to learn from; the tokens of their turns carry loss, nothing else does. A
            segment is one row, or several where its context was rewritten (`Turn.sequence`).
        imitate: Each token weighs 1, whatever its turn's advantage, and is chosen from the whole
            vocabulary: every word of a command teaches supervision to copy names, even where the
            game leaves no choice. Otherwise a token weighs its turn's advantage (0 where it has
            none), and what an answer was chosen from (`Turn.allowed`) is taken account of, as
            policy gradients must.
        states: Adds what a critic needs; see `himac_agents.algorithms.critic`.
        pad: The id to pad with.
    """
    made = training_rows(segments)
    longest = max(len(row.token_ids) for row in made)
    shape = (len(made), longest)
    ids = np.full(shape, pad, dtype=np.int64)
    mask, old, credit = (np.zeros(shape, dtype=np.float32) for _ in range(3))
    further = ("first", "written", "target", "credit") if states else ()
    extra = {name: np.zeros(shape, dtype=np.float32) for name in further}
    allowed: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in made]
    for row, held in enumerate(made):
        ids[row, : len(held.token_ids)] = held.token_ids
        for turn in held.turns:
            at = slice(turn.start, turn.start + len(turn.output_ids))
            mask[row, at] = 1.0
            for place, ids_ in enumerate(() if imitate else turn.allowed):
                if len(ids_) == 1:  # nothing was decided here
                    mask[row, turn.start + place] = 0.0
                else:
                    allowed[row].append((turn.start + place, ids_))
            if turn.old_logprobs:
                old[row, at] = turn.old_logprobs
            credit[row, at] = 1.0 if imitate else turn.token_advantages or turn.advantage or 0.0
            if states and turn.start > 0:
                extra["first"][row, turn.start] = extra["written"][row, at] = 1.0
                extra["target"][row, at] = turn.target or 0.0
                extra["credit"][row, at] = turn.advantage or 0.0
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
    return TokenBatch(ids, mask, old, credit, lengths, allowed, temperature, images, extra)


def _images(segment: Segment, row: Row) -> tuple[Image, ...]:
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

    def below(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([np.pad(p, ((0, 0), (0, longest - p.shape[1]))) for p in parts])

    def stack(name: str) -> NDArray[Any]:
        return below([getattr(batch, name) for batch in whole])

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
        {key: below([batch.extra[key] for batch in whole]) for key in whole[0].extra},
    )


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
