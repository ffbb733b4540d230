"""OpenEnv's own server, clients and protocol around the environments, and what happens to them."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("openenv", reason="OpenEnv is not installed: pip install openenv")

import httpx
import psutil
import websockets
from adapters.servers import Clock, here, served, until
from openenv.core import GenericEnvClient

from himac_envs.adapters import Session
from himac_envs.adapters.openenv import HiMACClient, make_app, serving
from himac_envs.adapters.serving import IDLE_CODE, is_loopback, listen

FLAT = ["HiMAC-ALFWorld-Flat-v0", "HiMAC-WebShop-Flat-v0", "HiMAC-Sokoban-Flat-v0"]


def made(env_id: str) -> dict[str, Any]:
    return {} if "Sokoban" in env_id else {"data": "generated"}


@pytest.mark.parametrize(
    ("host", "here_only"),
    [("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("192.168.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_who_can_reach_an_address(host: str, here_only: bool) -> None:
    assert is_loopback(host) == here_only


# ---- playing -----------------------------------------------------------------------------------
def test_an_expert_wins_through_the_client(env_id: str) -> None:
    with serving(env_id, **made(env_id)) as url, HiMACClient(url).sync() as env:
        seen = env.reset(split="train", index=1)
        local = Session(env_id, **made(env_id))
        local.reset(seen.observation.task_id)
        assert seen.observation.task_id == local.task_ids("train")[1]
        total, phases = 0.0, {seen.observation.phase}
        while not seen.done:
            answer = local.expert()
            local.step(answer)
            seen = env.step(answer)
            phases.add(seen.observation.phase)
            assert (seen.observation.text, seen.reward) == (local.text, local.reward)
            assert seen.observation.admissible == local.admissible
            assert seen.observation.subgoal == local.subgoal
            total += seen.reward
        assert seen.observation.won and seen.observation.score == 1.0
        assert seen.observation.episode_return == pytest.approx(total)
        assert phases == ({"plan", "act"} if local.hierarchical else {""})
        state = env.state()
        assert (state.done, state.won, state.step_count) == (True, True, local.decisions)
        assert state.episode_id == state.task_id == local.task_id


def test_a_group_shares_its_task_and_a_seed_draws_the_same_everywhere() -> None:
    with serving(FLAT[2], split="valid") as url:
        first = [_opening(url, seed=7) for _ in range(3)]
        named = [_opening(url, task_id=first[0].task_id) for _ in range(2)]
    with serving(FLAT[2], split="valid") as url:
        again = _opening(url, seed=7)
    assert {(seen.task_id, seen.text) for seen in [*first, *named, again]} == {
        (again.task_id, again.text)
    }


def _opening(url: str, **arguments: Any) -> Any:
    with HiMACClient(url).sync() as env:
        return env.reset(**arguments).observation


def test_tasks_are_listed_by_openenvs_routes() -> None:
    env_id = FLAT[2]
    with serving(env_id) as url, httpx.Client(base_url=f"{url}/{env_id}", timeout=60) as http:
        ids = list(Session(env_id).task_ids("valid"))
        assert {"name": "train", "type": "train"} in http.get("/splits").json()
        assert http.post("/num_tasks", json={"split": "valid"}).json() == {"num_tasks": len(ids)}
        asked = {"split": "valid", "start": 2, "stop": 4}
        assert http.post("/task_range", json=asked).json()["tasks"] == [
            {"id": ids[2], "index": 2},
            {"id": ids[3], "index": 3},
        ]
        assert http.post("/task", json={"split": "valid", "index": 10**9}).status_code == 400
        nowhere = http.post("/num_tasks", json={"split": "nowhere"})
        assert nowhere.status_code == 404 and "Splits found there" in nowhere.json()["detail"]


# ---- any language ------------------------------------------------------------------------------
def test_json_over_a_bare_socket_is_enough() -> None:
    async def play(url: str) -> None:
        async with websockets.connect(url.replace("http", "ws") + "/ws") as ws:

            async def ask(message: Any) -> Any:
                await ws.send(message if isinstance(message, str) else json.dumps(message))
                return json.loads(await ws.recv())

            seen = await ask({"type": "reset", "data": {"seed": 3}})
            assert seen["type"] == "observation" and not seen["data"]["done"]
            seen = await ask({"type": "step", "data": {"text": "up"}})
            assert seen["data"]["observation"]["step"] == 1
            codes = [
                (await ask(message))["data"]["code"]
                for message in (
                    "{broken",
                    {"type": "dance"},
                    {"type": "step", "data": {"text": 5}},
                    {"type": "step", "data": {"text": "up", "more": 1}},
                    {"type": "reset", "data": {"task_id": "nowhere:1"}},
                    {"type": "reset", "data": {"colour": "red"}},
                )
            ]
            assert codes == [
                "INVALID_JSON",
                "UNKNOWN_TYPE",
                "VALIDATION_ERROR",
                "VALIDATION_ERROR",
                "EXECUTION_ERROR",
                "EXECUTION_ERROR",
            ]

    with serving(FLAT[2]) as url:
        asyncio.run(play(url))


@pytest.mark.parametrize(
    "message",
    [
        "[1]",
        '"reset"',
        "[" * 5_000,
        b"\xff\xfe",
        '{"type": "step"}',
        '{"type": "step", "data": null}',
        '{"type": "step", "data": {"text": "\\ud800 up"}}',
        json.dumps({"type": "step", "data": {"text": "up " * 100_000}}),
        '{"type": "step", "data": {"text": "up", "metadata": {"session": [1]}}}',
        '{"type": "reset", "data": {"seed": -1}}',
        '{"type": "reset", "data": {"seed": 1e400}}',
        '{"type": "reset", "data": {"task_id": {"a": 1}}}',
        '{"type": "reset", "data": {"split": 5, "index": true}}',
        '{"type": "reset", "data": {"self": 1}}',
    ],
)
def test_hostile_messages_are_answered(message: str | bytes) -> None:
    async def play() -> None:
        app = make_app(FLAT[2])
        async with here(app) as url, asyncio.timeout(60):
            address_of = url.replace("http", "ws") + "/ws"
            async with websockets.connect(address_of) as ws:
                await ws.send('{"type": "reset", "data": {"seed": 1}}')
                await ws.recv()
                await ws.send(message)
                assert json.loads(await ws.recv())["type"] in ("error", "observation")
            async with websockets.connect(address_of) as ws:
                await ws.send('{"type": "reset", "data": {"seed": 1}}')
                assert json.loads(await ws.recv())["type"] == "observation"
            await until(lambda: not len(app.state.sessions) and not len(app.state.sockets))

    asyncio.run(play())


def test_plain_http_has_sessions_too() -> None:
    with serving(FLAT[2], limit=2) as url, httpx.Client(base_url=url, timeout=60) as http:
        local = Session(FLAT[2])

        def begin(**more: Any) -> Any:
            return http.post("/reset", json={"seed": 5, **more})

        opened = begin(session="new").json()
        name, seen = opened["metadata"]["session"], opened
        local.reset(opened["observation"]["task_id"])
        while not seen["done"]:
            answer = local.expert()
            local.step(answer)
            body = {"action": {"text": answer}, "session": name}
            seen = http.post("/step", json=body).json()
            assert seen["observation"]["text"] == local.text
        assert seen["observation"]["won"]
        over = http.post("/step", json={"action": {"text": "up"}, "session": name})
        assert over.status_code == 409 and "the episode is over" in over.json()["detail"]
        assert begin(session=name).json()["metadata"]["session"] == name

        # Without a session OpenEnv's HTTP keeps nothing; the bound counts what is kept.
        assert begin().status_code == 200
        assert begin(task_id="nowhere:1").status_code == 404
        assert begin(split="valid").status_code == begin(index="x").status_code == 422
        assert begin(split="valid", index=0, task_id="a").status_code == 422
        lost = http.post("/step", json={"action": {"text": "up"}})
        assert lost.status_code == 410 and "call reset to begin one" in lost.json()["detail"]
        assert begin(session="new").status_code == 200
        full = begin(session="new")
        assert full.status_code == 503 and "2 of 2 sessions" in full.json()["detail"]
        assert http.delete(f"/sessions/{name}").json() == {"session": name, "closed": True}
        assert begin(session="new").status_code == 200
        gone = http.post("/step", json={"action": {"text": "up"}, "session": name})
        assert gone.status_code == 410
        assert begin(session="other").status_code == 410
        assert http.post("/step", json={"action": {}}).status_code == 422


def test_an_unknown_task_leaves_no_session_behind() -> None:
    with serving(FLAT[2], limit=1) as url, httpx.Client(base_url=url, timeout=60) as http:
        for _ in range(3):
            answer = http.post("/reset", json={"session": "new", "task_id": "nowhere:1"})
            assert answer.status_code == 404
        assert http.post("/reset", json={"session": "new"}).status_code == 200


def test_bad_calls_are_answered_and_the_session_goes_on() -> None:
    with serving(FLAT[2], max_steps=2) as url, HiMACClient(url).sync() as env:
        with pytest.raises(RuntimeError, match="no episode is open on this connection"):
            env.step("up")
        with pytest.raises(RuntimeError, match="there is no task 'nowhere:1'"):
            env.reset(task_id="nowhere:1")
        env.reset(seed=0)
        seen = env.step("\ud83d\ude00 nonsense \x00")
        assert seen.observation.invalid and not seen.done
        seen = env.step("<think>up?</think><action>up</action>")
        assert seen.done and seen.observation.truncated
        with pytest.raises(RuntimeError, match="the episode is over"):
            env.step("up")
        assert env.reset(seed=0).observation.step == 0


# ---- many at once ------------------------------------------------------------------------------
def test_sixty_four_sessions_see_only_their_own() -> None:
    """10,048 steps, each answer beside a twin's that plays alone."""
    env_id, clients, steps = FLAT[0], 64, 157
    kwargs = {**made(env_id), "max_steps": 40}

    async def one(url: str, number: int, ids: Any) -> int:
        twin = Session(env_id, **kwargs)
        crossed = played = 0
        async with HiMACClient(url) as env:
            while played < steps:
                task_id = ids[(number + 64 * played) % len(ids)]
                seen = await env.reset(task_id=task_id)
                twin.reset(task_id)
                while not seen.done and played < steps:
                    answer = twin.admissible[(7 * played + number) % len(twin.admissible)]
                    twin.step(answer)
                    seen = await env.step(answer)
                    got = seen.observation
                    crossed += (got.task_id, got.text, got.admissible, seen.reward) != (
                        *(task_id, twin.text, twin.admissible, twin.reward),
                    )
                    played += 1
        return crossed

    async def play() -> list[int]:
        app = make_app(env_id, limit=clients, **kwargs)
        ids = app.state.sessions.task_ids("train")
        async with here(app) as url:
            found = await asyncio.gather(*(one(url, n, ids) for n in range(clients)))
            await until(lambda: not len(app.state.sessions))
        return found

    assert asyncio.run(play()) == [0] * clients


