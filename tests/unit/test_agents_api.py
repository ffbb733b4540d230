"""A remote model: what it is asked, and what happens when the server or the line misbehaves."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from chat_server import ChatServer, Reply, chat_reply

from himac_agents.agents.agent import Executor, HiMACAgent, Planner
from himac_agents.agents.expert import Expert
from himac_agents.evaluation.evaluate import evaluate_tasks
from himac_agents.policies.base import Completion, Message, Prompt, Sampling
from himac_agents.policies.endpoint import Endpoint, read_options
from himac_agents.policies.remote import APIError, APIPolicy
from himac_agents.prompts import ChatPrompts
from himac_agents.rollouts.pool import EnvPool

pytest.importorskip("httpx")
ASK = Prompt((Message("system", "rules"), Message("user", "what now?")))


class Pauses:
    """Waits no time at all, and notes how long it was to wait."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.now = 1_000_000.0

    def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


def _policy(server: ChatServer, pauses: Pauses | None = None, **settings: Any) -> APIPolicy:
    pauses = pauses or Pauses()
    endpoint = Endpoint("tester", server.url, **{"key_env": "HIMAC_TEST_KEY", **settings})
    return APIPolicy(endpoint, seed=7, sleep=pauses.sleep, clock=pauses.clock)


def _ask(policy: APIPolicy, prompts: list[Prompt], sampling: Sampling) -> list[Completion]:
    """All at the same time."""

    async def together() -> list[Completion]:
        return await asyncio.gather(*(policy.sample(prompt, sampling) for prompt in prompts))

    return asyncio.run(together())


def _in_turn(*replies: Reply | str) -> Callable[[dict[str, Any]], Reply | str]:
    left = list(replies)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]


def test_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIMAC_TEST_KEY", "sk-secret")
    with ChatServer(
        lambda r: chat_reply("look", usage={"prompt_tokens": 30, "completion_tokens": 5})
    ) as server:
        policy = _policy(server, price_in=2.0, price_out=10.0, options={"top_p": 0.9})
        found = _ask(policy, [replace(ASK, noise=k) for k in (1, 2**40 + 5, 7)], Sampling(0.7, 64))
        _ask(policy, [ASK], Sampling(0.7, 64))
    assert [c.text for c in found] == ["look"] * 3 and found[0].written == 5
    assert found[0].error is None
    first = server.requests[0]
    assert first["model"] == "tester" and first["temperature"] == 0.7 and first["max_tokens"] == 64
    assert first["top_p"] == 0.9
    assert first["messages"] == [
        {"role": "system", "content": "rules"}, {"role": "user", "content": "what now?"},
    ]  # fmt: skip
    # The server's seed is the answer's noise, as far as servers take it.
    assert sorted(r["seed"] for r in server.requests) == [0, 1, (2**40 + 5) % 2**31, 7]
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"
    usage = policy.usage.to_json()
    assert (usage["answers"], usage["tokens_in"], usage["tokens_out"]) == (4, 120, 20)
    assert usage["cost"] == pytest.approx((120 * 2 + 20 * 10) / 1e6) and usage["estimated"] == 0


