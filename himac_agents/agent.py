"""The hierarchical agent: a planner and an executor over policies, usually over one and the same.

`Planner` and `Executor` hold what a level says and how (prompts, sampling), not what it remembers:
a conversation is a `Context`, and whoever plays (a rollout over many environments, or the callables
here over one) keeps the contexts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from himac_agents.policy import Codec, Completion, Image, Message, Policy, Prompt, Role, Sampling
from himac_agents.prompts import CompactPrompts, Prompts, visible
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


@dataclass
class Planner:
    """Writes blueprints.

    Attributes:
        policy: Who is asked.
        prompts: What it reads.
        sampling: How its answers are drawn.
    """

    policy: Policy
    prompts: Prompts = field(default_factory=CompactPrompts)
    sampling: Sampling = field(default_factory=lambda: Sampling(1.0, 64))

    def plan(self, observation: dict[str, Any], info: dict[str, Any]) -> Blueprint:
        """A blueprint for one environment that has just been reset."""
        messages = self.prompts.plan(str(observation["text"]), str(info["goal"]))
        context = Context("planner", shown(messages, observation), codec_of(self.policy))
        (completion,) = self.policy.generate([context.prompt()], self.sampling)
        first, goal = str(observation["text"]), str(info["goal"])
        return self.prompts.read_plan(completion.text, first, goal)

    def __call__(self, observation: dict[str, Any], info: dict[str, Any]) -> str:
        """The blueprint as text: what `himac_envs.hierarchy.ExecutorView` asks of a planner."""
        return self.plan(observation, info).render()


@dataclass
class Executor:
    """Carries out sub-goals, one command at a time; on a flat environment, the whole task.

    Attributes:
        policy: Who is asked.
        prompts: What it reads.
        sampling: How its answers are drawn.
        constrained: Whether its answers are bound to the admissible commands. Otherwise it writes
            freely, and what the environment does not understand costs a step.
        history: On a flat environment: None for the whole episode as one conversation, or how many
            steps back it remembers; each step is then a conversation of its own.
        sees: What it remembers on a hierarchical environment: its "segment", as in the paper, or
            the whole "episode", sub-goals before included.
        keep_thoughts: Whether it reads, at its next step, what it thought (`<think>`) at this one.
    """

    policy: Policy
    prompts: Prompts = field(default_factory=CompactPrompts)
    sampling: Sampling = field(default_factory=lambda: Sampling(1.0, 16))
    constrained: bool = False
    history: int | None = None
    sees: Literal["segment", "episode"] = "segment"
    keep_thoughts: bool = False
    _past: list[tuple[str, str]] = field(default_factory=list, init=False, repr=False)
    _context: Context | None = field(default=None, init=False, repr=False)
    _first: str = field(default="", init=False, repr=False)
    _endings: list[str] = field(default_factory=list, init=False, repr=False)
    _segment: tuple[Any, ...] = field(default=(), init=False, repr=False)

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> str:
        """The next command for one environment, or `<sub_done>`; to be asked at every step.

        A new segment begins with each episode and each sub-goal, and forgets what came before.
        """
        text = str(observation["text"])
        task = str(observation.get("subgoal") or info["goal"])
        segment = (info["task_id"], observation.get("blueprint"), observation.get("subgoal_index"))
        fresh = info["step"] == 0 and observation.get("subgoal_index", 0) == 0
        if fresh:
            self._first, self._endings, self._past = text, [], []
        if self.remembers(observation):
            self._context = self.recall(observation, info, self._first, self._past)
        elif self._context is None or segment != self._segment or fresh:
            if not fresh:
                self._endings.append(text)
            self._segment = segment
            before = None if fresh else self._context
            self._context = self.open(
                observation, info, self._first, self._endings, before=before
            )
        else:
            (message,) = shown([self.prompts.observe(text, task, info)], observation)
            self._context.hear(message)
        offers = self.offers(task, info)
        prompt = self._context.prompt(choices=self.choices(offers, self._context.codec))
        (completion,) = self.policy.generate([prompt], self.sampling)
        start = len(self._context.token_ids)
        self._context.say(completion)
        if not self.keep_thoughts:
            self._context.drop_thought(start)
        said = self.prompts.read(completion.text)
        self._past.append((text, said))
        return meant(said, offers)

    def __call__(self, observation: dict[str, Any], info: dict[str, Any]) -> str:
        """The same: what `himac_envs.hierarchy.PlannerView` asks of an executor."""
        return self.act(observation, info)

    def offers(self, task: str, info: dict[str, Any]) -> list[Offer]:
        """What may be chosen now, as it is written and as the environment takes it."""
        prompts = self.prompts
        return [(prompts.phrase(c, info), c) for c in prompts.commands(task, info)]

    def choices(
        self, offers: Sequence[Offer], codec: Codec | None
    ) -> list[tuple[int, ...]] | None:
        """The answers that are allowed now, as token ids; None where any is."""
        if not self.constrained or codec is None:
            return None
        return [codec.encode_reply(written) for written, _ in offers] or None

    def remembers(self, observation: dict[str, Any]) -> bool:
        """Whether each step is a conversation of its own here."""
        return self.history is not None and "subgoal" not in observation

    def recall(
        self,
        observation: dict[str, Any],
        info: dict[str, Any],
        first: str,
        past: Sequence[tuple[str, str]],
        codec: Codec | None = None,
    ) -> Context:
        """The context of one step of a flat agent with a short memory.

        Args:
            observation: The environment's.
            info: The environment's.
            first: The episode's first observation.
            past: (observation, command) pairs of all steps so far; the last `history` are read.
            codec: See `open`.
        """
        kept = list(past[-self.history :]) if self.history else []
        text = str(observation["text"])
        messages = self.prompts.recall(first, str(info["goal"]), kept, text, info)
        return Context("executor", shown(messages, observation), codec or codec_of(self.policy))

    def open(
        self,
        observation: dict[str, Any],
        info: dict[str, Any],
        first: str,
        endings: Sequence[str] = (),
        codec: Codec | None = None,
        before: Context | None = None,
    ) -> Context:
        """The context with which a segment begins (on a flat environment: the episode).

        Args:
            observation: The environment's.
            info: The environment's.
            first: The episode's first observation.
            endings: The last observation of each sub-goal that has ended.
            codec: Gives token ids; None: the policy itself, where it can.
            before: The context of the segment before, which goes on where the whole episode is
                seen.
        """
        if "subgoal" in observation:
            subgoal = str(observation["subgoal"])
            if before is not None and self.sees == "episode":
                context = before.fork()
                if not self.keep_thoughts:
                    context.drop_thought(context.spoke)
                message = self.prompts.proceed(str(observation["text"]), subgoal, info)
                context.hear(*shown([message], observation))
                return context
            messages = self.prompts.segment(first, subgoal, endings, info)
        else:
            messages = self.prompts.play(first, str(info["goal"]), info)
        messages = shown(messages, observation)
        return Context("executor", messages, codec or codec_of(self.policy))


@dataclass
class HiMACAgent:
    """A planner above an executor. Without a planner it is a flat agent.

    Attributes:
        planner: The macro level, or None.
        executor: The micro level.
    """

    planner: Planner | None
    executor: Executor

    @classmethod
    def shared(cls, policy: Policy, prompts: Prompts | None = None) -> HiMACAgent:
        """Both roles in one model, as in the paper."""
        prompts = prompts or CompactPrompts()
        return cls(Planner(policy, prompts), Executor(policy, prompts))

    @classmethod
    def flat(cls, policy: Policy, prompts: Prompts | None = None) -> HiMACAgent:
        """An agent without a planner, for the flat environments."""
        return cls(None, Executor(policy, prompts or CompactPrompts()))

    def policies(self) -> list[Policy]:
        """The distinct policies behind the two roles."""
        found: list[Policy] = [] if self.planner is None else [self.planner.policy]
        if not any(self.executor.policy is policy for policy in found):
            found.append(self.executor.policy)
        return found
