"""BALROG's evaluation loop, in both forms of its repository, with an expert as the agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from himac_envs.adapters import EpisodeOverError, Session
from himac_envs.adapters.balrog import HiMACBalrogEnv, make_env
from himac_envs.errors import UnknownTaskError
from himac_envs.registry import benchmark_of


def made(env_id: str) -> dict[str, Any]:
    return {} if "Sokoban" in env_id else {"data": "generated"}


@pytest.mark.parametrize("old_steps", [False, True])
def test_an_expert_wins(env_id: str, old_steps: bool) -> None:
    name = benchmark_of(env_id) + ("" if "Flat" in env_id else "_hierarchical")
    env = make_env(old_steps=old_steps, **made(env_id))(name, "valid", config=None)
    assert env.session.env_id == env_id
    if old_steps:
        env.seed(3)
        obs = env.reset()
    else:
        obs, _info = env.reset(seed=3)
    assert env.get_instruction_prompt(instructions=None).startswith("You are in")
    twin = Session(env_id, **made(env_id))
    twin.reset(env.session.task_id)
    total = 0.0
    for _ in range(env.max_steps):
        said = twin.expert()
        twin.step(said)
        action = env.check_action_validity(said)
        if old_steps:
            obs, reward, done, _info = env.step(action)
        else:
            obs, reward, terminated, truncated, _info = env.step(action)
            done = terminated or truncated
        total += reward
        assert obs["text"]["long_term_context"] == twin.text and obs["image"] is None
        if done:
            break
    assert done and env.get_stats()["progression"] == 1.0 and env.get_stats()["won"]
    assert total == pytest.approx(env.session.episode_return) and not env.failed_candidates
    with pytest.raises(EpisodeOverError):
        env.step("look")
    env.close()


def test_tasks_are_splits_or_ids() -> None:
    first, again = (HiMACBalrogEnv("HiMAC-Sokoban-Flat-v0", "valid") for _ in range(2))
    assert first.reset(seed=5)[0] == again.reset(seed=5)[0]
    task_id = first.session.task_id
    assert task_id in first.session.task_ids("valid")
    named = HiMACBalrogEnv("HiMAC-Sokoban-Flat-v0", task_id)
    assert named.reset(seed=1)[0] == named.reset(seed=2)[0] == first.reset(seed=5)[0]
    with pytest.raises(UnknownTaskError, match="nowhere:1"):
        HiMACBalrogEnv("HiMAC-Sokoban-Flat-v0", "nowhere:1").reset(seed=0)


def test_answers_that_are_no_command_are_written_down_and_played() -> None:
    env = HiMACBalrogEnv("HiMAC-Sokoban-Flat-v0", "valid", max_steps=3)
    obs, _ = env.reset(seed=0)
    assert "Possible now: up" in obs["text"]["short_term_context"]
    assert env.check_action_validity("<action>up</action>") == "<action>up</action>"
    *_, info = env.step(env.check_action_validity("I would rather not."))
    assert env.failed_candidates == ["I would rather not."]
    assert info["invalid"] and info["step"] == 1
    assert env.check_action_validity("") == "look" and "" in env.language_action_space
    env.reset(seed=0)
    assert not env.failed_candidates


def test_other_names_stay_balrogs() -> None:
    def others(env_name: str, task: str, config: Any, render_mode: str | None = None) -> str:
        return f"{env_name}/{task}"

    assert make_env(others)("nle", "NetHackChallenge-v0", None) == "nle/NetHackChallenge-v0"
    with pytest.raises(ValueError, match="Unknown environment: nle"):
        make_env()("nle", "NetHackChallenge-v0", None)


def test_the_example_plays(run_example: Callable[..., str]) -> None:
    assert run_example("balrog_env.py") == "0.0 []\n"