def test_fields_can_be_taken_out_and_pictures_are_sent() -> None:
    pytest.importorskip("PIL")
    picture = np.zeros((4, 6, 3), dtype=np.uint8)
    prompt = Prompt((Message("user", "see \ud800", (picture,)),))
    with ChatServer(lambda r: "up") as server:
        policy = _policy(server, options={"seed": None, "temperature": None})
        _ask(policy, [prompt], Sampling())
    (request,) = server.requests
    assert "seed" not in request and "temperature" not in request
    text, image = request["messages"][0]["content"]
    assert text == {"type": "text", "text": "see ?"}
    assert image["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert "Authorization" not in server.headers[0], "no key, no header"


@pytest.mark.parametrize(
    "bad",
    [
        Reply({"error": {"message": "slow down"}}, 429),
        Reply("oops", 500),
        Reply("", 503),
        Reply("not json {"),
        Reply('["a list"]'),
        Reply({"choices": []}),
        Reply({"choices": [{"no": "message"}]}),
        Reply({"error": {"message": "overloaded"}}),
        Reply("{", cut=True),
        Reply("not packed", 200, {"Content-Encoding": "gzip"}),
        Reply("[" * 100_000),
        Reply(silent=True),
    ],
    ids=lambda r: f"{r.status}-{str(r.body)[:12]}-{'cut' if r.cut else ''}{'silent' * r.silent}",
)
def test_what_may_pass_is_asked_again(bad: Reply) -> None:
    pauses = Pauses()
    with ChatServer(_in_turn(bad, bad, "look")) as server:
        policy = _policy(server, pauses, timeout=0.3 if bad.silent else 20.0)
        (found,) = _ask(policy, [ASK], Sampling())
    assert found.text == "look" and found.error is None
    assert policy.usage.retries == 2 and policy.usage.failed == 0 and len(server.requests) == 3
    assert 0.5 <= pauses.asked[0] <= 1.0 <= pauses.asked[1] <= 2.0, "growing pauses"
    with ChatServer(lambda r: bad) as server:
        policy = _policy(server, pauses, retries=1, timeout=0.3 if bad.silent else 20.0)
        (found,) = _ask(policy, [ASK], Sampling())
    assert found.text == "" and found.error is not None and "attempt 2" in found.error
    assert policy.usage.failed == 1 and "tester" in found.error


REFUSALS = [
    (400, {"error": {"message": "System role not supported"}}),
    (400, {"message": "Conversation roles must alternate user/assistant/user/assistant/..."}),
    (500, {"error": {"message": "Jinja Exception: System role not supported"}}),
    (400, {"error": {"message": "Developer instruction is not enabled for this model"}}),
    (422, {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "'user' or 'assistant'"}]}),
]


@pytest.mark.parametrize(("status", "body"), REFUSALS)
def test_a_refused_system_role_is_folded(status: int, body: dict[str, Any]) -> None:
    def answer(request: dict[str, Any]) -> Reply | str:
        system = any(m["role"] == "system" for m in request["messages"])
        return Reply(body, status) if system else "look"

    with ChatServer(answer) as server:
        policy = _policy(server, retries=0)
        found = [_ask(policy, [ASK], Sampling())[0] for _ in range(3)]
    assert all(one.text == "look" and one.error is None for one in found)
    assert len(server.requests) == 4, "noticed once, and kept to"
    assert server.requests[-1]["messages"] == [{"role": "user", "content": "rules\n\nwhat now?"}]
    assert policy.usage.failed == policy.usage.retries == 0
    with ChatServer(lambda r: Reply(body, status)) as server:
        policy = _policy(server, retries=0)
        found = [_ask(policy, [ASK], Sampling())[0] for _ in range(2)]
        assert all(one.error is not None and str(status) in one.error for one in found)
        # Nothing was learned from a server that refuses both.
        assert [len(r["messages"]) for r in server.requests] == [2, 1, 2, 1]


def test_an_answer_that_was_cut_says_so() -> None:
    short = chat_reply("<action>go to cabinet 1")
    short.body["choices"][0]["finish_reason"] = "length"
    with ChatServer(_in_turn(short, "look")) as server:
        found = [_ask(_policy(server), [ASK], Sampling())[0].cut for _ in range(2)]
    assert found == [True, False]


def test_retry_after_is_kept_to() -> None:
    pauses = Pauses()
    date = {"Retry-After": "Mon, 12 Jan 1970 13:47:10 GMT"}  # 30 s after the clock's beginning
    busy = [Reply("", 429, {"Retry-After": "7.5"}), Reply("", 503, date)]
    with ChatServer(_in_turn(*busy, "look")) as server:
        (found,) = _ask(_policy(server, pauses), [ASK], Sampling())
    assert found.text == "look" and pauses.asked == [7.5, 22.5]
    with ChatServer(lambda r: Reply("quota", 429, {"Retry-After": "86400"})) as server:
        (found,) = _ask(_policy(server, pauses), [ASK], Sampling())
    assert found.error is not None and "429" in found.error and "quota" in found.error
    assert len(server.requests) == 1, "nobody waits a day"


