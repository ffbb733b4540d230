"""The scheduler: places are refilled at once, policies of both kinds answer, nothing lies after."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit
from toy import FruitEnv

from himac_agents.agents.agent import Executor, HiMACAgent, Planner
from himac_agents.agents.expert import Expert
from himac_agents.policies.base import Completion, Message, Prompt, Sampling
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.prompts import CompactPrompts
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import EpisodeRequest
from himac_envs import Blueprint
from himac_envs.hierarchy import HierarchicalEnv


class Walker:
    """Answers in batches: goes east for as many steps as its task's number says, then nowhere."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        self.batches.append(len(prompts))
        return [Completion("east") for _ in prompts]


class Lasting(FruitEnv):
    """An episode of task t ends after 1 + 9 * (t is the first of four) steps."""

    def _limit(self) -> int:
        return 10 if int(self.task_id.split(":")[1]) % 4 == 0 else 1

    def step(self, action: str) -> Any:
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, info["step"] >= self._limit(), info


def _flat(policy: Any) -> HiMACAgent:
    return HiMACAgent(None, Executor(policy, CompactPrompts()))


def test_a_finished_episodes_place_is_taken_at_once() -> None:
    walker, pool = Walker(), EnvPool(lambda: Lasting(max_steps=50), 4)
    ids = pool.task_ids("train")
    ended: list[str] = []
    episodes = collect(
        _flat(walker), pool, [EpisodeRequest(t) for t in ids],
        on_episode=lambda e: ended.append(e.request.task_id),
    )  # fmt: skip
    assert [e.request.task_id for e in episodes] == list(ids)
    assert [e.steps for e in episodes] == [10 if i % 4 == 0 else 1 for i in range(20)]
    # 65 steps by four at a time: waves that wait for their slowest would take 50 rounds.
    assert sum(walker.batches) == 65 and len(walker.batches) <= 25
    assert ended != list(ids), "told as they end"


def test_the_planners_of_new_episodes_do_not_hold_up_the_commands() -> None:
    asked: list[tuple[str, int]] = []

    class Both(Walker):
        def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
            (role,) = {prompt.role for prompt in prompts}
            asked.append((role, len(prompts)))
            text = "- get the apple" if role == "planner" else "east"
            return [Completion(text) for _ in prompts]

    policy = Both()
    agent = HiMACAgent(
        Planner(policy, CompactPrompts(), Sampling(1.0, 64)), Executor(policy, CompactPrompts())
    )
    pool = EnvPool(lambda: HierarchicalEnv(Lasting(max_steps=50)), 8)
    collect(agent, pool, [EpisodeRequest(t) for t in pool.task_ids("train")])
    plans = [count for role, count in asked if role == "planner"]
    assert sum(plans) == 20 and len(plans) < 10, "plans are gathered"


class Alone:
    """Answers one at a time, and only once `together` questions are under way."""

    def __init__(self, together: int) -> None:
        self.barrier, self.together = asyncio.Event(), together
        self.under_way = self.most = 0

    async def sample(self, prompt: Prompt, sampling: Sampling) -> Completion:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        if self.under_way >= self.together:
            self.barrier.set()
        await asyncio.wait_for(self.barrier.wait(), 30)
        self.under_way -= 1
        return Completion("east")


def test_policies_that_answer_one_at_a_time_are_asked_at_the_same_time() -> None:
    policy, pool = Alone(3), EnvPool(lambda: FruitEnv(max_steps=3), 3)
    episodes = collect(_flat(policy), pool, [EpisodeRequest(t) for t in pool.task_ids("train")[:6]])
    assert policy.most == 3 and all(e.steps == 3 and e.error is None for e in episodes)

    async def within() -> int:
        """As in a notebook, where an event loop runs already."""
        env = FruitEnv(max_steps=3)
        observation, info = env.reset()
        assert _flat(policy).executor.act(observation, info) == "east"
        return len(collect(_flat(policy), pool, [EpisodeRequest(pool.task_ids("train")[0])]))

    assert asyncio.run(within()) == 1


