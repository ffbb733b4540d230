"""verifiers' own tasksets, seats, interception and evaluation command around the environments."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

vf = pytest.importorskip("verifiers.v1", reason="verifiers is not installed: pip install verifiers")

from adapters.expert_model import ExpertModel, completion  # noqa: E402
from chat_server import ChatServer, Reply  # noqa: E402

from himac_envs.adapters.verifiers import HiMACEnv, HiMACEnvConfig  # noqa: E402
from himac_envs.errors import UnknownSplitError  # noqa: E402
from himac_envs.registry import UnknownEnvError  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples" / "adapters"
SOKOBAN = "HiMAC-Sokoban-Flat-v0"


@pytest.fixture(autouse=True)
def _plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """verifiers imports `himac_tasks`, the user's module, by its name."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


def make(env_id: str, *, count: int = 2, single: bool = False, **kwargs: Any) -> HiMACEnv:
    kwargs.setdefault("data", "generated")
    if "Sokoban" in env_id:
        del kwargs["data"]
    taskset = {"id": "himac_tasks", "env_id": env_id, "count": count, "env_kwargs": kwargs}
    found = vf.load_environment(HiMACEnvConfig(taskset=taskset, single=single))
    assert isinstance(found, HiMACEnv)
    return found


def play(env: HiMACEnv, tasks: list[Any], answer: Callable[[Any], str | Reply]) -> list[Any]:
    """Episodes of the tasks, all at once, as verifiers' runners play them."""

    async def run(url: str) -> list[Any]:
        client = vf.EvalClientConfig(base_url=url, api_key_var="NO_KEY_IS_NEEDED")
        context = vf.ModelContext(model="expert", client=client)
        slots = [slot for task in tasks for slot in env.slots(task)]
        async with asyncio.timeout(120), env.serving():
            return await asyncio.gather(*(env.run_slot(slot, context) for slot in slots))

    with ChatServer(answer) as server:
        return asyncio.run(run(server.url))


def expert_for(env: HiMACEnv, tasks: list[Any]) -> ExpertModel:
    data = tasks[0].data
    return ExpertModel(data.env_id, [t.data.task_id for t in tasks], **data.env_kwargs)


def test_an_expert_wins_in_groups_of_eight(env_id: str) -> None:
    env = make(env_id)
    tasks = list(env.taskset)
    assert len({task.key for task in tasks}) == 2
    expert = expert_for(env, tasks)
    group = [tasks[1]] * 8
    episodes = play(env, group, expert.reply)
    assert [episode.errors for episode in episodes] == [[]] * 8
    assert {episode.task.key for episode in episodes} == {tasks[1].key}
    for episode in episodes:
        assert episode.ok
        seats = {trace.agent.name: trace for trace in episode.traces}
        assert set(seats) == ({"executor"} if "Flat" in env_id else {"planner", "executor"})
        first = {texts(trace)[0] for trace in seats.values()}
        assert len(first) == len(seats), "each seat has its own side of the task"
        for trace in seats.values():
            assert trace.metrics["success"] == trace.metrics["score"] == 1.0
            assert trace.metrics["invalid"] == 0
            assert trace.rewards["return"].score == seats["executor"].rewards["return"].score > 0
    assert len({texts(episode.traces[0])[0] for episode in episodes}) == 1


def texts(trace: Any) -> list[str]:
    """What the environment said in a conversation."""
    return [str(m.content) for m in trace.branches[-1].messages if m.role == "user"]


def test_one_agent_may_write_the_blueprint_too() -> None:
    env = make("HiMAC-Sokoban-v0", single=True)
    tasks = list(env.taskset)
    episodes = play(env, tasks, expert_for(env, tasks).reply)
    for episode in episodes:
        (trace,) = episode.traces
        assert trace.agent.name == "executor" and trace.metrics["success"] == 1.0
        assert "blueprint" in texts(trace)[0] and "Current sub-goal" in texts(trace)[1]


