"""Conversations as a chat model's token ids: by its template alone, whoever has its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from himac_agents.policies.base import Message
from himac_agents.policies.template import ChatTemplate

#: For tokenizers that bring no chat template. What asks for an answer ends without a blank: the
#: blank is part of the answer's first token.
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def ends_of(template: ChatTemplate, tokenizer: Any, named: Sequence[int] = ()) -> list[int]:
    """The ids that end an assistant's turn; the first is the one that the template writes.

    Args:
        template: The template.
        tokenizer: Its tokenizer.
        named: Ids that the model's settings name as ends.
    """
    ends = [template.end, *named, tokenizer.eos_token_id]
    return list(dict.fromkeys(i for i in ends if i is not None))


class Written:
    """What a tokenizer and its chat template say; see `himac_agents.policies.base.Codec`.

    Attributes:
        tokenizer: The tokenizer.
        template: How it writes conversations.
        end_ids: Ids that end an assistant's turn.
        pad_id: The id that fills rows.
    """

    tokenizer: Any
    template: ChatTemplate
    end_ids: tuple[int, ...]
    pad_id: int

    def encode(self, messages: Sequence[Message], *, continues: bool = False) -> list[int]:
        """See `Codec.encode`."""
        if continues:
            return self._shown(self.template.following(messages), messages)
        return self._shown(self.template.opening(messages), messages)

    def encode_reply(self, text: str) -> tuple[int, ...]:
        """See `Codec.encode_reply`."""
        return self.template.reply(text)

    def encode_past(self, text: str) -> tuple[int, tuple[int, ...]]:
        """See `Rewriter.encode_past`."""
        return self.template.past(text) if self.template.rewrites else (0, self.encode_reply(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion, without end and padding; other special tokens mean something.

        Where the template has opened a thought for the model, the text begins with its mark.
        """
        silent = {*self.end_ids, self.pad_id}
        kept = [i for i in ids if i not in silent]
        text = self.tokenizer.decode(
            kept, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return self.template.words(str(text).strip(), ended=bool(ids) and ids[-1] in self.end_ids)

    def _turn(self, message: Message) -> dict[str, Any]:
        """A message as the template takes it."""
        return {"role": message.role, "content": message.text}

    def _shown(self, ids: list[int], messages: Sequence[Message]) -> list[int]:
        """Ids with what stands for the messages' pictures put in."""
        return ids


class ChatCodec(Written):
    """A chat model's codec without the model.

    Args:
        tokenizer: A fast tokenizer; one without a chat template gets `PLAIN_TEMPLATE`.
        options: Arguments for the chat template.

    Raises:
        TemplateError: Conversations cannot be written with the chat template.
    """

    def __init__(self, tokenizer: Any, options: Mapping[str, Any] | None = None) -> None:
        if tokenizer.chat_template is None:
            tokenizer.chat_template = PLAIN_TEMPLATE
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer, self._turn, options)
        self.end_ids = tuple(ends_of(self.template, tokenizer))
        self.pad_id = self.end_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id


class Relayed:
    """A policy's tokens where they are another's.

    Args:
        codec: Whose.
    """

    def __init__(self, codec: Written) -> None:
        self.codec = codec

    def encode(self, messages: Sequence[Message], *, continues: bool = False) -> list[int]:
        """See `Codec.encode`."""
        return self.codec.encode(messages, continues=continues)

    def encode_reply(self, text: str) -> tuple[int, ...]:
        """See `Codec.encode_reply`."""
        return self.codec.encode_reply(text)

    def encode_past(self, text: str) -> tuple[int, tuple[int, ...]]:
        """See `Rewriter.encode_past`."""
        return self.codec.encode_past(text)

    def decode(self, ids: Sequence[int]) -> str:
        """See `Written.decode`."""
        return self.codec.decode(ids)
