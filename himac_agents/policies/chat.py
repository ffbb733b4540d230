"""Any local transformers language model as a policy: a name or a folder, whole or by an adapter.

Conversations are written with the tokenizer's own chat template. A conversation grows by pieces:
what the model wrote stays as the ids it wrote, and only the new message is turned into ids. What
the pieces are is measured, and checked, by `himac_agents.policies.template`.

Models that see pictures are `himac_agents.policies.vision`; `load` tells which a folder holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from himac_agents.policies.base import Prompt
from himac_agents.policies.causal import CausalPolicy
from himac_agents.policies.codec import PLAIN_TEMPLATE, Written, ends_of
from himac_agents.policies.generation.reader import Reader
from himac_agents.policies.lora import AdapterHost, Lora
from himac_agents.policies.sharding import Shards
from himac_agents.policies.template import ChatTemplate
from himac_agents.policies.trees import Trees

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Loading:
    """How a model is loaded.

    Attributes:
        device: "cpu", "cuda", ...; None takes a GPU where there is one.
        dtype: "float32"; "bfloat16"; "auto": float32 on a CPU, bfloat16 on a GPU. A model that
            learns as a whole keeps its weights in float32 and computes in bfloat16, because steps
            of 1e-6 vanish in bfloat16 weights; under an adapter the base itself is in bfloat16.
        lora: The adapter that learns instead of the model; None: the model itself learns.
        gradient_checkpointing: Trade a second forward pass for the memory of activations.
        template_options: Arguments for the chat template, such as `enable_thinking`.
        shard: The model is to be sharded over the processes (`ChatPolicy.shard`): until then its
            weights lie in the host's memory.
    """

    device: str | None = None
    dtype: Precision = "auto"
    lora: Lora | None = None
    gradient_checkpointing: bool = False
    template_options: dict[str, Any] = field(default_factory=dict)
    shard: bool = False

    def where(self) -> str:
        """The device that computes."""
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def lies(self) -> str:
        """Where the weights are loaded to."""
        return "cpu" if self.shard else self.where()

    def precision(self, device: torch.device | str) -> torch.dtype:
        """What a model on `device` computes in."""
        if self.dtype == "auto":
            on_cpu = torch.device(device).type == "cpu"
            return torch.float32 if on_cpu else torch.bfloat16
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype={self.dtype!r}: choose auto, float32 or bfloat16")
        return torch.float32 if self.dtype == "float32" else torch.bfloat16


class ChatPolicy(Written, CausalPolicy):
    """See the module's text. Load one with `HFPolicy.load`.

    Args:
        model: A transformers causal language model.
        tokenizer: Its tokenizer; one without a chat template gets `PLAIN_TEMPLATE`.
        host: Where the policy is an adapter: its base model.
        adapter: The adapter's name there; None with a host: the base model as it is.
        loading: Precision, checkpointing and template options.

    Raises:
        TemplateError: Conversations cannot be written with the chat template.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        host: AdapterHost | None = None,
        adapter: str | None = None,
        loading: Loading | None = None,
    ) -> None:
        if tokenizer.chat_template is None:
            tokenizer.chat_template = PLAIN_TEMPLATE
        self.host, self.adapter = host, adapter
        self.loading = loading or Loading()
        self.window = _window(model)
        named = _named_ends(model)
        self.template = ChatTemplate(tokenizer, self._turn, self.loading.template_options, named)
        super().__init__(model, tokenizer, ends_of(self.template, tokenizer, named))
        self.context_length = _context_length(model)
        self.bar(set(range(self.vocabulary)) - set(tokenizer.get_vocab().values()))
        if self.loading.gradient_checkpointing:
            # The newer name, where this version of transformers has it.
            new = getattr(model, "activation_checkpointing_enable", None)
            (new or model.gradient_checkpointing_enable)({"use_reentrant": False})
        weights = next(model.parameters()).dtype
        computes = self.loading.precision(self.loading.where() if loading else self.device)
        self._autocast = computes if host is None and weights != computes else None
        if host is not None and host.shards is not None:
            self._use_shards(host.shards)
        if host is None and Reader.fits(model):
            self.reader = Reader(model, computes)
        if Trees.fit(model):
            self.trees = Trees(self.costs.attended)

    def shard(self) -> None:
        """Shards the model over the processes, all of which call it; see `Shards`.

        Policies on one base model are sharded together, so all adapters that are to be sharded are
        there before. One that comes later lies whole in every process.

        Raises:
            ValueError: Models of this kind cannot be sharded.
        """
        if self.host is not None:
            self._use_shards(self.host.shard())
        else:
            self._use_shards(Shards(self.model, self._autocast))

    def _use_shards(self, shards: Shards) -> None:
        self.shards, self.device = shards, shards.device
        # It reads weights where they lay; a sharded model gathers them itself.
        self.reader = None
        if self.barred is not None:
            self.barred = self.barred.to(self.device)

    # -- the model -------------------------------------------------------------------------------

    def too_long(self, prompt: Prompt, answer: int) -> str | None:
        """See `CausalPolicy.too_long`; a sliding window is a limit, too."""
        longest = len(prompt.token_ids) + answer
        if self.window is None or longest <= self.window:
            return super().too_long(prompt, answer)
        return (
            f"context length: a conversation of {longest:,} tokens does not fit into the model's "
            f"sliding window of {self.window:,}, and the rollout's cache does not slide. Let it "
            "remember fewer steps (--history N on a flat environment), shorten its answers "
            "(--max-command-tokens, --max-blueprint-tokens), or take a model with full attention"
        )

    @contextmanager
    def _ready(self, *, learning: bool) -> Iterator[None]:
        if self.host is not None:
            self.host.use(self.adapter)
        self.model.eval()
        if learning and self.loading.gradient_checkpointing and torch.is_grad_enabled():
            # Layers checkpoint in training mode only. They alone are set to it, not what is inside
            # them: dropout would make the policy another one than the one that was sampled.
            for module in self.model.modules():
                if getattr(module, "gradient_checkpointing", False):
                    module.training = True
        kind, dtype = self.device.type, self._autocast
        with nullcontext() if dtype is None else torch.autocast(kind, dtype=dtype):
            yield

    def parameters(self) -> list[torch.nn.Parameter]:
        """The parameters that learn: an adapter's, or all of the model's."""
        if self.host is None:
            return super().parameters()
        if self.shards is not None:
            self.shards.scatter()
        return [] if self.adapter is None else self.host.parameters(self.adapter)

    def without_adapter(self) -> ChatPolicy:
        """The base model under this policy's adapter, as a frozen policy.

        Raises:
            ValueError: This policy is no adapter.
        """
        if self.host is None:
            raise ValueError("this policy is a whole model, not an adapter on a base model")
        return type(self)(self.model, self.tokenizer, host=self.host, loading=self.loading)

    def save_pretrained(self, path: str | Path) -> None:
        """Writes the adapter and its base's name, or the whole model and its tokenizer.

        See `CausalPolicy.save_pretrained` for a model that is sharded over processes.
        """
        if self.host is not None and self.adapter is not None:
            self.host.save(self.adapter, Path(path))
        else:
            super().save_pretrained(path)


