"""What reading costs, and how rows are put together so that they cost least.

Every row of a block is as long as the block's longest, and every block costs something by itself.
On a CPU core a small model waits for Python, a large one for its products, and a GPU for whoever
starts its kernels: so what a block costs beside its tokens is between a few tokens and a hundred
thousand. It is reckoned from the model's shape, not measured: the same rows are then always put
together in the same way, and a run can be repeated to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

#: Operations of a layer, and of a pass beside its layers: of ours (`reader`) and of transformers'.
_OURS, _THEIRS = 24, 60
#: Operations of a layer for each block of rows that attend together.
_ATTENDING = 7


@dataclass(frozen=True, slots=True)
class _Machine:
    """Orders of magnitude, fitted to the times of models on one core, and on one H200.

    Attributes:
        operation: Seconds until an operation has been started.
        products: Multiplications and additions a second in the layers' products.
        stream: Bytes of weights read a second.
        keys: Bytes of keys and values read a second by what attends to them.
        copies: Bytes of keys and values copied a second.
    """

    operation: float
    products: float
    stream: float
    keys: float
    copies: float


_CPU = _Machine(8e-6, 5e10, 1e10, 6e9, 1e10)
_GPU = _Machine(2e-5, 2e14, 2e12, 1e12, 1e12)
#: Rows whose keys differ by fewer than this are alike; more than so many are many.
_STEP, _MANY = 64, 32
#: Copies that stay in a core's cache, in bytes, are this many times as quick.
_NEAR, _QUICK = 1 << 20, 5.0


@dataclass(frozen=True, slots=True)
class Costs:
    """What reading costs, in tokens: in the time that the layers' products take for one.

    Attributes:
        pass_: A forward pass, beside its tokens.
        block: Rows that attend together, beside their tokens.
        seen: A key that a row's tokens see, once a row.
        attended: The same, for each of its tokens.
        copied: The same, for copying it first, where rows are picked from the cache.
        most: Tokens that a pass has room for, padding included.
    """

    pass_: float
    block: float
    seen: float
    attended: float
    copied: float
    most: int = 1 << 16

    @classmethod
    def of(cls, model: Any, dtype: torch.dtype, *, ours: bool) -> Costs:
        """Those of a model where it is.

        Args:
            model: A causal language model.
            dtype: What it computes in.
            ours: Whether `Reader` reads, where one pass holds many blocks; else each block is a
                pass of transformers' own.
        """
        config = model.config.get_text_config()
        layers, heads = int(config.num_hidden_layers), int(config.num_attention_heads)
        dim = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        shared = int(getattr(config, "num_key_value_heads", None) or heads)
        outside = sum(p.numel() for p in model.get_input_embeddings().parameters())
        weights = max(1, sum(p.numel() for p in model.parameters()) - outside)
        here = _CPU if next(model.parameters()).device.type == "cpu" else _GPU
        token = 2 * weights / here.products
        keys = 2 * shared * dim * dtype.itemsize * layers
        near = here is _CPU and 256 * keys / layers < _NEAR
        operations = _OURS if ours else _THEIRS
        reading = operations * (2 + layers) * here.operation
        reading += weights * dtype.itemsize / here.stream
        attending = _ATTENDING * (1 + layers) * here.operation
        return cls(
            pass_=reading / token,
            block=(attending if ours else reading) / token,
            seen=keys / here.keys / token,
            attended=4 * heads * dim * layers / here.products / token,
            copied=2 * keys / (here.copies * (_QUICK if near else 1.0)) / token,
        )

    def work(self, length: Any, width: Any) -> Any:
        """What a row costs that reads `length` tokens and sees `width` keys, in tokens."""
        return length + width * (self.seen + self.attended * length)

    def least_chance(self, rows: int) -> float:
        """How likely a guessed token must be right for its reading to pay.

        Right, it saves its row a pass, which all rows share; wrong, it was read in vain.
        """
        return rows / (rows + self.pass_)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that are read together.

    Attributes:
        rows: Rows of the cache, in order.
        members: For each of them whose it is; None where nobody's: it lies between others.
        time: Tokens that each reads, padding included.
        width: Keys that each sees at most.
        even: Whether each reads one token, which sees as many as any other's: nothing is masked.
    """

    rows: tuple[int, ...]
    members: tuple[int | None, ...]
    time: int
    width: int
    even: bool = False

    @property
    def picked(self) -> bool:
        """Whether the rows do not lie beside each other, so that their keys have to be copied."""
        return self.rows[-1] - self.rows[0] + 1 != len(self.rows)


