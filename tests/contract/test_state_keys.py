"""State keys: what they tell apart, what they leave out, and that the checks find wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from toy import FruitEnv

import himac_envs  # noqa: F401  registers the ids
from himac_envs import Blueprint, HierarchicalEnv, Outcome
from himac_envs.alfworld.env import ALFWorldEnv
from himac_envs.alfworld.long import ALFWorldLongEnv
from himac_envs.digests import digest
from himac_envs.testing import ConformanceError, check_state_keys, check_task_env

FLAT = [
    ("HiMAC-ALFWorld-Flat-v0", {"data": "generated"}),
    ("HiMAC-ALFWorld-Flat-v0", {"data": "generated", "domain_randomization": True}),
    ("HiMAC-ALFWorld-Long-Flat-v0", {"horizon": 40}),
    ("HiMAC-WebShop-Flat-v0", {"data": "generated"}),
    ("HiMAC-WebShop-Flat-v0", {"data": "generated", "observation": "text_rich"}),
    ("HiMAC-WebShop-Flat-v0", {"data": "generated", "num_prev_obs": 2}),
    ("HiMAC-Sokoban-Flat-v0", {}),
]


@pytest.mark.parametrize(("env_id", "kwargs"), FLAT)
def test_equal_keys_have_equal_futures(env_id: str, kwargs: dict[str, Any]) -> None:
    task = gym.make(env_id, **kwargs).unwrapped
    ids = task.task_ids()[:2]
    # Walks that never meet would compare nothing; what holds whole observations seldom meets.
    flat = sum(check_state_keys(task, i, walks=4, steps=30) for i in ids)
    deep = sum(check_state_keys(HierarchicalEnv(task), i, walks=4, steps=30) for i in ids)
    assert flat > 10 and deep > 0


def test_official_games_have_keys(real_data: Path) -> None:
    data = str(real_data / "alfworld")
    task = gym.make("HiMAC-ALFWorld-Flat-v0", data=data, split="valid").unwrapped
    for env in (task, HierarchicalEnv(task)):
        assert check_state_keys(env, task.task_ids()[0], walks=4, steps=30) > 10


def test_the_key_leaves_out_what_was_looked_into_but_not_what_was_moved() -> None:
    env = gym.make("HiMAC-ALFWorld-Flat-v0", data="generated").unwrapped
    env.reset(options={"task_id": env.task_ids()[0]})
    start = env.state_key()
    goes = [c for c in env._admissible() if c.startswith("go to")]
    env.step(goes[0])
    here = env.state_key()
    assert here != start
    env.step(goes[1])
    env.step(goes[0])
    env.step("look")
    env.step("no such command")
    assert env.state_key() == here  # more was seen, and more steps were taken
    for command in env.oracle():
        env.step(command)
        if command.startswith("take"):
            break
    held = env.state_key()
    thing, _, place = command.removeprefix("take ").partition(" from ")
    env.step(f"move {thing} to {place}")
    assert env.state_key() not in (held, here)


def test_the_key_is_the_same_in_every_process_and_of_one_task_only() -> None:
    env = FruitEnv()
    env.reset(options={"task_id": "train:00"})
    # Written down once: a change of it would break what is stored beside rollouts.
    assert env.state_key() == digest(("train:00", False, (0, frozenset())))
    assert digest(("a", 1, 2.5, None, True, b"x")) == "2ae6da8a508815296bde5a93bfee36af"
    other = FruitEnv()
    other.reset(options={"task_id": "train:01"})
    assert other.state_key() != env.state_key()
    with pytest.raises(gym.error.ResetNeeded):
        FruitEnv().state_key()


@dataclass(frozen=True)
class _Pair:
    left: Any
    right: Any


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        (frozenset("abc"), frozenset("cba"), True),
        (("ab", "c"), ("a", "bc"), False),
        ((1, (2, 3)), ((1, 2), 3), False),
        (1, "1", False),
        (1, True, False),
        (np.arange(4), np.arange(4), True),
        (np.arange(4), np.arange(4).reshape(2, 2), False),
        (np.zeros(5000), np.r_[np.zeros(2500), 1, np.zeros(2499)], False),
        (_Pair(1, 2), _Pair(1, 2), True),
        (_Pair(1, 2), _Pair(2, 1), False),
        (range(3), range(4), False),
    ],
)
def test_digests_tell_values_apart(one: Any, other: Any, equal: bool) -> None:
    assert (digest(one) == digest(other)) is equal


def test_the_hierarchy_adds_its_place_and_whether_it_went_well_so_far() -> None:
    env = HierarchicalEnv(FruitEnv())
    task_id = next(i for i in env.task_ids() if _at_hand(i))
    env.reset(options={"task_id": task_id})
    planning = env.state_key()
    goals = env.oracle_blueprint().texts()
    env.step("\n".join(f"{i}. {goal}" for i, goal in enumerate([*goals, *goals], 1)))
    acting = env.state_key()
    assert acting != planning
    before = env.snapshot()
    task = env.task.state_key()
    env.step("<sub_done>")  # not achieved
    failed, at_next = env.state_key(), env.subgoal_index
    assert env.task.state_key() == task and failed != acting
    env.restore(before)
    assert env.state_key() == acting
    for command in env.oracle(goals[0]):
        env.step(command)
    env.step("<sub_done>")
    good = env.snapshot()
    assert good.kept and env.subgoal_index == at_next
    # The same place and task state, but something failed on the way.
    key = env.state_key()
    env.restore(replace(good, kept=False))
    assert env.state_key() != key


def _at_hand(task_id: str) -> bool:
    env = FruitEnv()
    env.reset(options={"task_id": task_id})
    return len(env.fruit) > 1


class _Constant(FruitEnv):
    def _essence(self) -> Any:
        return 0


class _ForgetsWhatIsHeld(FruitEnv):
    def _essence(self) -> Any:
        return self.here


class _KeyOfTheMoment(FruitEnv):
    def state_key(self) -> str:
        return str(id(object())) + str(np.random.default_rng().random())


@pytest.mark.parametrize("broken", [_Constant, _ForgetsWhatIsHeld, _KeyOfTheMoment])
def test_wrong_keys_are_found(broken: type[FruitEnv]) -> None:
    with pytest.raises(ConformanceError, match="state_key"):
        for task_id in FruitEnv().task_ids():
            check_state_keys(broken(), task_id)


def _finds(make: Callable[[], Any], seed: int) -> bool:
    """Whether `check_task_env` would say that an environment's keys are wrong."""
    env = make()
    ids = env.task_ids()
    try:
        for i in np.random.default_rng(seed).integers(len(ids), size=3):
            check_state_keys(env, ids[int(i)], seed)
    except ConformanceError:
        return True
    return False


