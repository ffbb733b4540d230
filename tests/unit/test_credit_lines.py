"""The credit of a planner's lines, and of language models, in the credit benchmark."""

from __future__ import annotations

import random
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinymodels import save_text_model
from toy import FruitEnv

from himac_agents.agents.agent import Executor, HiMACAgent
from himac_agents.cli import app
from himac_agents.experiments.credit import cells as bench
from himac_agents.experiments.credit.estimators import LINE_ESTIMATORS, Estimator
from himac_agents.experiments.credit.measure import SUMS, Size, drawn_tasks, played
from himac_agents.experiments.credit.planner import (
    ScriptedPlanner,
    Worth,
    measure_lines,
    planner_turn,
)
from himac_agents.experiments.credit.policy import Scripted, Simulator, Strength
from himac_agents.experiments.credit.trained import LedBack, Trained, trained_truths
from himac_agents.experiments.credit.trained_lines import Begun, trained_line_truths
from himac_agents.policies.base import Prompt, Sampling
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.episode import noise_of
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest
from himac_envs.blueprint import Blueprint
from himac_envs.hierarchy import HierarchicalEnv

STRENGTH = Strength(0.3, 0.1)
LIMIT = 9


def _make() -> HierarchicalEnv:
    return HierarchicalEnv(FruitEnv(max_steps=LIMIT))


def _planner() -> ScriptedPlanner:
    env, oracle = _make(), {}
    for task_id in drawn_tasks(env, 20, 0):
        env.reset(options={"task_id": task_id})
        oracle[task_id] = tuple(env.oracle_blueprint().texts())
    return ScriptedPlanner(oracle)


def test_a_planner_writes_with_the_probabilities_that_it_tells() -> None:
    planner = _planner()
    task_id = next(i for i, lines in planner.oracle.items() if len(lines) == 3)
    rng = random.Random(0)
    written = [planner.write(task_id, rng) for _ in range(4000)]
    for place in range(3):
        options, chances = planner.choices[task_id][place], planner.chances(task_id, place)
        assert options[0] == planner.oracle[task_id][place] and len(set(options)) == 3
        assert sum(chances) == pytest.approx(1.0)
        for option, chance in zip(options, chances, strict=True):
            share = np.mean([lines[place] == option for lines in written])
            assert share == pytest.approx(chance, abs=0.03)
    begun = written[0][:2]
    assert planner.write(task_id, rng, begun)[:2] == begun
    assert planner.choices == _planner().choices


def test_the_worth_of_a_line_is_that_of_all_blueprints_that_begin_so() -> None:
    """Against the sum over every blueprint; each one's success by plays of its own."""
    planner = _planner()
    task_id = next(i for i, lines in planner.oracle.items() if len(lines) == 2)
    policy = Scripted(STRENGTH)
    success = {}
    for lines in product(*planner.choices[task_id]):
        alone = Simulator(_make(), policy)  # it shares nothing with the other blueprints
        start = alone.begin(task_id, Blueprint.of(lines))
        success[lines] = alone.success(start, alone.limit, 3000, random.Random(1))

    def exact(begun: tuple[str, ...]) -> float:
        total = 0.0
        for lines, value in success.items():
            if lines[: len(begun)] == begun:
                chances = [
                    planner.chances(task_id, k)[planner.choices[task_id][k].index(line)]
                    for k, line in enumerate(lines)
                ]
                total += prod(chances[len(begun) :]) * value
        return total

    worth = Worth(Simulator(_make(), policy), planner, task_id, 4000, random.Random(2))
    best = planner.oracle[task_id]
    wrong = min(success, key=lambda lines: success[lines])
    assert success[best] - success[wrong] > 0.2, "else anything would have been found"
    for lines in (best, wrong):
        for k in (1, 2):
            truth = exact(lines[:k]) - exact(lines[: k - 1])
            assert worth.advantage(lines[:k]) == pytest.approx(truth, abs=0.05)


