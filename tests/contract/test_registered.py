"""One file over every registered id: the checks that each environment of the suite passes."""

from __future__ import annotations

import copy
import pickle
import shutil
import warnings

import gymnasium as gym
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import himac_envs
from himac_envs import (
    HierarchicalEnv,
    OracleExecutor,
    OraclePlanner,
    PlannerView,
    TaskEnv,
    TextOnly,
)
from himac_envs.hierarchy import ExecutorView, OptionView
from himac_envs.registry import env_cards
from himac_envs.testing import check_task_env, same

BROWSER = {i for i, c in env_cards().items() if c.kind == "browser"}
IDS = sorted(set(env_cards()) - BROWSER)
FLAT = sorted(i for i in IDS if env_cards()[i].kind == "flat")
HIERARCHICAL = sorted(i for i in IDS if env_cards()[i].kind == "hierarchical")


def test_the_three_benchmarks_are_registered() -> None:
    assert {c.benchmark for c in env_cards().values()} >= {"alfworld"}
    assert set(env_cards()) <= set(gym.registry)


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_checker_with_warnings_as_errors(env_id: str) -> None:
    env = gym.make(env_id)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


@pytest.mark.parametrize("env_id", FLAT)
def test_flat_contract(env_id: str) -> None:
    check_task_env(gym.make(env_id), tasks=3)


@pytest.mark.parametrize("env_id", HIERARCHICAL)
def test_hierarchical_ids_are_what_they_say(env_id: str) -> None:
    env = gym.make(env_id, max_subgoals=5, replans=1).unwrapped
    assert isinstance(env, HierarchicalEnv)
    assert isinstance(env.task, TaskEnv)
    assert env.max_subgoals == 5 and env.replans == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for view in (
            PlannerView(env, OracleExecutor(env)),
            ExecutorView(env, OraclePlanner(env)),
            OptionView(env, OracleExecutor(env)),
        ):
            check_env(view, skip_render_check=True)


@pytest.mark.parametrize("env_id", IDS)
def test_specs_survive_json(env_id: str) -> None:
    spec = gym.make(env_id).spec
    assert spec is not None
    again = EnvSpec.from_json(spec.to_json())
    assert again == spec
    assert gym.make(again).spec == spec


@pytest.mark.parametrize("env_id", IDS)
def test_two_copies_play_alike(env_id: str) -> None:
    first, second = gym.make(env_id), gym.make(env_id)
    assert same(first.reset(seed=11), second.reset(seed=11))
    third = pickle.loads(pickle.dumps(first.unwrapped))
    fourth = copy.deepcopy(first.unwrapped)
    first.action_space.seed(5)
    for _ in range(25):
        action = first.action_space.sample()
        answers = [e.step(action) for e in (first, second, third, fourth)]
        assert all(same(answers[0], a) for a in answers[1:])
        if answers[0][2] or answers[0][3]:
            break


@pytest.mark.parametrize("env_id", FLAT)
def test_ids_are_sorted_and_splits_disjoint(env_id: str) -> None:
    env = gym.make(env_id, data="generated").unwrapped
    assert isinstance(env, TaskEnv)
    splits = [list(env.task_ids(s))[:3000] for s in ("train", "valid", "test")]
    assert all(splits)
    assert not set(splits[0]) & set(splits[1]) and not set(splits[1]) & set(splits[2])
    with pytest.raises(ValueError, match="train"):
        env.task_ids("no such split")
    with pytest.raises(ValueError, match="task"):
        env.reset(options={"task_id": "no such task"})
    with pytest.raises(ValueError, match="task_id"):
        env.reset(options={"tasks": 1})


@pytest.mark.parametrize("env_id", FLAT)
@pytest.mark.parametrize("reward", ["sparse", "verl-agent"])
def test_reward_shapes(env_id: str, reward: str) -> None:
    env = gym.make(env_id, reward=reward).unwrapped
    assert isinstance(env, TaskEnv)
    env.reset(seed=3)
    rewards = [env.step("no such command")[1]]
    assert rewards[0] == (0.0 if reward == "sparse" else -0.1)
    total = 0.0
    for command in env.oracle():
        _, r, terminated, truncated, info = env.step(command)
        total += r
        if terminated or truncated:
            break
    if info["won"]:
        assert total == pytest.approx(1.0 if reward == "sparse" else 10.0)


@pytest.mark.parametrize("env_id", FLAT + HIERARCHICAL)
def test_text_only(env_id: str) -> None:
    env = TextOnly(gym.make(env_id))
    text, _ = env.reset(seed=0)
    assert isinstance(text, str) and text in env.observation_space
    text, reward, *_ = env.step("1. look around")
    assert isinstance(text, str) and type(reward) is float


def test_text_only_needs_text() -> None:
    with pytest.raises(TypeError, match="with a text"):
        TextOnly(gym.make("HiMAC-Sokoban-Pixels-v0"))


@pytest.mark.parametrize("env_id", FLAT)
def test_constructor_teaches(env_id: str) -> None:
    with pytest.raises(ValueError, match="verl-agent"):
        gym.make(env_id, reward="dense")
    with pytest.raises(ValueError, match="at least one"):
        gym.make(env_id, max_steps=0)
    env = gym.make(env_id, max_steps=2)
    env.reset(seed=0)
    assert env.step("nothing like it")[3] is False
    assert env.step("nothing like it")[2:4] == (False, True)


@pytest.mark.parametrize("env_id", HIERARCHICAL)
def test_pettingzoo(env_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pettingzoo", reason="needs pettingzoo: pip install 'himac[multiagent]'")
    from pettingzoo.test import api_test, seed_test

    from himac_envs.multiagent import HierarchicalAEC

    api_test(HierarchicalAEC(env_id), num_cycles=1000, verbose_progress=False)
    seed_test(lambda: HierarchicalAEC(env_id), num_cycles=50)


def test_every_card_shows_in_the_package() -> None:
    assert himac_envs.__version__
    for card in env_cards().values():
        assert card.summary and card.kind in {"flat", "hierarchical", "pixels", "browser", "long"}
    if BROWSER and not (shutil.which("chromium") and shutil.which("chromedriver")):
        with pytest.raises(Exception, match="chromium"):
            gym.make(sorted(BROWSER)[0])


def test_human_rendering_where_there_are_pictures() -> None:
    for env_id in ("HiMAC-Sokoban-v0", "HiMAC-Sokoban-Flat-v0", "HiMAC-Sokoban-Pixels-v0"):
        env = gym.make(env_id, render_mode="human")
        for made in (env, gym.make(env.spec)):  # type: ignore[arg-type]
            layer, layers = made, []
            while isinstance(layer, gym.Wrapper):
                layers.append(type(layer))
                layer = layer.env
            assert layers.count(gym.wrappers.HumanRendering) == 1
            assert made.render_mode == "human" and made.unwrapped.render_mode == "rgb_array"
    with pytest.raises(ValueError, match="render_mode='human': ALFWorldEnv has 'ansi'"):
        gym.make("HiMAC-ALFWorld-v0", render_mode="human")