class _Untreated(ALFWorldEnv):
    """Whose key forgets all that was done to things, and where they were put or taken from."""

    def _essence(self) -> Any:
        return _without_treatments(self)


class _UntreatedLong(ALFWorldLongEnv):
    def _essence(self) -> Any:
        return _without_treatments(self)


def _without_treatments(env: ALFWorldEnv) -> Any:
    state = env._playing()
    gone: dict[str, Any] = dict.fromkeys(("clean", "hot", "cool", "sliced", "toggled"), 0)
    essence = state.essence()._replace(**gone, placed=(), left=())
    return tuple(essence), state.game.goal_text


class _SomeHierarchy(HierarchicalEnv):
    """Whose key holds the task's, the blueprint and what a subclass names."""

    def state_key(self) -> str:
        plan = None if self._blueprint is None else tuple(self._blueprint.texts())
        return digest((self.task.state_key(), self._done, self._phase, plan, self._named()))

    def _named(self) -> Any:
        return self._kept, self._tail, self.subgoal_index


class _NoIndex(_SomeHierarchy):
    def _named(self) -> Any:
        return self._kept, self._tail


class _NoTail(_SomeHierarchy):
    def _named(self) -> Any:
        return self._kept, self.subgoal_index


def _alfworld() -> ALFWorldEnv:
    return ALFWorldEnv(data="generated")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "wrong",
    [
        lambda: _Untreated(data="generated"),
        lambda: HierarchicalEnv(_Untreated(data="generated")),
        lambda: _UntreatedLong(),
        lambda: _NoIndex(_alfworld()),
        lambda: _NoTail(_alfworld()),
    ],
    ids=["treatments", "treatments below", "long treatments", "index", "tail"],
)
def test_keys_that_are_wrong_deep_in_a_task_are_found(wrong: Callable[[], Any], seed: int) -> None:
    assert _finds(wrong, seed)


def test_what_is_wrong_deep_in_a_task_was_all_that_was_wrong() -> None:
    assert not any(_finds(lambda: _SomeHierarchy(_alfworld()), seed) for seed in range(4))


