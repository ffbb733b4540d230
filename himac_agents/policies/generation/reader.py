"""A Llama-like model's forward pass as a rollout needs it: what predicts the next tokens, no more.

Of a small model's time most goes into starting many small operations, of a large one's into reading
weights, and on either much can go into keys and values: copied to pick rows, copied again for the
heads that share them, padded to the longest row. Here

- the tokens of all rows are one long sequence: every layer's products are taken once a pass,
  without padding, and projections that read the same vector are one product, with the weights of
  the norm before it;
- rows attend in blocks (`costs.Block`) to what the cache holds, where it lies; heads that share
  keys stand beside each other as if they were further tokens;
- the last layer works at the few tokens of each row that something is predicted from, and the
  output layer only where a token is drawn, and of constrained answers only for those that are
  allowed;
- weights are kept in the type that is computed in, where that is not the one they learn in.

Training uses transformers' own forward pass; the log-probabilities of both agree (`logprob_gap`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu

from himac_agents.policies.generation.cache import SlotCache
from himac_agents.policies.generation.costs import Block
from himac_agents.policies.trees import full_attention

#: Rotary embeddings whose frequencies do not depend on the conversation's length.
_STEADY = ("default", "linear", "llama3", "yarn")


class Reader:
    """Reads tokens into a cache and predicts what follows.

    Args:
        model: A model that `fits`.
        dtype: What is computed in; None: the type of the model's weights.
    """

    def __init__(self, model: Any, dtype: torch.dtype | None = None) -> None:
        self._model = model
        self._parameters: list[Tensor] = list(model.parameters())
        self._versions: list[int] = []
        self._layers: list[_Layer] = []
        self._norm = self._head = torch.empty(0)
        config = model.config
        self.dtype = dtype or self._parameters[0].dtype
        self._eps = float(config.rms_norm_eps)
        self._heads = int(config.num_attention_heads)
        self._shared = int(config.num_key_value_heads)
        rotary = model.model.rotary_emb
        inverse = rotary.inv_freq.float()
        self._scale = float(rotary.attention_scaling)
        self._angles = inverse.to(self._parameters[0].device)
        self._dim = 2 * len(inverse)
        self._turns = torch.empty(0)

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether a model is of the kind that is understood here."""
        # Qwen2's layers have biases, Qwen3's norms of queries and keys.
        config = model.config
        if not full_attention(config) or config.hidden_act != "silu":
            return False
        rope = getattr(config, "rope_parameters", None) or {}
        inner: Any = getattr(model, "model", None)
        if rope.get("rope_type") not in _STEADY or not hasattr(inner, "layers"):
            return False
        # Layers under an adapter, or quantised, are other modules.
        plain = all(
            type(module) is nn.Linear
            for layer in inner.layers
            for part in (layer.self_attn, layer.mlp)
            for name, module in part.named_children()
            if name.endswith("_proj")
        )
        head = model.get_output_embeddings()
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        whole = 2 * len(inner.rotary_emb.inv_freq) == dim
        return plain and whole and type(head) is nn.Linear and head.bias is None

    # -- weights ---------------------------------------------------------------------------------

    def forget(self) -> None:
        """Drops the weights that are kept beside the model's."""
        self._versions, self._layers = [], []
        self._norm = self._head = torch.empty(0)

    def refresh(self) -> None:
        """Joins the weights again where they have changed; to be called before reading."""
        versions = [parameter._version for parameter in self._parameters]
        if versions == self._versions:
            return
        self.forget()
        self._versions = versions
        self._layers = [_Layer(layer, self.dtype) for layer in self._model.model.layers]
        self._norm = _weights(self._model.model.norm)
        self._head = self._model.get_output_embeddings().weight.to(self.dtype)

    # -- one forward pass ------------------------------------------------------------------------

    def read(
        self,
        ids: Tensor,
        positions: Tensor,
        blocks: Sequence[Block],
        wanted: Tensor,
        each: Sequence[int],
        cache: SlotCache,
    ) -> Tensor:
        """Reads the tokens of some blocks, one behind the other.

        Args:
            ids: [tokens] of all blocks; a block's rows stand one behind the other.
            positions: [tokens] their places in the conversations.
            blocks: What they are.
            wanted: Which of the tokens something is predicted from, row behind row.
            each: For each block how many that are of each of its rows.
            cache: Where keys and values are kept; `aim` has been called.

        Returns:
            What predicts the next tokens, [wanted, width]: see `logits`.
        """
        turns = self._turned(positions, cache.reach)
        spans = self._spans(blocks, positions, cache)
        # In the last layer only what predicts something asks.
        asks = self._asks(blocks, each, positions[wanted], spans, cache)
        heads, shared = self._heads, self._shared
        shape = (shared, self._dim)
        x = embedding(ids, self._model.model.embed_tokens.weight).float()
        for number, layer in enumerate(self._layers):
            parts = linear(self._scaled(x), layer.qkv, layer.qkv_bias)
            parts = parts.view(len(x), -1, self._dim)
            # Queries and keys, in place.
            self._turn(parts[:, : heads + shared], layer.norms, turns)
            cache.store(parts[:, heads:].flatten(1), (shape, shape), number)
            asked = parts[:, :heads]
            if number == len(self._layers) - 1:
                spans, asked, x = asks, asked[wanted], x[wanted]
            seen = self._attended(asked, spans, number, cache)
            x.add_(linear(seen, layer.out, layer.out_bias))
            both = linear(self._scaled(x), layer.gate_up, layer.gate_up_bias)
            gate, up = both.chunk(2, dim=-1)
            x.add_(linear(silu(gate).mul_(up), layer.down, layer.down_bias))
        return self._scaled(x, self._norm)

    def logits(self, states: Tensor, among: Tensor | None = None) -> Tensor:
        """Logits [n, vocabulary] of states [n, width], or [n, ids] of the ids `among` which."""
        return linear(states, self._head if among is None else self._head.index_select(0, among))

    def _attended(
        self, asked: Tensor, spans: Sequence[_Span], layer: int, cache: SlotCache
    ) -> Tensor:
        """What queries [tokens, heads, dim] find, [tokens, heads * dim]."""
        found = []
        for number, span in enumerate(spans):
            keys, values = cache.seen(number, layer)
            query = asked[span.at].view(span.rows, span.time, self._heads, self._dim)
            query = self._beside(query)
            seen = scaled_dot_product_attention(
                query, keys.transpose(1, 2), values.transpose(1, 2), attn_mask=span.mask
            )
            seen = self._apart(seen, span.time)
            found.append(seen.reshape(span.rows * span.time, -1))
        return found[0] if len(found) == 1 else torch.cat(found)

    def _beside(self, query: Tensor) -> Tensor:
        """Queries [rows, time, heads, dim] as [rows, shared heads, heads of each x time, dim]."""
        if self._heads == self._shared:
            return query.transpose(1, 2)
        rows, time, _, dim = query.shape
        query = query.view(rows, time, self._shared, -1, dim).permute(0, 2, 3, 1, 4)
        return query.reshape(rows, self._shared, -1, dim)

    def _apart(self, seen: Tensor, time: int) -> Tensor:
        """What these found, with [rows, time] in front again."""
        if self._heads == self._shared:
            return seen.transpose(1, 2)
        rows, shared, _, dim = seen.shape
        return seen.view(rows, shared, -1, time, dim).permute(0, 3, 1, 2, 4)

    def _spans(self, blocks: Sequence[Block], positions: Tensor, cache: SlotCache) -> list[_Span]:
        """Where each block's tokens are, and what they may see."""
        found, start = [], 0
        for block in blocks:
            rows, stop = len(block.rows), start + len(block.rows) * block.time
            mask = None
            if not block.even:
                at = positions[start:stop].view(rows, block.time)
                mask = self._for_heads(cache.mask(at, block.width, self.dtype))
            found.append(_Span(slice(start, stop), rows, block.time, mask))
            start = stop
        return found

    def _asks(
        self,
        blocks: Sequence[Block],
        each: Sequence[int],
        positions: Tensor,
        spans: Sequence[_Span],
        cache: SlotCache,
    ) -> list[_Span]:
        """The same for the tokens that something is predicted from, at these positions."""
        found, start = [], 0
        for block, span, count in zip(blocks, spans, each, strict=True):
            stop, mask = start + span.rows * count, span.mask
            if mask is not None:
                at = positions[start:stop].view(span.rows, count)
                mask = self._for_heads(cache.mask(at, block.width, self.dtype))
            found.append(_Span(slice(start, stop), span.rows, count, mask))
            start = stop
        return found

    def _for_heads(self, mask: Tensor) -> Tensor:
        """A mask [rows, 1, time, width] for heads that stand beside each other as tokens do."""
        each = self._heads // self._shared
        return mask if each == 1 else mask.repeat(1, 1, each, 1)

    def _scaled(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """`x` over its length; a norm's weights (`_weights`) are part of what reads it."""
        square = (x * x).sum(-1, keepdim=True)
        found = x * square.add_(x.shape[-1] * self._eps).rsqrt_()
        return (found if weight is None else found * weight).to(self.dtype)

    def _turn(self, parts: Tensor, norms: Tensor | None, turns: Tensor) -> None:
        """Norms queries and keys [tokens, heads, dim] and turns them to their places."""
        whole = parts if norms is None else self._scaled(parts.float(), norms)
        pairs = torch.view_as_complex(whole.float().view(*parts.shape[:2], -1, 2))
        if whole is parts and parts.dtype == torch.float32:
            pairs.mul_(turns)
        else:
            parts.copy_(torch.view_as_real(pairs * turns).flatten(-2))

    def _turned(self, positions: Tensor, reach: int) -> Tensor:
        """The turns [tokens, 1, dim / 2] of places, as complex numbers."""
        if len(self._turns) < reach:
            places = torch.arange(max(512, 2 * reach), device=self._angles.device).float()
            angles = torch.outer(places, self._angles)
            self._turns = torch.polar(torch.full_like(angles, self._scale), angles)
        return self._turns[positions][:, None]


@dataclass(frozen=True, slots=True)
class _Span:
    """A block's tokens among all: where they are, and what is added to their scores."""

    at: slice
    rows: int
    time: int
    mask: Tensor | None


class _Layer:
    """One decoder layer's weights, those that read the same vector joined."""

    __slots__ = (
        "down", "down_bias", "gate_up", "gate_up_bias", "norms", "out", "out_bias", "qkv",
        "qkv_bias",
    )  # fmt: skip

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        attention, feed = layer.self_attn, layer.mlp
        first = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.qkv, self.qkv_bias = _joined(layer.input_layernorm, first, dtype)
        # What a rotation turns as a pair stands beside each other.
        dim, turned = int(attention.head_dim), sum(m.out_features for m in first[:2])
        order = torch.arange(len(self.qkv), device=self.qkv.device)
        order[:turned] = order[:turned].view(-1, 2, dim // 2).transpose(1, 2).reshape(-1)
        self.qkv = self.qkv[order]
        self.qkv_bias = None if self.qkv_bias is None else self.qkv_bias[order]
        self.out, self.out_bias = _joined(None, (attention.o_proj,), dtype)
        then = (feed.gate_proj, feed.up_proj)
        self.gate_up, self.gate_up_bias = _joined(layer.post_attention_layernorm, then, dtype)
        self.down, self.down_bias = _joined(None, (feed.down_proj,), dtype)
        self.norms: Tensor | None = None
        if hasattr(attention, "q_norm"):
            count = [attention.q_proj.out_features // dim, attention.k_proj.out_features // dim]
            self.norms = torch.cat(
                [
                    _weights(norm).view(2, -1).t().flatten().expand(heads, dim)
                    for norm, heads in zip((attention.q_norm, attention.k_norm), count, strict=True)
                ]
            )


def _weights(norm: Any) -> Tensor:
    """A norm's weights, for a vector over its length in place of its root mean square."""
    weight: Tensor = norm.weight.float()
    return weight * math.sqrt(len(weight))


def _joined(norm: Any, modules: Sequence[Any], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Linear layers as one, with the weights of the norm before them, and their biases."""
    weight = modules[0].weight
    if len(modules) > 1:
        weight = torch.cat([module.weight for module in modules])
    if norm is not None:
        weight = _weights(norm) * weight
    biases = [module.bias for module in modules]
    if biases[0] is None:
        return weight.to(dtype), None
    return weight.to(dtype), torch.cat(biases).to(dtype)
