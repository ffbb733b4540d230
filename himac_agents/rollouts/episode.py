"""One episode as a coroutine, in the words of the paper: plan; then act, sub-goal by sub-goal."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np

from himac_agents.agents.agent import HiMACAgent, Planner
from himac_agents.agents.conversation import Decision, Memory
from himac_agents.policies import noise
from himac_agents.policies.base import Codec, Sampling
from himac_agents.rollouts.trace import picture
from himac_agents.rollouts.types import Episode, EpisodeRequest, Segment, Turn
from himac_envs.digests import digest
from himac_envs.errors import MissingDependencyError

T = TypeVar("T")
Observation = dict[str, Any]
Info = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Play:
    """How episodes are played.

    Attributes:
        seed: Seeds all sampling; an episode's noise is a function of it and of the request.
        codec: Gives token ids where the agent's own policies speak text only (demonstrations of an
            expert for a model that is to be trained).
        transcripts: Keep (action, observation) pairs in the episodes.
        stop_at_failure: End an episode with its first sub-goal that was ended without being
            achieved. For learning from option-level advantages, which give what follows no credit:
            the time is better spent on other episodes. Such an episode counts as not solved.
        max_decisions: A guard against environments that never end.
        state_keys: Note at each turn the key of the state that it answered, and of a blueprint
            which of its tokens write which sub-goal: for methods that compare states.
    """

    seed: int = 0
    codec: Codec | None = None
    transcripts: bool = False
    stop_at_failure: bool = False
    max_decisions: int = 10_000
    state_keys: bool = False


class _EnvFailed(Exception):
    """The environment raised; the message is its traceback."""


def _guarded(call: Callable[[], T]) -> T:
    try:
        return call()
    except MissingDependencyError:  # no episode can do without it
        raise
    except Exception as error:
        raise _EnvFailed(traceback.format_exc()) from error


def noise_of(seed: int, request: EpisodeRequest) -> int:
    """The key of an episode's random numbers."""
    return noise.key(seed, request.task_id, request.number)


async def play(
    agent: HiMACAgent,
    env: gym.Env[Any, Any],
    request: EpisodeRequest,
    how: Play | None = None,
    slot: int | None = None,
    broken: Callable[[], None] = lambda: None,
) -> Episode:
    """Plays one episode to its end.

    Args:
        agent: Who plays. Sampling is its planner's and its executor's.
        env: Where, wrappers included. An environment that raises ends the episode with
            `Episode.error`.
        request: What.
        how: Seeds and what is kept.
        slot: The place among those that play at the same time, for a local model's cache.
        broken: Called where the environment cannot be used again.
    """
    how = how or Play()
    episode = Episode(request)
    memory = Memory(env, noise_of(how.seed, request), slot, how.codec)
    try:
        observation, info = _guarded(lambda: env.reset(options={"task_id": request.task_id}))
        _begin(episode, env, observation, info, how)
        for _ in range(how.max_decisions):
            if observation.get("phase", 1) == 0:
                if request.blueprint is not None and episode.blueprint is None:
                    # z* is given: nobody is asked, and nothing of it is learned from.
                    episode.blueprint = request.blueprint
                    action = request.blueprint.action()
                    observation, _, _, _, info = _guarded(lambda a=action: env.step(a))  # type: ignore[misc]
                    continue
                decision = await _planner(agent).draft(memory, observation, info)
            else:
                decision = await agent.executor.decide(memory, observation, info)
            turn = _record(episode, decision, observation, agent)
            if how.state_keys:
                turn.state = _key_of(env)
                if decision.blueprint is not None:
                    turn.lines = lines_of(
                        decision, _planner(agent), memory.first, str(info["goal"])
                    )
            if decision.completion.error is not None:
                episode.error = decision.completion.error
                return episode
            found = _guarded(lambda d=decision: env.step(d.action))  # type: ignore[misc]
            observation, reward, terminated, truncated, info = found
            _book(episode, turn, env, observation, float(reward), info, how)
            failed = "option" in info and info["option"]["achieved"] is False
            if terminated or truncated or (failed and how.stop_at_failure):
                episode.success, episode.score = bool(info["won"]), float(info["score"])
                return episode
        episode.error = f"no end after {how.max_decisions} decisions"
    except _EnvFailed as failure:
        episode.error = str(failure)
        broken()
    return episode


async def draft(
    planner: Planner,
    observation: Observation,
    info: Info,
    request: EpisodeRequest,
    seed: int,
    slot: int | None = None,
    lines: bool = False,
) -> Episode:
    """Asks the planner for a blueprint, and executes nothing; the episode is its segment alone.

    With `lines` the turn tells which of its tokens write which sub-goal.
    """
    episode = Episode(request, goal=str(info["goal"]))
    memory = Memory(noise=noise_of(seed, request), slot=slot)
    decision = await planner.draft(memory, observation, info)
    turn = _append(episode, decision, Segment("planner", request.group), planner.sampling)
    if lines:
        turn.lines = lines_of(decision, planner, memory.first, episode.goal)
    episode.error = decision.completion.error
    return episode


