"""Conversations: what a level has read and said, as messages and as token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from himac_agents.policies.base import Codec, Completion, Image, Message, Policy, Prompt, Role
from himac_agents.prompts import visible

#: A command as it is written, and as the environment takes it.
Offer = tuple[str, str]


def meant(said: str, offers: Sequence[Offer]) -> str:
    """The command behind what was written: itself where no offer is written like that."""
    return next((command for written, command in offers if written == said), said)


def shown(messages: Sequence[Message], observation: Mapping[str, Any]) -> list[Message]:
    """The messages, the last one with the observation's picture where there is one."""
    found = list(messages)
    if "image" in observation:
        picture = np.array(observation["image"], dtype=np.uint8)
        found[-1] = replace(found[-1], images=(*found[-1].images, picture))
    return found


class Context:
    """One conversation between an environment and one level of the agent.

    Args:
        role: The level.
        messages: How the conversation opens.
        codec: Gives token ids; None for policies that speak text only.
    """

    __slots__ = ("codec", "images", "messages", "role", "spoke", "token_ids")

    def __init__(self, role: Role, messages: Sequence[Message], codec: Codec | None) -> None:
        self.role: Role = role
        self.codec = codec
        self.messages = list(messages)
        self.images: list[Image] = [image for m in messages for image in m.images]
        self.token_ids: list[int] = codec.encode(messages) if codec is not None else []
        #: Where the assistant's last turn begins among the token ids.
        self.spoke = 0

    def fork(self) -> Context:
        """A conversation that begins where this one stands."""
        copy = Context(self.role, (), None)
        copy.codec, copy.messages = self.codec, list(self.messages)
        copy.token_ids, copy.images = list(self.token_ids), list(self.images)
        copy.spoke = self.spoke
        return copy

    def prompt(
        self,
        slot: int | None = None,
        env: Any = None,
        choices: Sequence[tuple[int, ...]] | None = None,
    ) -> Prompt:
        """The conversation up to now, as a question to the policy."""
        return Prompt(tuple(self.messages), tuple(self.token_ids), slot, self.role, choices, env)

    def say(self, completion: Completion) -> tuple[int, ...]:
        """Appends the policy's answer; returns its token ids."""
        ids = completion.token_ids
        if not ids and self.codec is not None:
            ids = self.codec.encode_reply(completion.text)
        self.messages.append(Message("assistant", completion.text))
        self.spoke = len(self.token_ids)
        self.token_ids.extend(ids)
        return ids

    def hear(self, message: Message) -> None:
        """Appends what the environment answered."""
        self.messages.append(message)
        self.images.extend(message.images)
        if self.codec is not None:
            self.token_ids.extend(self.codec.encode([message], continues=True))

    def drop_thought(self, start: int) -> list[int] | None:
        """Takes the thought out of the assistant's last turn, as if it had only said the rest.

        Reasoning models are trained to be shown what they answered earlier, not what they thought.

        Args:
            start: Where that turn begins among the token ids.

        Returns:
            The token ids as they were, thought included; None where there was no thought.
        """
        last = self.messages[-1]
        answer = visible(last.text).strip()
        if last.role != "assistant" or answer == last.text.strip():
            return None
        before = self.token_ids
        self.messages[-1] = replace(last, text=answer)
        if self.codec is not None:
            self.token_ids = [*before[:start], *self.codec.encode_reply(answer)]
        return before


def codec_of(policy: Policy) -> Codec | None:
    """The policy itself where it speaks tokens, else None."""
    return policy if isinstance(policy, Codec) else None
