"""Demonstrations: an expert's episodes as sequences that a model can imitate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from himac_agents.agents.agent import Executor, HiMACAgent, Planner
from himac_agents.agents.expert import Expert, ExpertKind
from himac_agents.algorithms.batching import by_length, token_batch
from himac_agents.policies.base import Codec, TokenBatch
from himac_agents.prompts import Prompts
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest, Segment

#: Distinguishes the choice of demonstrated tasks from a run's other draws.
_DEMOS = 1


def demonstrate(
    pool: EnvPool,
    task_ids: Sequence[str],
    *,
    prompts: Prompts,
    codec: Codec | None = None,
    expert: ExpertKind = "explorer",
    noise: float = 0.0,
    plan_noise: float = 0.0,
    seed: int = 0,
    flat: bool = False,
    constrained: bool = False,
    history: int | None = None,
    transcripts: bool = False,
    on_episode: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """An expert's episodes, in the words and (with a codec) the tokens of the agent to be.

    Args:
        pool: Environments; hierarchical, or flat with `flat`.
        task_ids: What is played.
        prompts: The agent's style.
        codec: The model whose tokens are wanted.
        expert: See `himac_agents.agents.expert.Expert`.
        noise: Chance of a random command; the expert recovers from it.
        plan_noise: Chance of a spoilt blueprint.
        seed: Seeds choices and mistakes.
        flat: Play without a planner.
        constrained: Note what each command was chosen from, for an agent that is constrained to the
            admissible commands.
        history: What the agent remembers on a flat environment; see `Executor`.
        transcripts: Keep texts.
        on_episode: Called with each finished episode.
    """
    policy = Expert(expert, seed=seed, noise=noise, plan_noise=plan_noise, prompts=prompts)
    executor = Executor(policy, prompts, constrained=constrained, history=history)
    agent = HiMACAgent(None if flat else Planner(policy, prompts), executor)
    requests = [EpisodeRequest(task_id, i) for i, task_id in enumerate(task_ids)]
    episodes = collect(
        agent, pool, requests, codec=codec, transcripts=transcripts, on_episode=on_episode
    )
    for episode in episodes:
        _drop_waiting(episode)
    return episodes


def _drop_waiting(episode: Episode) -> None:
    """End a demonstration where a spoilt blueprint is used up: the expert only waits from there on.

    The last sub-goal is then begun once more, and by nothing else is one begun twice in a row.
    """
    before: Segment | None = None
    for place, segment in enumerate(episode.segments):
        again = before is not None and before.option is not None and segment.role == before.role
        if again and before is not None and segment.index == before.index:
            waited = [s.option for s in episode.segments[place:] if s.option is not None]
            episode.steps -= sum(int(option["steps"]) for option in waited)
            del episode.options[len(episode.options) - len(waited) :]
            del episode.segments[place:]
            return
        before = segment


def demonstration_order(count: int, seed: int) -> NDArray[np.int64]:
    """The order in which a split's tasks are demonstrated, drawn by the run's seed."""
    return np.random.default_rng([seed, _DEMOS]).permutation(count)


def texts_of(
    episodes: Sequence[Episode], prompts: Prompts, history: int | None = None
) -> list[str]:
    """Everything that is read and written in episodes with transcripts: for a tokenizer.

    Args:
        episodes: What was played.
        prompts: The agent's style.
        history: What the agent remembers on a flat environment; see `Executor`.
    """
    found: list[str] = prompts.words(episodes[0].transcript[0][1]) if episodes else []
    for episode in episodes:
        first = episode.transcript[0][1]
        found += [m.text for m in prompts.plan(first, episode.goal)]
        found += [m.text for m in prompts.play(first, episode.goal)]
        if episode.blueprint is not None:
            found.append(prompts.draft(episode.blueprint, first, episode.goal))
            found += [
                m.text
                for text in episode.blueprint.texts()
                for m in prompts.segment(first, text, ())
            ]
        found += sorted(episode.offers)
        steps = zip(episode.turns(), episode.transcript[1:], strict=False)
        for step, (turn, (action, seen)) in enumerate(steps):
            said = turn.text if turn.role == "executor" else action
            found += [said, prompts.observe(seen, "", {}).text]
            if history and step == 0:
                past, info = [(first, said)], {"step": 1, "admissible": []}
                recalled = prompts.recall(first, episode.goal, past, seen, info)
                found += [m.text for m in recalled]
    return found


class Supervision:
    """An endless, reproducible stream of supervised batches.

    Each pass over the sequences is shuffled by (seed, pass), so that the stream can be resumed at
    any step.

    Args:
        segments: Sequences to imitate.
        tokens: Padded tokens a batch.
        seed: Seeds the order.
    """

    def __init__(self, segments: Sequence[Segment], tokens: int, seed: int) -> None:
        if not segments:
            raise ValueError("there are no demonstrations to learn from")
        self._segments, self._tokens, self._seed = list(segments), tokens, seed
        self._lengths = np.asarray([len(s.token_ids) for s in segments], dtype=np.int64)

    def batches(self, start: int = 0) -> Iterator[TokenBatch]:
        """Batches from step `start` on."""
        step, epoch = 0, 0
        while True:
            rng = np.random.default_rng([self._seed, epoch])
            for index in by_length(self._lengths, self._tokens, rng):
                if step >= start:
                    yield token_batch([self._segments[i] for i in index], imitate=True)
                step += 1
            epoch += 1