def _window(model: Any) -> int | None:
    """How many tokens back every layer sees; None where all see everything.

    Raises:
        ValueError: A layer keeps a state instead of keys and values.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    strange = sorted(kinds - {"full_attention", "sliding_attention"})
    if strange:
        raise ValueError(
            f"{type(model).__name__} has layers of kind {', '.join(strange)}: the rollout's cache "
            "holds keys and values only, so choose a model whose layers are all attention"
        )
    if kinds and "sliding_attention" not in kinds:
        return None
    found = getattr(config, "sliding_window", None)
    used = getattr(config, "use_sliding_window", True)
    return int(found) if found and used else None


def _named_ends(model: Any) -> list[int]:
    """The ids that a model's settings name as ends."""
    settings = getattr(model, "generation_config", None)
    named = getattr(settings, "eos_token_id", None)
    return [int(i) for i in (named if isinstance(named, list) else [named]) if i is not None]


def _context_length(model: Any) -> int | None:
    """How many tokens a conversation may have; None where the model's settings name no limit."""
    config = model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    rotary = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    parts = [rotary, *(part for part in rotary.values() if isinstance(part, dict))]
    # A stretched model says by how much, beside the length it was trained with. Gemma-3 says by how
    # much, and beside it the length that it has been stretched to.
    if str(config.model_type).startswith("gemma3"):
        return limit
    stretched = [
        int(part.get("original_max_position_embeddings") or limit) * float(part["factor"])
        for part in parts
        if part.get("factor")
    ]
    return int(max([limit, *stretched]))