def test_what_is_refused_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIMAC_TEST_KEY", "sk-secret")
    long = Reply({"error": {"message": "context of sk-secret too long"}}, 400)
    with ChatServer(lambda r: long) as server:
        (found,) = _ask(_policy(server), [ASK], Sampling())
    assert found.error is not None and "too long" in found.error and "sk-secret" not in found.error
    assert len(server.requests) == 1
    for status, hint in ((401, "HIMAC_TEST_KEY"), (403, "HIMAC_TEST_KEY"), (404, "model")):
        with ChatServer(lambda r, s=status: Reply("", s)) as server:  # type: ignore[misc]
            policy = _policy(server)
            with pytest.raises(APIError, match=hint):
                _ask(policy, [ASK] * 40, Sampling())
            assert len(server.requests) <= 16, "the rest is not even asked"


def test_a_server_that_is_not_there() -> None:
    with ChatServer(lambda r: "look") as server:
        pass
    for retries, waits in ((6, 2), (1, 1), (0, 0)):
        pauses = Pauses()
        with pytest.raises(APIError, match="is the server running"):
            _ask(_policy(server, pauses, retries=retries), [ASK], Sampling())
        assert len(pauses.asked) == waits


def test_an_address_that_does_not_answer_is_not_a_slow_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import httpx

    def silence(*args: Any, **kwargs: Any) -> httpx.Response:
        raise httpx.ConnectTimeout("no route")

    with ChatServer(lambda r: "look") as server:
        policy = _policy(server)
        monkeypatch.setattr(policy._client, "post", silence)
        with pytest.raises(APIError, match="cannot connect"):
            _ask(policy, [ASK], Sampling())
        lost = APIPolicy(Endpoint("m", base_url="http://localhost:port/v1"), sleep=Pauses().sleep)
        with pytest.raises(APIError, match="not an address"):
            _ask(lost, [ASK], Sampling())


def test_answers_without_words_or_counts() -> None:
    parts = [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "go"}]
    with ChatServer(_in_turn(chat_reply(None), chat_reply(parts), "12345")) as server:  # type: ignore[arg-type]
        policy = _policy(server)
        found = [_ask(policy, [ASK], Sampling())[0] for _ in range(3)]
    assert [c.text for c in found] == ["", "go", "12345"] and not any(c.error for c in found)
    assert policy.usage.estimated == 3 and found[2].written == 2
    odd = [{"prompt_tokens": read, "completion_tokens": 1} for read in (-5, True)]
    with ChatServer(_in_turn(*(chat_reply("12345", usage=u) for u in odd))) as server:
        policy = _policy(server)
        assert [_ask(policy, [ASK], Sampling())[0].written for _ in odd] == [2, 2]
    assert policy.usage.estimated == 2 and policy.usage.tokens_in > 0


def test_the_cost_limit_ends_what_is_left() -> None:
    counted = chat_reply("look", usage={"prompt_tokens": 1_000, "completion_tokens": 0})
    with ChatServer(lambda r: counted) as server:
        policy = _policy(server, price_in=1.0, max_cost=0.003)
        found = [_ask(policy, [ASK], Sampling())[0] for _ in range(5)]
    assert [c.error is None for c in found] == [True] * 3 + [False] * 2
    assert "cost limit of $0.003" in str(found[4].error) and len(server.requests) == 3
    with pytest.raises(ValueError, match="prices"):
        Endpoint("m", max_cost=1.0)
    with pytest.raises(ValueError, match="http"):
        Endpoint("m", base_url="localhost:8000")
    with pytest.raises(ValueError, match="JSON object"):
        read_options("[1]")