def cheapest(
    lengths: Sequence[int],
    widths: Sequence[int],
    rows: Sequence[int],
    costs: Costs,
    *,
    between: bool = True,
) -> list[Block]:
    """Puts rows together into the blocks that are cheapest to read.

    The cuts that make the sum of costs smallest are found exactly, for rows in the order of their
    lengths and widths. Rows that lie beside each other in the cache are read where they are;
    others are copied, or what lies between them is read with them, whichever costs less.

    Args:
        lengths: Tokens that each row has to read.
        widths: Keys that each row's last token sees.
        rows: Where each one is in the cache.
        costs: What reading costs.
        between: Whether rows that lie between others may be read with them.
    """
    key = np.lexsort((np.asarray(rows), np.asarray(widths) // _STEP, np.asarray(lengths)))
    length, width, row = (np.asarray(values)[key] for values in (lengths, widths, rows))
    bounds = _bounds(length, width, costs)
    starts, stops = np.asarray(bounds[:-1])[:, None], np.asarray(bounds[1:])
    # What a block from each bound up to each later one would be, [starts, stops].
    widest = _running(np.maximum, width, starts, 0)[:, stops - 1]
    first = _running(np.minimum, row, starts, int(row.max()))[:, stops - 1]
    last = _running(np.maximum, row, starts, 0)[:, stops - 1]
    longest, count = length[stops - 1], stops - starts
    each = costs.work(longest, widest)
    span = last - first + 1
    picked = count * (each + widest * costs.copied)
    free = span * each if between else np.where(span == count, count * each, np.inf)
    cost = np.minimum(picked, free)
    many = count * longest > costs.most
    cost[np.triu(many, 1)] = np.inf
    # For each bound the least cost up to it, and where its last block begins.
    best, begins = [0.0], [0]
    for column in cost.T.tolist():
        total = [before + costs.block + own for before, own in zip(best, column, strict=False)]
        best.append(min(total))
        begins.append(total.index(best[-1]))
    found: list[Block] = []
    b = len(bounds) - 1
    while b > 0:
        a = begins[b]
        found.append(_block(key[bounds[a] : bounds[b]], lengths, widths, rows, costs, between))
        b = a
    return found[::-1]


def _running(
    function: np.ufunc, values: NDArray[np.int64], starts: NDArray[np.int64], nothing: int
) -> NDArray[np.int64]:
    """A function of the values from each start [starts, 1] up to each place, [starts, values]."""
    held = np.where(np.arange(len(values)) >= starts, values, nothing)
    found: NDArray[np.int64] = function.accumulate(held, axis=1)
    return found


def _bounds(length: NDArray[np.int64], width: NDArray[np.int64], costs: Costs) -> list[int]:
    """Where sorted rows may be cut: of many rows, those that are alike stay together.

    To look at every cut would then cost more than it saves, unless a cut saves copying much.
    """
    alike = (length[1:] == length[:-1]) & (width[1:] // _STEP == width[:-1] // _STEP)
    free = ~alike | (2 * costs.copied * width[1:] > costs.block) | (len(length) <= _MANY)
    return [0, *(np.flatnonzero(free) + 1).tolist(), len(length)]


def _block(
    group: NDArray[np.int64],
    lengths: Sequence[int],
    widths: Sequence[int],
    rows: Sequence[int],
    costs: Costs,
    between: bool,
) -> Block:
    owner = {rows[i]: int(i) for i in group.tolist()}
    time, width = max(lengths[i] for i in owner.values()), max(widths[i] for i in owner.values())
    even = time == 1 and all(widths[i] == width for i in owner.values())
    each = costs.work(time, width)
    held = range(min(owner), max(owner) + 1)
    near = between or len(held) == len(owner)
    if near and len(held) * each <= len(owner) * (each + width * costs.copied):
        return Block(tuple(held), tuple(owner.get(row) for row in held), time, width, even)
    order = sorted(owner)
    return Block(tuple(order), tuple(owner[row] for row in order), time, width, even)
