"""The hierarchical agent: a planner and an executor over policies, usually over one and the same.

`Planner` and `Executor` hold what a level says and how (prompts, sampling), not what it remembers:
a conversation is a `Context`, and whoever plays (a rollout over many environments, or the callables
here over one) keeps the contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from himac_agents.policy import Codec, Completion, Message, Policy, Prompt, Role, Sampling
from himac_agents.prompts import CompactPrompts, Prompts, read_blueprint
from himac_envs.blueprint import Blueprint

#: A command as it is written, and as the environment takes it.
Offer = tuple[str, str]


def meant(said: str, offers: Sequence[Offer]) -> str:
    """The command behind what was written: itself where no offer is written like that."""
    return next((command for written, command in offers if written == said), said)


class Context:
    """One conversation between an environment and one level of the agent.

    Args:
        role: The level.
        messages: How the conversation opens.
        codec: Gives token ids; None for policies that speak text only.
    """

    __slots__ = ("codec", "messages", "role", "token_ids")

    def __init__(self, role: Role, messages: Sequence[Message], codec: Codec | None) -> None:
        self.role: Role = role
        self.codec = codec
        self.messages = list(messages)
        self.token_ids: list[int] = codec.encode(messages) if codec is not None else []

    def fork(self) -> Context:
        """A conversation that begins where this one stands."""
        copy = Context(self.role, (), None)
        copy.codec, copy.messages = self.codec, list(self.messages)
        copy.token_ids = list(self.token_ids)
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
        self.token_ids.extend(ids)
        return ids

    def hear(self, message: Message) -> None:
        """Appends what the environment answered."""
        self.messages.append(message)
        if self.codec is not None:
            self.token_ids.extend(self.codec.encode([message], continues=True))


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
        context = Context("planner", messages, codec_of(self.policy))
        (completion,) = self.policy.generate([context.prompt()], self.sampling)
        return read_blueprint(completion.text, str(info["goal"]))

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
        sees: What it remembers on a hierarchical environment: its "segment", as in the paper, or
            the whole "episode", sub-goals before included.
    """

    policy: Policy
    prompts: Prompts = field(default_factory=CompactPrompts)
    sampling: Sampling = field(default_factory=lambda: Sampling(1.0, 16))
    constrained: bool = False
    sees: Literal["segment", "episode"] = "segment"
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
            self._first, self._endings = text, []
        if self._context is None or segment != self._segment or fresh:
            if not fresh:
                self._endings.append(text)
            self._segment = segment
            before = None if fresh else self._context
            self._context = self.open(
                observation, info, self._first, self._endings, before=before
            )
        else:
            self._context.hear(self.prompts.observe(text, task, info))
        offers = self.offers(task, info)
        prompt = self._context.prompt(choices=self.choices(offers, self._context.codec))
        (completion,) = self.policy.generate([prompt], self.sampling)
        self._context.say(completion)
        return meant(self.prompts.read(completion.text), offers)

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
                context.hear(self.prompts.proceed(str(observation["text"]), subgoal, info))
                return context
            messages = self.prompts.segment(first, subgoal, endings, info)
        else:
            messages = self.prompts.play(first, str(info["goal"]), info)
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
