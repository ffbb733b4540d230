"""The hierarchical agent: a planner and an executor over policies, usually over one and the same.

A level holds what it says and how (prompts, sampling). What it remembers of an episode is a
`Memory`; a decision is a coroutine that asks the policy (`himac_agents.agents.asking`). The
callables for one environment, `Planner.plan` and `Executor.act`, and the rollout of many
(`himac_agents.rollouts.episode.play`) run the same coroutines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from himac_agents.agents.asking import Question, finish
from himac_agents.agents.conversation import (
    Context,
    Decision,
    Memory,
    Offer,
    codec_of,
    meant,
    shown,
)
from himac_agents.agents.expert import Expert
from himac_agents.config import TrainConfig
from himac_agents.policies.base import (
    BatchPolicy,
    Completion,
    Policy,
    Prompt,
    Sampling,
    in_role,
    narrow,
)
from himac_agents.prompts import CompactPrompts, Prompts, VerlAgentPrompts, finished
from himac_envs.blueprint import Blueprint

Observation = dict[str, Any]
Info = dict[str, Any]
#: Whoever answers: one at a time, in batches, or by looking at the environment.
AnyPolicy = Policy | BatchPolicy | Expert


async def ask(policy: AnyPolicy, prompt: Prompt, sampling: Sampling, memory: Memory) -> Completion:
    """The policy's answer; an expert looks at the environment instead of the prompt."""
    if isinstance(policy, Expert):
        return policy.answer(prompt.role, memory)
    return await Question(policy, prompt, sampling)


@dataclass
class Planner:
    """Writes blueprints.

    Attributes:
        policy: Who is asked.
        prompts: What it reads.
        sampling: How its answers are drawn.
        training_seed: The seed of the run that trained it; None where none of ours did.
    """

    policy: AnyPolicy
    prompts: Prompts = field(default_factory=CompactPrompts)
    sampling: Sampling = field(default_factory=lambda: Sampling(1.0, 64))
    training_seed: int | None = None

    async def draft(self, memory: Memory, observation: Observation, info: Info) -> Decision:
        """A blueprint for an environment in phase plan.

        Asked again (`replans`), the planner also reads how its sub-goals ended.
        """
        text = str(observation["text"])
        if memory.first is None:
            memory.first = text
        if memory.segment is not None:
            memory.endings.append(text)
        goal = "\n".join([*memory.endings, str(info["goal"])])
        messages = shown(self.prompts.plan(memory.first, goal), observation)
        context = Context("planner", messages, memory.codec or codec_of(self.policy))
        memory.context, memory.segment, memory.info = context, None, info
        completion = await ask(self.policy, memory.ask(context), self.sampling, memory)
        if not completion.token_ids:
            completion = replace(completion, text=self._rewritten(completion.text, memory, info))
        start = len(context.token_ids)
        ids = context.say(completion)
        said = finished(completion.text) if completion.cut else completion.text
        blueprint = self.prompts.read_plan(said, memory.first, str(info["goal"]))
        return Decision(
            context, True, start, ids, completion, blueprint.action(), blueprint=blueprint,
            allowed=completion.allowed,
        )  # fmt: skip

    def _rewritten(self, text: str, memory: Memory, info: Info) -> str:
        """An expert's blueprint, who does not know how it is written for this instruction."""
        first, goal = memory.first or "", str(info["goal"])
        blueprint = self.prompts.read_plan(text, first, goal)
        written = self.prompts.draft(blueprint, first, goal)
        return text if written == self.prompts.write_blueprint(blueprint) else written

    def plan(self, observation: Observation, info: Info) -> Blueprint:
        """A blueprint for one environment that has just been reset."""
        decision = finish(self.draft(Memory(), observation, info))
        assert decision.blueprint is not None
        return decision.blueprint

    def __call__(self, observation: Observation, info: Info) -> str:
        """The blueprint as text: what `himac_envs.hierarchy.ExecutorView` asks of a planner."""
        return self.plan(observation, info).action()


