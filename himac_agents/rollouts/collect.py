"""Rollouts: many environments, one batched `generate` a turn, token ids in and out.

See `himac_agents.rollouts.types` for what comes out.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from himac_agents.agents.agent import HiMACAgent
from himac_agents.agents.conversation import Context, Offer, codec_of, meant, shown
from himac_agents.policies.base import Codec, Completion, Role, Sampling, narrow
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.trace import picture
from himac_agents.rollouts.types import Episode, Segment, Task, Turn
from himac_envs.task import MissingDependencyError


def collect(
    agent: HiMACAgent,
    pool: EnvPool,
    tasks: Iterable[Task],
    *,
    codec: Codec | None = None,
    transcripts: bool = False,
    stop_at_failure: bool = False,
    on_episode: Callable[[Episode], None] | None = None,
    max_decisions: int = 10_000,
) -> list[Episode]:
    """Plays the tasks, `pool.size` at a time, and returns their episodes in order.

    Args:
        agent: Who plays. Sampling is its planner's and its executor's.
        pool: Where it plays.
        tasks: What it plays.
        codec: Gives token ids where the agent's own policies speak text only (demonstrations of a
            scripted policy for a model that is to be trained).
        transcripts: Keep (action, observation) pairs in the episodes.
        stop_at_failure: End an episode with its first sub-goal that was ended without being
            achieved. For learning from option-level advantages, which give what follows no credit:
            the time is better spent on other episodes. Such an episode counts as not solved.
        on_episode: Called with each finished episode.
        max_decisions: A guard against environments that never end.

    Returns:
        One episode a task. An environment that raises becomes `Episode.error`; the others go on.
    """
    episodes: list[Episode] = []
    wave: list[Task] = []
    for task in [*tasks, None]:
        if task is not None:
            wave.append(task)
        if wave and (task is None or len(wave) == pool.size):
            lanes = [
                _Lane(agent, pool, slot, item, codec, transcripts, stop_at_failure)
                for slot, item in enumerate(wave)
            ]
            _play(agent, lanes, max_decisions)
            for lane in lanes:
                episodes.append(lane.episode)
                if on_episode is not None:
                    on_episode(lane.episode)
            wave = []
    return episodes


def propose(agent: HiMACAgent, pool: EnvPool, tasks: Sequence[Task]) -> list[Episode]:
    """Asks the planner for a blueprint for each task, and executes none of them.

    Tasks with equal ids share one reset. The episodes returned hold the planner's segment only.
    """
    planner = agent.planner
    if planner is None:
        raise ValueError("an agent without a planner writes no blueprints")
    codec = codec_of(planner.policy)
    openings: dict[str, tuple[str, str, dict[str, Any]] | None] = {}
    errors: dict[str, str] = {}
    for task in tasks:
        if task.task_id not in openings:
            try:
                observation, info = pool[0].reset(options={"task_id": task.task_id})
                openings[task.task_id] = str(observation["text"]), str(info["goal"]), observation
            except MissingDependencyError:  # no episode can do without it
                raise
            except Exception:
                openings[task.task_id] = None
                errors[task.task_id] = traceback.format_exc()
                pool.discard(0)
    episodes: list[Episode] = []
    asked: list[tuple[Episode, Context]] = []
    for task in tasks:
        episode = Episode(task)
        episodes.append(episode)
        opening = openings[task.task_id]
        if opening is None:
            episode.error = errors[task.task_id]
            continue
        episode.goal = opening[1]
        messages = shown(planner.prompts.plan(*opening[:2]), opening[2])
        context = Context("planner", messages, codec)
        segment = Segment("planner", task.group, token_ids=context.token_ids)
        segment.messages, segment.images = context.messages, context.images
        segment.temperature = planner.sampling.temperature or 1.0
        episode.segments.append(segment)
        asked.append((episode, context))
    for start in range(0, len(asked), pool.size):
        part = asked[start : start + pool.size]
        prompts = [context.prompt(slot) for slot, (_, context) in enumerate(part)]
        for (episode, context), completion in zip(
            part, planner.policy.generate(prompts, planner.sampling), strict=True
        ):
            at = len(context.token_ids)
            ids = context.say(completion)
            opening = openings[episode.task.task_id]
            assert opening is not None
            blueprint = planner.prompts.read_plan(completion.text, *opening[:2])
            episode.blueprint, episode.blueprint_valid = blueprint, blueprint.valid
            segment = episode.segments[0]
            turn = Turn(segment, at, ids, completion.logprobs, completion.text, blueprint.render())
            turn.written, episode.error = completion.written, completion.error
            segment.turns.append(turn)
    return episodes


def _play(agent: HiMACAgent, lanes: list[_Lane], max_decisions: int) -> None:
    for _ in range(max_decisions):
        planning = [lane for lane in lanes if lane.asks == "planner"]
        acting = [lane for lane in lanes if lane.asks == "executor"]
        if not planning and not acting:
            return
        if planning and agent.planner is not None:
            _ask(agent.planner.policy.generate, planning, agent.planner.sampling)
        if acting:
            _ask(agent.executor.policy.generate, acting, agent.executor.sampling)
    for lane in lanes:
        if lane.asks is not None:
            lane.fail(f"no end after {max_decisions} decisions")


def _ask(generate: Callable[..., list[Completion]], lanes: list[_Lane], how: Sampling) -> None:
    for lane, completion in zip(lanes, generate([x.prompt() for x in lanes], how), strict=True):
        lane.answer(completion, how.temperature or 1.0)


class _Lane:
    """One environment in the middle of an episode."""

    def __init__(
        self,
        agent: HiMACAgent,
        pool: EnvPool,
        slot: int,
        task: Task,
        codec: Codec | None,
        transcripts: bool,
        stop_at_failure: bool,
    ) -> None:
        self.agent, self.pool, self.slot = agent, pool, slot
        self.codec, self.keeps, self.stops = codec, transcripts, stop_at_failure
        self.episode = Episode(task)
        self.asks: Role | None = None
        self.context: Context
        self.before: Context | None = None
        self.first = ""
        self.text = ""
        self.endings: list[str] = []
        self.past: list[tuple[str, str]] = []
        self.choices: list[tuple[int, ...]] | None = None
        self.offers: list[Offer] = []
        self.info: dict[str, Any] = {}
        try:
            self.env = pool[slot]
            observation, info = self.env.reset(options={"task_id": task.task_id})
            self.first = str(observation["text"])
            self.episode.goal = str(info["goal"])
            self.episode.first, self.episode.frame = self.first, picture(self.env, observation)
            self.episode.task_type = str(getattr(self.env, "task_type", ""))
            if self.keeps:
                self.episode.transcript.append(("", self.first))
            if "phase" in observation and task.blueprint is not None:
                self.episode.blueprint = task.blueprint
                observation, _, _, _, info = self.env.step(task.blueprint.render())
            self._turn_to(observation, info)
        except MissingDependencyError:  # no episode can do without it
            raise
        except Exception:
            self.fail(traceback.format_exc())

    def fail(self, why: str) -> None:
        """Ends the episode: the environment broke."""
        self.asks = None
        self.episode.error = why
        self.pool.discard(self.slot)

    def prompt(self) -> Any:
        """The question for the policy."""
        return self.context.prompt(self.slot, self.env, self.choices)

    def _as_written(self, command: str) -> str:
        """A command as a later prompt is to show it: as it was written, where that is special."""
        prompts = self.agent.executor.prompts
        written = prompts.phrase(command, self.info)
        return command if written == prompts.write_command(command) else written

    def _rewritten(self, text: str) -> str:
        """A scripted player's answer, who does not know how things are written in this place."""
        if self.asks == "planner" and self.agent.planner is not None:
            prompts, first, goal = self.agent.planner.prompts, self.first, self.episode.goal
            blueprint = prompts.read_plan(text, first, goal)
            written = prompts.draft(blueprint, first, goal)
            return text if written == prompts.write_blueprint(blueprint) else written
        command = self.agent.executor.prompts.read(text)
        return text if (written := self._as_written(command)) == command else written

    def _offer(self, info: dict[str, Any]) -> None:
        """Notes the commands that the executor may choose from, where it is bound to them."""
        self.choices, self.offers, self.info = None, [], info
        if self.asks == "executor":
            executor, wanted = self.agent.executor, self.episode.segments[-1].subgoal
            self.offers = executor.offers(wanted or self.episode.goal, info)
            self.choices = executor.choices(self.offers, self.context.codec)
        if self.keeps:
            self.episode.offers.update(written for written, _ in self.offers)

    def _turn_to(self, observation: dict[str, Any], info: dict[str, Any]) -> None:
        """Opens the segment that the environment's phase calls for."""
        agent = self.agent
        self.text = str(observation["text"])
        if observation.get("phase", 1) == 0:
            if agent.planner is None:
                raise ValueError("a hierarchical environment needs an agent with a planner")
            self.asks = "planner"
            # Asked again (`replans`), it also reads how its sub-goals ended.
            goal = "\n".join([*self.endings, str(info["goal"])])
            messages = agent.planner.prompts.plan(self.first, goal)
            codec = self.codec or codec_of(agent.planner.policy)
            self.context = Context("planner", shown(messages, observation), codec)
            segment = Segment("planner", self.episode.task.group)
        else:
            self.asks, executor = "executor", agent.executor
            if executor.remembers(observation):
                self.context = executor.recall(observation, info, self.first, self.past, self.codec)
            else:
                self.context = executor.open(
                    observation, info, self.first, self.endings, self.codec, self.before
                )
                self.before = self.context
            subgoal = str(observation.get("subgoal", ""))
            index = int(observation.get("subgoal_index", 0))
            segment = Segment("executor", self.episode.task.group, subgoal, index)
        segment.token_ids, segment.messages = self.context.token_ids, self.context.messages
        segment.images = self.context.images
        self.episode.segments.append(segment)
        self._offer(info)

    def answer(self, completion: Completion, temperature: float) -> None:
        """Takes the policy's answer to the environment and reads what it says."""
        if completion.error is not None:
            self.asks, self.episode.error = None, completion.error
            return
        segment = self.episode.segments[-1]
        segment.temperature = temperature
        start = len(self.context.token_ids)
        planning = self.asks == "planner"
        if not completion.token_ids:
            completion = replace(completion, text=self._rewritten(completion.text))
        ids = self.context.say(completion)
        if planning:
            assert self.agent.planner is not None
            read_plan = self.agent.planner.prompts.read_plan
            blueprint = read_plan(completion.text, self.first, self.episode.goal)
            self.episode.blueprint = blueprint
            self.episode.blueprint_valid = self.episode.blueprint_valid and blueprint.valid
            action = blueprint.render()
        elif self.choices is not None and ids in self.choices:
            # The command itself: its text may hold words that the model's vocabulary lacks.
            action = self.offers[self.choices.index(ids)][1]
        else:
            action = meant(self.agent.executor.prompts.read(completion.text), self.offers)
        turn = Turn(segment, start, ids, completion.logprobs, completion.text, action)
        turn.anchor = self.text
        turn.allowed, turn.written = completion.allowed, completion.written
        turn.images = len(segment.images)
        if self.choices is not None and not completion.allowed:
            # A scripted player's command, as a bound model would have written it.
            turn.allowed = narrow(self.choices, ids) or ()
        segment.turns.append(turn)
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except Exception:
            self.fail(traceback.format_exc())
            return
        turn.reward, turn.invalid = float(reward), bool(info["invalid"]) and not planning
        turn.observation, turn.frame = str(observation["text"]), picture(self.env, observation)
        episode = self.episode
        episode.reward += float(reward)
        episode.steps = int(info["step"])
        self.past.append((self.text, self._as_written(action)))
        self.text = str(observation["text"])
        if self.keeps:
            episode.transcript.append((action, self.text))
        option = info.get("option")
        if option is not None:
            self.endings.append(self.text)
            segment.option = option
            episode.options.append(option)
        failed = option is not None and option["achieved"] is False
        if terminated or truncated or (failed and self.stops):
            self.asks = None
            episode.success, episode.score = bool(info["won"]), float(info["score"])
        elif planning or option is not None or self.agent.executor.remembers(observation):
            self._turn_to(observation, info)
        else:
            prompts = self.agent.executor.prompts
            wanted = segment.subgoal or episode.goal
            if not self.agent.executor.keep_thoughts:
                turn.sequence = self.context.drop_thought(start)
                segment.token_ids = self.context.token_ids
            message = prompts.observe(self.text, wanted, info)
            self.context.hear(*shown([message], observation))
            self._offer(info)


def distinct(tasks: Sequence[Task]) -> tuple[list[Task], list[int]]:
    """Tasks with the same id and the same blueprint played once, and where each one went.

    For deterministic play (a greedy executor) the repeats would all be the same episode.
    """
    seen: dict[tuple[str, str], int] = {}
    kept: list[Task] = []
    where: list[int] = []
    for task in tasks:
        key = (task.task_id, "" if task.blueprint is None else task.blueprint.render())
        if key not in seen:
            seen[key] = len(kept)
            kept.append(task)
        where.append(seen[key])
    return kept, where
