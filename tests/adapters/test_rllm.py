"""rLLM's two interfaces: a rollout against a model's address, and an environment to step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from adapters.expert_model import ExpertModel, completion
from chat_server import ChatServer, Reply

from himac_envs.adapters import EpisodeOverError, Session
from himac_envs.adapters.rllm import HiMACEnv, play, rows, score
from himac_envs.errors import UnknownTaskError

httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")
SOKOBAN = "HiMAC-Sokoban-Flat-v0"


def made(env_id: str) -> dict[str, Any]:
    return {} if "Sokoban" in env_id else {"data": "generated"}


def run(tasks: list[Any], answer: Any) -> list[dict[str, Any]]:
    """Episodes of the tasks at once, as rLLM's engine awaits them."""

    async def all_of(url: str) -> list[dict[str, Any]]:
        config = SimpleNamespace(base_url=url, model="expert", session_uid="s", metadata={})
        return await asyncio.gather(*(play(task, config) for task in tasks))

    with ChatServer(answer) as server:
        return asyncio.run(all_of(server.url))


def test_an_expert_wins_whatever_the_tasks_form(env_id: str) -> None:
    data = json.loads(json.dumps(rows(env_id, count=2, **made(env_id))))
    expert = ExpertModel(env_id, [row["task_id"] for row in data], **made(env_id))
    forms = [
        SimpleNamespace(id="0", instruction="", metadata=data[0]),
        SimpleNamespace(data=data[1], spec=None),
        data[1],
    ]
    found = run(forms, expert.reply)
    for artifacts in found:
        reward, solved = score(data[0], SimpleNamespace(artifacts=artifacts))
        assert solved and reward == artifacts["return"] > 0
        assert artifacts["score"] == 1.0 and artifacts["invalid"] == 0
    assert found[1] == found[2], "a group's members play one task"


def test_nonsense_costs_steps_and_the_episode_ends() -> None:
    (row,) = rows(SOKOBAN, count=1, max_steps=3)
    (found,) = run([row], lambda _: completion("I would rather not."))
    assert (found["steps"], found["invalid"], found["won"]) == (3, 3, False)
    assert score(row, SimpleNamespace(artifacts=found)) == (pytest.approx(-0.3), False)


def test_what_is_wrong_is_told() -> None:
    (row,) = rows(SOKOBAN, count=1)
    with pytest.raises(UnknownTaskError, match="nowhere:1"):
        run([{**row, "task_id": "nowhere:1"}], lambda _: completion("up"))
    with pytest.raises(httpx.HTTPStatusError, match="503"):
        run([row], lambda _: Reply({"error": "busy"}, status=503))
    with pytest.raises(ValueError, match="a task without a row"):
        run([SimpleNamespace(id="0", metadata={})], lambda _: completion("up"))


def test_the_environment_steps_as_rllms_base_has_it(env_id: str) -> None:
    row = rows(env_id, count=1, **made(env_id))[0]
    expert = Session(env_id, **made(env_id))

    def episode(number: int) -> tuple[str, float, bool]:
        env = HiMACEnv.from_dict(row)
        env.idx = number
        seen, info = env.reset()
        total, done = 0.0, False
        for answer in answers:
            seen, reward, done, info = env.step(SimpleNamespace(action=answer))
            total += reward
        assert env.idx == number and info["won"] and done
        with pytest.raises(EpisodeOverError):
            env.step("look")
        env.close()
        return seen, total, done

    expert.reset(row["task_id"])
    answers = []
    while not expert.done:
        answers.append(expert.expert())
        expert.step(answers[-1])
    assert HiMACEnv.is_multithread_safe()
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(episode, range(8)))
    assert found == {(expert.text, expert.episode_return, True)}


def test_a_reset_may_bring_another_task() -> None:
    one, other = rows(SOKOBAN, count=2)
    env = HiMACEnv(one)
    assert env.reset()[1]["task_id"] == one["task_id"]
    assert env.reset(task=other)[1]["task_id"] == other["task_id"]


def test_the_example_plays(run_example: Callable[..., str]) -> None:
    (row,) = rows("HiMAC-Sokoban-v0", count=1)
    expert = ExpertModel("HiMAC-Sokoban-v0", [row["task_id"]])
    with ChatServer(expert.reply) as server:
        said = run_example("rllm_rollout.py", server.url, "expert")
    assert said.startswith("return, solved: (") and said.endswith("True)\n")
