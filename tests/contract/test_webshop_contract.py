"""WebShop keeps the suite's contract."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest

import himac_envs
from himac_envs.errors import UnknownSplitError, UnknownTaskError
from himac_envs.testing import check_task_env
from himac_envs.webshop.goals import without_limit

assert himac_envs


@pytest.fixture
def env() -> Any:
    return gym.make("HiMAC-WebShop-Flat-v0").unwrapped


def test_conformance(env: Any) -> None:
    check_task_env(env, tasks=5)


@pytest.mark.parametrize("observation", ["text_rich", "url", "html"])
def test_conformance_of_the_other_observations(observation: str) -> None:
    check_task_env(gym.make("HiMAC-WebShop-Flat-v0", observation=observation).unwrapped, tasks=1)


def test_conformance_with_history_and_real_goals(real_data: Any) -> None:
    folder = str(real_data / "webshop")
    made = gym.make(
        "HiMAC-WebShop-Flat-v0", data=folder, split="test", num_prev_obs=2, num_prev_actions=1
    )
    check_task_env(made.unwrapped, tasks=2)


def test_oracle_and_its_blueprint_win_generated_goals(env: Any) -> None:
    rng = random.Random(7)
    hierarchical = gym.make("HiMAC-WebShop-v0").unwrapped
    from himac_envs.testing import check_hierarchy, check_oracle

    for index in rng.sample(range(len(env.goals)), 60):
        assert check_oracle(env, str(index)) <= 15
        check_hierarchy(hierarchical, str(index))


def test_every_generated_goal_has_a_purchase_of_full_reward(env: Any) -> None:
    goals = env.goals
    for index in range(len(goals)):
        env.reset(options={"task_id": str(index)})
        goal = goals[index]
        reward, parts = env.reward_of(goal.asin, goal.goal_options)
        assert reward == 1.0, (goal, parts)
    wanted = {len(g.attributes) + len(g.goal_options) for g in goals}
    assert {1, 2, 3, 4, 5} <= wanted  # graded difficulty


def test_oracle_goes_on_from_a_disturbed_state(env: Any) -> None:
    _, info = env.reset(options={"task_id": "77"})
    for noise in ("search[lamp]", "click[next >]", "click[next >]", "foo", "click[back to search]"):
        env.step(noise)
    for command in env.oracle():
        *_, info = env.step(command)
    assert info["won"]


def test_oracle_recomputes_when_the_state_changes_under_it(env: Any) -> None:
    env.reset(options={"task_id": "78"})
    commands = env.oracle()
    env.step(next(commands))
    env.step("click[back to search]")
    info: dict[str, Any] = {}
    for command in commands:
        *_, info = env.step(command)
    assert info["won"]


def test_subgoals_that_are_not_understood(env: Any) -> None:
    env.reset(options={"task_id": "5"})
    assert env.achieved("dance with the shopkeeper") is None
    with pytest.raises(ValueError, match="sub-goal not understood"):
        next(iter(env.oracle("dance with the shopkeeper")))
    assert env.achieved("buy the product") is False
    assert env.achieved(env._goal()) is False


def test_unknown_task_and_split(env: Any, real_data: Any) -> None:
    for wrong in ("-1", "007", str(len(env.goals)), "abc", "", "1.0", "٣"):
        with pytest.raises(UnknownTaskError):
            env.reset(options={"task_id": wrong})
    with pytest.raises(UnknownSplitError, match="'train': "):
        gym.make("HiMAC-WebShop-Flat-v0", split="dev")
    # 13 human goals: all of them are test goals
    folder = str(real_data / "webshop")
    with pytest.raises(UnknownSplitError, match="'test': 13 tasks"):
        gym.make("HiMAC-WebShop-Flat-v0", data=folder, goals="human")
    human = gym.make("HiMAC-WebShop-Flat-v0", data=folder, goals="human", split="test").unwrapped
    assert list(human.task_ids()) == [str(n) for n in range(13)]
    assert len(human.task_ids("all")) == 13


def test_splits_are_the_published_ranges(env: Any, real_data: Any) -> None:
    official = gym.make("HiMAC-WebShop-Flat-v0", data=str(real_data / "webshop")).unwrapped
    for split, numbers in (
        ("test", range(500)), ("valid", range(500, 1500)), ("train", range(1500, 6910)),
    ):  # fmt: skip
        assert list(official.task_ids(split)) == [str(n) for n in numbers]
    other = gym.make("HiMAC-WebShop-Flat-v0", splits="verl-agent").unwrapped
    assert other.task_ids("train")[0] == "500"
    assert list(other.task_ids("train")) == [str(n) for n in range(500, len(env.goals))]
    ragen = gym.make("HiMAC-WebShop-Flat-v0", splits="ragen", split="valid").unwrapped
    assert ragen.reset(seed=1003)[1]["task_id"] == "503"


def test_no_goal_of_a_generated_shop_is_told_in_a_held_out_ones_words(env: Any) -> None:
    ids = {split: env.task_ids(split) for split in ("test", "valid", "train")}
    words = {
        split: {without_limit(env.goals[int(n)].instruction_text) for n in found}
        for split, found in ids.items()
    }
    assert not words["train"] & (words["valid"] | words["test"])
    assert not words["valid"] & words["test"]
    # Test tasks are all there; of the others a hundredth is left out, and nothing else.
    assert list(ids["test"]) == [str(n) for n in range(500)]
    everything = [int(n) for n in env.task_ids("all")]
    assert everything == list(range(len(env.goals)))
    for split, numbers in (("valid", range(500, 1500)), ("train", range(1500, len(env.goals)))):
        kept = [int(n) for n in ids[split]]
        assert kept == sorted(set(kept)) and set(kept) <= set(numbers)
        assert 0.98 * len(numbers) < len(kept) < len(numbers)
        left_out = next(n for n in numbers if n not in set(kept))
        assert str(left_out) not in ids[split] and str(kept[-1]) in ids[split]
        text = without_limit(env.goals[left_out].instruction_text)
        assert text in words["test"] | words["valid"]
        env.reset(options={"task_id": str(left_out)})  # an id names its goal as before


@pytest.mark.parametrize(
    "steps", [40_000, pytest.param(200_000, marks=pytest.mark.slow)], ids="{}_actions".format
)
def test_random_and_malformed_actions(env: Any, steps: int) -> None:
    """No exception, and memory stays flat once the caches are warm."""
    rng = random.Random(3)
    letters = "search[click] \x00\n\udcff🙂<r><c><q><a>[]]" + "abcdefgh"
    words = ["lamp", "dress", "<r>", "<c> beauty", "<q> table lamps", "<a> non slip", "<c>", "done"]

    def action(info: dict[str, Any]) -> Any:
        kind = rng.random()
        clickables = info["available_actions"]["clickables"]
        if kind < 0.62 and clickables:
            return f"click[{rng.choice(clickables)}]"
        if kind < 0.70:
            return f"search[{' '.join(rng.choices(words, k=rng.randint(1, 3)))}]"
        if kind < 0.90:
            return "".join(rng.choices(letters, k=rng.randint(0, 20)))
        if kind < 0.95:
            return rng.choice(["click[]", "search[]", "click[search]", "buy now", "think[x]"])
        return rng.choice([None, 7, b"click[buy now]", "click[" + "x" * 5000 + "]"])

    def play(steps: int) -> None:
        _, info = env.reset(options={"task_id": str(rng.randrange(len(env.goals)))})
        for number in range(steps):
            _, reward, terminated, truncated, info = env.step(action(info))
            assert 0.0 <= reward <= 1.0
            if (terminated and rng.random() < 0.9) or (truncated and number % 40 == 0):
                _, info = env.reset(options={"task_id": str(rng.randrange(len(env.goals)))})

    play(steps // 2)
    before = psutil.Process().memory_info().rss
    play(steps // 2)
    grown = psutil.Process().memory_info().rss - before
    assert grown < 8_000_000, f"{grown} bytes more after {steps // 2} steps"


def test_the_same_seed_gives_the_same_trace_in_two_processes() -> None:
    program = (
        "import gymnasium as gym, himac_envs, hashlib, numpy as np\n"
        "env = gym.make('HiMAC-WebShop-Flat-v0', max_steps=500)\n"
        "rng = np.random.default_rng(4)\n"
        "out = []\n"
        "o, info = env.reset(seed=9)\n"
        "for n in range(200):\n"
        "    cs = info['available_actions']['clickables']\n"
        "    click = f'click[{cs[int(rng.integers(len(cs)))]}]' if cs else 'search[mat]'\n"
        "    a = 'search[<r>]' if n % 7 == 0 else click\n"
        "    o, r, t, u, info = env.step(a)\n"
        "    out.append(repr((a, o, r, t, u, info)))\n"
        "    if t or u: o, info = env.reset()\n"
        "print(hashlib.sha256(''.join(out).encode()).hexdigest())\n"
    )
    import os

    traces = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "12345")
    }
    assert len(traces) == 1


def test_importing_the_suite_loads_none_of_the_shop() -> None:
    program = (
        "import sys, himac_envs\n"
        "bad = {'rapidfuzz', 'flask', 'jinja2', 'selenium', 'waitress', 'spacy', 'numba'}\n"
        "loaded = bad & set(sys.modules)\n"
        "loaded |= {m for m in sys.modules if m.startswith('himac_envs.webshop')}\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_further_environment_costs_little(env: Any) -> None:
    env.reset(seed=0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    more = [gym.make("HiMAC-WebShop-Flat-v0").unwrapped for _ in range(64)]
    for number, other in enumerate(more):
        other.reset(seed=number)
    each = (tracemalloc.get_traced_memory()[0] - before) / len(more)
    tracemalloc.stop()
    assert each < 100_000, f"{each:.0f} bytes an environment"
    assert all(other.catalogue is env.catalogue for other in more)


def test_no_global_random_state_is_read_or_changed(env: Any) -> None:
    random.seed(1)
    np.random.seed(1)
    state, state_np = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    first = env.reset(seed=3), env.step("search[<r>]")
    assert random.getstate() == state
    assert np.random.get_state()[1].tolist() == state_np  # type: ignore[index]
    random.seed(2)
    assert (env.reset(seed=3), env.step("search[<r>]")) == first