def test_a_bound_on_sockets_is_told_in_openenvs_words() -> None:
    async def play() -> None:
        async with here(make_app(FLAT[2], limit=2)) as url:
            first, second, third = (HiMACClient(url) for _ in range(3))
            async with first, second:
                await first.reset()
                await second.reset()
                with pytest.raises(RuntimeError, match="CAPACITY_REACHED"):
                    await third.reset()
            await third.close()

    asyncio.run(play())


def test_a_killed_client_leaves_nothing() -> None:
    code = (
        "import json, sys, websockets.sync.client as c\n"
        "ws = c.connect(sys.argv[1])\n"
        "ws.send(json.dumps({'type': 'reset', 'data': {}})); ws.recv()\n"
        "print('playing', flush=True); ws.recv()\n"
    )

    async def play() -> None:
        app = make_app(FLAT[0], **made(FLAT[0]))
        async with here(app) as url:
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", code, url.replace("http", "ws") + "/ws"),
                stdout=asyncio.subprocess.PIPE,
            )
            assert client.stdout is not None
            assert await client.stdout.readline() == b"playing\n"
            assert len(app.state.sessions) == 1
            client.kill()
            await client.wait()
            await until(lambda: not len(app.state.sessions) and not len(app.state.sockets))

    asyncio.run(play())


