"""NeMo Gym's own server class over the environments, called as its Gymnasium agent calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

pytest.importorskip("nemo_gym", reason="NeMo Gym is not installed: pip install nemo-gym")

from fastapi.testclient import TestClient
from nemo_gym.server_utils import ServerClient

from himac_envs.adapters import Session
from himac_envs.adapters.nemo_gym import (
    HiMACResourcesServer,
    HiMACServerConfig,
    rows,
)

SOKOBAN = "HiMAC-Sokoban-Flat-v0"


def made(env_id: str) -> dict[str, Any]:
    return {} if "Sokoban" in env_id else {"data": "generated"}


def server(env_id: str, **settings: Any) -> HiMACResourcesServer:
    config = HiMACServerConfig(
        host="", port=0, entrypoint="", name="himac", env_id=env_id, **settings
    )
    return HiMACResourcesServer(config=config, server_client=MagicMock(spec=ServerClient))


def said(text: str) -> dict[str, Any]:
    """A model's answer in the form of the Responses API."""
    content = [{"type": "output_text", "text": text, "annotations": []}]
    message = {
        "id": "m", "type": "message", "role": "assistant", "status": "completed",
        "content": content,
    }  # fmt: skip
    return {
        "id": "r", "created_at": 0.0, "model": "m", "object": "response", "output": [message],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip


def test_an_expert_wins_and_a_group_shares_its_task(env_id: str) -> None:
    row = json.loads(json.dumps(rows(env_id, count=2, **made(env_id))[1]))
    app = server(env_id, env_kwargs=made(env_id)).setup_webserver()
    firsts = set()
    for _ in range(2):
        http, expert = TestClient(app), Session(env_id, **made(env_id))
        seen = http.post("/reset", json=row).json()
        firsts.add(seen["observation"])
        expert.reset(row["task_id"])
        total, ended = 0.0, False
        while not ended:
            answer = expert.expert()
            expert.step(answer)
            seen = http.post("/step", json={**row, "response": said(answer)}).json()
            total += seen["reward"]
            ended = seen["terminated"] or seen["truncated"]
            assert seen["observation"] == (None if ended else expert.text)
        assert seen["info"]["won"] and total == pytest.approx(expert.episode_return)
    assert len(firsts) == 1


def test_sessions_are_apart_bounded_and_closed() -> None:
    gym = server(SOKOBAN, max_sessions=2)
    app, (one, other) = gym.setup_webserver(), rows(SOKOBAN, count=2)
    first, second, third = (TestClient(app) for _ in range(3))
    a, b = first.post("/reset", json=one).json(), second.post("/reset", json=other).json()
    assert a["observation"] != b["observation"] and a["info"]["supports_explicit_close"]
    full = third.post("/reset", json=one)
    assert full.status_code == 503 and "2 of 2 sessions" in full.json()["detail"]
    seen = first.post("/step", json={**one, "response": said("up")}).json()
    assert seen["info"]["task_id"] == one["task_id"] and seen["info"]["step"] == 1
    assert first.post("/close", json={}).status_code == 200
    assert third.post("/reset", json=one).status_code == 200
    # A new episode takes the place of the rollout's old one.
    assert third.post("/reset", json=other).status_code == 200
    assert len(gym._sessions) == len(gym.session_state) == 2


def test_bad_calls_are_answered() -> None:
    gym = server(SOKOBAN, env_kwargs={"max_steps": 1})
    http, (row,) = TestClient(gym.setup_webserver()), rows(SOKOBAN, count=1)
    lost = http.post("/step", json={**row, "response": said("up")})
    assert lost.status_code == 410 and "no episode is open" in lost.json()["detail"]
    unknown = http.post("/reset", json={**row, "task_id": "nowhere:1"})
    assert unknown.status_code == 404 and "nowhere:1" in unknown.json()["detail"]
    assert not len(gym._sessions) and not gym.session_state
    assert http.post("/reset", json={}).status_code == 422
    http.post("/reset", json=row)
    seen = http.post("/step", json={**row, "response": said("I would rather not.")}).json()
    assert seen["info"]["invalid"] and seen["truncated"] and not seen["terminated"]
    over = http.post("/step", json={**row, "response": said("up")})
    assert over.status_code == 410, "a finished episode is closed"
    assert not len(gym._sessions)


def test_what_is_wrong_in_the_configuration_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="no environment"):
        server("HiMAC-Chess-v0")
    with pytest.raises(ValueError, match="max_sessions=0"):
        server(SOKOBAN, max_sessions=0)


def test_the_example_is_a_server(run_example: Callable[..., str]) -> None:
    assert run_example("nemo_gym_app.py", "--check") == "HiMACResourcesServer\n"
