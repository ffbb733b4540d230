"""The one session behind every adapter: flat and hierarchical episodes as plain strings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from himac_envs.adapters import EpisodeOverError, MissingStackError, Session
from himac_envs.adapters.errors import NotTextError
from himac_envs.adapters.rows import read_kwargs, task_rows
from himac_envs.errors import UnknownTaskError
from himac_envs.registry import UnknownEnvError

BENCHMARKS = ("ALFWorld", "WebShop", "Sokoban")
FLAT = [f"HiMAC-{name}-Flat-v0" for name in BENCHMARKS]
HIERARCHICAL = [f"HiMAC-{name}-v0" for name in BENCHMARKS]


def session(env_id: str, **kwargs: Any) -> Session:
    return Session(env_id, data="generated", **kwargs)


def play(played: Session) -> list[str]:
    """What an expert says in a whole episode."""
    said = []
    while not played.done:
        said.append(played.expert())
        assert played.expert() == said[-1], "asked twice it says the same"
        played.step(said[-1])
    return said


@pytest.mark.parametrize("env_id", [*FLAT, *HIERARCHICAL])
def test_an_expert_wins_and_a_copy_of_its_answers_too(env_id: str) -> None:
    with session(env_id) as first, session(env_id) as second:
        assert first.hierarchical == (env_id in HIERARCHICAL)
        task = first.task_ids("train")[3]
        text = first.reset(task)
        assert first.goal in text and first.task_id == task and first.planning == first.hierarchical
        said = play(first)
        assert first.won and first.score == 1.0 and first.decisions == len(said)
        assert first.decisions <= (first.max_decisions or 0)
        assert first.summary()["step"] == len(said) - sum(
            s == "<sub_done>" or "1. " in s for s in said
        )
        second.reset(task)
        rewards = []
        for answer in said:
            second.step(f"<think>Is that so?</think>\n<action>{answer}</action>")
            rewards.append(second.reward)
        assert second.won and second.episode_return == sum(rewards) == first.episode_return
        assert second.text == first.text


@pytest.mark.parametrize("env_id", FLAT)
def test_verbatim_answers_are_not_read(env_id: str) -> None:
    with session(env_id) as read, session(env_id, verbatim=True) as plain:
        for one in (read, plain):
            one.reset(seed=4)
        dressed = f"<action>{read.expert()}</action>"
        read.step(dressed)
        plain.step(dressed)
        assert not read.invalid and plain.invalid
        assert plain.step(None) and plain.invalid


@pytest.mark.parametrize("env_id", [*FLAT, *HIERARCHICAL])
@pytest.mark.parametrize(
    "answer", ["", "\x00\ud800", "<think>for ever", "[" * 5_000, None, 7, b"x"]
)
def test_broken_answers_end_the_episode_in_time(env_id: str, answer: object) -> None:
    with session(env_id, max_steps=4) as played:
        played.reset(seed=1)
        while not played.done:
            played.step(answer)
            assert played.invalid or played.decisions == 1
        assert played.truncated and not played.won
        assert played.decisions <= (played.max_decisions or 0)


def test_an_episode_that_is_over_or_was_not_begun_takes_no_answer() -> None:
    with session(FLAT[0], max_steps=1) as played:
        for tell in (played.step, played.act, played.write_blueprint):
            with pytest.raises(EpisodeOverError, match="no episode has begun: reset"):
                tell("look")
        played.reset(seed=0)
        played.step("look")
        assert played.done
        for tell in (played.step, played.act, played.write_blueprint):
            with pytest.raises(EpisodeOverError, match="the episode is over: reset"):
                tell("look")
        with pytest.raises(EpisodeOverError):
            played.sub_done()
        with pytest.raises(EpisodeOverError):
            played.expert()
        played.reset(seed=0)
        assert not played.done and played.decisions == 0


@pytest.mark.parametrize("env_id", [*FLAT, *HIERARCHICAL])
def test_an_unknown_task_leaves_no_episode(env_id: str) -> None:
    with session(env_id) as played:
        played.reset(seed=0)
        with pytest.raises(UnknownTaskError):
            played.reset("no such task")
        with pytest.raises(EpisodeOverError):
            played.step("look")


def test_environments_without_text_and_without_a_name_are_refused() -> None:
    with pytest.raises(NotTextError, match="Pixels-v0 is not played in text"):
        Session("HiMAC-Sokoban-Pixels-v0")
    with pytest.raises(UnknownEnvError, match="Did you mean"):
        Session("HiMAC-Sokoban-Flatt-v0")


@pytest.mark.parametrize("env_id", [*FLAT, *HIERARCHICAL])
def test_the_same_seed_or_task_is_the_same_episode(env_id: str) -> None:
    group = [session(env_id) for _ in range(8)]
    texts = {one.reset(seed=11) for one in group}
    assert len(texts) == 1 and len({one.task_id for one in group}) == 1
    task = group[0].task_ids()[5]
    assert len({one.reset(task) for one in group}) == 1


def test_tools_win_without_free_text() -> None:
    with session(HIERARCHICAL[0], plan_hint="Call blueprint.") as played:
        assert played.reset(seed=2).endswith("Call blueprint.")
        subgoals = [line.split(". ", 1)[1] for line in played.expert().splitlines()]
        text = played.write_blueprint(subgoals)
        assert played.subgoal == subgoals[0] and text.endswith(f"Current sub-goal: {subgoals[0]}")
        while not played.done:
            said = played.expert()
            if said == "<sub_done>":
                before = played.info["step"]
                played.sub_done()
                assert played.info["step"] == before and played.info["option"]["reason"] == "done"
            else:
                played.act(said)
        assert played.won and "sub-goal" not in played.text


def test_tools_in_the_wrong_phase_are_answered() -> None:
    with session(HIERARCHICAL[0]) as played:
        played.reset(seed=2)
        played.act("look")
        assert played.subgoal == played.goal and played.info["step"] == 1
        assert not played.planning and played.decisions == 2
        text = played.write_blueprint(["find a mug"])
        assert text.startswith("A blueprint is not wanted now.")
        assert played.invalid and played.info["step"] == 2 and played.subgoal == played.goal
        played.reset(seed=2)
        played.sub_done()
        assert played.subgoal == played.goal and played.info["step"] == 0
    with session(FLAT[2]) as flat:
        flat.reset(seed=0)
        flat.write_blueprint(["up"])
        assert flat.invalid and flat.info["step"] == 1


@pytest.mark.parametrize("subgoals", [[], [""], [3, None], {}, 5, "", "\x00"])
def test_an_empty_blueprint_is_the_goal(subgoals: object) -> None:
    with session(HIERARCHICAL[0]) as played:
        played.reset(seed=2)
        played.write_blueprint(subgoals)
        assert played.info["blueprint_valid"] is False and played.subgoal == played.goal


def test_nobody_plays_for_ever() -> None:
    with session(HIERARCHICAL[2], replans=2) as played:
        played.reset(seed=0)
        assert played.max_decisions == 15 + 3 * (8 + 1)
        while not played.done:
            played.sub_done()
        assert played.decisions <= played.max_decisions


def test_the_commands_that_are_possible_are_listed_where_that_is_wanted() -> None:
    with session(HIERARCHICAL[2], list_admissible=True) as played:
        assert "Possible now" not in played.reset(seed=0)
        assert played.step("1. win").endswith("Possible now: up, down, left, right, <sub_done>")


@pytest.mark.parametrize("env_id", [*FLAT, *HIERARCHICAL])
def test_a_fork_goes_on_from_the_same_place(env_id: str) -> None:
    with session(env_id) as first:
        first.reset(seed=6)
        first.step(first.expert())
        with first.fork() as second, first.fork(state=False) as fresh:
            assert second.text == first.text and second.episode_return == first.episode_return
            assert play(first) == play(second)
            assert first.summary() == second.summary() and first.decisions == second.decisions
            assert second.env is not first.env
            with pytest.raises(EpisodeOverError):
                fresh.step("look")


def test_a_fork_shares_nothing_and_keeps_its_step_limit() -> None:
    with session(HIERARCHICAL[0], max_episode_steps=4) as first:
        first.reset(seed=6)
        first.step("1. look around")
        first.step("look")
        said = first.expert()
        with first.fork() as second, first.fork(max_episode_steps=2) as brief:
            assert second.expert() == said and second.info == first.info
            for shown, copied in (
                (first.info, second.info),
                (first.observation, brief.observation),
            ):
                assert shown is not copied
            assert first.info["admissible"] is not second.info["admissible"]
            left = 0
            while not second.done:
                second.step("look")
                left += 1
            assert left == 2 and second.truncated and not first.done
            brief.step("look")
            assert brief.truncated, "it has a limit of its own, and two steps were taken"


class _PaidPlans(gym.Wrapper[Any, Any, Any, Any]):
    """Pays for a blueprint too."""

    def step(self, action: Any) -> Any:
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, 1.0, terminated, truncated, info


def test_a_command_before_a_blueprint_counts_both_rewards_and_limits() -> None:
    with session(HIERARCHICAL[0]) as played:
        played.env = _PaidPlans(played.env)
        played.reset(seed=2)
        played.act("look")
        assert played.reward == played.episode_return == 2.0
        played.act("look")
        assert played.reward == 1.0 and played.episode_return == 3.0
    with session(HIERARCHICAL[0], max_episode_steps=1) as brief:
        brief.reset(seed=2)
        assert brief.act("look") == brief.text and brief.truncated and brief.decisions == 1


def test_pictures_where_there_are_some() -> None:
    with session(FLAT[2], image=True) as seen, session(FLAT[2]) as blind:
        seen.reset(seed=0)
        blind.reset(seed=0)
        assert seen.image is not None and seen.image.shape[2] == 3 and blind.image is None


def test_a_missing_stack_names_the_command_that_installs_it() -> None:
    error = MissingStackError("gem", "pip install gem-llm", ImportError("No module", name="gem"))
    assert str(error).endswith("Install it: pip install gem-llm") and error.name == "gem"


def test_the_session_loads_no_stack() -> None:
    code = (
        "import sys, himac_envs.adapters\n"
        "bad = {'torch', 'transformers', 'trl', 'verl', 'ray', 'gem', 'skyrl_gym', 'openenv',\n"
        "       'verifiers', 'inspect_ai', 'fastapi', 'himac_agents'}\n"
        "found = bad & {m.split('.')[0] for m in sys.modules}\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "absent", "install"),
    [
        ("gem", "gem", "pip install gem-llm"),
        ("skyrl", "skyrl_gym", "pip install skyrl-gym"),
        ("verl", "verl", "pip install verl"),
        ("verl_tools", "verl", "pip install verl"),
    ],
)
def test_an_adapter_without_its_stack_says_what_to_install(
    module: str, absent: str, install: str
) -> None:
    code = (
        f"import sys; sys.modules[{absent!r}] = None\n"
        "from himac_envs.adapters import MissingStackError\n"
        f"try:\n    import himac_envs.adapters.{module}\n"
        f"except MissingStackError as error:\n    assert {install!r} in str(error), error\n"
        "else:\n    raise SystemExit('it was imported')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_environments_of_others_are_played_too() -> None:
    gym.register("AdapterFruit-Flat-v0", "toy:FruitEnv")
    gym.register(
        "AdapterFruit-v0",
        "himac_envs.hierarchy:make_hierarchical",
        kwargs={"task": "toy:FruitEnv"},
    )
    try:
        for env_id in ("AdapterFruit-Flat-v0", "AdapterFruit-v0"):
            with Session(env_id, list_admissible=True) as played:
                assert "Task: get every fruit" in played.reset(seed=0)
                play(played)
                assert played.won and played.hierarchical == (env_id == "AdapterFruit-v0")
    finally:
        del gym.registry["AdapterFruit-Flat-v0"], gym.registry["AdapterFruit-v0"]


def test_the_code_of_the_documentation_wins() -> None:
    page = Path(__file__).parents[2] / "docs" / "adapters.md"
    code = page.read_text(encoding="utf-8").split("```python\n", 1)[1].split("```", 1)[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "1.0 True\n", done.stderr


def test_rows_of_every_trainer_name_a_task_and_what_it_is_played_in() -> None:
    found = task_rows(HIERARCHICAL[0], {"own": 1}, count=3, seed=4, data="generated", max_steps=7)
    again = task_rows(HIERARCHICAL[0], {"own": 1}, count=3, seed=4, data="generated", max_steps=7)
    assert found == again and len({row["task_id"] for row in found}) == 3
    for row in found:
        assert row["own"] == 1 and row["prompt"][0]["role"] == "system"
        assert "First answer with a blueprint" in row["prompt"][0]["content"]
        with Session(row["env_id"], **read_kwargs(row["env_kwargs"])) as played:
            played.reset(row["task_id"])
            assert played.task_id == row["task_id"] and played.max_decisions == 7 + 8 + 1
