"""Sequences that begin alike, laid into a few rows in which each beginning stands once.

The answers to one prompt, the executions of one task and the sub-goals of one episode begin with
the same tokens. What a model computes at a token depends on the tokens before it alone, so it has
to be computed once for all sequences that share them, forwards and backwards (tree training:
arXiv 2511.00413). Here sequences in the order of their tokens are a tree that is written down
branch by branch; several trees share a row, so that little is padded; a mask lets each token see
its own branch only. Log-probabilities and gradients are those of the sequences by themselves, up to
the order of floating-point additions.

A mask costs: a row of N tokens attends to N x N places, of which few count. So rows are kept as
short as the model's shape says (`Trees.reach`), and where sequences by themselves cost less they
are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from himac_agents.policies.generation.prefixes import common

#: The share of a token's cost that its row's places may add to it, and the bounds of a row.
_ATTENDING = 0.25
_SHORTEST, _LONGEST = 512, 8192


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a batch's tokens stand in what a model reads.

    Attributes:
        inputs: The model's arguments.
        index: [batch, time] the place of each token among all that are read; None: its own.
    """

    inputs: dict[str, Any]
    index: Tensor | None = None

    def before(self, hidden: Tensor, chosen: Tensor) -> Tensor:
        """The states [n, width] that predict the tokens under `chosen`, in row order.

        Args:
            hidden: The states [rows, places, width] of all that was read.
            chosen: [batch, time], never at time 0.
        """
        if self.index is None:
            return hidden[:, :-1][chosen[:, 1:]]
        return hidden.flatten(0, 1)[self.index[:, :-1][chosen[:, 1:]]]


@dataclass(slots=True)
class _Row:
    """What one row holds: sequences by their numbers, and where their tokens stand."""

    members: list[int] = field(default_factory=list)
    places: list[NDArray[np.int64]] = field(default_factory=list)
    length: int = 0

    def add(self, number: int, shared: NDArray[np.int64], new: int) -> None:
        """A sequence whose first tokens stand at `shared`, and whose last ones are `new`."""
        own = np.arange(self.length, self.length + new)
        self.members.append(number)
        self.places.append(np.concatenate([shared, own]))
        self.length += new


class Trees:
    """How one model's sequences are laid into rows.

    Args:
        attended: What a token costs more for each place that it attends to, in the cost of a token
            (`generation.costs.Costs.attended`).
    """

    def __init__(self, attended: float) -> None:
        self._attended = attended
        #: Places of a row, unless a sequence is longer.
        self.reach = int(min(max(_ATTENDING / attended, _SHORTEST), _LONGEST))

    @staticmethod
    def fit(model: Any) -> bool:
        """Whether a model takes a mask of one's own, and its layers heed it."""
        config = model.config
        return full_attention(config) and config._attn_implementation == "sdpa"

    def pieces(
        self, ids: NDArray[np.int64], lengths: NDArray[np.int64], tokens: int
    ) -> Iterator[NDArray[np.int64]]:
        """The numbers of sequences that are read together.

        Args:
            ids: [batch, time], padded on the right.
            lengths: [batch] tokens of each.
            tokens: Places that are read at once, padding included; a longer sequence comes alone.
        """
        held: list[_Row] = []
        # Rows of one length beside each other are not padded.
        rows = self._rows(ids, lengths, min(self.reach, tokens))
        for row in sorted(rows, key=lambda row: row.length):
            if held and (len(held) + 1) * row.length > tokens:
                yield np.asarray([i for r in held for i in r.members], dtype=np.int64)
                held = []
            held.append(row)
        if held:
            yield np.asarray([i for r in held for i in r.members], dtype=np.int64)

    def layout(
        self, ids: NDArray[np.int64], lengths: NDArray[np.int64], pad: int, device: torch.device
    ) -> Layout | None:
        """Where the tokens of sequences are to stand; None: each sequence is best read by itself.

        Args:
            ids: [batch, time], padded on the right.
            lengths: [batch] tokens of each.
            pad: The id to pad with.
            device: Where the model is.
        """
        rows = list(self._rows(ids, lengths, self.reach))
        wide = max(row.length for row in rows)
        if self._cost(len(rows), wide) >= self._cost(*ids.shape):
            return None
        read = np.full((len(rows), wide), pad, dtype=np.int64)
        position = np.zeros_like(read)
        sees = np.zeros((len(rows), 1, wide, wide), dtype=bool)
        # Nothing reads what padding says, but softmax needs something to see.
        sees[:, 0, range(wide), range(wide)] = True
        index = np.zeros(ids.shape, dtype=np.int64)
        for number, row in enumerate(rows):
            known = 0
            for member, places in zip(row.members, row.places, strict=True):
                length = len(places)
                index[member, :length] = number * wide + places
                stop = int(places[-1]) + 1
                if stop <= known:
                    continue
                fresh = length - (stop - known)
                read[number, known:stop] = ids[member, fresh:length]
                position[number, known:stop] = np.arange(fresh, length)
                own = sees[number, 0, known:stop]
                own[:, places[:fresh]] = True
                own[:, known:stop] |= np.tri(stop - known, dtype=bool)
                known = stop
        put = {"input_ids": read, "position_ids": position, "attention_mask": sees}
        inputs = {name: torch.as_tensor(value, device=device) for name, value in put.items()}
        return Layout(inputs, torch.as_tensor(index, device=device))

    def _cost(self, rows: int, places: int) -> float:
        return rows * places * (1.0 + self._attended * places)

    @staticmethod
    def _rows(ids: NDArray[np.int64], lengths: NDArray[np.int64], most: int) -> Iterator[_Row]:
        """Sequences in the order of their tokens, in rows of at most so many places."""
        whole = [ids[i, :length].tolist() for i, length in enumerate(lengths.tolist())]
        row, last = _Row(), list[int]()
        for number in sorted(range(len(whole)), key=whole.__getitem__):
            shared = common(last, whole[number]) if row.members else 0
            new = len(whole[number]) - shared
            if row.members and row.length + new > most:
                yield row
                row, shared, new = _Row(), 0, len(whole[number])
            before = row.places[-1][:shared] if shared else np.zeros(0, dtype=np.int64)
            row.add(number, before, new)
            last = whole[number]
        yield row


def full_attention(config: Any) -> bool:
    """Whether every layer of a Llama-like model attends to all that came before."""
    if config.model_type not in ("llama", "mistral", "qwen2", "qwen3"):
        return False
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        return False
    return not (getattr(config, "sliding_window", None) and config.model_type == "mistral")
