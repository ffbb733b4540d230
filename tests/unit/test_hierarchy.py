"""The option interface, event by event, on the fruit rooms."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
from toy import FruitEnv

from himac_envs import (
    SUB_DONE,
    ExecutorView,
    HierarchicalEnv,
    OptionView,
    OracleExecutor,
    OraclePlanner,
    PlannerView,
)
from himac_envs.testing import same

TASK = {"task_id": "train:09"}  # three fruits in three rooms: apple, banana, cherry


def _env(**kwargs: Any) -> HierarchicalEnv:
    task = FruitEnv(max_steps=kwargs.pop("max_steps", 30))
    return HierarchicalEnv(task, **kwargs)


def _fruit(env: HierarchicalEnv) -> list[str]:
    assert isinstance(env.task, FruitEnv)
    return list(env.task.fruit)


def test_a_blueprint_moves_nothing() -> None:
    env = _env()
    first, info = env.reset(options=TASK)
    assert first["phase"] == 0 and info["admissible"] == [] and info["data"] == "fruit"
    observation, reward, terminated, truncated, info = env.step("1. get the apple\n2. rest")
    assert observation["text"] == first["text"] and (reward, info["step"]) == (0.0, 0)
    assert not terminated and not truncated
    assert observation["phase"] == 1 and observation["subgoal"] == "get the apple"
    assert observation["blueprint"] == "1. get the apple\n2. rest"
    assert info["blueprint_valid"] is True and info["blueprint_dropped"] == 0
    assert info["admissible"] == [*env.task._admissible(), SUB_DONE]


def test_sub_done_ends_an_option_without_a_step() -> None:
    env = _env()
    env.reset(options=TASK)
    env.step("1. get the apple\n2. rest")
    env.step("east")
    observation, reward, *_, info = env.step(f" {SUB_DONE}\n")
    assert (observation["subgoal"], observation["subgoal_index"], reward) == ("rest", 1, 0.0)
    assert info["option"] == {
        "index": 0,
        "subgoal": "get the apple",
        "steps": 1,
        "reward": 0.0,
        "reason": "done",
        "achieved": False,
    }
    *_, info = env.step(SUB_DONE)
    assert info["option"]["achieved"] is None, "the task does not know what 'rest' means"


def test_without_a_next_subgoal_sub_done_costs_a_step() -> None:
    env = _env(max_steps=3)
    env.reset(options=TASK)
    env.step("1. get the apple")
    *_, info = env.step(SUB_DONE)
    assert info["option"]["reason"] == "done" and info["step"] == 0
    for step in (1, 2, 3):
        observation, _, terminated, truncated, info = env.step(SUB_DONE)
        assert info["invalid"] and info["step"] == step
        assert observation["subgoal"] == "get the apple"
    assert truncated and not terminated
    assert info["option"]["reason"] == "truncated" and info["option"]["steps"] == 3
    with pytest.raises(gym.error.ResetNeeded):
        env.step("east")


def test_budget_moves_on_by_itself() -> None:
    env = _env(subgoal_budget=2)
    env.reset(options=TASK)
    env.step("1. get the apple\n2. get the banana")
    *_, info = env.step("nonsense")
    assert "option" not in info
    observation, *_, info = env.step("nonsense")
    assert info["option"]["reason"] == "budget" and info["option"]["steps"] == 2
    assert observation["subgoal"] == "get the banana"
    for _ in range(2):
        *_, info = env.step("nonsense")
    assert info["option"]["reason"] == "budget"
    for _ in range(5):
        *_, info = env.step("nonsense")
        assert "option" not in info, "the last sub-goal has nowhere to go and stays"


def test_replans_ask_the_planner_again() -> None:
    env = _env(replans=1)
    env.reset(options=TASK)
    env.step("1. get the apple")
    observation, *_, info = env.step(SUB_DONE)
    assert observation["phase"] == 0 and observation["subgoal"] == ""
    assert info["admissible"] == [] and info["option"]["reason"] == "done"
    observation, *_ = env.step("1. get the banana")
    assert observation["phase"] == 1 and observation["subgoal"] == "get the banana"
    observation, *_ = env.step(SUB_DONE)
    assert observation["phase"] == 1, "only one replan was given"


def test_unparsable_and_too_long_blueprints() -> None:
    env = _env(max_subgoals=2)
    env.reset(options=TASK)
    observation, *_, info = env.step("fetch things, please")
    assert observation["subgoal"] == "get every fruit" and info["blueprint_valid"] is False
    env.reset(options=TASK)
    *_, info = env.step("1. a\n2. b\n3. c\n4. d")
    assert info["blueprint_dropped"] == 2
    env.reset(options=TASK)
    for action in (None, 3, b"x"):
        env.reset(options=TASK)
        *_, info = env.step(action)  # type: ignore[arg-type]
        assert info["blueprint_valid"] is False


def test_options_add_up_over_many_tasks() -> None:
    env = _env()
    for task_id in env.task_ids("train"):
        observation, info = env.reset(options={"task_id": task_id})
        action, executor = env.oracle_blueprint().render(), OracleExecutor(env)
        total, options, done = 0.0, [], False
        while not done:
            observation, reward, terminated, truncated, info = env.step(action)
            total += reward
            options += [info["option"]] if "option" in info else []
            done = terminated or truncated
            action = "" if done else executor(observation, info)
        assert info["won"]
        assert sum(o["steps"] for o in options) == info["step"]
        assert sum(o["reward"] for o in options) == pytest.approx(total)
        assert [o["reason"] for o in options[:-1]] == ["done"] * (len(options) - 1)


def test_a_snapshot_in_mid_option_gives_the_same_tail() -> None:
    env = _env(subgoal_budget=3)
    env.reset(options=TASK)
    env.step("1. get the apple\n2. get the banana\n3. rest")
    env.step("east")
    state = env.snapshot()
    tail = [env.step(a) for a in ("east", SUB_DONE, "take banana", "west")]
    env.step("west")
    env.restore(state)
    assert same(tail, [env.step(a) for a in ("east", SUB_DONE, "take banana", "west")])
    other = _env(subgoal_budget=3)
    other.reset(seed=1)
    other.restore(state)
    assert same(tail, [other.step(a) for a in ("east", SUB_DONE, "take banana", "west")])


def test_planner_view_is_one_step_and_replans_are_more() -> None:
    env = _env()
    view = PlannerView(env, OracleExecutor(env))
    view.reset(options=TASK)
    _, reward, terminated, _, info = view.step(env.oracle_blueprint().render())
    assert terminated and reward == pytest.approx(1.0)
    assert [o["subgoal"] for o in info["options"]] == [f"get the {f}" for f in _fruit(env)]
    assert info["duration"] == info["step"]
    env = _env(replans=5)
    view = PlannerView(env, OracleExecutor(env))
    view.reset(options=TASK)
    rewards = []
    for fruit in _fruit(env):
        _, reward, terminated, _, _ = view.step(f"1. get the {fruit}")
        rewards.append(reward)
    assert terminated and sum(rewards) == pytest.approx(1.0)


def test_executor_view_plans_at_reset_and_at_replans() -> None:
    env = _env(replans=1)
    asked = []

    def planner(observation: dict[str, Any], info: dict[str, Any]) -> str:
        asked.append(observation["phase"])
        return "1. get the apple"

    view = ExecutorView(env, planner)
    observation, info = view.reset(options=TASK)
    assert observation["phase"] == 1 and observation["subgoal"] == "get the apple"
    assert info["data"] == "fruit" and info["admissible"][-1] == SUB_DONE
    observation, *_, info = view.step(SUB_DONE)
    assert observation["phase"] == 1 and info["option"]["reason"] == "done"
    assert asked == [0, 0]


def test_option_view_is_a_semi_mdp() -> None:
    env = _env()
    view = OptionView(env, OracleExecutor(env))
    view.reset(options=TASK)
    total = 0.0
    for fruit in _fruit(env):
        _, reward, terminated, _, info = view.step(f"get the {fruit}")
        total += reward
        assert info["option"]["subgoal"] == f"get the {fruit}"
        assert info["duration"] == info["option"]["steps"]
    assert terminated and total == pytest.approx(1.0)
    with pytest.raises(gym.error.ResetNeeded):
        view.step("get the apple")


def test_views_refuse_flat_environments() -> None:
    with pytest.raises(TypeError, match="hierarchical"):
        PlannerView(FruitEnv(), lambda o, i: "")
    with pytest.raises(ValueError, match="None for no budget"):
        _env(subgoal_budget=0)


def test_what_is_returned_is_never_changed_later() -> None:
    env = _env()
    first, info = env.reset(options=TASK)
    kept = (dict(first), {**info, "admissible": list(info["admissible"])})
    env.step("1. get the apple")
    env.step("east")
    assert (first, info) == kept
    info["goal"] = "changed by the user"
    *_, after = env.step(SUB_DONE)
    assert after["goal"] == "get every fruit"


def test_oracle_planner_writes_what_the_parser_reads() -> None:
    env = _env()
    observation, info = env.reset(options=TASK)
    text = OraclePlanner(env)(observation, info)
    assert text.splitlines()[0] == f"1. get the {_fruit(env)[0]}"


def test_info_tells_when_the_blueprint_is_used_up() -> None:
    env = _env()
    _, info = env.reset(options=TASK)
    told = [info["blueprint_done"]]
    plan = "1. get the apple\n2. rest"
    for action in (plan, "east", SUB_DONE, "west", SUB_DONE, "east", SUB_DONE):
        told.append(env.step(action)[4]["blueprint_done"])
    assert told == [False, False, False, False, False, True, True, True]
    state = env.snapshot()
    env.step("east")
    env.restore(state)
    assert env.blueprint_done and env.step("west")[4]["blueprint_done"]
    # With a replan left a new one is asked for, and is not used up.
    env = _env(replans=1, subgoal_budget=1)
    env.reset(options=TASK)
    told = [env.step(action)[4]["blueprint_done"] for action in ("1. a", "east", "1. b", "west")]
    assert told == [False, True, False, True]


def test_info_tells_it_in_every_view() -> None:
    env = _env()
    executor = ExecutorView(env, lambda observation, info: "1. rest")
    assert executor.reset(options=TASK)[1]["blueprint_done"] is False
    assert executor.step(SUB_DONE)[4]["blueprint_done"] is True
    planner = PlannerView(env, lambda observation, info: SUB_DONE)
    planner.reset(options=TASK)
    assert planner.step("1. rest")[4]["blueprint_done"] is True
    executor_is_busy = PlannerView(env, lambda observation, info: "east")
    executor_is_busy.reset(options=TASK)
    assert executor_is_busy.step("1. rest")[4]["blueprint_done"] is False
    options = OptionView(env, OracleExecutor(env))
    options.reset(options=TASK)
    assert options.step("get the apple")[4]["blueprint_done"] is True  # it asks for the next
    pytest.importorskip("pettingzoo", reason="needs pettingzoo: pip install 'himac[multiagent]'")
    from himac_envs.multiagent import HierarchicalAEC

    aec = HierarchicalAEC(env)
    aec.reset(options=TASK)
    aec.step("1. rest")
    assert aec.infos["executor_0"]["blueprint_done"] is False
    aec.step(SUB_DONE)
    assert aec.infos["executor_0"]["blueprint_done"] is True


class Doubled(gym.Wrapper[Any, Any, Any, Any]):
    """Doubles rewards, marks infos and remembers what it was told."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.heard: list[str] = []

    def reset(self, **kwargs: Any) -> Any:
        self.heard = []
        observation, info = self.env.reset(**kwargs)
        return observation, {**info, "marked": True}

    def step(self, action: Any) -> Any:
        self.heard.append(str(action))
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, 2 * float(reward), terminated, truncated, {**info, "marked": True}