def test_a_failing_policy_ends_the_rollout_with_its_own_error() -> None:
    class Broken:
        async def sample(self, prompt: Prompt, sampling: Sampling) -> Completion:
            raise RuntimeError("no such model")

    pool = EnvPool(lambda: FruitEnv(max_steps=3), 3)
    with pytest.raises(RuntimeError, match="no such model"):
        collect(_flat(Broken()), pool, [EpisodeRequest(t) for t in pool.task_ids("train")[:6]])
    assert threading.active_count() < 50


class Loud(gym.Wrapper):  # type: ignore[type-arg]
    """A user's wrapper: shouts."""

    def step(self, action: Any) -> Any:
        observation, *rest = self.env.step(action)
        return {**observation, "text": observation["text"].upper()}, *rest


def test_wrappers_are_kept() -> None:
    walker = Walker()
    pool = EnvPool(lambda: TimeLimit(Loud(FruitEnv(max_steps=50)), 4), 2)
    episodes = collect(_flat(walker), pool, [EpisodeRequest(t) for t in pool.task_ids("train")[:3]])
    for episode in episodes:
        assert episode.steps == 4 and episode.error is None
        assert all(turn.observation.isupper() for turn in episode.turns())
    gym.register("Timed-v0", entry_point=lambda: FruitEnv(max_steps=50), max_episode_steps=5)
    try:
        pool = EnvPool(lambda: gym.make("Timed-v0", disable_env_checker=True), 2)
        (episode,) = collect(_flat(walker), pool, [EpisodeRequest(pool.task_ids("train")[0])])
    finally:
        del gym.registry["Timed-v0"]
    assert episode.steps == 5


def test_a_parsed_blueprint_is_not_read_again() -> None:
    # As text it would be read without its quotes.
    given = Blueprint.of(['"get the plum"', 'look for "1. apple"', "get the apple"])
    assert Blueprint.parse(given.render()) != given
    pool = EnvPool(lambda: Loud(HierarchicalEnv(FruitEnv(max_steps=3))), 1)
    request = EpisodeRequest(pool.task_ids("train")[0], blueprint=given)
    (episode,) = collect(HiMACAgent.shared(Walker()), pool, [request])
    assert episode.segments[0].subgoal == given.texts()[0]
    assert Blueprint.parse(given.action(), max_subgoals=2).texts() == given.texts()[:2]
    assert Blueprint.parse(given.action(), max_subgoals=2).dropped == 1
    read = Blueprint.parse(given.action() + "").texts()
    assert read == ["get the plum", *given.texts()[1:]], "changed text is text"


def test_an_expert_needs_the_environment() -> None:
    env = FruitEnv()
    with pytest.raises(ValueError, match="OracleExecutor"):
        Executor(Expert("oracle")).act(*env.reset())


def test_an_exception_while_writing_leaves_no_lying_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["You see a mug 2 and a plate 1.", "go to cabinet 4", "take mug 2"]
    policy = TinyPolicy.build(texts, TinySize(32, 2, 2, 64), seed=3)
    talks = [policy.encode([Message("user", text)]) for text in texts]

    def ask() -> list[Completion]:
        prompts = [Prompt((), ids, slot, noise=slot) for slot, ids in enumerate(talks)]
        return policy.generate(prompts, Sampling(1.0, 12))

    fresh = ask()
    policy.forget()
    assert policy.reader is not None
    real, calls = policy.reader.read, []

    def failing(*args: Any) -> torch.Tensor:
        calls.append(args)
        if len(calls) == 2:
            # The keys of this pass are written, and then the memory is full.
            real(*args)
            raise MemoryError
        return real(*args)

    monkeypatch.setattr(policy.reader, "read", failing)
    with pytest.raises(MemoryError):
        ask()
    again = ask()
    assert len(calls) > 2
    for one, other in zip(fresh, again, strict=True):
        assert one.token_ids == other.token_ids
        assert np.allclose(one.logprobs, other.logprobs, rtol=0, atol=1e-5)
