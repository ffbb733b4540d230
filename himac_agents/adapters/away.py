"""Plays a method's jobs where another trainer samples: an episode, sequence by sequence, as tokens.

A method (`himac_agents.algorithms.methods.Method`) says what is to be played
(`himac_agents.rollouts.pool.Job`), and learns from what comes back. Between the two lies whoever
plays, in a process of its own: everything that goes there and back is JSON and tokens.
"""

from __future__ import annotations

import asyncio
import json
import threading
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from himac_agents.agents.agent import HiMACAgent, assemble
from himac_agents.agents.asking import Question
from himac_agents.algorithms.batching import training_rows
from himac_agents.algorithms.methods import method_of
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Completion, Prompt, Sampling
from himac_agents.policies.codec import ChatCodec, Relayed
from himac_agents.prompts import make_prompts
from himac_agents.rollouts import serial
from himac_agents.rollouts.episode import Play, draft, play
from himac_agents.rollouts.pool import EnvPool, Job, make_pool
from himac_agents.rollouts.types import Episode, Segment

#: Asks whoever samples: (a conversation's ids, how) -> (the ids written, their log-probabilities or
#: none of them). How: temperature, max_tokens, seed, stop_token_ids.
Ask = Callable[[Sequence[int], dict[str, Any]], Awaitable[tuple[Sequence[int], Sequence[float]]]]


def job_to_json(job: Job) -> str:
    """A job as JSON; `job_from_json` reads it back."""
    content = {one.name: getattr(job, one.name) for one in fields(job)}
    return json.dumps({**content, "request": serial.request_to_json(job.request)})


def job_from_json(text: str) -> Job:
    """The job that `job_to_json` wrote."""
    content = json.loads(text)
    return Job(**{**content, "request": serial.request_from_json(content["request"])})


