"""Conversations: what a level has read and said, as messages and as token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from himac_agents.policies import noise
from himac_agents.policies.base import (
    Codec,
    Completion,
    Image,
    Message,
    Prompt,
    Rewriter,
    Role,
)
from himac_agents.prompts import visible
from himac_envs.blueprint import Blueprint

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

    __slots__ = ("codec", "cut", "images", "messages", "role", "spoke", "token_ids")

    def __init__(self, role: Role, messages: Sequence[Message], codec: Codec | None) -> None:
        self.role: Role = role
        self.codec = codec
        self.messages = list(messages)
        self.images: list[Image] = [image for m in messages for image in m.images]
        self.token_ids: list[int] = codec.encode(messages) if codec is not None else []
        #: Where the assistant's last turn begins among the token ids.
        self.spoke = 0
        #: Whether that turn was cut at its limit, so that it has no end token.
        self.cut = False

    def fork(self) -> Context:
        """A conversation that begins where this one stands."""
        copy = Context(self.role, (), None)
        copy.codec, copy.messages = self.codec, list(self.messages)
        copy.token_ids, copy.images = list(self.token_ids), list(self.images)
        copy.spoke, copy.cut = self.spoke, self.cut
        return copy

    def say(self, completion: Completion) -> tuple[int, ...]:
        """Appends the policy's answer; returns its token ids."""
        ids = completion.token_ids
        if not ids and self.codec is not None:
            ids = self.codec.encode_reply(completion.text)
        self.messages.append(Message("assistant", completion.text))
        self.spoke = len(self.token_ids)
        self.cut = completion.cut and bool(completion.token_ids)
        self.token_ids.extend(ids)
        return ids

    def hear(self, *messages: Message) -> None:
        """Appends what the environment answered; an answer that was cut is ended before it.

        All that is heard before the next answer is to be given at once: behind it stands the cue
        to speak.
        """
        self.messages.extend(messages)
        self.images.extend(image for message in messages for image in message.images)
        if self.codec is not None:
            if self.cut:
                self.token_ids.extend(self.codec.encode_reply("")[-1:])
            self.token_ids.extend(self.codec.encode(messages, continues=True))
        self.cut = False

    def drop_thought(self) -> list[int] | None:
        """Takes the thought out of the assistant's last turn, as if it had only said the rest.

        Reasoning models are trained to be shown what they answered earlier, not what they thought.
        Where a chat template opens a thought before the answer, that goes, too.

        Returns:
            The token ids as they were, thought included; None where there was no thought.
        """
        last = self.messages[-1]
        if last.role != "assistant":
            return None
        answer = visible(last.text).strip()
        thought = answer != last.text.strip()
        back, ids = self._past(answer) if thought or hasattr(self.codec, "encode_past") else (0, ())
        if not thought and not back:
            return None
        before = self.token_ids
        self.messages[-1] = replace(last, text=answer)
        if self.codec is not None:
            self.token_ids, self.cut = [*before[: self.spoke - back], *ids], False
            self.spoke -= back
        return before

    def _past(self, text: str) -> tuple[int, tuple[int, ...]]:
        """An answer as it is shown once others follow; see `Rewriter.encode_past`."""
        if isinstance(self.codec, Rewriter):
            return self.codec.encode_past(text)
        return 0, self.codec.encode_reply(text) if self.codec is not None else ()


def codec_of(policy: object) -> Codec | None:
    """The policy itself where it speaks tokens, else None."""
    return policy if isinstance(policy, Codec) else None


@dataclass
class Memory:
    """What an agent keeps of one episode, both levels together.

    Attributes:
        env: The live environment. Privileged: only experts look at it.
        noise: The key of the episode's random numbers (see `himac_agents.policies.noise`).
        slot: The conversation's number for a local model's cache; None: nothing is cached.
        codec: Gives token ids where the policies speak text only (demonstrations of an expert for
            a model that is to be trained).
        first: The episode's first observation; None before it.
        endings: The last observation of each sub-goal that has ended.
        past: (observation, command) pairs of all steps, commands as a later prompt shows them.
        context: The conversation under way at the level that spoke last.
        acting: The executor's last conversation.
        segment: What tells the segment under way from the next: blueprint and place in it.
        decisions: How many were made.
        text: The environment's last text, for experts.
        info: The environment's last `info`, likewise.
        expert: What an expert keeps for itself.
    """

    env: Any = None
    noise: int = 0
    slot: int | None = None
    codec: Codec | None = None
    first: str | None = None
    endings: list[str] = field(default_factory=list)
    past: list[tuple[str, str]] = field(default_factory=list)
    context: Context | None = None
    acting: Context | None = None
    segment: tuple[Any, ...] | None = None
    decisions: int = 0
    text: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    expert: dict[Any, Any] = field(default_factory=dict)

    def ask(self, context: Context, choices: Sequence[tuple[int, ...]] | None = None) -> Prompt:
        """The conversation up to now as a question, with noise that no other question has."""
        key = noise.key(self.noise, self.decisions)
        self.decisions += 1
        messages, ids = tuple(context.messages), tuple(context.token_ids)
        return Prompt(messages, ids, self.slot, context.role, choices, key)


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer of one level, read.

    Attributes:
        context: The conversation it is part of, this answer included.
        opened: Whether the conversation began with it.
        start: Where the answer begins among the conversation's token ids.
        token_ids: The answer's ids.
        completion: What the policy answered.
        action: What the environment is to be sent.
        allowed: For each id what it was drawn from; empty where any id was allowed.
        blueprint: The planner's blueprint.
        rewrote: The conversation's ids before the turn before this one lost its thought; None where
            it had none.
    """

    context: Context
    opened: bool
    start: int
    token_ids: tuple[int, ...]
    completion: Completion
    action: str
    allowed: tuple[tuple[int, ...], ...] = ()
    blueprint: Blueprint | None = None
    rewrote: list[int] | None = None
