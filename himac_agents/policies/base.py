"""What a policy is: prompts in, completions out; and, where it learns, log-probabilities.

Nothing here imports torch, so that environments, scripted policies and remote models can be used
without it. Token ids go in and come out: a rollout never turns text into tokens twice, which is
why the ids a model wrote are the ids it is trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Part = TypeVar("Part")
Role = Literal["planner", "executor"]
Speaker = Literal["system", "user", "assistant"]
#: A picture: [rows, columns, 3], red, green and blue from 0 to 255.
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Message:
    """One utterance of a conversation, in the form chat models use.

    Attributes:
        role: Who speaks.
        text: What is said.
        images: Pictures shown before the text; policies that read text only pass them over.
    """

    role: Speaker
    text: str
    images: tuple[Image, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a policy is asked.

    Attributes:
        messages: The conversation so far as text, for policies that speak text (remote, scripted).
        token_ids: The same conversation as the policy's own token ids, for local models. Empty
            where the policy has no tokenizer.
        slot: The conversation's number. A local model keeps one row of its key-value cache a slot
            and feeds only what the row does not hold yet. None: no cache is kept.
        role: The level that is asked.
        choices: The only answers allowed, as token ids with their end token; None allows any text.
            The model's distribution is then constrained, token by token, to what can still become
            one of them.
        noise: The key of the answer's random numbers (see `himac_agents.policies.noise`).
    """

    messages: tuple[Message, ...]
    token_ids: Sequence[int] = ()
    slot: int | None = None
    role: Role = "executor"
    choices: Sequence[tuple[int, ...]] | None = None
    noise: int = 0

    @property
    def images(self) -> tuple[Image, ...]:
        """The pictures of the conversation, in order."""
        return tuple(image for message in self.messages for image in message.images)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw a completion.

    Attributes:
        temperature: Softmax temperature; 0 takes the most likely token.
        max_tokens: The longest completion, its end token included.
    """

    temperature: float = 1.0
    max_tokens: int = 16

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn at random."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy answered.

    Attributes:
        text: The answer, without its end token.
        token_ids: The ids as sampled, with the end token where one was produced.
        logprobs: Log-probability of each id under the distribution it was drawn from (greedy:
            under the model at temperature 1). Empty for policies that give none.
        allowed: For each id, the ids it was drawn from; empty where any was allowed. An id that
            was the only one allowed has log-probability 0 and carries no loss.
        written: Tokens written, as a remote model counts them; None: those of `token_ids`.
        cut: Whether it ended at the limit, not by itself.
        error: Why there is no answer, where a remote model gave none: its episode ends.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    allowed: tuple[tuple[int, ...], ...] = ()
    written: int | None = None
    cut: bool = False
    error: str | None = None


@dataclass(slots=True)
class TokenBatch:
    """A right-padded batch of token sequences with what the loss needs to know of each token.

    All arrays are [batch, time]. Entry t of `mask`, `old_logprobs`, `advantages` belongs to token
    t itself, which the model predicts from the tokens before t; entry 0 is therefore never 1.

    Attributes:
        token_ids: int64 ids, padded with `pad`.
        mask: 1.0 on tokens that the policy wrote and that carry loss, else 0.0.
        old_logprobs: Log-probability at sampling time; 0 where `mask` is 0.
        advantages: The advantage of each token; 0 where `mask` is 0.
        lengths: int64 [batch], true lengths.
        allowed: For each row its (position, ids) pairs: the token at `position` was drawn from
            `ids` alone. Positions that are not listed were drawn from the whole vocabulary.
        temperature: The softmax temperature the sequences were sampled at.
        images: For each row the pictures its tokens stand for; empty where there are none.
        extra: Further [batch, time] arrays.
    """

    token_ids: NDArray[np.int64]
    mask: NDArray[np.float32]
    old_logprobs: NDArray[np.float32]
    advantages: NDArray[np.float32]
    lengths: NDArray[np.int64]
    allowed: list[list[tuple[int, tuple[int, ...]]]] = field(default_factory=list)
    temperature: float = 1.0
    images: list[tuple[Image, ...]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.token_ids.shape[0])


def narrow(
    choices: Sequence[tuple[int, ...]], ids: Sequence[int]
) -> tuple[tuple[int, ...], ...] | None:
    """What each id of an answer could have been, if the answer is to be one of `choices`.

    Returns:
        For each id the sorted ids allowed at its place; None where the answer is not a choice.
    """
    found: list[tuple[int, ...]] = []
    left = list(choices)
    for place, token in enumerate(ids):
        found.append(tuple(sorted({c[place] for c in left if len(c) > place})))
        left = [c for c in left if len(c) > place and c[place] == token]
    return tuple(found) if any(len(c) == len(ids) for c in left) else None


@runtime_checkable
class Policy(Protocol):
    """Anything that answers prompts: a model behind an address, a user's own function."""

    async def sample(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Answers a prompt. Many may be under way at the same time, in one event loop."""
        ...


@runtime_checkable
class BatchPolicy(Protocol):
    """A policy that answers many prompts at once: a local model.

    Whoever plays many episodes gathers what they ask.
    """

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Answers each prompt, in order."""
        ...


@runtime_checkable
class Codec(Protocol):
    """Turns conversations into a model's token ids, piece by piece."""

    def encode(self, messages: Sequence[Message], *, continues: bool = False) -> list[int]:
        """Ids of `messages`, ending where the assistant is to speak.

        Args:
            messages: What is to be read next.
            continues: Whether these messages follow an assistant's turn of the same conversation.
        """
        ...

    def encode_reply(self, text: str) -> tuple[int, ...]:
        """Ids of an assistant's turn that says `text`, as the policy itself would write it.

        The last id is its end token.
        """
        ...


@runtime_checkable
class Rewriter(Protocol):
    """A codec that shows earlier answers in another way than they were written."""

    def encode_past(self, text: str) -> tuple[int, tuple[int, ...]]:
        """An assistant's turn as it is shown once others follow.

        Returns:
            How many of the ids before the turn are to be taken away (0: its beginning stays as it
            was), and the turn's ids, end token included.
        """
        ...


@runtime_checkable
class Learnable(BatchPolicy, Codec, Protocol):
    """A policy that can be trained."""

    def logprobs_and_entropy(self, batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and (detached) entropies [batch, time], 0 where the mask is 0."""
        ...

    def parameters(self) -> list[torch.nn.Parameter]:
        """The parameters that learn."""
        ...

    def forget(self) -> None:
        """Drops what was computed with the old weights."""
        ...

    def save_pretrained(self, path: str | Path) -> None:
        """Writes weights (safetensors), configuration and tokenizer into the folder `path`."""
        ...


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """The messages with the system's words at the head of the first user message.

    For models that know no system role.
    """
    told = "\n\n".join(m.text for m in messages if m.role == "system")
    found = [m for m in messages if m.role != "system"]
    if not told:
        return found
    if not found or found[0].role != "user":
        return [Message("user", told), *found]
    return [replace(found[0], text=f"{told}\n\n{found[0].text}"), *found[1:]]


def in_role(role: Role, parts: Mapping[str, Part]) -> Part:
    """Of policies (or what belongs to each) by name, the role's own or the one all roles share."""
    return parts["policy"] if "policy" in parts else parts[role]
