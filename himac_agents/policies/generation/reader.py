"""A Llama's forward pass as a rollout needs it: the next token's logits, and nothing else.

For a small model on a CPU the arithmetic is a fraction of the time: the rest goes into many small
operations. Here projections that read the same vector are one product, with the weights of the norm
before it, and the last layer works at the few positions of each row whose logits are wanted.
Training uses transformers' own forward pass; the log-probabilities of both agree (`logprob_gap`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu

from himac_agents.policies.generation.cache import SlotCache


class Reader:
    """Reads tokens into a cache and predicts what follows.

    Args:
        model: A `LlamaForCausalLM` without biases whose layers have as many key heads as heads.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._parameters: list[Tensor] = list(model.parameters())
        self._versions: list[int] = []
        self._layers: list[_Layer] = []
        config = model.config
        self._eps = float(config.rms_norm_eps)
        self._heads = int(config.num_attention_heads)
        self._dim = int(config.hidden_size) // self._heads
        inverse = model.model.rotary_emb.inv_freq.float()
        self._angles = torch.cat([inverse, inverse]).to(model.device)
        self._cos = self._sin = torch.empty(0)

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether a model is of the kind that is understood here."""
        config = model.config
        return (
            config.model_type == "llama"
            and config.num_key_value_heads == config.num_attention_heads
            and config.hidden_act == "silu"
            and not (config.attention_bias or config.mlp_bias)
            and config.rope_parameters.get("rope_type") == "default"
            and (config.head_dim or 0) * config.num_attention_heads == config.hidden_size
        )

    def next_logits(
        self, ids: Tensor, positions: Tensor, mask: Tensor, wanted: Tensor, cache: SlotCache
    ) -> Tensor:
        """Logits [batch, wanted, vocabulary] that follow some tokens of each row.

        Args:
            ids: [batch, time] tokens.
            positions: [batch, time] their places in the conversations.
            mask: [batch, 1, time, width], added to the attention scores.
            wanted: [batch, wanted] which ones: indices into `time`.
            cache: Where keys and values are kept; `aim` has been called.
        """
        model = self._model.model
        batch, time = ids.shape
        cos, sin = self._rotation(positions, cache.width)
        x = embedding(ids, model.embed_tokens.weight)
        for number, layer in enumerate(self._layers):
            parts = linear(self._scaled(x), layer.qkv).view(batch, time, 3, self._heads, self._dim)
            turned = parts[:, :, :2]
            half = self._dim // 2
            swapped = torch.cat([turned[..., half:], turned[..., :half]], dim=-1)
            turned = (turned * cos).addcmul_(swapped, sin)
            keys, values = cache.store(turned[:, :, 1], parts[:, :, 2], number)
            asked = turned[:, :, 0]
            if number == len(self._layers) - 1 and time > 1:
                row = torch.arange(batch, device=ids.device)[:, None]
                asked, x = asked[row, wanted], x[row, wanted]
                mask = mask[row, :, wanted].transpose(1, 2)
            seen = scaled_dot_product_attention(
                asked.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask
            )
            x = x + linear(seen.transpose(1, 2).flatten(2), layer.out)
            gate, up = linear(self._scaled(x), layer.gate_up).chunk(2, dim=-1)
            x = x + linear(silu(gate) * up, layer.down)
        return linear(self._scaled(x) * model.norm.weight, self._model.lm_head.weight)

    def _scaled(self, x: Tensor) -> Tensor:
        """`x` over its root mean square; a norm's weights are part of what reads it."""
        return x * (x * x).mean(-1, keepdim=True).add_(self._eps).rsqrt_()

    def forget(self) -> None:
        """Drops the joined weights."""
        self._versions = []

    def refresh(self) -> None:
        """Joins the weights again where they have changed; to be called before reading."""
        versions = [parameter._version for parameter in self._parameters]
        if versions == self._versions:
            return
        self._versions = versions
        self._layers = [_Layer(layer) for layer in self._model.model.layers]

    def _rotation(self, positions: Tensor, width: int) -> tuple[Tensor, Tensor]:
        if len(self._cos) < width:
            places = torch.arange(max(512, 2 * width), device=self._angles.device).float()
            angles = torch.outer(places, self._angles)
            # Of the two halves that a rotation exchanges, the first changes its sign.
            sign = torch.ones_like(self._angles)
            sign[: self._dim // 2] = -1.0
            self._cos, self._sin = angles.cos(), angles.sin() * sign
        return self._cos[positions][:, :, None, None], self._sin[positions][:, :, None, None]


class _Layer:
    """One decoder layer's weights, those that read the same vector joined."""

    __slots__ = ("down", "gate_up", "out", "qkv")

    def __init__(self, layer: Any) -> None:
        attention, feed = layer.self_attn, layer.mlp
        self.qkv = layer.input_layernorm.weight * torch.cat(
            [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
        )
        self.out = attention.o_proj.weight
        self.gate_up = layer.post_attention_layernorm.weight * torch.cat(
            [feed.gate_proj.weight, feed.up_proj.weight]
        )
        self.down = feed.down_proj.weight
