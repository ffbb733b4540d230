"""Which token is moved by what: checked on rollouts, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from crediting import advantages_of, credited
from toy import FruitEnv

from himac_agents.agents.agent import Executor, HiMACAgent, Planner
from himac_agents.agents.expert import Expert
from himac_agents.algorithms import advantages, losses
from himac_agents.algorithms.batching import token_batch
from himac_agents.algorithms.credit import executor_credit, flat_credit, gigpo, grpo, rloo
from himac_agents.algorithms.himac import CoEvolution
from himac_agents.algorithms.iteration import Iteration, Setting, summary
from himac_agents.algorithms.methods import method_of, resolve
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Completion, Prompt, Sampling
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.prompts import CompactPrompts
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest, Segment, Turn
from himac_agents.training.demonstrations import demonstrate, texts_of
from himac_envs.hierarchy import HierarchicalEnv

PROMPTS = CompactPrompts()
CONFIG = resolve(
    TrainConfig("himac-option", tasks=4, blueprints=4, executions=4, stop_at_failure=False)
)


class Recorder:
    """Stands where a learner stands, and keeps what it is given."""

    def __init__(self) -> None:
        self.calls: list[list[Segment]] = []
        self.phases: list[str] = []

    def reinforce(
        self, segments: Sequence[Segment], rng: np.random.Generator, phase: str
    ) -> dict[str, float]:
        self.calls.append(list(segments))
        self.phases.append(phase)
        return {}


def _pool() -> EnvPool:
    return EnvPool(lambda: HierarchicalEnv(FruitEnv(max_steps=6)), 16)


@pytest.fixture(scope="module")
def policy() -> TinyPolicy:
    pool = _pool()
    shown = demonstrate(
        pool, pool.task_ids("train"), prompts=PROMPTS, expert="oracle", transcripts=True
    )
    return TinyPolicy.build(texts_of(shown, PROMPTS), TinySize(32, 1, 2, 64), seed=0)


def _setting(agent: HiMACAgent, config: TrainConfig, learner: Any) -> Setting:
    pool = _pool()
    rng = np.random.default_rng(0)
    ids = pool.task_ids("train")
    further = lambda rng: str(rng.choice(ids))  # noqa: E731
    return Setting(config, agent, pool, learner, learner, further, 0, 0, rng)


def _conversation(policy: TinyPolicy, segment: Segment, first: str, goal: str) -> list[int]:
    """1 on the tokens that the model wrote, from the words of the conversation alone."""
    if segment.role == "planner":
        heard = [policy.encode(PROMPTS.plan(first, goal))]
    else:
        heard = []  # the opening is what stands before the first turn
        for turn in segment.turns[:-1]:
            answer = PROMPTS.observe(turn.observation, segment.subgoal, {})
            # What was cut at its limit is ended before the answer.
            end = policy.encode_reply("")[-1:] if turn.cut else ()
            heard.append([*end, *policy.encode([answer], continues=True)])
        heard.insert(0, list(segment.prompt_ids(segment.turns[0])))
    marks: list[int] = []
    ids: list[int] = []
    for k, turn in enumerate(segment.turns):
        ids += [*heard[k], *turn.output_ids]
        marks += [0] * len(heard[k]) + [1] * len(turn.output_ids)
    assert ids == segment.token_ids[: len(ids)]
    return marks + [0] * (len(segment.token_ids) - len(ids))


def test_the_gradient_reaches_what_the_level_wrote_and_nothing_else(policy: TinyPolicy) -> None:
    agent = HiMACAgent.shared(policy)
    agent.executor.sampling = Sampling(1.0, 4)
    agent.planner.sampling = Sampling(1.0, 6)
    learner = Recorder()
    setting = _setting(agent, CONFIG, learner)
    ids = setting.pool.task_ids("train")[:4]
    done = method_of(CONFIG).iterate(setting, ids, 0)
    plans, commands = learner.calls
    assert learner.phases == ["planner", "executor"]
    assert {s.role for s in plans} == {"planner"} and len(plans) == 16
    assert {s.role for s in commands} == {"executor"}
    assert commands == [s for e in done.episodes for s in e.segments]
    firsts = {e.request.group: (e.first, e.goal) for e in done.episodes}
    rng = np.random.default_rng(1)
    for segments in (plans, commands):
        assert all(turn.advantage is not None for s in segments for turn in s.turns)
        # Values of our own, none of them 0: what is asked is which tokens they reach.
        credited(segments, [rng.normal(size=len(s.turns)) for s in segments])
        batch = token_batch(segments)
        logp = policy.logprobs(batch).detach().requires_grad_()
        weights = losses.token_weights(batch.mask)
        tensors = (batch.old_logprobs, batch.advantages, weights)
        losses.clipped_policy_gradient(logp, *map(torch.tensor, tensors)).loss.backward()
        assert logp.grad is not None
        for row, segment in enumerate(segments):
            marks = _conversation(policy, segment, *firsts[segment.group])
            share = 1.0 / (sum(marks) * len(segments))
            expected = np.zeros(batch.mask.shape[1])
            for turn in segment.turns:
                stop = turn.start + len(turn.output_ids)
                expected[turn.start : stop] = -share * (turn.advantage or 0.0)
            assert (batch.mask[row, : len(marks)] == marks).all()
            assert not batch.mask[row, len(marks) :].any()
            assert logp.grad[row].numpy() == pytest.approx(expected, rel=1e-3, abs=1e-9)
    ends = [t.output_ids[-1] in policy.end_ids for s in (*plans, *commands) for t in s.turns]
    assert any(ends), "some answers ended by themselves: their end token was among the marked"


class Careless:
    """A planner that writes the right blueprint at every third asking, else a useless one."""

    def __init__(self) -> None:
        self.asked = 0

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        found = []
        for _ in prompts:
            self.asked += 1
            found.append(Completion(f"- get the {'moon' if self.asked % 3 else 'apple'}"))
        return found


class AppleEnv(FruitEnv):
    """One fruit, an apple: what a blueprint is worth is plain."""

    def _start(self, task_id: str) -> Any:
        outcome = super()._start(task_id)
        self.fruit = {"apple": self.rooms - 1}
        return outcome


@pytest.mark.parametrize("method", ["himac-option", "himac-random-blueprint"])
def test_which_blueprint_the_executor_practises_on(method: Any) -> None:
    config = CONFIG.replace(method=method, blueprints=6)
    expert = Expert("oracle")
    agent = HiMACAgent(Planner(Careless()), Executor(expert))
    learner = Recorder()
    setting = _setting(agent, config, learner)
    setting.pool = EnvPool(lambda: HierarchicalEnv(AppleEnv(max_steps=8), subgoal_budget=6), 16)
    ids = setting.pool.task_ids("train")
    done = Iteration()
    play = method_of(config).iterate
    assert isinstance(play, CoEvolution)
    chosen = play.phase_a(setting, setting.drawn(ids), done)
    worth = {(p.request.group, p.blueprint): value for p, value, _ in done.candidates}
    best = [max(v for (g, _), v in worth.items() if g == t.group) for t in chosen]
    practised = [worth[t.group, t.blueprint] for t in chosen]
    assert set(worth.values()) == {0.0, 1.0} and set(best) == {1.0}
    if method == "himac-option":
        assert practised == best
    else:
        short = [a < b for a, b in zip(practised, best, strict=True)]
        assert any(short) and not all(short)


def _played(group: int, steps: list[tuple[str, float]]) -> Episode:
    episode = Episode(EpisodeRequest("t", group), success=steps[-1][1] > 0)
    segment = Segment("executor", group, token_ids=[0] * (2 * len(steps)))
    for k, (anchor, reward) in enumerate(steps):
        turn = Turn(segment, 2 * k + 1, (5,), (-0.5,), "", "", reward=reward)
        turn.anchor = anchor
        segment.turns.append(turn)
    episode.segments, episode.reward = [segment], sum(r for _, r in steps)
    return episode


def test_flat_credit_by_hand() -> None:
    won = _played(0, [("hall", 0.0), ("room", 1.0)])
    lost = _played(0, [("hall", 0.0), ("hall", 0.0)])
    also = _played(1, [("hall", 1.0)])
    crashed = _played(0, [("hall", 9.0)])
    crashed.error = "broke"
    episodes = [won, lost, also, crashed]

    def of(advantage: Any, episode: Episode) -> list[float | None]:
        credit = flat_credit(CONFIG.replace(advantage_std=False), episodes, advantage)
        assert credit.dead() == {1} and len(credit.segments) == 3
        return advantages_of(episode.segments[0])

    assert of(grpo, won) == [0.5, 0.5] and of(grpo, lost) == [-0.5, -0.5]
    assert of(rloo, won) == [1.0, 1.0] and of(rloo, lost) == [-1.0, -1.0]
    # At "hall" of group 0 the rewards to go are 0.95, 0, 0: their mean 0.316667.
    third = 0.95 / 3
    assert of(gigpo, won) == pytest.approx([0.5 + 0.95 - third, 0.5])
    assert of(gigpo, lost) == pytest.approx([-0.5 - third, -0.5 - third])
    assert of(gigpo, also) == [0.0]
    credit = flat_credit(CONFIG, episodes, gigpo)
    assert credit.metrics["repeated_states"] == pytest.approx(1 - 3 / 5)


def _optioned(group: int, options: list[tuple[str, bool]], reward: float) -> Episode:
    episode = Episode(EpisodeRequest("t", group), reward=reward)
    for k, (subgoal, achieved) in enumerate(options):
        segment = Segment("executor", group, subgoal, k, [1, 2, 3])
        segment.turns = [Turn(segment, 1, (5,), (-0.5,), "", "")]
        segment.option = {"achieved": achieved, "steps": 4}
        episode.segments.append(segment)
    return episode


def test_sub_goals_are_compared_after_the_same_sub_goals() -> None:
    config = CONFIG.replace(executor_advantage="option", advantage_std=False)
    episodes = [
        _optioned(0, [("a", True), ("b", True)], 1.0),
        _optioned(0, [("a", True), ("b", False)], 0.0),
        _optioned(0, [("a", False), ("b", False)], 0.0),  # its "b" never had a chance
        _optioned(0, [("c", True), ("b", False)], 0.0),  # another "b": it came after "c"
    ]
    credit = executor_credit(config, episodes)
    third = 1 / 3
    assert credit.segments == [s for e in episodes for s in e.segments]
    found = [[advantages_of(s)[0] for s in e.segments] for e in episodes]
    assert found[0] == pytest.approx([third, 0.5]) and found[1] == pytest.approx([third, -0.5])
    assert found[2] == pytest.approx([-2 * third, 0.0]) and found[3] == [0.0, 0.0]
    executor_credit(config.replace(executor_advantage="both"), episodes)
    whole = advantages.group_relative([1.0, 0.0, 0.0, 0.0], std=False)
    assert advantages_of(episodes[0].segments[1]) == pytest.approx([0.5 + whole[0]])
    executor_credit(config.replace(executor_advantage="trajectory"), episodes)
    assert [advantages_of(e.segments[0])[0] for e in episodes] == whole.tolist()


def test_dead_groups_are_drawn_again_and_counted_as_work(policy: TinyPolicy) -> None:
    agent = HiMACAgent.flat(policy)
    agent.executor.sampling = Sampling(1.0, 4)
    config = CONFIG.replace(method="grpo", resample_dead=2)
    learner = Recorder()
    setting = _setting(agent, config, learner)
    setting.pool = EnvPool(lambda: FruitEnv(max_steps=2), 16)
    ids = setting.pool.task_ids("train")[:4]
    done = method_of(config).iterate(setting, ids, 0)
    again = done.metrics["flat"]["resampled_groups"]
    # An untrained model that writes freely earns nothing: every group is dead, twice again.
    assert again == 8 and done.metrics["flat"]["dead_groups"] == 1.0
    assert done.env_steps == (4 + 8) * 4 * 2 and len(done.episodes) == 48
    assert len(learner.calls[0]) == 16, "what was replaced is not learned from"
    assert {s.group for s in learner.calls[0]} == {8, 9, 10, 11}


def test_between_phases_a_the_executor_practises_on_likely_blueprints(policy: TinyPolicy) -> None:
    agent = HiMACAgent.shared(policy)
    agent.executor.sampling = Sampling(1.0, 4)
    config = CONFIG.replace(planner_every=2, executor_updates=2)
    learner = Recorder()
    setting = _setting(agent, config, learner)
    ids = setting.pool.task_ids("train")[:4]
    roles = []
    for number in range(3):
        done = method_of(config).iterate(setting, ids, number)
        roles.append(["".join({s.role[0] for s in call}) for call in learner.calls])
        learner.calls.clear()
        assert ("planner" in done.metrics) == (number != 1)
    assert roles == [["p", "e", "e"], ["e", "e"], ["p", "e", "e"]]


def test_a_planner_asked_again_reads_how_its_sub_goals_ended(policy: TinyPolicy) -> None:
    expert = Expert("oracle")
    planner = Careless()
    pool = EnvPool(lambda: HierarchicalEnv(AppleEnv(max_steps=8), replans=2), 1)
    agent = HiMACAgent(Planner(planner), Executor(expert))
    task = EpisodeRequest(pool.task_ids("train")[0])
    (episode,) = collect(agent, pool, [task], codec=policy)
    asked = [s for s in episode.segments if s.role == "planner"]
    assert len(asked) == 3
    words = [policy.tokenizer.decode(s.token_ids[: s.turns[0].start]) for s in asked]
    assert words[0].count("Room") == 1 and words[1].count("Room") == 2
    assert words[2].count("Room") == 3


def test_curves_judge_what_the_environment_understands() -> None:
    """As in evaluation: a sub-goal of unknown meaning is neither achieved nor failed."""
    ends = [("done", True), ("done", None), ("budget", False), ("done", False), ("budget", None)]
    options = [{"reason": why, "achieved": held, "steps": 2} for why, held in ends]
    found = summary([Episode(EpisodeRequest("t", 0), options=options)])
    assert found["achieved"] == pytest.approx(1 / 3) and found["sub_done_precision"] == 0.5
    assert found["ended_done"] == 0.6 and found["option_steps"] == 2.0
    unknown = summary([Episode(EpisodeRequest("t", 0), options=[options[1]])])
    assert "achieved" not in unknown and "sub_done_precision" not in unknown
