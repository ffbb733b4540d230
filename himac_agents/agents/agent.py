"""The hierarchical agent: a planner and an executor over policies, usually over one and the same.

`Planner` and `Executor` hold what a level says and how (prompts, sampling), not what it remembers:
a conversation is a `Context`, and whoever plays (a rollout over many environments, or the callables
here over one) keeps the contexts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from himac_agents.agents.conversation import Context, Offer, codec_of, meant, shown
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Codec, Policy, Sampling, in_role
from himac_agents.prompts import CompactPrompts, Prompts, VerlAgentPrompts
from himac_envs.blueprint import Blueprint


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
            self._context = self.open(observation, info, self._first, self._endings, before=before)
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

    def choices(self, offers: Sequence[Offer], codec: Codec | None) -> list[tuple[int, ...]] | None:
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


def at_temperature(agent: HiMACAgent, temperature: float) -> HiMACAgent:
    """The same agent, sampling at another temperature at both levels (0: greedy)."""
    executor = replace(
        agent.executor, sampling=replace(agent.executor.sampling, temperature=temperature)
    )
    planner = agent.planner
    if planner is not None:
        planner = replace(planner, sampling=replace(planner.sampling, temperature=temperature))
    return HiMACAgent(planner, executor)


def assemble(
    config: TrainConfig, policies: Mapping[str, Any], prompts: Prompts, hierarchical: bool
) -> HiMACAgent:
    """Planner and executor over one policy or over one each; a flat agent for a flat method."""
    command = Sampling(config.temperature, config.max_command_tokens)
    executor = Executor(
        in_role("executor", policies),
        prompts,
        command,
        config.constrained,
        history=memory(config),
        sees=config.executor_history,
        keep_thoughts=config.keep_thoughts,
    )
    if not hierarchical:
        return HiMACAgent(None, executor)
    plan = Sampling(config.temperature, config.max_blueprint_tokens)
    return HiMACAgent(Planner(in_role("planner", policies), prompts, plan), executor)


def memory(config: TrainConfig) -> int | None:
    """`history` as `Executor` takes it: None for the whole episode.

    verl-agent's prompt is one of its own at each step, with a memory of two unless told else.
    """
    if config.history != "episode":
        return int(config.history)
    return VerlAgentPrompts.memory if config.prompt == "verl-agent" else None


def forget(agent: HiMACAgent) -> None:
    """Drops what local models have cached: their weights have changed, or other lanes come."""
    for policy in agent.policies():
        if hasattr(policy, "forget"):
            policy.forget()