def test_with_many_blueprints_every_estimate_of_a_line_comes_to_the_truth() -> None:
    """On average over the blueprints that begin alike: one alone says how its execution went."""
    size = Size(5, 2, (8, 96), 16, 500)
    found = measure_lines(_make, STRENGTH, size, seed=4)
    assert found["tasks"] == 5 and found["matter"] > 20

    def cosine_of_means(n: str, name: str) -> float:
        own = dict(zip(SUMS, np.asarray(found["sums"][n][name]).sum(axis=0), strict=True))
        return float(own["mean_xy"] / np.sqrt(own["mean_xx"] * own["mean_yy"]))

    for name in LINE_ESTIMATORS:
        assert cosine_of_means("96", name) > 0.93, name
        assert cosine_of_means("96", name) > cosine_of_means("8", name), name
    with pytest.raises(TypeError, match="no planner's credit"):
        Estimator("grpo").credit_lines([], [])


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> HiMACAgent:
    folder = tmp_path_factory.mktemp("qwen")
    model = save_text_model(folder / "model", layers=2)
    settings = {"expert": "oracle", "demos": 12, "warm_lr": 3e-3, "max_command_tokens": 16}
    trained = Trained("hf", 30, str(model), settings)
    first = trained.agent(folder / "run", "fruit_runs:Fruit-v0", {}, 0)
    again = trained.agent(folder / "run", "fruit_runs:Fruit-v0", {}, 0)
    for own, other in zip(first.policies(), again.policies(), strict=True):
        pairs = zip(own.parameters(), other.parameters(), strict=True)  # type: ignore[union-attr]
        assert all(bool((a == b).all()) for a, b in pairs), "what is there is not made again"
    return first


@pytest.fixture(scope="module")
def executor(agent: HiMACAgent) -> Executor:
    return agent.executor


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> HiMACAgent:
    """A tiny model that has learned to write blueprints, and errs."""
    trained = Trained("tiny", 100, settings={"expert": "oracle", "demos": 20, "demo_noise": 0.3})
    return trained.agent(tmp_path_factory.mktemp("writer"), "fruit_runs:Fruit-v0", {}, 0)


def _written(agent: HiMACAgent, count: int) -> list[Episode]:
    """Blueprints of one task, the planner's and differing, each executed."""
    task_id = next(i for i, lines in _planner().oracle.items() if len(lines) == 3)
    asked = [EpisodeRequest(task_id, 0, k) for k in range(count)]
    return collect(agent, EnvPool(_make, 16), asked, seed=2, state_keys=True)


def test_an_answer_that_is_begun_goes_on_as_the_model_would(writer: HiMACAgent) -> None:
    planner = writer.planner
    assert planner is not None
    model: Any = planner.policy
    segment = _written(writer, 1)[0].segments[0]
    prompt = tuple(segment.token_ids[: segment.turns[0].start])
    asked = [Prompt((), prompt, role="planner", noise=k) for k in range(4)]
    (best, *_) = model.generate(asked[:1], Sampling(0.0, 40))
    begun = {0: (), 1: best.token_ids[:2], 2: best.token_ids[:-1]}
    greedy = Begun(model, begun).generate(asked, Sampling(0.0, 40))
    for answer in greedy:
        assert (answer.text, answer.token_ids) == (best.text, best.token_ids)
        assert len(answer.logprobs) == len(best.token_ids)
    other = tuple(reversed(best.token_ids[:5]))
    ((alone,),) = [Begun(model, {3: other}).generate([asked[3]], Sampling(1.0, 12))]
    assert alone.token_ids[:5] == other and len(alone.token_ids) <= 12
    assert alone.text == model.decode(alone.token_ids)
    (rest,) = model.generate(
        [Prompt((), (*prompt, *other), role="planner", noise=3)], Sampling(1.0, 7)
    )
    assert alone.token_ids[5:] == rest.token_ids and alone.logprobs[5:] == rest.logprobs
    # The limit holds for the whole answer.
    assert len(Begun(model, {3: other}).generate([asked[3]], Sampling(1.0, 6))[0].token_ids) == 6


def test_a_blueprint_is_led_to_the_end_of_any_line(writer: HiMACAgent) -> None:
    """What lines add to the chance of success adds up to what the whole blueprint does to it."""
    written = _written(writer, 24)
    episode = next(e for e in written if e.blueprint is not None and len(e.blueprint) == 2)
    assert set(planner_turn(episode).lines) == {0, 1}
    task_id, times = episode.request.task_id, 150
    pool = EnvPool(_make, 16)
    truths = trained_line_truths(writer, pool, [[episode]], [(0, 0, k) for k in range(2)], times, 9)

    def rate(blueprint: Blueprint | None) -> float:
        asked = [EpisodeRequest(task_id, 0, k, blueprint) for k in range(times)]
        return float(np.mean([e.success for e in collect(writer, pool, asked, seed=21)]))

    gained = rate(episode.blueprint) - rate(None)
    assert sum(truths) == pytest.approx(gained, abs=0.2)
    # The task has three fruits: what is wrong is to end after the second, not the first line.
    firsts = [e.blueprint.texts()[0] for e in written if e.blueprint is not None]
    assert firsts.count(firsts[0]) > 20 and abs(truths[0]) < 0.15 and truths[1] < -0.25


