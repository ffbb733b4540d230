"""The credit of a language model's blueprints: what each line was worth, found by writing on.

Its planner is led to the end of any line by the tokens that it wrote, and writes on by itself from
there; its executor carries out what comes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from himac_agents.agents.agent import HiMACAgent
from himac_agents.experiments.credit.estimators import LINE_ESTIMATORS, Estimator
from himac_agents.experiments.credit.measure import (
    Size,
    collected,
    compared,
    drawn_tasks,
    in_groups,
)
from himac_agents.experiments.credit.planner import (
    Tried,
    drawn_lines,
    planner_turn,
)
from himac_agents.experiments.credit.trained import LANES
from himac_agents.policies import noise
from himac_agents.policies.base import Completion, Prompt, Sampling
from himac_agents.rollouts.episode import noise_of
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest
from himac_envs.hierarchy import HierarchicalEnv


class Begun:
    """A local model whose answers begin with tokens that are given; the rest is its own.

    Args:
        policy: The model.
        begun: How answers begin, by the key of their random numbers (`Prompt.noise`). Others are
            the model's alone.
    """

    def __init__(self, policy: Any, begun: Mapping[int, tuple[int, ...]]) -> None:
        self.policy, self.begun = policy, begun

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `BatchPolicy.generate`; the limit of the length holds for whole answers."""
        by_length: dict[int, list[int]] = {}
        for place, prompt in enumerate(prompts):
            by_length.setdefault(len(self.begun.get(prompt.noise, ())), []).append(place)
        found: dict[int, Completion] = {}
        for length, places in by_length.items():
            begins = [self.begun.get(prompts[place].noise, ()) for place in places]
            asked = [
                replace(prompts[place], token_ids=(*prompts[place].token_ids, *begin))
                for place, begin in zip(places, begins, strict=True)
            ]
            rest = replace(sampling, max_tokens=sampling.max_tokens - length)
            answers = self.policy.generate(asked, rest)
            for place, begin, answer in zip(places, begins, answers, strict=True):
                ids = (*begin, *answer.token_ids)
                logprobs = (*(0.0 for _ in begin), *answer.logprobs)
                text = self.policy.decode(ids)
                found[place] = replace(answer, text=text, token_ids=ids, logprobs=logprobs)
        return [found[place] for place in range(len(prompts))]


def measure_trained_lines(
    make: Callable[[], HierarchicalEnv],
    agent: HiMACAgent,
    size: Size,
    *,
    seed: int = 0,
    lanes: int = LANES,
    estimators: Mapping[str, Estimator] = LINE_ESTIMATORS,
) -> dict[str, Any]:
    """Measures the credit of a language model's lines; see `measure_lines`."""
    pool, env = EnvPool(make, lanes), make()

    def tried() -> Iterator[Tried]:
        for task_id in drawn_tasks(env, size.tasks, seed):
            most = max(size.episodes)
            asked = [EpisodeRequest(task_id, n // most, n) for n in range(size.groups * most)]
            found = collected(
                agent, pool, asked, seed=noise.key(seed, "blueprints"), state_keys=True
            )
            groups = in_groups(found, most)
            key = noise.key(seed, "truth", task_id)
            places = drawn_lines(groups, size, random.Random(key))
            truths = trained_line_truths(agent, pool, groups, places, size.continuations, key)
            yield Tried(groups, groups, places, truths)

    return compared(tried(), size, seed, estimators)


def trained_line_truths(
    agent: HiMACAgent,
    pool: EnvPool,
    groups: Sequence[Sequence[Episode]],
    places: Sequence[tuple[int, int, int]],
    times: int,
    seed: int,
) -> list[float]:
    """The true advantages of lines that a language model wrote.

    Q(p, line k) - Q(p), each the share of `times` episodes that are solved when the model's
    blueprint begins so. The tokens of line k are all that `Turn.lines` gives it: its line's end,
    and behind the last line the end of the answer, are its own.

    Args:
        agent: The model.
        pool: Where it plays.
        groups: What it wrote and how that went, with `Turn.lines`.
        places: Group, blueprint and line of those whose truth is wanted.
        times: Episodes for each beginning.
        seed: Of these episodes.
    """
    planner = agent.planner
    assert planner is not None
    requests: dict[tuple[int, ...], EpisodeRequest] = {}
    ends: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for g, e, k in places:
        episode = groups[g][e]
        turn = planner_turn(episode)
        before = turn.output_ids[: turn.lines.index(k)]
        after = turn.output_ids[: len(turn.lines) - turn.lines[::-1].index(k)]
        for begun in (before, after):
            # A blueprint that is written to its end is executed as it is.
            whole = episode.blueprint if len(begun) == len(turn.output_ids) else None
            requests[begun] = EpisodeRequest(episode.request.task_id, blueprint=whole)
        ends.append((before, after))
    asked: list[EpisodeRequest] = []
    begins: dict[int, tuple[int, ...]] = {}
    for begun, request in requests.items():
        for _ in range(times):
            asked.append(replace(request, number=len(asked)))
            begins[noise.key(noise_of(seed, asked[-1]), 0)] = begun
    writes_on = replace(planner, policy=Begun(planner.policy, begins))
    led: Any = planner.policy  # the tokens are the model's, also where they are given
    went = collected(HiMACAgent(writes_on, agent.executor), pool, asked, seed=seed, codec=led)
    value = {
        begun: float(np.mean([episode.success for episode in went[i * times : (i + 1) * times]]))
        for i, begun in enumerate(requests)
    }
    return [value[after] - value[before] for before, after in ends]