def test_requests_run_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=20)
    with ChatServer(lambda r: "look") as server:
        inner = server._send

        def wait(handler: Any, reply: Reply) -> None:
            together.wait()  # passes only when four requests are being answered
            inner(handler, reply)

        server._send = wait  # type: ignore[method-assign]
        found = _ask(_policy(server, concurrency=4), [ASK] * 4, Sampling())
    assert [c.text for c in found] == ["look"] * 4


def _remote_expert(broken: str = "") -> Callable[[dict[str, Any]], str | Reply]:
    """A model that knows what the oracle would do: it plays a copy of the environment.

    Args:
        broken: Refuse requests that mention this.
    """
    env = gym.make("HiMAC-ALFWorld-v0", data="generated").unwrapped
    plans: dict[str, str] = {}
    for task_id in env.task_ids("valid")[:6]:  # type: ignore[attr-defined]
        observation, _ = env.reset(options={"task_id": task_id})
        plans[observation["text"]] = env.oracle_blueprint().render()  # type: ignore[attr-defined]

    def answer(request: dict[str, Any]) -> str | Reply:
        said = json.dumps(request["messages"])
        if broken and broken in said:
            return Reply({"error": {"message": "no"}}, 400)
        asked = request["messages"][-1]["content"]
        for first, plan in plans.items():
            if first in asked:
                return f"<think>1. nonsense</think>\n<blueprint>\n{plan}\n</blueprint>"
        return "<think>hm</think><action>look</action>"

    return answer


def test_a_remote_planner_above_a_local_executor_and_a_failing_episode() -> None:
    pool = EnvPool(lambda: gym.make("HiMAC-ALFWorld-v0", data="generated"), 6)
    ids = list(pool.task_ids("valid")[:6])
    pool[0].reset(options={"task_id": ids[2]})
    broken = str(pool[0].unwrapped.task._goal())  # type: ignore[attr-defined]
    prompts = ChatPrompts(benchmark="alfworld")
    with ChatServer(_remote_expert(broken)) as server:
        remote = _policy(server)
        local = Executor(Expert("oracle", prompts=prompts), prompts)
        agent = HiMACAgent(Planner(remote, prompts, Sampling(1.0, 512)), local)
        result = evaluate_tasks(agent, pool, ids, temperature=0.0)
    assert result.errors == sum(broken in m for m in _goals(ids)) >= 1
    assert result.success == 1 - result.errors / 6
    bad = [r for r in result.records if r.error]
    assert len(bad) == result.errors and "400" in str(bad[0].error) and bad[0].steps == 0
    told = result.to_json()
    assert told["usage"]["tester"]["answers"] == 6 - result.errors
    assert told["tokens"] == told["usage"]["tester"]["tokens_out"] > 0
    assert told["blueprint_valid"] == 1.0


def _goals(ids: list[str]) -> list[str]:
    env = gym.make("HiMAC-ALFWorld-v0", data="generated").unwrapped
    return [env.reset(options={"task_id": i})[1]["goal"] for i in ids]


def test_a_remote_agent_reads_the_rules_and_its_thoughts_are_not_shown_back() -> None:
    pool = EnvPool(lambda: gym.make("HiMAC-ALFWorld-v0", data="generated", max_steps=3), 2)
    prompts = ChatPrompts(benchmark="alfworld", think=True)
    with ChatServer(_remote_expert()) as server:
        agent = HiMACAgent.shared(_policy(server), prompts)
        result = evaluate_tasks(agent, pool, pool.task_ids("valid")[:2], temperature=0.0)
    assert result.success == 0 and result.env_steps == 6 and result.errors == 0
    assert len(server.requests) == 8
    acting = [r for r in server.requests if "Achieve the sub-goal" in r["messages"][0]["content"]]
    assert len(acting) == 6
    last = max(acting, key=lambda r: len(r["messages"]))["messages"]
    assert [m["role"] for m in last] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert last[2]["content"] == "<action>look</action>"
    assert "go to" in last[1]["content"] and "<sub_done>" in last[1]["content"]
