"""Any local transformers language model as a policy: a name or a folder, whole or by an adapter.

Conversations are written with the tokenizer's own chat template. A conversation grows by pieces:
what the model wrote stays as the ids it wrote, and only the new message is turned into ids. The
piece is what the template adds when a message follows an assistant's turn, measured on a dummy
conversation, so that nothing need be known about the template.

Models that see pictures are `himac_agents.policies.vision`; `load` tells which a folder holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from himac_agents.policies.base import Completion, Message, Prompt, Sampling
from himac_agents.policies.causal import CausalPolicy
from himac_agents.policies.lora import AdapterHost, Lora

_DUMMY = "himac0dummy"

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
    """

    device: str | None = None
    dtype: Precision = "auto"
    lora: Lora | None = None
    gradient_checkpointing: bool = False
    template_options: dict[str, Any] = field(default_factory=dict)

    def where(self) -> str:
        """The device."""
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def precision(self, device: torch.device | str) -> torch.dtype:
        """What a model on `device` computes in."""
        if self.dtype == "auto":
            on_cpu = torch.device(device).type == "cpu"
            return torch.float32 if on_cpu else torch.bfloat16
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype={self.dtype!r}: choose auto, float32 or bfloat16")
        return torch.float32 if self.dtype == "float32" else torch.bfloat16


class ChatPolicy(CausalPolicy):
    """See the module's text. Load one with `HFPolicy.load`.

    Args:
        model: A transformers causal language model.
        tokenizer: Its tokenizer; one without a chat template gets `PLAIN_TEMPLATE`.
        host: Where the policy is an adapter: its base model.
        adapter: The adapter's name there; None with a host: the base model as it is.
        loading: Precision, checkpointing and template options.
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
        self._reply_end = _reply_end(tokenizer)
        super().__init__(model, tokenizer, _end_ids(model, tokenizer, self._reply_end))
        if self.loading.gradient_checkpointing:
            # The newer name, where this version of transformers has it.
            new = getattr(model, "activation_checkpointing_enable", None)
            (new or model.gradient_checkpointing_enable)({"use_reentrant": False})
        weights = next(model.parameters()).dtype
        computes = self.loading.precision(self.device)
        self._autocast = computes if host is None and weights != computes else None

    # -- text and tokens -------------------------------------------------------------------------

    def encode(self, messages: Sequence[Message], *, continues: bool = False) -> list[int]:
        """See `Codec.encode`."""
        turns = [self._turn(message) for message in messages]
        if not continues:
            return self._ids(self._render(turns), messages)
        before = [
            self._turn(Message("user", _DUMMY)),
            self._turn(Message("assistant", _DUMMY)),
        ]
        shown = self._render([*before, *turns])
        # The model's own turn ended with its end token; what the template writes after that token
        # (a line break, say) belongs to the new piece.
        cut = shown.rindex(_DUMMY) + len(_DUMMY)
        end = self._end_text
        if end in self._reply_end:
            cut = shown.index(end, cut) + len(end)
        return self._ids(shown[cut:], messages)

    def _turn(self, message: Message) -> dict[str, Any]:
        """A message as the template takes it."""
        return {"role": message.role, "content": message.text}

    def encode_reply(self, text: str) -> tuple[int, ...]:
        """See `Codec.encode_reply`."""
        return (*self._ids(text, ()), self.end_ids[0])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion, without its end token and other special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    @property
    def _end_text(self) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(self.end_ids[0]))

    def _render(self, turns: list[dict[str, Any]]) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, **self.loading.template_options
            )
        )

    def _ids(self, text: str, messages: Sequence[Message]) -> list[int]:
        """Token ids of rendered messages."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    # -- the model -------------------------------------------------------------------------------

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `CausalPolicy.generate`.

        Raises:
            ValueError: A conversation would grow beyond the model's sliding window.
        """
        if self.window is not None:
            longest = max((len(p.token_ids) for p in prompts), default=0) + sampling.max_tokens
            if longest > self.window:
                raise ValueError(
                    f"a conversation of {longest} tokens does not fit into the model's sliding "
                    f"window of {self.window}, and the rollout's cache does not slide: shorten the "
                    "answers (max_command_tokens), or take a model with full attention"
                )
        return super().generate(prompts, sampling)

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
        return [] if self.adapter is None else self.host.parameters(self.adapter)

    def without_adapter(self) -> ChatPolicy:
        """The base model under this policy's adapter, as a frozen policy.

        Raises:
            ValueError: This policy is no adapter.
        """
        if self.host is None:
            raise ValueError("this policy is a whole model: there is no base under it")
        return type(self)(self.model, self.tokenizer, host=self.host, loading=self.loading)

    def save_pretrained(self, path: str | Path) -> None:
        """Writes the adapter and its base's name, or the whole model and its tokenizer."""
        if self.host is not None and self.adapter is not None:
            self.host.save(self.adapter, Path(path))
        else:
            super().save_pretrained(path)


#: For tokenizers that bring no chat template.
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


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


def _reply_end(tokenizer: Any) -> str:
    """What the template writes right after an assistant's words."""
    turns = [{"role": "user", "content": "0"}, {"role": "assistant", "content": _DUMMY}]
    whole = str(tokenizer.apply_chat_template(turns, tokenize=False))
    return whole.rpartition(_DUMMY)[2]


def _end_ids(model: Any, tokenizer: Any, tail: str) -> list[int]:
    """Ids that end a turn: the template's own first, then what the model's settings name."""
    found: list[int] = []
    first = tokenizer.encode(tail.strip(), add_special_tokens=False)[:1] if tail.strip() else []
    special = set(tokenizer.all_special_ids)
    found += [i for i in first if i in special]
    settings = getattr(model, "generation_config", None)
    named = getattr(settings, "eos_token_id", None)
    named = named if isinstance(named, list) else [named]
    for token in [*named, tokenizer.eos_token_id]:
        if token is not None and token not in found:
            found.append(int(token))
    if not found:
        raise ValueError("the tokenizer names no end token: set tokenizer.eos_token")
    return found
