"""AgentGym's experience loop over its client for the environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from himac_envs.adapters import Session
from himac_envs.adapters.agentgym import HiMACEnvClient

SOKOBAN = "HiMAC-Sokoban-Flat-v0"


def made(env_id: str) -> dict[str, Any]:
    return {} if "Sokoban" in env_id else {"data": "generated"}


def experience(client: HiMACEnvClient, idx: int, expert: Session) -> tuple[list[str], float]:
    """What AgentGym's task does with a client, the model's part played by an expert."""
    client.reset(idx)
    reward, done, state = 0.0, False, client.observe()
    talk = [turn["value"] for turn in client.conversation_start] + [state]
    while not done:
        answer = expert.expert()
        expert.step(answer)
        said = answer if client.session.planning else f"Thought:\nWell.\n\nAction:\n{answer}"
        output = client.step(f"{said}</s>")
        state, reward, done = output.state, output.reward, output.done
        talk += [said, state]
    return talk, reward


def test_an_expert_wins(env_id: str) -> None:
    client = HiMACEnvClient(env_id, env_server_base="unused", data_len=200, **made(env_id))
    assert len(client) == len(client.session.task_ids("train")) > 3
    assert [turn["from"] for turn in client.conversation_start] == ["human", "gpt"]
    expert = Session(env_id, **made(env_id))
    expert.reset(client.session.task_ids("train")[3])
    talk, reward = experience(client, 3, expert)
    assert reward == 1.0 and client.session.won and not client.session.invalid
    assert len(talk) % 2 == 1 and all(talk)
    over = client.step("Action:\nlook")
    assert over.done and over.reward == 1.0 and "The episode is over" in over.state
    assert client.close() == {"closed": True}


def test_a_number_is_the_same_task_for_all_members() -> None:
    members = [HiMACEnvClient(SOKOBAN) for _ in range(3)]
    assert len({member.reset(7)["observation"] for member in members}) == 1
    assert members[0].reset(8) != members[1].reset(7)


def test_bad_input_is_answered() -> None:
    client = HiMACEnvClient(SOKOBAN, max_steps=2)
    client.reset(0)
    output = client.step("Thought: I would rather not.")
    assert client.session.invalid and not output.done
    assert client.step("Action: up").done
    with pytest.raises(IndexError, match="there is no task"):
        client.reset(len(client))
    with pytest.raises(IndexError, match="there is no task -1"):
        client.reset(-1)
    with pytest.raises(ValueError, match="'react'"):
        HiMACEnvClient(SOKOBAN, action_format="function_calling")


def test_the_example_plays(run_example: Callable[..., str]) -> None:
    tasks = len(Session(SOKOBAN).task_ids("valid"))
    assert run_example("agentgym_client.py") == f"{tasks} tasks; reward 0.0\n"
