"""Beginnings that conversations share: each is read once.

The episodes of a group play one task: their prompts begin with the same rules and the same room.
What one row of the cache holds, another is given by copying its keys and values. Where none holds
it yet, one of those that ask reads it first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise

#: A beginning that is shorter than this is read again: to look for it costs as much.
LEAST = 16


#: Who gives, which prompt takes, the first position and the one behind the last.
Loan = tuple[int, int, int, int]


def sharing(
    prompts: Sequence[Sequence[int]],
    starts: Sequence[int],
    held: Mapping[int, list[int]],
    asking: Sequence[int],
) -> tuple[list[Loan], list[Loan]]:
    """Finds the longest beginnings that others hold or read, too.

    In the order of their ids, prompts with a common beginning stand beside each other: how much a
    prompt shares with any other is the least that neighbours between them share.

    Args:
        prompts: What is to be read.
        starts: How much of it its own row holds.
        held: Tokens in the cache by slot.
        asking: Which of the prompts may be given something.

    Returns:
        What slots give of what the cache holds already, and what prompts give of what they read
        now.
    """
    from_held: list[Loan] = []
    from_read: list[Loan] = []
    # A token at least is left to be read by the row itself.
    asks = sorted((list(prompts[i][:-1]), i) for i in asking if len(prompts[i]) - starts[i] > LEAST)
    if not asks:
        return from_held, from_read
    rows = sorted((tokens, slot) for slot, tokens in held.items() if len(tokens) > LEAST)
    have: list[int] = []
    for text, i in asks:
        place = bisect_left(rows, (text, -1))
        near = [
            (common(text, tokens), slot) for tokens, slot in rows[max(place - 1, 0) : place + 1]
        ]
        length, slot = max(near, default=(0, -1))
        if length > starts[i] + LEAST:
            from_held.append((slot, i, starts[i], length))
            have.append(length)
        else:
            have.append(starts[i])
    # How much each shares with the one before it.
    shares = [0, *(common(a, b) for (a, _), (b, _) in pairwise(asks)), 0]
    leader, shared = -1, 0
    for place, (text, i) in enumerate(asks):
        shared = min(shared, shares[place])
        # One that shares more with the next than with who leads leads the next.
        if shared > have[place] + LEAST and shares[place + 1] <= shared + LEAST:
            from_read.append((leader, i, have[place], shared))
        else:
            leader, shared = i, len(text)
    return from_held, from_read


def common(one: list[int], other: list[int]) -> int:
    """How many leading tokens are the same."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:  # the first `low` are the same, the first `high` are not
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