def test_views_keep_the_wrappers_that_they_are_given() -> None:
    for make in (
        lambda env: (PlannerView(env, OracleExecutor(env)), None),
        lambda env: (OptionView(env, OracleExecutor(env)), None),
        lambda env: (ExecutorView(env, OraclePlanner(env)), OracleExecutor(env)),
    ):
        returns = []
        for wrapped in (_env(), Doubled(_env())):
            view, executor = make(wrapped)
            observation, info = view.reset(options=TASK)
            total, over = 0.0, False
            for goal in _fruit(view.core) if executor is None else [""] * 99:
                action = f"get the {goal}" if executor is None else executor(observation, info)
                if isinstance(view, PlannerView):
                    action = view.core.oracle_blueprint().render()
                observation, reward, terminated, truncated, info = view.step(action)
                total, over = total + reward, terminated or truncated
                if over:
                    break
            assert over and info["won"]
            returns.append(total)
            assert ("marked" in info) == isinstance(wrapped, Doubled)
            if isinstance(wrapped, Doubled):
                assert SUB_DONE in wrapped.heard and any("get the" in h for h in wrapped.heard)
        assert returns[1] == pytest.approx(2 * returns[0]) and returns[0] > 0


def test_a_wrappers_time_limit_ends_views_with_a_record() -> None:
    def wait(observation: Any, info: Any) -> str:
        return "east"

    env = gym.wrappers.TimeLimit(_env(), 4)
    planner = PlannerView(env, wait)
    planner.reset(options=TASK)
    _, _, terminated, truncated, info = planner.step("1. rest")
    assert (terminated, truncated) == (False, True)
    assert [o["reason"] for o in info["options"]] == ["truncated"] and info["duration"] == 3
    with pytest.raises(gym.error.ResetNeeded):
        planner.step("1. rest")
    options = OptionView(env, wait)
    options.reset(options=TASK)
    _, _, _, truncated, info = options.step("rest")
    assert truncated and info["option"]["reason"] == "truncated" and info["option"]["steps"] == 3
    with pytest.raises(gym.error.ResetNeeded):
        options.step("rest")


def test_the_multi_agent_form_keeps_wrappers_too() -> None:
    pytest.importorskip("pettingzoo", reason="needs pettingzoo: pip install 'himac[multiagent]'")
    from himac_envs.multiagent import HierarchicalAEC

    wrapped = Doubled(_env())
    aec, executor = HierarchicalAEC(wrapped), OracleExecutor(wrapped)
    aec.reset(options=TASK)
    assert aec.infos["planner_0"]["marked"]
    aec.step(aec.core.oracle_blueprint().render())
    while not aec.terminations["executor_0"]:
        aec.step(executor(aec.observe("executor_0"), aec.infos["executor_0"]))
    assert wrapped.heard[0].startswith("1. get the") and SUB_DONE in wrapped.heard
    # Three fruits, a third of the reward each, doubled by the wrapper.
    assert aec.rewards["planner_0"] == pytest.approx(2 / 3)
