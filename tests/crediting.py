"""Credit by hand, for tests of what moves weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from himac_agents.algorithms.credit import Credit
from himac_agents.rollouts.types import Segment


def credited(segments: Sequence[Segment], advantages: Sequence[Any]) -> list[Segment]:
    """The segments, their turns told one advantage a segment, or one each."""
    credit = Credit()
    for segment, advantage in zip(segments, advantages, strict=True):
        credit.give(segment, advantage)
    return credit.segments


def advantages_of(segment: Segment) -> list[float | None]:
    """What its turns were told."""
    return [turn.advantage for turn in segment.turns]
