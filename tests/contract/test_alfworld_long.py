"""ALFWorldLongEnv: several goals in one episode, partial score, and the suite's contract."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import pytest

import himac_envs  # noqa: F401  (registers the ids)
from himac_envs import HierarchicalEnv, OracleExecutor
from himac_envs.alfworld.generate import GeneratedLibrary, long_horizon, solution
from himac_envs.alfworld.long import ALFWorldLongEnv
from himac_envs.testing import check_task_env

FLAT, HIERARCHICAL = "HiMAC-ALFWorld-Long-Flat-v0", "HiMAC-ALFWorld-Long-v0"


def make(**settings: Any) -> ALFWorldLongEnv:
    env = gym.make(FLAT, **settings).unwrapped
    assert isinstance(env, ALFWorldLongEnv)
    return env


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("settings", [
    {}, {"horizon": 20, "split": "test", "reward": "verl-agent", "dialect": "2.1.1"},
    {"horizon": 200, "split": "valid", "domain_randomization": True, "extra": ("inventory",)},
])  # fmt: skip
def test_conformance(settings: dict[str, Any]) -> None:
    check_task_env(make(**settings), tasks=2)


@pytest.mark.parametrize("horizon", [20, 60, 200])
def test_the_oracle_wins_within_the_horizon_and_the_score_adds_up(horizon: int) -> None:
    env = make(horizon=horizon, split="valid")
    assert env.max_steps == horizon
    for task_id in env.task_ids()[:8]:
        _, info = env.reset(options={"task_id": task_id})
        assert 2 <= len(info["goals"]) <= 8
        assert info["goal"] == f"do all of this, in any order: {'. '.join(info['goals'])}."
        assert not info["won"] and info["score"] < 1
        total, scores, terminated, truncated = info["score"], [info["score"]], False, False
        for command in env.oracle():
            _, reward, terminated, truncated, info = env.step(command)
            total += reward
            scores.append(info["score"])
            assert info["score"] == sum(info["goals_met"]) / len(info["goals"])
            assert all(
                r >= m for r, m in zip(info["goals_reached"], info["goals_met"], strict=True)
            )
        assert terminated and not truncated and info["won"] and info["score"] == 1
        assert total == pytest.approx(1)
        # The goals are reached one by one.
        assert len(set(scores)) >= len(info["goals"])
        assert info["step"] <= horizon


def reach_a_placed_goal(env: ALFWorldLongEnv) -> tuple[str, dict[str, Any]]:
    """Follow the oracle until it has put something down that meets a goal."""
    for command in env.oracle():
        _, reward, _, _, info = env.step(command)
        if command.startswith("move") and reward > 0:
            return command, info
    raise AssertionError("the oracle never placed anything")


def test_undoing_a_goal_costs_what_reaching_it_gave() -> None:
    env = make()
    env.reset(options={"task_id": "generated/train/000004"})
    command, info = reach_a_placed_goal(env)
    share = 1 / len(info["goals"])
    met, reached = sum(info["goals_met"]), sum(info["goals_reached"])
    thing, _, where = command.removeprefix("move ").partition(" to ")
    _, reward, _, _, info = env.step(f"take {thing} from {where}")
    assert reward == pytest.approx(-share)
    assert sum(info["goals_met"]) == met - 1 and sum(info["goals_reached"]) == reached
    _, reward, _, _, info = env.step(command)
    assert reward == pytest.approx(share) and sum(info["goals_met"]) == met


def test_snapshots_and_copies_carry_the_score() -> None:
    env = make()
    env.reset(options={"task_id": "generated/train/000009"})
    reach_a_placed_goal(env)
    saved, twin = env.snapshot(), copy.deepcopy(env)
    commands = list(copy.deepcopy(env).oracle())
    tails = []
    for player in (env, twin):
        tails.append([player.step(command)[1:] for command in commands])
    env.restore(saved)
    tails.append([env.step(command)[1:] for command in commands])
    assert tails[0] == tails[1] == tails[2]
    assert tails[0][-1][3]["won"]


def test_the_blueprint_of_a_long_task_is_kept_whole() -> None:
    env = gym.make(HIERARCHICAL, horizon=200).unwrapped
    assert isinstance(env, HierarchicalEnv) and env.max_subgoals == 48
    executor = OracleExecutor(env)
    for number in range(2):
        observation, info = env.reset(options={"task_id": f"generated/train/{number:06d}"})
        terminated = truncated = False
        action = env.oracle_blueprint().render()
        assert len(env.oracle_blueprint().subgoals) > 8
        while not (terminated or truncated):
            observation, _, terminated, truncated, info = env.step(action)
            assert info.get("blueprint_dropped", 0) == 0
            action = "" if terminated or truncated else executor(observation, info)
        assert info["won"]


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="horizon=500: expected 20 to 200"):
        make(horizon=500)
    with pytest.raises(ValueError, match="goals=4: expected 1 to 3 with horizon=60"):
        make(horizon=60, goals=4)
    with pytest.raises(ValueError, match="long tasks are generated"):
        make(data="/somewhere")


@pytest.mark.parametrize("goals", [1, 2, 6])
def test_a_number_of_goals_can_be_asked_for(goals: int) -> None:
    env = make(horizon=max(20, 20 * goals), goals=goals, split="valid")
    for task_id in list(env.task_ids())[:3]:
        _, info = env.reset(options={"task_id": task_id})
        assert len(info["goals"]) == goals and len(info["goals_met"]) == goals
        for command in env.oracle():
            *_, info = env.step(command)
        assert info["won"] and info["score"] == 1.0


def test_the_shortest_solution_fits_the_shortest_horizon() -> None:
    library = GeneratedLibrary(long_horizon(20))
    for task_id in library.task_ids("test")[:60]:
        assert len(solution(library.world(task_id))) <= 20