@pytest.mark.parametrize("treated", ["clean", "hot", "cool"])
def test_one_forgotten_treatment_is_found_where_it_matters(treated: str) -> None:
    class Forgets(ALFWorldEnv):
        def _essence(self) -> Any:
            essence = self._playing().essence()
            return tuple(essence._replace(**{treated: 0}))

        def __reduce__(self) -> Any:
            raise AssertionError("the check ended without a complaint")

    kind = f"pick_{treated.replace('hot', 'heat')}_then_place_in_recep"
    env = Forgets(data="generated")
    found = 0
    for task_id in env.task_ids()[:60]:
        env.reset(options={"task_id": task_id})
        if env.task_type == kind and found < 3:
            with pytest.raises(ConformanceError, match="state_key"):
                check_state_keys(env, task_id)
            found += 1
    assert found == 3


class _NoExpert(FruitEnv):
    def oracle(self, subgoal: str | None = None) -> Iterator[str]:
        raise NotImplementedError

    def oracle_blueprint(self) -> Blueprint:
        raise NotImplementedError


class _NoExpertForgets(_NoExpert):
    def _essence(self) -> Any:
        return self.here


def test_environments_without_an_expert_are_checked_too() -> None:
    check_task_env(_NoExpert(), tasks=4)
    with pytest.raises(ConformanceError, match="state_key"):
        check_task_env(_NoExpertForgets(), tasks=4)


@pytest.mark.parametrize(("env_id", "kwargs"), FLAT)
@pytest.mark.parametrize(
    "hierarchy",
    [
        {"subgoal_budget": 2},
        {"subgoal_budget": 3, "sub_done": False},
        {"subgoal_budget": 2, "replans": 2},
        {"max_subgoals": 2, "replans": 3},
    ],
)
def test_keys_of_budgets_and_replans(
    env_id: str, kwargs: dict[str, Any], hierarchy: dict[str, Any]
) -> None:
    env = HierarchicalEnv(gym.make(env_id, **kwargs).unwrapped, **hierarchy)
    for n, task_id in enumerate(env.task_ids()[:2]):
        assert check_state_keys(env, task_id, n, walks=4, steps=20) > 0


def test_a_budget_tells_states_apart_by_the_steps_that_are_left() -> None:
    env = HierarchicalEnv(FruitEnv(), subgoal_budget=2)
    free = HierarchicalEnv(FruitEnv())
    keys: dict[HierarchicalEnv, list[str]] = {env: [], free: []}
    left = []
    for one, seen in keys.items():
        one.reset(options={"task_id": "train:00"})
        assert one.steps_left is None
        one.step("1. get the moon\n2. get the sun")
        for _ in range(5):
            seen.append(one.state_key())
            left.append(one.steps_left)
            one.step("no such command")
    # The last sub-goal stays when its budget is spent: nothing ends it then but the episode.
    assert left == [2, 1, 2, 1, None] + [None] * 5
    assert len(set(keys[env])) == 5 and len(set(keys[free])) == 1
    # Without a budget keys are what they were before there was one.
    task = digest(("train:00", False, (0, frozenset())))
    place = (1, ("get the moon", "get the sun"), 0, False, 0, True)
    assert keys[free][0] == digest((task, False, place))


class _ForgetsItsScore(FruitEnv):
    """What it does not understand it answers with a score of 0."""

    def _act(self, command: str) -> Outcome:
        outcome = super()._act(command)
        return replace(outcome, score=0.0, won=False) if outcome.invalid else outcome


def test_what_a_silent_answer_repeats_is_not_in_the_key() -> None:
    env = HierarchicalEnv(_ForgetsItsScore(), max_subgoals=2, replans=3)
    pairs = sum(check_state_keys(env, i, walks=6, steps=30) for i in env.task_ids())
    assert pairs > 100


@pytest.mark.parametrize(("observation", "told"), [("html", True), ("url", True), ("text", False)])
def test_the_order_of_options_is_in_the_key_where_it_is_shown(observation: str, told: bool) -> None:
    env = gym.make("HiMAC-WebShop-Flat-v0", data="generated", observation=observation).unwrapped
    for task_id in env.task_ids()[:60]:
        env.reset(options={"task_id": task_id})
        for command in env.oracle():
            if env._now().state.page == "item_page":
                break
            env.step(command)
        options = list(env.catalogue.product(env._now().state.row).options.values())
        if len(options) >= 2:
            break
    one, other = (f"click[{values[0]}]" for values in options[:2])
    before = env.snapshot()
    seen = []
    for order in ((one, other), (other, one)):
        env.restore(before)
        for command in order:
            observed, *_ = env.step(command)
        seen.append((env.state_key(), observed["text"]))
    assert (seen[0][0] != seen[1][0]) is told and (seen[0][1] != seen[1][1]) is told