def test_a_language_model_is_led_back_token_by_token(executor: Executor) -> None:
    pool = EnvPool(_make, 8)
    task_id = FruitEnv().task_ids()[3]
    (group,) = played(HiMACAgent(None, executor), pool, task_id, Size(1, 1, (12,)), 0)
    assert len({tuple(t.action for t in e.turns()) for e in group}) > 3, "it plays by chance"
    episode = max(group, key=lambda e: sum(1 for _ in e.turns()))
    turns = list(episode.turns())
    asked = [EpisodeRequest(task_id, 0, k, episode.blueprint) for k in range(6)]
    ways = {noise_of(5, request): turns[: k + 1] for k, request in enumerate(asked)}
    agent = HiMACAgent(None, LedBack.of(executor, ways))
    went = collect(agent, pool, asked, codec=executor.policy, seed=5, state_keys=True)  # type: ignore[arg-type]
    for k, found in enumerate(went):
        own = list(found.turns())
        for mine, theirs in zip(own[: k + 1], turns, strict=False):
            assert (mine.output_ids, mine.action, mine.state) == (
                theirs.output_ids, theirs.action, theirs.state
            )  # fmt: skip
        # What it then reads is what it would have read: its own log-probabilities say so.
        assert (
            found.segments[0].token_ids[: turns[0].start]
            == (episode.segments[0].token_ids[: turns[0].start])
        )
    assert len({tuple(t.action for t in list(e.turns())[6:]) for e in went}) > 1
    # Led nowhere, it is the model itself.
    plain = collect(HiMACAgent(None, executor), pool, asked, seed=5)
    free = collect(HiMACAgent(None, LedBack.of(executor, {})), pool, asked, seed=5)
    assert [e.reward for e in plain] == [e.reward for e in free]


def test_the_truths_of_a_language_model_are_shares_of_its_own_episodes(executor: Executor) -> None:
    pool, task_id = EnvPool(_make, 16), FruitEnv().task_ids()[3]
    groups = played(HiMACAgent(None, executor), pool, task_id, Size(1, 1, (4,)), 0)
    groups = [[min(groups[0], key=lambda e: sum(1 for _ in e.turns()))]]
    (episode,) = groups[0]
    turns = sum(1 for _ in episode.turns())
    size = Size(1, 1, (1,), turns, 40)
    decisions = trained_truths(executor, pool, groups, size, 7)
    own = {d.turn: d.truth for d in decisions}
    assert set(own) == set(range(turns)), "all of its decisions were drawn"
    # Advantages add up to the end less the value of the beginning, whatever lies between.
    free = collect(
        HiMACAgent(None, executor), pool,
        [EpisodeRequest(task_id, 0, k, episode.blueprint) for k in range(100)], seed=11,
    )  # fmt: skip
    begin = float(np.mean([e.success for e in free]))
    assert sum(own.values()) == pytest.approx(float(episode.success) - begin, abs=0.25)


def test_the_command_measures_a_language_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "ENVS", {"sokoban": ("fruit_runs:Fruit-v0", {})})
    model = save_text_model(tmp_path / "model", layers=1)
    args = ["bench", "credit", "--size", "tiny", "--jobs", "1", "--policy", "hf"]
    args += ["--model", str(model), "--out", str(tmp_path / "out")]
    assert app.main(args) == 0
    page = capsys.readouterr().out
    assert "| sokoban | weak |" in page and "hiper, a table" in page
    commands, lines = page.split("## Credit of the planner's lines")
    assert "himac-graph, clock" in commands and "himac-graph, prefixes" in lines
    assert (tmp_path / "out" / "policies" / "sokoban-weak-seed0" / "checkpoints").is_dir()
    assert app.main([*args[:7], "someone"]) == 1
    assert "choose one of scripted, tiny, hf" in capsys.readouterr().err