class AwayPolicy(Relayed):
    """A policy that is sampled by another trainer's means.

    Args:
        codec: Its tokens.
        ask: Asks it.
    """

    def __init__(self, codec: ChatCodec, ask: Ask) -> None:
        super().__init__(codec)
        self._ask = ask

    async def sample(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """See `Policy.sample`."""
        how = {
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
            "seed": prompt.noise >> 1,  # of 64 bits, 63 make a seed
            "stop_token_ids": list(self.codec.end_ids),
        }
        ids, logprobs = await self._ask(list(prompt.token_ids), how)
        if not ids:
            return Completion("", error="whoever samples wrote no token")
        text, cut = self.decode(ids), ids[-1] not in self.codec.end_ids
        return Completion(text, tuple(ids), tuple(logprobs), cut=cut)


class Stage:
    """Environments and prompts for jobs; one serves any number at the same time.

    Args:
        settings: Of the training, as they are run.
        tokenizer: The model's.
        pool: Environments in place of those that the settings name.
    """

    def __init__(self, settings: TrainConfig, tokenizer: Any, pool: EnvPool | None = None) -> None:
        method = method_of(settings)
        self.settings, self._hierarchical = settings, method.hierarchical
        self._prompts = make_prompts(settings, sub_done=method.sub_done)
        flat = not method.hierarchical
        self._pool = pool or make_pool(settings, flat=flat, sub_done=method.sub_done)
        self._codec = ChatCodec(tokenizer, dict(settings.template_options))
        self._lock = threading.Lock()
        self._free: list[int] = []
        self._made = 0

    async def play(self, job: Job, ask: Ask) -> Episode:
        """Plays a job. What goes wrong in its environment becomes `Episode.error`."""
        policy = AwayPolicy(self._codec, ask)
        agent = self._agent(policy, job)
        place = await asyncio.to_thread(self._take)
        try:
            if job.proposal:
                return await self._propose(agent, job, place)
            how = Play(job.seed, stop_at_failure=job.stop_at_failure, state_keys=job.state_keys)
            env = self._pool[place]
            return await _driven(
                play(agent, env, job.request, how, broken=lambda: self._pool.discard(place))
            )
        finally:
            with self._lock:
                self._free.append(place)

    def _agent(self, policy: Any, job: Job) -> HiMACAgent:
        agent = assemble(self.settings, {"policy": policy}, self._prompts, self._hierarchical)
        executor, planner = agent.executor, agent.planner
        executor = replace(executor, sampling=replace(executor.sampling, temperature=job.acts))
        if planner is not None:
            planner = replace(planner, sampling=replace(planner.sampling, temperature=job.plans))
        return HiMACAgent(planner, executor)

    def _take(self) -> int:
        """The place of an environment that nobody uses; it is made where there is none yet."""
        with self._lock:
            if self._free:
                return self._free.pop()
            place, self._made = self._made, self._made + 1
            try:
                _ = self._pool[place]
            except BaseException:
                self._free.append(place)
                raise
            return place

    async def _propose(self, agent: HiMACAgent, job: Job, place: int) -> Episode:
        env, request = self._pool[place], job.request
        try:
            begun = await asyncio.to_thread(env.reset, options={"task_id": request.task_id})
        except Exception:
            self._pool.discard(place)
            return Episode(request, error=traceback.format_exc())
        assert agent.planner is not None
        return await _driven(draft(agent.planner, *begun, request, job.seed, None, job.lines))


async def _driven(coroutine: Coroutine[Question, Completion, Episode]) -> Episode:
    """Drives an episode: the environment's steps in threads, answers as they come."""
    answer: Completion | None = None
    try:
        while True:
            question, episode = await asyncio.to_thread(_advance, coroutine, answer)
            if question is None:
                assert episode is not None
                return episode
            policy = question.policy
            assert isinstance(policy, AwayPolicy)
            answer = await policy.sample(question.prompt, question.sampling)
    finally:
        coroutine.close()


def _advance(
    coroutine: Coroutine[Question, Completion, Episode], answer: Completion | None
) -> tuple[Question | None, Episode | None]:
    """The next question, or the episode."""
    try:
        return coroutine.send(answer), None  # type: ignore[arg-type]
    except StopIteration as ended:
        return None, ended.value


@dataclass(frozen=True, slots=True)
class Tokens:
    """One training sequence: what was read before anything was written, and the rest.

    The rest is a response with what was read between answers; its lists have a value for each id.

    Attributes:
        prompt_ids: What was read first.
        response_ids: The rest, up to the last token that was written.
        mask: 1 for each id of it that the model wrote, else 0.
        advantages: Of those, once a method has given credit; else 0.
        logprobs: Of those, when sampled, else 0; None where nobody told them.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    mask: list[int]
    advantages: list[float]
    logprobs: list[float] | None


def tokens_of(segment: Segment) -> list[Tokens]:
    """A segment's training sequences, in the order of `token_batch`'s rows."""
    found = []
    for row in training_rows([segment]):
        if not row.turns:
            continue
        start = row.turns[0].start
        length = max(turn.start + len(turn.output_ids) for turn in row.turns) - start
        mask, advantages, logprobs = [0] * length, [0.0] * length, [0.0] * length
        told = all(len(turn.old_logprobs) == len(turn.output_ids) for turn in row.turns)
        for turn in row.turns:
            count = len(turn.output_ids)
            at = slice(turn.start - start, turn.start - start + count)
            mask[at] = [1] * count
            advantages[at] = turn.token_advantages or [float(turn.advantage or 0.0)] * count
            if told:
                logprobs[at] = turn.old_logprobs
        ids = list(row.token_ids)
        rest = ids[start : start + length]
        found.append(Tokens(ids[:start], rest, mask, advantages, logprobs if told else None))
    return found


@cache
def settings_from(text: str) -> TrainConfig:
    """Settings from the JSON of `settings_to_text`."""
    return TrainConfig.from_dict(json.loads(text), "HiMAC's settings")


def settings_to_text(settings: TrainConfig) -> str:
    """Settings as JSON, the same text for the same settings."""
    return json.dumps({k: v for k, v in vars(settings).items() if v is not None}, sort_keys=True)
