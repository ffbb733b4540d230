"""Log-probabilities of chosen tokens without a copy of the logits for each step of the way.

A vocabulary of 150,000 makes the logits most of an update's memory: n tokens are n x V numbers, and
the plain way (cast, divide, forbid, log-softmax, exponentials for the entropy, and the gradient of
each) holds several times as many. Here no more exists at once than a *chunk* of rows:

- `selective_logprobs` works on logits that are there, chunk by chunk, and keeps nothing but them;
- `chunked_logprobs` is given hidden states and the output layer, and makes each chunk's logits when
  they are needed: once forwards, and once more when the gradient is asked for. So n x V logits
  never exist, at the price of a second pass through the output layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

#: Numbers in a chunk of logits: 128 MiB of float32.
CHUNK = 1 << 25

Constraints = Sequence[tuple[int, Sequence[int]]]


def chunk_rows(vocabulary: int) -> int:
    """How many rows of logits a chunk holds."""
    return max(1, CHUNK // vocabulary)


def selective_logprobs(
    logits: Tensor,
    chosen: Tensor,
    *,
    temperature: float = 1.0,
    barred: Tensor | None = None,
    constrained: Constraints = (),
) -> tuple[Tensor, Tensor]:
    """Log-probability of a token in each row, and the row's entropy in nats (detached).

    Args:
        logits: [rows, vocabulary], of any floating type; computed with in float32.
        chosen: [rows] ids.
        temperature: Logits are divided by it.
        barred: Ids that no row may choose.
        constrained: (row, ids) pairs: the row was chosen from these ids alone.

    Returns:
        [rows] log-probabilities, differentiable, and [rows] entropies.
    """
    found: tuple[Tensor, Tensor] = _Selective.apply(  # type: ignore[no-untyped-call]
        logits, chosen, temperature, barred, _indices(constrained, logits.device)
    )
    return found


def chunked_logprobs(
    states: Tensor,
    head: Callable[[Tensor], Tensor],
    chosen: Tensor,
    vocabulary: int,
    *,
    temperature: float = 1.0,
    barred: Tensor | None = None,
    constrained: Constraints = (),
) -> tuple[Tensor, Tensor]:
    """The same from hidden states [rows, width]: `head` turns some rows of them into logits."""
    size = chunk_rows(vocabulary)
    logps, entropies = [], []
    for start in range(0, len(states), size):
        stop = min(start + size, len(states))
        own = [(row - start, ids) for row, ids in constrained if start <= row < stop]

        def piece(some: Tensor, ids: Tensor, own: Constraints = own) -> tuple[Tensor, Tensor]:
            return selective_logprobs(
                head(some), ids, temperature=temperature, barred=barred, constrained=own
            )

        some, ids = states[start:stop], chosen[start:stop]
        if torch.is_grad_enabled():
            logp, entropy = checkpoint(piece, some, ids, use_reentrant=False)
        else:
            logp, entropy = piece(some, ids)
        logps.append(logp)
        entropies.append(entropy)
    return torch.cat(logps), torch.cat(entropies).detach()


#: (constrained rows, the row of each allowed id, the allowed ids)
_Indices = tuple[Tensor, Tensor, Tensor]


def _indices(constrained: Constraints, device: torch.device) -> _Indices | None:
    if not constrained:
        return None
    rows = [row for row, _ in constrained]
    at = [row for row, ids in constrained for _ in ids]
    tokens = [token for _, ids in constrained for token in ids]
    made = (torch.tensor(x, dtype=torch.long, device=device) for x in (rows, at, tokens))
    return tuple(made)  # type: ignore[return-value]


class _Selective(torch.autograd.Function):
    """log softmax(logits / T)[chosen]; its gradient is (1[chosen] - softmax) / T."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        chosen: Tensor,
        temperature: float,
        barred: Tensor | None,
        only: _Indices | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(logits, chosen)
        ctx.temperature, ctx.barred, ctx.only = temperature, barred, only
        logp = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        entropy = torch.empty_like(logp)
        for rows in _chunks(logits):
            piece = _log_softmax(logits, rows, temperature, barred, only)
            logp[rows] = piece.gather(-1, chosen[rows, None])[:, 0]
            entropy[rows] = _entropy(piece)
        ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        logits, chosen = ctx.saved_tensors
        chunks = _chunks(logits)
        found = torch.empty_like(logits) if len(chunks) != 1 else None
        for rows in chunks:
            piece = _log_softmax(logits, rows, ctx.temperature, ctx.barred, ctx.only)
            weight = gradient[rows, None] / ctx.temperature
            piece.exp_().mul_(-weight)
            piece.scatter_add_(-1, chosen[rows, None], weight)
            if found is None:  # one chunk is the whole, and needs no second place
                return piece.to(logits.dtype), None, None, None, None
            found[rows] = piece
        return found, None, None, None, None


def _chunks(logits: Tensor) -> list[slice]:
    size = chunk_rows(logits.shape[-1])
    return [slice(at, min(at + size, len(logits))) for at in range(0, len(logits), size)]


def _log_softmax(
    logits: Tensor, rows: slice, temperature: float, barred: Tensor | None, only: _Indices | None
) -> Tensor:
    """Log-probabilities of some rows, in memory of its own."""
    piece = logits[rows].float()
    if temperature != 1.0:
        piece = piece / temperature
    elif piece.data_ptr() == logits[rows].data_ptr() and (barred is not None or only is not None):
        piece = piece.clone()
    if barred is not None:
        piece.index_fill_(-1, barred, -math.inf)
    if only is not None:
        closed, at, tokens = only
        inside = (closed >= rows.start) & (closed < rows.stop)
        mine = (at >= rows.start) & (at < rows.stop)
        row, token = at[mine] - rows.start, tokens[mine]
        kept = piece[row, token]
        piece[closed[inside] - rows.start] = -math.inf
        piece[row, token] = kept
    return torch.log_softmax(piece, dim=-1)


def _entropy(logp: Tensor) -> Tensor:
    """-sum p log p of each row, with 0 log 0 = 0."""
    likely = logp.exp()
    torch.special.entr(likely, out=likely)
    return likely.sum(-1)