def test_idle_sockets_are_closed_and_told_why() -> None:
    clock = Clock()

    async def play() -> None:
        app = make_app(FLAT[2], timeout=60, clock=clock)
        async with here(app) as url, HiMACClient(url) as idle, HiMACClient(url) as busy:
            silent = await websockets.connect(url.replace("http", "ws") + "/ws")
            await idle.reset(seed=0)
            await busy.reset(seed=0)
            clock.now = 50
            await busy.step("up")
            clock.now = 61
            assert app.state.sockets.sweep() == 2
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await silent.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == IDLE_CODE
            assert "not used for 60 s" in closed.value.rcvd.reason
            await until(lambda: len(app.state.sessions) == len(app.state.sockets) == 1)
            # Its client connects again by itself, with this call or the next; neither is mistaken
            # for one of the new connection.
            with pytest.raises((websockets.ConnectionClosed, RuntimeError)):
                await idle.step("up")
            with pytest.raises(RuntimeError, match="is closed: by its client, with its connection"):
                await idle.step("up")
            assert (await idle.reset(seed=0)).observation.step == 0
            assert (await busy.step("up")).observation.step == 2

    asyncio.run(play())


def test_a_server_sweeps_by_itself() -> None:
    async def listen_only(url: str) -> websockets.ConnectionClosed:
        async with asyncio.timeout(60), websockets.connect(url.replace("http", "ws") + "/ws") as ws:
            await ws.send('{"type": "reset", "data": {}}')
            await ws.recv()
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await ws.recv()
        return closed.value

    with serving(FLAT[2], timeout=0.2) as url:
        gone = asyncio.run(listen_only(url))
        assert gone.rcvd is not None and gone.rcvd.code == IDLE_CODE


