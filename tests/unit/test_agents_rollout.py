"""Rollouts: token in, token out, many environments, crashes and all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from himac_agents.agents.agent import Executor, HiMACAgent, Planner
from himac_agents.agents.expert import Expert
from himac_agents.algorithms.batching import segments_of, token_batch
from himac_agents.policies.base import Sampling
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.prompts import CompactPrompts
from himac_agents.rollouts.collect import collect, distinct, propose
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import EpisodeRequest
from himac_agents.training.demonstrations import demonstrate, texts_of
from himac_envs.blueprint import Blueprint
from himac_envs.hierarchy import ExecutorView, PlannerView

PROMPTS = CompactPrompts()


def make(**kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make("HiMAC-ALFWorld-v0", data="generated", **kwargs)


@pytest.fixture(scope="module")
def pool() -> EnvPool:
    return EnvPool(lambda: make(max_steps=15), 16)


@pytest.fixture(scope="module")
def policy(pool: EnvPool) -> TinyPolicy:
    shown = demonstrate(pool, pool.task_ids("train")[:30], prompts=PROMPTS, transcripts=True)
    return TinyPolicy.build(texts_of(shown, PROMPTS), TinySize(32, 2, 2, 64), seed=1)


def test_the_oracle_wins_and_the_explorer_mostly_does() -> None:
    pool = EnvPool(make, 32)
    ids = pool.task_ids("valid")[:40]
    for expert, least in (("oracle", 1.0), ("explorer", 0.9)):
        episodes = demonstrate(pool, ids, prompts=PROMPTS, expert=expert)  # type: ignore[arg-type]
        assert np.mean([e.success for e in episodes]) >= least
        for episode in episodes:
            assert episode.error is None
            assert sum(o["steps"] for o in episode.options) == episode.steps
            assert sum(o["reward"] for o in episode.options) == episode.reward


def test_flat_rollouts_are_one_segment_long() -> None:
    pool = EnvPool(lambda: gym.make("HiMAC-ALFWorld-Flat-v0", data="generated"), 8)
    episodes = demonstrate(pool, pool.task_ids("valid")[:8], prompts=PROMPTS, flat=True)
    assert all(len(e.segments) == 1 and e.blueprint is None for e in episodes)
    assert np.mean([e.success for e in episodes]) > 0.8


def test_token_in_token_out(pool: EnvPool, policy: TinyPolicy) -> None:
    agent = HiMACAgent.shared(policy)
    episodes = collect(agent, pool, [EpisodeRequest(t) for t in pool.task_ids("train")[:40]])
    assert [e.request.task_id for e in episodes] == list(pool.task_ids("train")[:40])
    for episode in episodes:
        for segment in episode.segments:
            for before, turn in zip(segment.turns, segment.turns[1:], strict=False):
                held = segment.prompt_ids(before) + before.output_ids
                assert segment.prompt_ids(turn)[: len(held)] == held
            for turn in segment.turns:
                assert len(turn.output_ids) == len(turn.old_logprobs)
                end = turn.start + len(turn.output_ids)
                assert tuple(segment.token_ids[turn.start : end]) == turn.output_ids
                assert turn.role == segment.role
            assert segment.group == episode.request.group
    for role in ("planner", "executor"):
        batch = token_batch(segments_of(episodes, role))  # type: ignore[arg-type]
        logp = policy.logprobs(batch).detach().numpy()
        assert np.abs(logp - batch.old_logprobs).max() < 1e-4
        assert (logp[batch.mask == 0] == 0).all()


def test_the_same_seed_gives_the_same_rollout(pool: EnvPool, policy: TinyPolicy) -> None:
    def once() -> list[list[int]]:
        policy.forget()
        tasks = [EpisodeRequest(t) for t in pool.task_ids("train")[:8]]
        episodes = collect(HiMACAgent.shared(policy), pool, tasks, seed=7)
        return [s.token_ids for e in episodes for s in e.segments]

    assert once() == once()


def test_a_given_blueprint_is_executed_without_asking(pool: EnvPool, policy: TinyPolicy) -> None:
    blueprint = Blueprint.of(["find and take a mug", "put the mug in/on the shelf"])
    (episode,) = collect(
        HiMACAgent.shared(policy),
        pool,
        [EpisodeRequest(pool.task_ids("train")[0], 3, blueprint=blueprint)],
    )
    assert episode.blueprint == blueprint
    assert all(s.role == "executor" and s.group == 3 for s in episode.segments)


def test_constrained_executors_send_admissible_commands_only(
    pool: EnvPool, policy: TinyPolicy
) -> None:
    agent = HiMACAgent.shared(policy)
    agent.executor.constrained = True
    episodes = collect(agent, pool, [EpisodeRequest(t) for t in pool.task_ids("train")[:16]])
    for episode in episodes:
        for turn in episode.turns():
            # After the last sub-goal's end, <sub_done> is still offered and costs a step.
            assert not turn.invalid or turn.action == "<sub_done>"


class Crashing(gym.Wrapper):  # type: ignore[type-arg]
    made = 0

    def __init__(self) -> None:
        super().__init__(make(max_steps=15).unwrapped)
        Crashing.made += 1

    @property
    def unwrapped(self) -> Any:
        return self

    def task_ids(self, split: str | None = None) -> Any:
        return self.env.task_ids(split)  # type: ignore[attr-defined]

    def step(self, action: Any) -> Any:
        if self.env.task_id.endswith("3") and self.env.phase == 1:  # type: ignore[attr-defined]
            raise RuntimeError("the game's file is damaged")
        return super().step(action)


def test_a_crash_costs_one_episode(policy: TinyPolicy) -> None:
    Crashing.made, pool = 0, EnvPool(Crashing, 2)
    ids = [t for t in pool.task_ids("train")[:26] if t.endswith(("2", "3", "4"))]
    episodes = collect(HiMACAgent.shared(policy), pool, [EpisodeRequest(t) for t in ids])
    assert len(episodes) == len(ids)
    for episode in episodes:
        if episode.request.task_id.endswith("3"):
            assert episode.error is not None and "damaged" in episode.error
        else:
            assert episode.error is None and episode.steps > 0
    assert Crashing.made > 2, "a crashed environment is replaced"
    assert all(
        s in [x for e in episodes if not e.error for x in e.segments]
        for s in segments_of(episodes, "executor")
    )


def test_an_unknown_task_is_an_error_of_its_episode(pool: EnvPool, policy: TinyPolicy) -> None:
    agent = HiMACAgent.shared(policy)
    good = pool.task_ids("train")[0]
    bad, fine = collect(agent, pool, [EpisodeRequest("no such task"), EpisodeRequest(good)])
    assert bad.error is not None and "no such task" in bad.error and fine.error is None
    bad, fine = propose(agent, pool, [EpisodeRequest("no such task"), EpisodeRequest(good)])
    assert bad.error is not None and fine.error is None and fine.blueprint is not None


def test_proposals_equal_what_an_episode_would_have_asked(
    pool: EnvPool, policy: TinyPolicy
) -> None:
    agent = HiMACAgent.shared(policy)
    agent.planner.sampling = Sampling(0.0, 64)
    agent.executor.sampling = Sampling(0.0, 16)
    tasks = [EpisodeRequest(t) for t in pool.task_ids("train")[:10]]
    proposed, played = propose(agent, pool, tasks), collect(agent, pool, tasks)
    for a, b in zip(proposed, played, strict=True):
        assert a.blueprint == b.blueprint and a.segments[0].token_ids == b.segments[0].token_ids


def test_distinct() -> None:
    one, two = Blueprint.of(["a"]), Blueprint.of(["b"])
    asked = (("x", 0, one), ("x", 1, two), ("x", 2, one), ("y", 0, one))
    tasks = [EpisodeRequest(t, group, blueprint=z) for t, group, z in asked]
    kept, where = distinct(tasks)
    assert kept == [tasks[0], tasks[1], tasks[3]] and where == [0, 1, 0, 2]


def test_callables_play_in_the_views_as_the_rollout_does(pool: EnvPool, policy: TinyPolicy) -> None:
    """`Executor` and `Planner` as the other side of a view act as they do in `collect`."""
    how = {"policy": policy, "prompts": PROMPTS}
    planner = Planner(**how, sampling=Sampling(0.0, 64))
    executor = Executor(**how, sampling=Sampling(0.0, 16))
    for task_id in pool.task_ids("train")[:5]:
        (episode,) = collect(HiMACAgent(planner, executor), pool, [EpisodeRequest(task_id)])
        view = PlannerView(make(max_steps=15), executor)
        observation, info = view.reset(options={"task_id": task_id})
        _, total, _, _, info = view.step(planner(observation, info))
        assert total == episode.reward and info["duration"] == episode.steps
        assert info["options"] == episode.options


def test_scripted_players_serve_views_of_other_agents() -> None:
    env = make()
    blueprint = Expert("oracle")
    agent = HiMACAgent(Planner(blueprint), Executor(blueprint))
    request = EpisodeRequest(env.unwrapped.task_ids()[5])
    (episode,) = collect(agent, EnvPool(lambda: env, 1), [request])
    assert episode.success
    view = ExecutorView(env, lambda o, i: episode.blueprint.render())
    observation, _ = view.reset(options={"task_id": episode.request.task_id})
    assert observation["subgoal"] == episode.blueprint.texts()[0]


def test_noise_makes_mistakes_and_the_expert_recovers() -> None:
    pool = EnvPool(make, 16)
    ids = pool.task_ids("valid")[:16]
    episodes = demonstrate(pool, ids, prompts=PROMPTS, expert="oracle", noise=0.2, seed=1)
    steps = np.mean([e.steps for e in episodes])
    calm = np.mean([e.steps for e in demonstrate(pool, ids, prompts=PROMPTS, expert="oracle")])
    assert steps > calm and np.mean([e.success for e in episodes]) > 0.9


def test_an_agent_without_a_planner_is_told_so(pool: EnvPool, policy: TinyPolicy) -> None:
    with pytest.raises(ValueError, match="needs an agent with a planner"):
        collect(HiMACAgent.flat(policy), pool, [EpisodeRequest(pool.task_ids("train")[0])])


def test_iterating_an_empty_list(pool: EnvPool, policy: TinyPolicy) -> None:
    nothing: Iterator[EpisodeRequest] = iter(())
    assert collect(HiMACAgent.shared(policy), pool, nothing) == []