@dataclass
class Executor:
    """Carries out sub-goals, one command at a time; on a flat environment, the whole task.

    Attributes:
        policy: Who is asked.
        prompts: What it reads.
        sampling: How its answers are drawn.
        constrained: Whether its answers are constrained to the admissible commands. Otherwise it
            writes freely, and what the environment does not understand costs a step.
        history: On a flat environment: None for the whole episode as one conversation, or how many
            steps back it remembers; each step is then a conversation of its own.
        sees: What it remembers on a hierarchical environment: its "segment", as in the paper, or
            the whole "episode", sub-goals before included.
        keep_thoughts: Whether it reads, at its next step, what it thought (`<think>`) at this one.
        training_seed: The seed of the run that trained it; None where none of ours did.
    """

    policy: AnyPolicy
    prompts: Prompts = field(default_factory=CompactPrompts)
    sampling: Sampling = field(default_factory=lambda: Sampling(1.0, 16))
    constrained: bool = False
    history: int | None = None
    sees: Literal["segment", "episode"] = "segment"
    keep_thoughts: bool = False
    training_seed: int | None = None
    _memory: Memory | None = field(default=None, init=False, repr=False)
    _task: str = field(default="", init=False, repr=False)

    async def decide(self, memory: Memory, observation: Observation, info: Info) -> Decision:
        """The next command, or `<sub_done>`; to be asked at every step of an episode.

        A new conversation begins with each episode and each sub-goal. Within one, the last
        observation is appended, and the turn before loses its thought.
        """
        text, prompts = str(observation["text"]), self.prompts
        task = str(observation.get("subgoal") or info["goal"])
        if memory.first is None:
            memory.first = text
        segment = (observation.get("blueprint"), observation.get("subgoal_index"))
        opened = memory.segment != segment or "option" in info or self.remembers(observation)
        if opened and memory.segment is not None and "subgoal" in observation:
            memory.endings.append(text)
        memory.segment, memory.text, memory.info, rewrote = segment, text, info, None
        if opened:
            context = memory.context = self.open(observation, info, memory)
        else:
            assert memory.context is not None
            context = memory.context
            if not self.keep_thoughts:
                rewrote = context.drop_thought()
            context.hear(*shown([prompts.observe(text, task, info)], observation))
        offers = self.offers(task, info)
        choices = self.choices(offers, context)
        completion = await ask(self.policy, memory.ask(context, choices), self.sampling, memory)
        if not completion.token_ids:
            completion = replace(completion, text=self._rewritten(completion.text, offers, info))
        start = len(context.token_ids)
        ids = context.say(completion)
        if choices is not None and ids in choices:
            # The command itself: its text may hold words that the model's vocabulary lacks.
            action = offers[choices.index(ids)][1]
        else:
            known = [written for written, _ in offers]
            said = finished(completion.text, known) if completion.cut else completion.text
            action = meant(prompts.read(said, [c for _, c in offers]), offers)
        allowed = completion.allowed
        if choices is not None and not allowed:
            # An expert's command, as a constrained model would have written it.
            allowed = narrow(choices, ids) or ()
        memory.past.append((text, self._as_written(action, info)))
        return Decision(context, opened, start, ids, completion, action, allowed, rewrote=rewrote)

    def act(self, observation: Observation, info: Info) -> str:
        """The next command for one environment, or `<sub_done>`; to be asked at every step."""
        begins = (
            info["step"] == 0 and observation.get("subgoal_index", 0) == 0 and "option" not in info
        )
        if self._memory is None or begins or info["task_id"] != self._task:
            self._memory, self._task = Memory(), str(info["task_id"])
        return finish(self.decide(self._memory, observation, info)).action

    def __call__(self, observation: Observation, info: Info) -> str:
        """The same: what `himac_envs.hierarchy.PlannerView` asks of an executor."""
        return self.act(observation, info)

    def offers(self, task: str, info: Info) -> list[Offer]:
        """What may be chosen now, as it is written and as the environment takes it."""
        return [(self.prompts.phrase(c, info), c) for c in self.prompts.commands(task, info)]

    def choices(self, offers: Sequence[Offer], context: Context) -> list[tuple[int, ...]] | None:
        """The answers that are allowed now, as token ids; None where any is."""
        if not self.constrained or context.codec is None:
            return None
        return [context.codec.encode_reply(written) for written, _ in offers] or None

    def remembers(self, observation: Mapping[str, Any]) -> bool:
        """Whether each step is a conversation of its own here."""
        return self.history is not None and "subgoal" not in observation

    def open(self, observation: Observation, info: Info, memory: Memory) -> Context:
        """The conversation with which a segment begins (on a flat environment: the episode)."""
        prompts, text, first = self.prompts, str(observation["text"]), memory.first or ""
        codec = memory.codec or codec_of(self.policy)
        if self.remembers(observation):
            kept = memory.past[-self.history :] if self.history else []
            messages = prompts.recall(first, str(info["goal"]), kept, text, info)
        elif "subgoal" not in observation:
            messages = prompts.play(first, str(info["goal"]), info)
        elif memory.acting is not None and self.sees == "episode":
            context = memory.acting.fork()
            if not self.keep_thoughts:
                context.drop_thought()
            message = prompts.proceed(text, str(observation["subgoal"]), info)
            context.hear(*shown([message], observation))
            memory.acting = context
            return context
        else:
            subgoal = str(observation["subgoal"])
            messages = prompts.segment(first, subgoal, memory.endings, info)
        memory.acting = Context("executor", shown(messages, observation), codec)
        return memory.acting

    def _as_written(self, command: str, info: Info) -> str:
        """A command as a later prompt is to show it: as it was written, where that is special."""
        written = self.prompts.phrase(command, info)
        return command if written == self.prompts.write_command(command) else written

    def _rewritten(self, text: str, offers: Sequence[Offer], info: Info) -> str:
        """An expert's command, who does not know how things are written in this place."""
        command = self.prompts.read(text, [c for _, c in offers])
        return text if (written := self._as_written(command, info)) == command else written


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
    def shared(cls, policy: AnyPolicy, prompts: Prompts | None = None) -> HiMACAgent:
        """Both roles in one model, as in the paper."""
        prompts = prompts or CompactPrompts()
        return cls(Planner(policy, prompts), Executor(policy, prompts))

    @classmethod
    def flat(cls, policy: AnyPolicy, prompts: Prompts | None = None) -> HiMACAgent:
        """An agent without a planner, for the flat environments."""
        return cls(None, Executor(policy, prompts or CompactPrompts()))

    def policies(self) -> list[AnyPolicy]:
        """The distinct policies behind the two roles."""
        found: list[AnyPolicy] = [] if self.planner is None else [self.planner.policy]
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
    config: TrainConfig,
    policies: Mapping[str, Any],
    prompts: Prompts,
    hierarchical: bool,
    *,
    trained: bool = True,
) -> HiMACAgent:
    """Planner and executor over one policy or over one each; a flat agent for a flat method.

    Args:
        config: The settings of the run, or those to play with.
        policies: By role, or "policy" for both.
        prompts: What they read.
        hierarchical: Whether there is a planner.
        trained: Whether the run of these settings trains the policies, or has.
    """
    seed = config.seed if trained else None
    command = Sampling(config.temperature, config.max_command_tokens)
    executor = Executor(
        in_role("executor", policies),
        prompts,
        command,
        config.constrained,
        history=history_of(config),
        sees=config.executor_history,
        keep_thoughts=config.keep_thoughts,
        training_seed=seed,
    )
    if not hierarchical:
        return HiMACAgent(None, executor)
    plan = Sampling(config.temperature, config.max_blueprint_tokens)
    return HiMACAgent(Planner(in_role("planner", policies), prompts, plan, seed), executor)


def history_of(config: TrainConfig) -> int | None:
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
