"""ALFWorldEnv against the suite's contract, on generated and on official games."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import himac_envs  # noqa: F401  (registers the ids)
from himac_envs.alfworld.env import ALFWorldEnv
from himac_envs.alfworld.games import open_library
from himac_envs.errors import (
    HiMACError,
    MissingDependencyError,
    UnknownSplitError,
    UnknownTaskError,
)
from himac_envs.testing import check_task_env

ID = "HiMAC-ALFWorld-Flat-v0"


def make(**settings: Any) -> ALFWorldEnv:
    env = gym.make(ID, **{"data": "generated", **settings}).unwrapped
    assert isinstance(env, ALFWorldEnv)
    return env


@pytest.fixture
def official(real_data: Path) -> str:
    return str(real_data / "alfworld")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("settings", [
    {},
    {"split": "valid", "render_mode": "ansi", "reward": "verl-agent"},
    {"dialect": "2.1.1", "domain_randomization": True, "max_steps": 30},
    {"extra": ("facts", "inventory", "task_type", "expert"), "reward": "sparse"},
])  # fmt: skip
def test_conformance(settings: dict[str, Any]) -> None:
    check_task_env(make(**settings))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("settings", [
    {"split": "valid_seen"}, {"split": "all", "goals": "human", "domain_randomization": True},
])  # fmt: skip
def test_conformance_on_official_games(official: str, settings: dict[str, Any]) -> None:
    check_task_env(make(data=official, **settings))


def test_data_none_takes_the_installed_games_else_generates(
    official: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIMAC_HOME", str(tmp_path))
    _, info = make(data=None).reset(seed=0)
    assert info["data"] == "generated"
    assert info["task_id"].startswith("generated/train/")
    installed = tmp_path / "data" / "alfworld"
    installed.mkdir(parents=True)
    for archive in Path(official).glob("*.zip"):
        (installed / archive.name).symlink_to(archive)
    (installed / ".ready").touch()
    _, info = make(data=None).reset(seed=0)
    assert info["data"] == "alfworld/json_2.1.2_tw-pddl"
    assert info["task_id"].startswith("train/")


def test_errors_teach(official: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownSplitError, match="'train': 3553"):
        make(data=official, split="test")
    with pytest.raises(UnknownSplitError, match="'valid_seen': 140"):
        make(data=official, split="dev")
    with pytest.raises(FileNotFoundError, match="himac data get alfworld"):
        make(data=str(tmp_path / "nowhere"))
    for name, value in [
        ("goals", "poetic"), ("dialect", "3"), ("extra", ["gold"]), ("backend", "unity"),
        ("reward", "much"), ("render_mode", "human"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"{name}|{value}"):
            make(**{name: value})
    env = make(data=official)
    with pytest.raises(UnknownTaskError, match="Did you mean"):
        env.reset(options={"task_id": env.task_ids()[0][:-2]})
    with pytest.raises(ValueError, match="only 'task_id'"):
        env.reset(options={"task": "x"})
    with pytest.raises(HiMACError, match="no game is being played"):
        make().oracle()
    env = make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="not understood"):
        env.oracle("make the mug happy")
    with pytest.raises(HiMACError, match=r"json_2\.1\.1_json"):
        make(goals="human").reset(seed=0)


def test_rewards_and_ends() -> None:
    env = make(split="valid", max_steps=30)
    _, info = env.reset(seed=1)
    task = info["task_id"]
    total = 0.0
    for command in env.oracle():
        _, reward, terminated, truncated, info = env.step(command)
        total += reward
    assert (terminated, truncated, total, info["won"], info["score"]) == (True, False, 1, True, 1)
    # Going on after the end shows what the engine shows: here the goal still holds.
    _, reward, terminated, _, info = env.step("look")
    assert (reward, terminated, info["step"]) == (1.0, True, info["step"])
    verl = make(split="valid", reward="verl-agent", max_steps=3)
    verl.reset(options={"task_id": task})
    answers = [verl.step(c) for c in ("dance", "look", "dance")]
    assert [a[1] for a in answers] == [-0.1, 0.0, -0.1]
    assert [a[4]["invalid"] for a in answers] == [True, False, True]
    assert [a[3] for a in answers] == [False, False, True]
    assert answers[0][0]["text"] == "Nothing happens."


def test_human_goals_are_the_annotations(official: str) -> None:
    library = open_library(official)
    env = make(data=official, goals="human", split="train")
    seen = set()
    for seed in range(50):
        observation, info = env.reset(seed=seed)
        written = [
            ann["task_desc"]
            for ann in library.trajectory(info["task_id"])["turk_annotations"]["anns"]
        ]
        assert info["goal"] in written
        seen.add(written.index(info["goal"]))
        assert observation["text"].endswith(f"Your task is to: {info['goal']}.")
        assert library.game(info["task_id"]).goal_text not in observation["text"]
    assert len(seen) > 1


def test_shuffled_numbers_change_names_only(official: str) -> None:
    plain = make(data=official, split="valid")
    shuffled = make(data=official, split="valid", domain_randomization=True)
    changed = 0
    for seed in range(10):
        task = plain.task_ids()[seed * 7]
        first, _ = plain.reset(seed=seed, options={"task_id": task})
        second, info = shuffled.reset(seed=seed, options={"task_id": task})
        again, _ = shuffled.reset(seed=seed, options={"task_id": task})
        assert second == again
        changed += first != second
        bare = [
            " ".join(w for w in o["text"].split() if not w[0].isdigit()) for o in (first, second)
        ]
        assert bare[0] == bare[1]
        assert info["admissible"] == sorted(info["admissible"])
        for command in shuffled.oracle():
            _, _, won, _, _ = shuffled.step(command)
        assert won
    assert changed > 5


def test_dialects(official: str) -> None:
    env = make(data=official, dialect="2.1.1", split="valid")
    _, info = env.reset(seed=0)
    assert "help" not in info["admissible"]
    texts = [env.step(command)[0]["text"] for command in env.oracle()]
    assert any(text.startswith("You arrive at loc ") for text in texts)
    assert any(" in/on " in text for text in texts) or "lamp" in info["goal"]
    assert env.step("help")[4]["invalid"]


def test_extra_info() -> None:
    env = make(extra=("facts", "inventory", "task_type", "expert"))
    _, info = env.reset(seed=2)
    assert info["inventory"] == "You are not carrying anything."
    assert not any(fact.startswith("holds(") for fact in info["facts"])
    steps = 0
    while info["expert"]:
        command = info["expert"]
        assert command in info["admissible"]
        _, _, won, _, info = env.step(command)
        steps += 1
        if command.startswith("take "):
            thing = command.removeprefix("take ").split(" from ")[0]
            assert info["inventory"] == f"You are carrying: a {thing}."
            assert f"holds(agent1 : agent, {thing}: object)" in info["facts"]
    assert won
    assert steps > 3


def trace(env: ALFWorldEnv, seed: int, steps: int) -> str:
    rng = random.Random(seed)
    digest = hashlib.sha256()
    _, info = env.reset(seed=seed)
    for _ in range(steps):
        command = rng.choice(info["admissible"])
        observation, reward, terminated, truncated, info = env.step(command)
        digest.update(json.dumps([observation, reward, terminated, truncated, info]).encode())
        if terminated or truncated:
            _, info = env.reset()
            digest.update(info["task_id"].encode())
    return digest.hexdigest()


TRACE = """
import random, sys
sys.path[:0] = {paths!r}
from test_alfworld_env import make, trace
print(trace(make(**{settings!r}), 7, 200))
"""


@pytest.mark.parametrize("settings", [{}, {"domain_randomization": True, "split": "test"}])
def test_the_same_seed_in_another_process(settings: dict[str, Any]) -> None:
    here = Path(__file__).resolve()
    code = TRACE.format(paths=[str(here.parent), str(here.parents[2])], settings=settings)
    told = set()
    for hash_seed in ("0", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        told.add(run.stdout.strip())
    assert told == {trace(make(**settings), 7, 200)}


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_in_mid_episode_go_on_alike(copier: Any) -> None:
    env = make(domain_randomization=True, extra=("expert",))
    _, info = env.reset(seed=4)
    for _ in range(3):
        _, _, _, _, info = env.step(info["expert"])
    twin = copier(env)
    saved = env.snapshot()
    commands = ["look", "inventory", info["admissible"][0], "look"]
    mine = [env.step(command) for command in commands]
    assert [twin.step(command) for command in commands] == mine
    env.restore(saved)
    assert [env.step(command) for command in commands] == mine
    assert env.reset()[1]["task_id"] == twin.reset()[1]["task_id"]
    assert len(pickle.dumps(env)) < 200_000


def test_an_expert_can_be_listed_and_survives_wasted_steps() -> None:
    env = make(split="valid")
    env.reset(seed=8)
    plan = list(env.oracle())
    assert list(env.explorer(rng=np.random.default_rng(0)))
    commands = env.oracle()
    for number, expected in enumerate(plan):
        assert next(commands) == expected
        if number % 2:
            env.step("look")  # a step without effect, instead of the command
            assert next(commands) == expected
        won = env.step(expected)[2]
    assert won
    assert list(commands) == []


def test_the_explorer_is_on_the_environment() -> None:
    env = make(split="valid")
    env.reset(seed=3)
    for text in env.oracle_blueprint().texts():
        assert env.achieved(text) is False
        for command in env.explorer(text, np.random.default_rng(0)):
            _, _, won, _, _ = env.step(command)
        assert env.achieved(text)
    assert won


BROKEN = ["", "\x00", "go to", "take from", "put x in/on y", "\ud800", "go to " * 500, "help me"]


def random_play(settings: dict[str, Any], steps: int, games: int) -> None:
    """Random commands, a tenth of them broken; memory and open files stay as after a third."""
    psutil = pytest.importorskip("psutil")
    env = make(**settings)
    tasks = list(env.task_ids()[:games])
    env.task_ids = lambda split=None: tasks  # type: ignore[method-assign]
    rng = random.Random(0)
    process = psutil.Process()
    _, info = env.reset(seed=0)
    for step in range(steps):
        if step == steps // 3:
            memory, files = process.memory_info().rss, process.num_fds()
        command = rng.choice(BROKEN) if rng.random() < 0.1 else rng.choice(info["admissible"])
        _, _, terminated, truncated, info = env.step(command)
        if terminated or truncated:
            _, info = env.reset()
    assert process.memory_info().rss - memory < 8_000_000
    assert process.num_fds() <= files


def test_random_play_leaks_nothing() -> None:
    random_play({"split": "valid"}, steps=20_000, games=40)


@pytest.mark.slow
def test_a_million_random_steps(official: str) -> None:
    random_play({"data": official, "split": "valid"}, steps=1_000_000, games=140)


def test_the_original_as_backend_names_what_is_missing() -> None:
    if importlib.util.find_spec("textworld") and importlib.util.find_spec("alfworld"):
        pytest.skip("the original is installed here")
    with pytest.raises(MissingDependencyError, match=r"himac\[reference\]"):
        make(backend="textworld").reset(seed=0)
