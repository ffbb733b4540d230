"""The room: which receptacles stand where, and to which split this room belongs.

A split's rooms are disjoint from every other split's by construction: a room's fingerprint (kinds,
numbers, doors, shared spots) decides which split it belongs to, and a split draws rooms until one
is its own. So a test world always lies in a room that no training world has, whatever the number
of worlds drawn.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import blake2b
from typing import NamedTuple

from himac_envs.alfworld.generate.controls import Controls
from himac_envs.alfworld.generate.dice import Dice
from himac_envs.alfworld.generate.tables import RoomFacts

SPLITS = ("train", "valid", "test")
_LARGEST_SPOT = 4  # the official games have at most five receptacles at one location
_REDRAWS = 12


class Receptacle(NamedTuple):
    """One receptacle.

    Attributes:
        kind: "Cabinet", ...
        number: 1, 2, ... within its kind.
        door: Whether it opens and closes; it starts closed then.
        spot: The location it is reached from; several may share one.
    """

    kind: str
    number: int
    door: bool
    spot: int


def draw_layout(
    dice: Dice, room: RoomFacts, controls: Controls, needed: Collection[str]
) -> tuple[Receptacle, ...]:
    """Draw the receptacles of a room.

    Args:
        dice: Where chance comes from.
        room: The kind of room.
        controls: Bounds on the number of receptacles.
        needed: Kinds that must not be missing (the sink of a cleaning task).
    """
    counts = _draw_counts(dice, room, controls.receptacles, needed)
    spots = 0
    members: list[list[str]] = []  # the kinds at each spot
    of_kind: dict[str, list[int]] = {}  # the spots of the receptacles drawn so far
    rules: dict[str, list[tuple[str, int]]] = {}
    for a, b, percent in room.together:
        rules.setdefault(a, []).append((b, percent))
    out: list[Receptacle] = []
    for facts in room.receptacles:
        for number in range(1, counts[facts.kind] + 1):
            spot = -1
            for partner, percent in rules.get(facts.kind, ()):
                near = of_kind.get(partner)
                if near and dice.percent(percent):
                    spot = near[-1] if partner == facts.kind else dice.choice(near)
                    break
            if spot < 0 or len(members[spot]) >= _LARGEST_SPOT:
                spot, spots = spots, spots + 1
                members.append([])
            members[spot].append(facts.kind)
            of_kind.setdefault(facts.kind, []).append(spot)
            door = facts.openable > 0 and dice.percent(facts.openable)
            out.append(Receptacle(facts.kind, number, door, spot))
    return tuple(out)


def _draw_counts(
    dice: Dice, room: RoomFacts, bounds: tuple[int, int], needed: Collection[str]
) -> dict[str, int]:
    """Draw a count for each kind; a total out of bounds is drawn again, and in the end mended."""
    low, high = bounds
    for _ in range(_REDRAWS):
        counts = {facts.kind: dice.choice(facts.counts) for facts in room.receptacles}
        for kind in needed:
            if not counts.get(kind):
                counts[kind] = 1
        if low <= sum(counts.values()) <= high:
            return counts
    kinds = [facts.kind for facts in room.receptacles]
    total = sum(counts.values())
    while total > high:
        spare = [k for k in kinds for _ in range(counts[k] - (k in needed))]
        if not spare:
            break
        counts[dice.choice(spare)] -= 1
        total -= 1
    several = [facts.kind for facts in room.receptacles if max(facts.counts) > 1]
    while total < low:
        counts[dice.choice(several)] += 1
        total += 1
    return counts


def split_of(room: str, layout: tuple[Receptacle, ...]) -> str:
    """Return the split that a room belongs to: the same for the same room, each equally often."""
    parts = sorted(f"{row.kind}.{row.number}.{int(row.door)}.{row.spot}" for row in layout)
    digest = blake2b("|".join([room, *parts]).encode(), digest_size=8).digest()
    return SPLITS[int.from_bytes(digest, "big") % len(SPLITS)]