def test_two_tasks_at_once_do_not_mix() -> None:
    env = make("HiMAC-ALFWorld-Flat-v0", count=6)
    tasks = list(env.taskset)
    episodes = play(env, tasks, expert_for(env, tasks).reply)
    assert [e.task.data.task_id for e in episodes] == [t.data.task_id for t in tasks]
    assert all(e.traces[0].metrics["success"] == 1.0 for e in episodes)
    assert len({texts(e.traces[0])[0] for e in episodes}) == 6


def test_nonsense_costs_steps_and_the_episode_ends() -> None:
    env = make(SOKOBAN, max_steps=3)
    (episode,) = play(env, list(env.taskset)[:1], lambda _: completion("I would rather not."))
    (trace,) = episode.traces
    assert episode.ok and trace.num_turns == 3
    assert trace.metrics == {"success": 0.0, "score": 0.0, "steps": 3.0, "invalid": 3.0}
    assert trace.rewards["return"].score == pytest.approx(-0.3)


def test_a_seat_that_leaves_keeps_what_it_earned() -> None:
    env = make(SOKOBAN)
    env._agent_specs["executor"].max_turns = 2
    env.config.executor.max_turns = 2
    (episode,) = play(env, list(env.taskset)[:1], lambda _: completion("up"))
    (trace,) = episode.traces
    assert trace.num_turns == 2 and trace.stop_condition == "max_turns"
    assert trace.metrics["steps"] == 2.0


def test_an_unknown_task_fails_its_episode_only() -> None:
    env = make(SOKOBAN)
    good, other = list(env.taskset)
    bad = other.with_data(task_id="nowhere:1")
    expert = expert_for(env, [good])
    lost, won = play(env, [bad, good], expert.reply)
    assert not lost.ok and "there is no task 'nowhere:1'" in lost.errors[0].message
    assert won.ok and won.traces[0].metrics["success"] == 1.0


def test_a_model_that_fails_is_an_error_of_the_trace() -> None:
    env = make(SOKOBAN)
    broken = Reply({"error": {"message": "no such model"}}, status=404)
    (episode,) = play(env, list(env.taskset)[:1], lambda _: broken)
    assert not episode.ok
    told = [e.message for e in (*episode.errors, *(x for t in episode.traces for x in t.errors))]
    assert any("no such model" in message for message in told), told


def test_what_is_wrong_is_told_before_anything_is_played() -> None:
    with pytest.raises(UnknownEnvError, match="no environment"):
        list(make("HiMAC-Chess-v0").taskset)
    env = make(SOKOBAN)
    env.taskset.config.split = "everything"
    with pytest.raises(UnknownSplitError, match="not a split"):
        list(env.taskset)


def test_tasks_survive_the_wire() -> None:
    task = next(iter(make("HiMAC-ALFWorld-v0").taskset))
    wire = json.loads(task.data.model_dump_json())
    assert type(task.data).model_validate(wire) == task.data
    assert vf.WireTaskData.model_validate(wire).id == task.data.task_id


def test_the_evaluation_command_plays_the_users_module(
    tmp_path: Path, run_example: Callable[..., str]
) -> None:
    run_example("himac_tasks.py")
    env = make(SOKOBAN, count=2)
    expert = expert_for(env, list(env.taskset))
    with ChatServer(expert.reply) as server:
        done = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "vf-eval"), "himac_tasks", "-r", "2"),
                *("--env.taskset.env-id", SOKOBAN, "--env.taskset.count", "2"),
                *("--client.base-url", server.url, "--client.api-key-var", "NO_KEY", "-m", "any"),
                *("--no-push", "--no-rich", "--output-dir", str(tmp_path)),
            ],
            env={**os.environ, "PYTHONPATH": f"{EXAMPLES}:{EXAMPLES.parents[1]}"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    (found,) = tmp_path.rglob("traces.jsonl")
    episodes = [json.loads(line) for line in found.read_text("utf-8").splitlines()]
    assert len(episodes) == 4
