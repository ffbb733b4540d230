"""Thoughts carry loss where they were written and are not read again, unless they are to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from crediting import credited

from himac_agents.agents.agent import Executor, HiMACAgent
from himac_agents.algorithms.batching import segments_of, token_batch
from himac_agents.policies.base import Completion, Prompt, Sampling
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.prompts import CompactPrompts
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest, Segment, Turn
from himac_agents.training.demonstrations import demonstrate, texts_of
from himac_envs.blueprint import Blueprint

PROMPTS = CompactPrompts()
PLAN = Blueprint.of(["find and take a mug"])


class Thinker:
    """A tiny model that thinks before every second command, in the words it is given."""

    def __init__(self, policy: TinyPolicy) -> None:
        self.policy, self.turn, self.read = policy, 0, []  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def encode(self, *args: Any, **kwargs: Any) -> list[int]:
        return self.policy.encode(*args, **kwargs)

    def encode_reply(self, text: str) -> tuple[int, ...]:
        return self.policy.encode_reply(text)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        self.turn += 1
        found = []
        for prompt in prompts:
            self.read.append(self.policy.decode(prompt.token_ids))
            thought = f"<think> mug {self.turn} </think> " if self.turn % 2 else ""
            # The log-probabilities that the model gives to exactly these tokens, token by token.
            reply = self.policy.encode_reply(thought + "look")
            (one,) = self.policy.generate(
                [Prompt((), prompt.token_ids, choices=[reply])], Sampling(1.0, 64)
            )
            assert one.token_ids == reply
            segment = Segment("executor", 0, token_ids=[*prompt.token_ids, *reply])
            segment.turns.append(Turn("executor", len(prompt.token_ids), reply, (), "", ""))
            with torch.no_grad():
                logp = self.policy.logprobs(token_batch([segment]))[0, len(prompt.token_ids) :]
            found.append(Completion(thought + "look", reply, tuple(logp.tolist())))
        return found


@pytest.fixture(scope="module")
def pool() -> EnvPool:
    return EnvPool(lambda: gym.make("HiMAC-ALFWorld-v0", data="generated", max_steps=5), 2)


@pytest.fixture(scope="module")
def tiny(pool: EnvPool) -> TinyPolicy:
    seen = demonstrate(pool, pool.task_ids("train")[:8], prompts=PROMPTS, transcripts=True)
    words = [*texts_of(seen, PROMPTS), "<think> mug </think> look"]
    return TinyPolicy.build(words, TinySize(16, 1, 2, 32), seed=1)


def _play(pool: EnvPool, tiny: TinyPolicy, keep: bool) -> tuple[Episode, Thinker]:
    thinker = Thinker(tiny)
    agent = HiMACAgent(None, Executor(thinker, PROMPTS, Sampling(1.0, 32), keep_thoughts=keep))
    (episode,) = collect(agent, pool, [EpisodeRequest(pool.task_ids("train")[0], blueprint=PLAN)])
    assert episode.error is None and len(list(episode.turns())) == 5
    return episode, thinker


def test_thoughts_are_not_read_again(pool: EnvPool, tiny: TinyPolicy) -> None:
    episode, thinker = _play(pool, tiny, keep=False)
    assert all("think" not in text for text in thinker.read)
    assert all(turn.action == "look" for turn in episode.turns())
    kept, thinker = _play(pool, tiny, keep=True)
    assert "think" in thinker.read[-1]
    assert len(token_batch(segments_of([kept], "executor"))) == 1


def test_a_thinking_turn_is_a_sequence_of_its_own(pool: EnvPool, tiny: TinyPolicy) -> None:
    episode, thinker = _play(pool, tiny, keep=False)
    segments = segments_of([episode], "executor")
    assert len(segments) == 1
    turns = [float(i + 1) for i, _ in enumerate(episode.turns())]
    batch = token_batch(credited(segments, [turns]))
    # Turns 1, 3, 5 thought; 2 and 4 did not and share the segment's own sequence, and so does 5,
    # after which nothing was read.
    assert len(batch) == 3
    credit = zip(batch.advantages, batch.mask, strict=True)
    owners = [sorted(set(row[mask > 0])) for row, mask in credit]
    assert sorted(owners) == [[1.0], [2.0, 4.0, 5.0], [3.0]]
    written = sum(len(turn.output_ids) for turn in episode.turns())
    assert batch.mask.sum() == written, "every written token carries loss once, thoughts too"
    with torch.no_grad():
        logp = tiny.logprobs(batch).numpy()
    assert np.abs(logp - batch.old_logprobs).max() < 1e-4, "each as it was when it was sampled"
    for turn, text in zip(episode.turns(), thinker.read, strict=True):
        assert tiny.decode(segments[0].prompt_ids(turn)) == text
