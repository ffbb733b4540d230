"""The credit benchmark, where the true values are known by dynamic programming."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import FruitEnv

from himac_agents.agents.agent import Executor, HiMACAgent
from himac_agents.cli import app
from himac_agents.experiments.credit import cells as bench
from himac_agents.experiments.credit import scores, table
from himac_agents.experiments.credit.estimators import ESTIMATORS, LINE_ESTIMATORS
from himac_agents.experiments.credit.measure import SUMS, Size, measure, played, truths_of
from himac_agents.experiments.credit.policy import Scripted, Simulator, Strength
from himac_agents.experiments.credit.run import run
from himac_agents.experiments.credit.vine import Vine
from himac_agents.rollouts.pool import EnvPool
from himac_envs.hierarchy import HierarchicalEnv

STRENGTH = Strength(0.5, 0.1)
LIMIT = 7


def _make() -> HierarchicalEnv:
    return HierarchicalEnv(FruitEnv(max_steps=LIMIT))


def _exact(task_id: str) -> Any:
    """V by dynamic programming over the environment itself, its step limit included."""
    env, policy = _make(), Scripted(STRENGTH)
    env.reset(options={"task_id": task_id})
    *_, info = env.step(env.oracle_blueprint().action())
    states: dict[tuple[str, int], tuple[Any, dict[str, Any]]] = {}

    def note(info: dict[str, Any]) -> tuple[str, int]:
        key = (env.state_key(), int(info["step"]))
        states.setdefault(key, (env.snapshot(), info))
        return key

    @cache
    def follow(key: tuple[str, int], command: str) -> float:
        env.restore(states[key][0])
        *_, terminated, truncated, info = env.step(command)
        if terminated or truncated:
            return float(info["won"])
        return value(note(info))

    @cache
    def value(key: tuple[str, int]) -> float:
        env.restore(states[key][0])
        commands, chances = policy.choices(env, states[key][1]["admissible"])
        assert sum(chances) == pytest.approx(1.0)
        return sum(p * follow(key, c) for c, p in zip(commands, chances, strict=True))

    return note(info), value, follow


@pytest.mark.parametrize("number", [0, 3, 7])
def test_continuations_find_the_value_of_dynamic_programming(number: int) -> None:
    task_id = FruitEnv().task_ids()[number]
    root, value, follow = _exact(task_id)
    simulator = Simulator(_make(), Scripted(STRENGTH))
    simulator.env.reset(options={"task_id": task_id})
    start = simulator.begin(task_id, simulator.env.oracle_blueprint())
    rng = random.Random(number)
    found = simulator.success(start, simulator.limit, 4000, rng)
    assert found == pytest.approx(value(root), abs=0.04)
    for place, command in enumerate(start.commands):
        after, steps = simulator.step(start, place)
        assert steps == (command != "<sub_done>")
        gained = simulator.success(after, simulator.limit - steps, 4000, rng)
        assert gained == pytest.approx(follow(root, command), abs=0.04)
    assert 0.02 < value(root) < 0.98  # else anything would have been found


@pytest.mark.parametrize("budget", [None, 1, 3])
def test_what_is_remembered_of_a_state_is_what_happens_there(budget: int | None) -> None:
    def make() -> HierarchicalEnv:
        return HierarchicalEnv(FruitEnv(max_steps=60), subgoal_budget=budget)

    simulator, env, rng = Simulator(make(), Scripted(STRENGTH)), make(), random.Random(5)
    env.reset(options={"task_id": "train:12"})
    blueprint = env.oracle_blueprint()
    assert len(blueprint) > 2
    for _ in range(60):
        env.reset(options={"task_id": "train:12"})
        env.step(blueprint.action())
        node: Any = simulator.begin("train:12", blueprint)
        for _ in range(30):
            number = rng.randrange(len(node.commands))
            *_, terminated, _, _ = env.step(node.commands[number])
            node, _ = simulator.step(node, number)
            assert isinstance(node, bool) is terminated
            if terminated:
                break
            assert node.state.option.subgoal == env.subgoal
            assert node.state.task.state == env.task.snapshot().state


def test_the_truths_are_those_of_dynamic_programming() -> None:
    task_id = FruitEnv().task_ids()[3]
    size = Size(1, 2, (4,), 8, 4000)
    policy = Scripted(STRENGTH)
    agent = HiMACAgent(None, Executor(policy))
    groups = played(agent, EnvPool(_make, 1), task_id, size, 0)
    decisions = truths_of(Simulator(_make(), policy), groups, size, 5)
    assert len(decisions) == 8
    root, value, follow = _exact(task_id)
    value(root)  # every state that can be reached is known from here on
    env = _make()
    for decision in decisions:
        episode = groups[decision.group][decision.episode]
        turns = list(episode.turns())
        env.reset(options={"task_id": task_id})
        *_, info = env.step(episode.blueprint.action())  # type: ignore[union-attr]
        for turn in turns[: decision.turn]:
            *_, info = env.step(turn.action)
        key = (env.state_key(), int(info["step"]))
        truth = follow(key, turns[decision.turn].action) - value(key)
        assert decision.truth == pytest.approx(truth, abs=0.05)


def test_episodes_follow_the_probabilities_that_the_simulator_uses() -> None:
    task_id = FruitEnv().task_ids()[3]
    policy = Scripted(STRENGTH)
    agent = HiMACAgent(None, Executor(policy))
    groups = played(agent, EnvPool(_make, 1), task_id, Size(1, 1, (200,)), 0)
    root, value, _ = _exact(task_id)
    won = np.mean([e.success for e in groups[0]])
    assert won == pytest.approx(value(root), abs=0.1)
    simulator = Simulator(_make(), policy)
    node = simulator.begin(task_id, groups[0][0].blueprint)  # type: ignore[arg-type]
    first = [next(e.turns()).action for e in groups[0]]
    chances = np.diff([0.0, *node.reach])
    for command, chance in zip(node.commands, chances, strict=True):
        assert np.mean([c == command for c in first]) == pytest.approx(chance, abs=0.1)
    with pytest.raises(ValueError):
        simulator.follow(node, "no such command")


def test_with_many_episodes_the_graph_finds_the_truth_and_grpo_does_not() -> None:
    found = measure(_make, STRENGTH, Size(4, 2, (8, 96), 24, 1000), seed=1)
    assert found["tasks"] == 4 and found["matter"] > 20
    many, few = found["sums"]["96"], found["sums"]["8"]
    sign = {name: scores.figure("sign accuracy", many[name]).value for name in ESTIMATORS}
    assert sign["himac-graph"] > 0.85 > 0.75 > sign["grpo"] > 0.4
    assert sign["himac"] == sign["grpo"]
    assert scores.figure("correlation", many["himac-graph, no fill"]).value > 0.8
    assert scores.figure("cosine", many["himac-graph, no fill"]).value > 0.8
    graph = few["himac-graph, no fill"], many["himac-graph, no fill"]
    for name in ("bias", "deviation"):  # both shrink
        assert scores.figure(name, graph[1]).value < scores.figure(name, graph[0]).value
    assert measure(_make, STRENGTH, Size(1, 1, (2,), 2, 10)) == measure(
        _make, STRENGTH, Size(1, 1, (2,), 2, 10)
    )


def test_a_vine_tells_what_a_subgoal_gained_at_equal_steps() -> None:
    """Against dynamic programming, with more continuations than anyone could pay for."""
    task_id = next(i for i in FruitEnv().task_ids() if len(_oracle(i)) == 2)
    policy = Scripted(STRENGTH)
    agent = HiMACAgent(None, Executor(policy))
    (group,) = played(agent, EnvPool(_make, 1), task_id, Size(1, 1, (40,)), 0)
    simulator = _Counting(_make(), policy)
    vine = Vine(simulator, seed=1)
    told = vine.credit(group)
    assert [id(e) for e in told] == [id(e) for e in group[:20]]
    spare = sum(e.steps for e in group[20:])
    assert spare <= simulator.spent < spare + LIMIT

    root, value, _ = _exact(task_id)
    value(root)
    for episode in group[20:]:
        episode.steps = 5_000
    seen = set()
    for episode in Vine(simulator, seed=2).credit(group):
        first, *rest = episode.segments
        env = _make()
        env.reset(options={"task_id": task_id})
        *_, info = env.step(episode.blueprint.action())  # type: ignore[union-attr]
        for turn in first.turns:
            *_, info = env.step(turn.action)
        after = value((env.state_key(), int(info["step"]))) if rest else float(episode.success)
        seen.add(bool(rest))
        assert first.turns[0].advantage == pytest.approx(after - value(root), abs=0.1)
        assert len({turn.advantage for turn in first.turns}) == 1
    assert seen == {True, False}


class _Counting(Simulator):
    spent = 0

    def play(self, node: Any, left: int, rng: random.Random) -> tuple[bool, int]:
        won, steps = super().play(node, left, rng)
        self.spent += steps
        return won, steps


def _oracle(task_id: str) -> Any:
    env = _make()
    env.reset(options={"task_id": task_id})
    return env.oracle_blueprint()


def _row(**values: float) -> list[float]:
    return [values.get(name, 0.0) for name in SUMS]


def test_figures_by_hand() -> None:
    # Truths .2, -.2; estimates 1, -1 in both of two groups, and once 3 instead of 1.
    rows = [
        _row(n=2, x=0, y=0, xx=2, yy=0.08, xy=0.4, matter=2, right=2, repeated=2, var=2.0,
             mean_xx=2, mean_xy=0.4, mean_yy=0.08)
    ]  # fmt: skip
    told = {name: scores.figure(name, rows).value for name in scores.FIGURES}
    assert told["sign accuracy"] == told["correlation"] == told["cosine"] == pytest.approx(1.0)
    # c = .4 / 2 = .2: no bias; the mean variance 1 becomes .2^2.
    assert told["bias"] == pytest.approx(0.0) and told["deviation"] == pytest.approx(0.2)
    nothing = scores.figure("sign accuracy", [_row(n=3)])
    assert str(nothing) == "-"
    half = [_row(matter=2, right=1), _row(matter=2, right=2)]
    score = scores.figure("sign accuracy", half)
    assert (score.value, score.low, score.high) == (0.75, 0.5, 1.0)
    same = scores.difference("sign accuracy", half, half)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_the_command_resumes_and_writes_table_and_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "ENVS", {"sokoban": ("fruit_runs:Fruit-v0", {})})
    args = ["bench", "credit", "--size", "tiny", "--jobs", "1"]
    args += ["--out", str(tmp_path)]
    assert app.main(args) == 0
    page = capsys.readouterr().out
    assert page.count("| sokoban | weak | 0 |") == 2 and page.count("the kill criterion is") == 1
    commands, lines = page.split("## Credit of the planner's lines")
    assert all(f"| {name} |" in commands for name in ESTIMATORS)
    assert all(f"| {name} |" in lines for name in LINE_ESTIMATORS)
    assert (tmp_path / "credit.md").read_text() == page
    assert (tmp_path / "credit.svg").read_text().startswith("<svg")

    def refuse(cell: bench.Cell, out: Path) -> dict[str, Any]:
        raise AssertionError(cell.name)

    with monkeypatch.context() as patch:
        patch.setattr(bench.Cell, "measured", refuse)
        assert app.main(args) == 0 and capsys.readouterr().out == page
        with pytest.raises(AssertionError, match="sokoban-weak-seed1"):
            app.main([*args, "--seeds", "0", "1"])
        patch.setattr(bench, "ENVS", {"sokoban": ("fruit_runs:Fruit-v0", {"max_steps": 9})})
        with pytest.raises(AssertionError, match="sokoban-weak-seed0"):  # other settings: anew
            app.main(args)
    # A narrower call shows what else is there.
    assert app.main([*args, "--strengths", "half", "half"]) == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "credit.md").read_text() == shown
    assert shown == page
    cells = bench.cells("tiny")[:2]  # in processes of their own: the same figures
    again = run(cells, tmp_path / "two", jobs=2, say=lambda text: None)
    assert again == [json.loads((tmp_path / f"{c.name}.json").read_text()) for c in cells]
    # Tasks of another seed are further rows, and nothing of the first is measured again.
    assert app.main([*args, "--strengths", "weak", "--seeds", "0", "1"]) == 0
    both = capsys.readouterr().out
    assert both.count("| sokoban | weak | 1 |") == 2 and "sokoban weak, seed 1" in both
    cells = bench.cells("tiny", strengths=["weak"], seeds=[0, 1])[:2]
    done = [json.loads((tmp_path / f"{c.name}.json").read_text()) for c in cells]
    assert len(table.pooled(done, "4", "grpo")) == sum(cell["tasks"] for cell in done) == 4
    for seeds in (["-1"], [str(2**63)]):
        assert app.main([*args, "--seeds", *seeds]) == 1
        assert f"seed={seeds[0]}: must be between" in capsys.readouterr().err
    assert app.main(["bench", "credit", "--envs", "alfworld-official"]) == 1
    assert "--official FOLDER" in capsys.readouterr().err


def test_a_damaged_file_is_measured_anew_and_a_full_disk_is_known_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "ENVS", {"sokoban": ("fruit_runs:Fruit-v0", {})})
    cells = bench.cells("tiny", strengths=["weak"])
    whole = run(cells, tmp_path, jobs=1, say=lambda text: None)
    path = tmp_path / f"{cells[0].name}.json"
    for content in ("", '{"a"', "[1]", "{}", json.dumps({**whole[0], "sums": {}})):
        path.write_text(content)
        told: list[str] = []
        assert run(cells, tmp_path, jobs=1, say=told.append) == whole
        assert str(path) in told[0] and told[0].endswith("; left out")

    def refuse(cell: bench.Cell, out: Path) -> dict[str, Any]:
        raise AssertionError(cell.name)

    monkeypatch.setattr(bench.Cell, "measured", refuse)
    with pytest.raises(OSError, match="weak"):
        run(cells, path / "below", jobs=1)


def test_policies_are_chosen_by_their_names() -> None:
    chosen = bench.cells("tiny", ["long"], strengths=["half"])
    assert [cell.name for cell in chosen] == ["long-half-seed0", "long-half-seed0-lines"]
    trained = bench.cells("small", ["alfworld"], policy="tiny", strengths=["strong", "weak"])
    assert [cell.policy.steps for cell in trained] == [700, 2500, 700, 2500]  # type: ignore[union-attr]
    assert [cell.level for cell in trained] == ["executor"] * 2 + ["planner"] * 2
    assert trained[0].place(Path("out")) == trained[2].place(Path("out")), "one model for both"
    with pytest.raises(ValueError, match="no policy 'half': choose among weak"):
        bench.cells("tiny", policy="tiny", strengths=["half"])


def test_the_kill_criterion_looks_at_the_interval() -> None:
    def cell(candidate: list[float], other: list[float], seed: int = 0) -> dict[str, Any]:
        rows = {
            table.CANDIDATE: [_row(n=1, xx=1, matter=10, right=r) for r in candidate],
            table.BASELINE: [_row(n=1, xx=1, matter=10, right=r) for r in other],
        }
        return {"cell": {"env": "x", "seed": seed}, "sums": {"8": rows}}

    gain = table.gained([cell([9, 8, 9], [6, 6, 7])], "8", table.CANDIDATE)
    assert table.passes(gain) and gain.value == pytest.approx(7 / 30)
    assert not table.passes(table.gained([cell([9, 2, 9], [6, 6, 7])], "8", table.CANDIDATE))
    # Two policies on the same three tasks are three rows, not six.
    both = table.pooled([cell([9, 8, 9], []), cell([1, 2, 3], [])], "8", table.CANDIDATE)
    place = SUMS.index("right")
    assert [row[place] for row in both] == [10, 10, 12]
    assert [row[SUMS.index("xx")] for row in both] == [2, 2, 2]
    # Another seed's tasks are others.
    apart = table.pooled([cell([9, 8, 9], []), cell([1, 2, 3], [], 1)], "8", table.CANDIDATE)
    assert [row[place] for row in apart] == [9, 8, 9, 1, 2, 3]