def lines_of(decision: Decision, planner: Planner, first: str | None, goal: str) -> tuple[int, ...]:
    """For each token of a written blueprint the place of the sub-goal that it writes.

    A token belongs to the line of text in which it ends, a line's end to its line; a line that
    holds no sub-goal, such as a tag, gives its tokens -1. Empty where the text is not one sub-goal
    a line (a JSON list), or could not be read.
    """
    decode, blueprint = getattr(decision.context.codec, "decode", None), decision.blueprint
    if decode is None or blueprint is None or not blueprint.valid:
        return ()
    ids = decision.token_ids
    texts = [str(decode(ids[: n + 1])).rstrip() for n in range(len(ids))] or [""]
    counts = [0]
    so_far = ""
    for line in texts[-1].splitlines(keepends=True):
        so_far += line
        read = planner.prompts.read_plan(so_far, first or "", goal)
        counts.append(len(read) if read.valid else 0)
    gained = np.diff(counts)
    if counts[-1] != len(blueprint) or set(gained.tolist()) - {0, 1}:
        return ()
    places = [before if more else -1 for before, more in zip(counts, gained, strict=False)]
    return tuple(places[min(text.count("\n"), len(places) - 1)] for text in texts[: len(ids)])


def _key_of(env: gym.Env[Any, Any]) -> str:
    """The key of the task's state, below a hierarchy and without it.

    Where a budget ends sub-goals, it says how many steps are left in this one, too: what a command
    leads to depends on that.
    """
    task = getattr(env.unwrapped, "task", env.unwrapped)
    if not hasattr(task, "state_key"):
        raise ValueError(
            f"{type(task).__name__} has no state_key(): make it a himac_envs.TaskEnv, or set "
            "graph_keys='observation'"
        )
    key = str(task.state_key())
    left = getattr(env.unwrapped, "steps_left", None)
    return key if left is None else digest((key, left))


def _planner(agent: HiMACAgent) -> Planner:
    if agent.planner is None:
        raise ValueError("a hierarchical environment needs an agent with a planner")
    return agent.planner


def _begin(
    episode: Episode, env: gym.Env[Any, Any], observation: Observation, info: Info, how: Play
) -> None:
    episode.first, episode.goal = str(observation["text"]), str(info["goal"])
    episode.frame = picture(env, observation)
    episode.task_type = str(getattr(env.unwrapped, "task_type", ""))
    if how.transcripts:
        episode.transcript.append(("", episode.first))


def _record(
    episode: Episode, decision: Decision, observation: Observation, agent: HiMACAgent
) -> Turn:
    """Appends a decision to the segment that it belongs to."""
    if decision.blueprint is not None:
        segment = Segment("planner", episode.request.group)
        turn = _append(episode, decision, segment, _planner(agent).sampling)
    elif decision.opened:
        subgoal = str(observation.get("subgoal", ""))
        index = int(observation.get("subgoal_index", 0))
        segment = Segment("executor", episode.request.group, subgoal, index)
        turn = _append(episode, decision, segment, agent.executor.sampling)
    else:
        segment = episode.segments[-1]
        if decision.rewrote is not None:
            segment.turns[-1].sequence = decision.rewrote
            segment.token_ids = decision.context.token_ids
        turn = _turn(decision, segment)
    turn.anchor = str(observation["text"])
    return turn


def _append(episode: Episode, decision: Decision, segment: Segment, sampling: Sampling) -> Turn:
    """Opens a segment with a decision."""
    context = decision.context
    segment.token_ids, segment.messages = context.token_ids, context.messages
    segment.images, segment.temperature = context.images, sampling.temperature or 1.0
    episode.segments.append(segment)
    if decision.blueprint is not None and decision.completion.error is None:
        episode.blueprint_valid = episode.blueprint_valid and decision.blueprint.valid
        episode.blueprint = decision.blueprint
    return _turn(decision, segment)


def _turn(decision: Decision, segment: Segment) -> Turn:
    completion = decision.completion
    turn = Turn(
        segment.role,
        decision.start,
        decision.token_ids,
        completion.logprobs,
        completion.text,
        str(decision.action),
        allowed=decision.allowed,
        written=completion.written,
        images=len(segment.images),
        cut=completion.cut,
    )
    if completion.error is None:
        segment.turns.append(turn)
    return turn


def _book(
    episode: Episode,
    turn: Turn,
    env: gym.Env[Any, Any],
    observation: Observation,
    reward: float,
    info: Info,
    how: Play,
) -> None:
    """Notes what the environment answered."""
    turn.reward = reward
    turn.invalid = bool(info["invalid"]) and turn.role == "executor"
    turn.observation, turn.frame = str(observation["text"]), picture(env, observation)
    episode.reward += reward
    episode.steps = int(info["step"])
    if how.transcripts:
        episode.transcript.append((turn.action, turn.observation))
    option = info.get("option")
    if option is not None:
        episode.segments[-1].option = option
        episode.options.append(option)
