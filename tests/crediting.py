"""Credit by hand, for tests of what moves weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from himac_agents import distributed
from himac_agents.algorithms.batching import segments_of
from himac_agents.algorithms.credit import Credit
from himac_agents.rollouts.types import Episode, Segment


def credited(segments: Sequence[Segment], advantages: Sequence[Any]) -> list[Segment]:
    """The segments, their turns told one advantage a segment, or one each."""
    credit = Credit()
    for segment, advantage in zip(segments, advantages, strict=True):
        credit.give(segment, advantage)
    return credit.segments


def advantages_of(segment: Segment) -> list[float | None]:
    """What its turns were told."""
    return [turn.advantage for turn in segment.turns]


def share_of(episodes: Sequence[Episode]) -> list[Segment]:
    """This process's share of what all of them have played, with credit drawn for each episode.

    Shares are uneven, as in real runs; each process draws the same.
    """
    advantages = np.random.default_rng(0).normal(size=len(episodes)).tolist()
    mine = distributed.team().share(list(zip(episodes, advantages, strict=True)))
    segments = [s for e, _ in mine for s in segments_of([e], "executor")]
    return credited(segments, [a for e, a in mine for _ in segments_of([e], "executor")])
