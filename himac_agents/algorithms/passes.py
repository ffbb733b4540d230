"""Which rows of a mini-batch which process computes, in how many passes.

A whole model computes what there is. A model that is sharded over the processes gathers its layers
in every pass, so all of them make equally many: who has no rows left makes an *empty* one, of a row
whose tokens carry no loss. Its gradient is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from himac_agents.algorithms.batching import by_length, rows
from himac_agents.distributed import Team
from himac_agents.policies.base import TokenBatch
from himac_agents.policies.trees import Trees

#: Rows of a batch by their numbers; those of an empty pass are none.
Index = NDArray[np.int64]
_NONE: Index = np.zeros(0, dtype=np.int64)


def in_step(policy: Any) -> bool:
    """Whether all processes are to make equally many passes of a policy."""
    return getattr(policy, "shards", None) is not None


def begin(policy: Any) -> None:
    """Before a policy learns: a sharded model lets go of what it had gathered to play."""
    if in_step(policy):
        policy.shards.scatter()


def whole(batch: TokenBatch, team: Team, *, even: bool) -> Iterator[tuple[Index, TokenBatch]]:
    """This process's share of a batch in one pass; none where it has no rows, unless `even`."""
    if team.size == 1:
        yield np.arange(len(batch)), batch
        return
    share = np.asarray(team.share(range(len(batch))), dtype=np.int64)
    if len(share):
        yield share, rows(batch, share)
    elif even:
        yield _NONE, empty(batch)


def pieces(
    batch: TokenBatch, tokens: int, team: Team, policy: Any
) -> Iterator[tuple[Index, TokenBatch]]:
    """This process's share of a mini-batch, cut so that it fits into memory.

    Args:
        batch: The mini-batch, the same in all processes.
        tokens: Padded tokens a pass.
        team: The processes.
        policy: Who reads it: one that has `trees` reads sequences together that begin alike.
    """
    trees: Trees | None = getattr(policy, "trees", None)
    if trees is None or batch.images:
        micro = list(by_length(batch.lengths, tokens))
    else:
        micro = list(trees.pieces(batch.token_ids, batch.lengths, tokens))
    if len(micro) < team.size:
        # Smaller pieces, so that every process has one.
        micro = list(by_length(batch.lengths, int(batch.lengths.sum()) // team.size))
    own: Sequence[Index] = micro[team.rank :: team.size]
    for index in own:
        yield index, rows(batch, index)
    if in_step(policy) and len(own) < -(-len(micro) // team.size):
        yield _NONE, empty(batch)


def empty(beside: TokenBatch | None = None) -> TokenBatch:
    """A row of two tokens, of which none carries loss; `beside` tells what else a row has."""
    ids = np.zeros((1, 2), dtype=np.int64)
    none = np.zeros((1, 2), dtype=np.float32)
    lengths = np.full(1, 2, dtype=np.int64)
    if beside is None:
        return TokenBatch(ids, none, none, none, lengths)
    extra = {name: none for name in beside.extra}
    return TokenBatch(ids, none, none, none, lengths, [], beside.temperature, [], extra)


def part(values: NDArray[np.float32], index: Index, micro: TokenBatch) -> NDArray[np.float32]:
    """What belongs to a pass's tokens of an array [rows, time] for the whole batch."""
    if not len(index):
        return np.zeros_like(micro.mask)
    return values[index][:, : micro.mask.shape[1]]
