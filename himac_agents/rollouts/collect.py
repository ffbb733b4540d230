"""Rollouts: many episodes at a time, in coroutines that one scheduler drives.

A place that becomes free is taken by the next request at once. What a local model is asked is
gathered until every live episode waits, and answered in one batch; a policy that answers one at a
time (a remote model) is asked at once. Nothing of what comes out depends on how many play at the
same time, or in which order: the noise belongs to the request (`himac_agents.policies.noise`).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from himac_agents.agents.agent import HiMACAgent
from himac_agents.agents.asking import Asking, Question, submit
from himac_agents.policies.base import BatchPolicy, Codec, Completion, Sampling
from himac_agents.rollouts.episode import Play, draft, play
from himac_agents.rollouts.pool import AwayPool, EnvPool, Job
from himac_agents.rollouts.types import Episode, EpisodeRequest
from himac_envs.errors import MissingDependencyError

T = TypeVar("T")


def collect(
    agent: HiMACAgent,
    pool: EnvPool,
    requests: Iterable[EpisodeRequest],
    *,
    seed: int = 0,
    codec: Codec | None = None,
    transcripts: bool = False,
    stop_at_failure: bool = False,
    on_episode: Callable[[Episode], None] | None = None,
    max_decisions: int = 10_000,
    state_keys: bool = False,
) -> list[Episode]:
    """Plays the requests, `pool.size` at a time, and returns their episodes in order.

    Args:
        agent: Who plays. Sampling is its planner's and its executor's.
        pool: Where it plays.
        requests: What it plays.
        seed: See `Play`.
        codec: See `Play`.
        transcripts: See `Play`.
        stop_at_failure: See `Play`.
        on_episode: Called with each finished episode, in the order in which they end.
        max_decisions: See `Play`.
        state_keys: See `Play`.

    Returns:
        One episode a request. An environment that raises becomes `Episode.error`; the others go on.
    """
    if isinstance(pool, AwayPool):
        how_away = {"stop_at_failure": stop_at_failure, "state_keys": state_keys}
        return _away(agent, pool, requests, seed=seed, **how_away)
    how = Play(seed, codec, transcripts, stop_at_failure, max_decisions, state_keys)

    async def one(request: EpisodeRequest, place: int) -> Episode:
        try:
            env = pool[place]
        except MissingDependencyError:  # no episode can do without it
            raise
        except Exception:
            return Episode(request, error=traceback.format_exc())
        return await play(agent, env, request, how, place, lambda: pool.discard(place))

    asked = [lambda place, r=request: one(r, place) for request in requests]
    found: dict[int, Episode] = {}
    for index, episode in in_places(asked, pool.size):
        found[index] = episode
        if on_episode is not None:
            on_episode(episode)
    return [found[index] for index in range(len(found))]


def propose(
    agent: HiMACAgent,
    pool: EnvPool,
    requests: Sequence[EpisodeRequest],
    *,
    seed: int = 0,
    lines: bool = False,
) -> list[Episode]:
    """Asks the planner for a blueprint for each request, and executes none of them.

    Requests of one task share one reset. The episodes returned hold the planner's segment only.
    With `lines` its turn tells which of its tokens write which sub-goal.
    """
    planner = agent.planner
    if planner is None:
        raise ValueError("an agent without a planner writes no blueprints")
    if isinstance(pool, AwayPool):
        return _away(agent, pool, requests, seed=seed, proposal=True, lines=lines)
    openings: dict[str, tuple[dict[str, Any], dict[str, Any]] | str] = {}
    for request in requests:
        if request.task_id not in openings:
            try:
                openings[request.task_id] = pool[0].reset(options={"task_id": request.task_id})
            except MissingDependencyError:  # no episode can do without it
                raise
            except Exception:
                openings[request.task_id] = traceback.format_exc()
                pool.discard(0)

    async def one(request: EpisodeRequest, place: int) -> Episode:
        opening = openings[request.task_id]
        if isinstance(opening, str):
            return Episode(request, error=opening)
        return await draft(planner, *opening, request, seed, place, lines)

    asked = [lambda place, r=request: one(r, place) for request in requests]
    found = dict(in_places(asked, pool.size))
    return [found[index] for index in range(len(found))]


def _away(
    agent: HiMACAgent, pool: AwayPool, requests: Iterable[EpisodeRequest], **how: Any
) -> list[Episode]:
    """Has requests played elsewhere, at the agent's temperatures."""
    plans = 1.0 if agent.planner is None else agent.planner.sampling.temperature
    acts = agent.executor.sampling.temperature
    return pool.play([Job(request, plans=plans, acts=acts, **how) for request in requests])


