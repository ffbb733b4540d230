"""Any local transformers causal language model as a policy: a name or a folder.

Conversations are written with the tokenizer's own chat template. A conversation grows by pieces:
what the model wrote stays as the ids it wrote, and only the new message is turned into ids. The
piece is what the template adds when a message follows an assistant's turn, measured on a dummy
conversation, so that nothing need be known about the template.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from himac_agents.policies.causal import CausalPolicy, without_progress_bars
from himac_agents.policy import Message

_DUMMY = "0"


class HFPolicy(CausalPolicy):
    """See the module's text. Load one with `HFPolicy.load`.

    Args:
        model: A transformers causal language model.
        tokenizer: Its tokenizer; one without a chat template gets `PLAIN_TEMPLATE`.
        seed: Seeds sampling.
    """

    def __init__(self, model: Any, tokenizer: Any, *, seed: int = 0) -> None:
        if tokenizer.chat_template is None:
            tokenizer.chat_template = PLAIN_TEMPLATE
        self._reply_start, self._reply_end = _reply_frame(tokenizer)
        super().__init__(model, tokenizer, _end_ids(model, tokenizer, self._reply_end), seed)

    @classmethod
    def load(
        cls, path: str | Path, *, seed: int = 0, device: str | None = None, dtype: str = "auto"
    ) -> HFPolicy:
        """A model from a folder or by name.

        Args:
            path: A folder that `save_pretrained` wrote, or a model's name.
            seed: Seeds sampling.
            device: "cpu", "cuda", ...; None takes a GPU where there is one.
            dtype: "auto" (float32 on a CPU, the stored type on a GPU) or a torch type's name.

        Raises:
            FileNotFoundError: A folder was named and holds no model.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = Path(path)
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} holds no config.json: not a saved model")
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        kind = ("float32" if where == "cpu" else "auto") if dtype == "auto" else dtype
        tokenizer = AutoTokenizer.from_pretrained(str(path))
        with without_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(
                str(path), dtype=kind if kind == "auto" else getattr(torch, kind)
            ).to(where)
        return cls(model, tokenizer, seed=seed)

    def encode(self, messages: Sequence[Message], *, continues: bool = False) -> list[int]:
        """See `Codec.encode`."""
        turns = [{"role": m.role, "content": m.text} for m in messages]
        if not continues:
            return self._ids(self._render(turns))
        before = [{"role": "user", "content": _DUMMY}, {"role": "assistant", "content": _DUMMY}]
        shown = self._render([*before, *turns])
        known = self._render(before, cue=False)
        # The model's own turn ended with its end token, which `known` holds too; what the template
        # writes after that token (a line break, say) belongs to the new piece.
        end = self._end_text
        cut = known.rindex(end) + len(end) if end and end in known else len(known)
        return self._ids(shown[cut:])

    def encode_reply(self, text: str) -> tuple[int, ...]:
        """See `Codec.encode_reply`."""
        return (*self._ids(text), self.end_ids[0])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion, without its end token and other special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    @property
    def _end_text(self) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(self.end_ids[0]))

    def _render(self, turns: list[dict[str, str]], cue: bool = True) -> str:
        return str(
            self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=cue)
        )

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))


#: For tokenizers that bring no chat template.
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def _reply_frame(tokenizer: Any) -> tuple[str, str]:
    """What the template writes right before and right after an assistant's words."""
    user = [{"role": "user", "content": _DUMMY}]
    marker = "himac7marker"
    whole = str(
        tokenizer.apply_chat_template(
            [*user, {"role": "assistant", "content": marker}], tokenize=False
        )
    )
    cued = str(tokenizer.apply_chat_template(user, tokenize=False, add_generation_prompt=True))
    head, _, tail = whole.partition(marker)
    return (cued if head.startswith(cued) or cued.startswith(head) else head), tail


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