def test_a_thousand_sessions_that_are_left_leave_memory_flat() -> None:
    clock, env_id = Clock(), FLAT[0]
    process = psutil.Process()

    def used() -> int:
        gc.collect()
        return process.memory_info().rss

    async def play() -> list[int]:
        app = make_app(env_id, limit=50, timeout=60, clock=clock, **made(env_id))
        found = []
        async with here(app) as url:
            for _ in range(20):
                # The sockets stay open: the clients neither close nor speak.
                left = [
                    await websockets.connect(url.replace("http", "ws") + "/ws") for _ in range(50)
                ]
                for ws in left:
                    await ws.send('{"type": "reset", "data": {"seed": 1}}')
                answers = [json.loads(await ws.recv()) for ws in left]
                assert {answer["type"] for answer in answers} == {"observation"}, answers
                assert len(app.state.sessions) == len(app.state.sockets) == 50
                clock.now += 61
                assert app.state.sockets.sweep() == 50
                await until(lambda: not len(app.state.sessions) and not len(app.state.sockets))
                del left
                found.append(used())
        return found

    found = asyncio.run(play())
    # After 200 sessions everything has been made once; 800 more add less than 10 KB each.
    assert found[-1] - found[3] < 8_000_000, found


# ---- the command -------------------------------------------------------------------------------
def test_a_restarted_server_tells_its_clients() -> None:
    arguments = ("sokoban", "--flat", "--split", "valid", "--port")
    with served(*arguments, "0") as (process, url):
        ours = HiMACClient(url, connect_timeout_s=60).sync()
        generic = GenericEnvClient(base_url=url, connect_timeout_s=60).sync()
        # The address is known before the server runs, so that the first request may wait.
        held = httpx.post(f"{url}/reset", json={"session": "new"}, timeout=60)
        name = held.json()["metadata"]["session"]
        task_id = ours.reset(seed=0).observation.task_id
        generic.reset(seed=0)
        assert ours.step("up").observation.step == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        for env, action in ((ours, "up"), (generic, {"text": "up"})):
            with pytest.raises((websockets.ConnectionClosed, ConnectionError)):
                env.step(action)
        with served(*arguments, url.rpartition(":")[2]) as (_, again):
            assert again == url
            with pytest.raises(RuntimeError, match=r"started \(again\) at .* reset"):
                ours.step("up")
            with pytest.raises(RuntimeError, match="no episode is open on this connection"):
                generic.step({"text": "up"})
            body = {"action": {"text": "up"}, "session": name}
            gone = httpx.post(f"{url}/step", json=body, timeout=60)
            assert gone.status_code == 410 and "started (again)" in gone.json()["detail"]
            assert ours.reset(seed=0).observation.task_id == task_id
            assert ours.step("up").observation.step == 1
            ours.close()
            generic.close()


def test_the_command_says_what_is_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    from himac_agents.cli import main

    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve-env", "sokoban", "--port", port]) == 1
        assert "is in use" in capfd.readouterr().err
    assert main(["serve-env", "sokoban", "--host", "192.0.2.1", "--port", "0"]) == 1
    assert "cannot be listened on" in capfd.readouterr().err
    assert main(["serve-env", "sokobann"]) == 1
    assert "Did you mean sokoban" in capfd.readouterr().err
    assert main(["serve-env", "HiMAC-Sokoban-Pixels-v0"]) == 1
    assert "has no text observations" in capfd.readouterr().err
    assert main(["serve-env", "sokoban", "--port", "0", "--max-sessions", "0"]) == 1
    assert "max_sessions=0: must be at least 1" in capfd.readouterr().err


def test_the_example_plays(run_example: Callable[..., str]) -> None:
    with serving(FLAT[0], data="generated", max_steps=5) as url:
        assert run_example("openenv_client.py", url) == "return 0.0 after 5 steps\n"