def distinct(requests: Sequence[EpisodeRequest]) -> tuple[list[EpisodeRequest], list[int]]:
    """Requests of the same task and the same blueprint once, and where each one went.

    For deterministic play (a greedy executor) the repeats would all be the same episode.
    """
    seen: dict[tuple[str, str], int] = {}
    kept: list[EpisodeRequest] = []
    where: list[int] = []
    for request in requests:
        key = (request.task_id, "" if request.blueprint is None else request.blueprint.render())
        if key not in seen:
            seen[key] = len(kept)
            kept.append(request)
        where.append(seen[key])
    return kept, where


# -- the scheduler -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Waiting(Generic[T]):
    """A coroutine that waits for an answer.

    Attributes:
        index: Its number.
        coroutine: What is to go on.
        question: What it asked.
        coming: The answer under way, where the policy answers one at a time.
    """

    index: int
    coroutine: Asking[T]
    question: Question
    coming: Future[Completion] | None = None


def in_places(makers: Iterable[Callable[[int], Asking[T]]], places: int) -> Iterator[tuple[int, T]]:
    """Drives coroutines, `places` of them at a time, and yields (number, result) as they end.

    Args:
        makers: Each makes a coroutine for the place (0 to `places` - 1) that it is given.
        places: How many are under way at the same time.
    """
    queue = enumerate(makers)
    waiting: dict[int, _Waiting[T]] = {}

    def fill(place: int) -> Iterator[tuple[int, T]]:
        """Lets coroutines begin in a place until one of them waits."""
        for index, make in queue:
            coroutine = make(place)
            try:
                _ask(waiting, place, index, coroutine, coroutine.send(None))  # type: ignore[arg-type]
            except StopIteration as ended:
                yield index, ended.value
                continue
            return

    try:
        for place in range(places):
            yield from fill(place)
        while waiting:
            for place, completion in _answers(waiting):
                one = waiting.pop(place)
                try:
                    question = one.coroutine.send(completion)
                except StopIteration as ended:
                    yield one.index, ended.value
                    yield from fill(place)
                else:
                    _ask(waiting, place, one.index, one.coroutine, question)
    finally:
        for one in waiting.values():
            if one.coming is not None:
                one.coming.cancel()
            one.coroutine.close()


def _ask(
    waiting: dict[int, _Waiting[T]],
    place: int,
    index: int,
    coroutine: Asking[T],
    question: Question,
) -> None:
    coming = None if question.batched else submit(question)
    waiting[place] = _Waiting(index, coroutine, question, coming)


def _answers(waiting: dict[int, _Waiting[Any]]) -> list[tuple[int, Completion]]:
    """Some answers, by place: all that have come, and one batch of those that are to be gathered.

    Of several batches (planners and executors write answers of different lengths, or are different
    models) the largest is taken: the others wait until they have grown. So a new episode's plan
    does not hold up a hundred commands.
    """
    batches: dict[tuple[int, Sampling], list[int]] = {}
    for place in sorted(waiting):
        one = waiting[place]
        if one.coming is None:
            key = (id(one.question.policy), one.question.sampling)
            batches.setdefault(key, []).append(place)
    found: list[tuple[int, Completion]] = []
    if batches:
        chosen = max(batches.values(), key=len)
        questions = [waiting[place].question for place in chosen]
        policy = questions[0].policy
        assert isinstance(policy, BatchPolicy)
        answers = policy.generate([q.prompt for q in questions], questions[0].sampling)
        found += zip(chosen, answers, strict=True)
    coming = {one.coming: place for place, one in waiting.items() if one.coming is not None}
    if coming:
        if not batches:
            wait(coming, return_when=FIRST_COMPLETED)
        found += [(place, future.result()) for future, place in coming.items() if future.done()]
    return sorted(found, key=lambda item: item[0])
