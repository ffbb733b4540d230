"""What an evaluation was of: its manifest, each task once, and the protocol that resamples."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from himac_agents.agents.agent import Executor, HiMACAgent, Planner, assemble
from himac_agents.agents.expert import Expert
from himac_agents.cli import main
from himac_agents.config import TrainConfig
from himac_agents.evaluation.evaluate import evaluate, evaluate_tasks, panel_of
from himac_agents.evaluation.manifest import manifest_of, prompts_hash
from himac_agents.evaluation.metrics import Record
from himac_agents.evaluation.resampled import evaluate_resampled, worker_tasks
from himac_agents.policies.base import Message, Sampling
from himac_agents.prompts import ChatPrompts, CompactPrompts, VerlAgentPrompts
from himac_agents.rollouts.pool import EnvPool

FLAT = "HiMAC-Sokoban-Flat-v0"
LEVEL = "#####\n#@$.#\n#####\n"


class Mute:
    """A policy that is never asked."""


def _pool(lanes: int = 2, **kwargs: Any) -> EnvPool:
    return EnvPool(lambda: gym.make(FLAT, max_steps=3, **kwargs), lanes)


def _random() -> HiMACAgent:
    return HiMACAgent.flat(Expert("random", seed=1))


def _levels(folder: Path, count: int) -> str:
    file = folder / "few.xsb"
    rows = "\n".join(LEVEL.replace("\n#@", "\n#" + " " * n + "@") for n in range(count))
    file.write_text("\n".join(_closed(block) for block in rows.split("\n\n")))
    return str(file)


def _closed(block: str) -> str:
    """A level whose upper and lower walls are as long as its middle."""
    _, middle, _ = block.strip().split("\n")
    wall = "#" * len(middle)
    return f"{wall}\n{middle}\n{wall}\n"


def test_a_manifest_tells_what_was_played_and_nothing_of_how_many_played_at_once() -> None:
    ids = list(_pool().task_ids("test")[:6])
    found = [
        evaluate_tasks(_random(), _pool(lanes), ids, seeds=(0, 4), split="test").manifest
        for lanes in (1, 5)
    ]
    assert found[0] == found[1]
    told = found[0]
    assert (told["env"], told["split"], told["tasks"], told["max_steps"]) == (FLAT, "test", 6, 3)
    assert told["sampling_seeds"] == [0, 4] and told["training_seeds"] == {"executor": None}
    assert told["data"]["name"] == "generated" and told["data"]["version"]
    assert told["prompts"] == {"planner": None, "executor": None}, "an expert reads no prompts"
    json.dumps(told)

    def hashes(ids: list[str], **kwargs: Any) -> tuple[str, str]:
        manifest = evaluate_tasks(_random(), _pool(**kwargs), ids).manifest
        return manifest["task_ids_sha256"], manifest["data"]["sha256"]

    same = hashes(ids)
    assert same == (told["task_ids_sha256"], told["data"]["sha256"])
    turned = hashes(ids[::-1])
    assert turned[0] != same[0] and turned[1] != same[1], "the order counts"
    other = hashes(ids, room=(7, 7))
    assert other[0] == same[0] and other[1] != same[1], "the same ids of other rooms"


def test_every_evaluation_result_carries_one() -> None:
    agent = HiMACAgent.shared(Expert("oracle", seed=0))
    found = evaluate(agent, "HiMAC-Sokoban-v0", "valid", 3, seeds=(2,)).to_json()["manifest"]
    assert (found["env"], found["split"], found["tasks"]) == ("HiMAC-Sokoban-v0", "valid", 3)
    assert found["sampling_seeds"] == [2] and found["history"] == "segment"
    # An evaluation that was interrupted and went on is the same one.
    pool = EnvPool(lambda: gym.make("HiMAC-Sokoban-v0"), 2)
    ids = panel_of(pool, "valid", 3)
    known = evaluate_tasks(agent, pool, ids[:2], seeds=(2,)).records
    stored = [Record.from_json(json.loads(json.dumps(r.to_json()))) for r in known]
    again = evaluate(agent, "HiMAC-Sokoban-v0", "valid", 3, seeds=(2,), known=stored)
    assert again.to_json()["manifest"] == found


def test_how_an_agent_is_asked_stands_in_the_manifest() -> None:
    config = TrainConfig(
        env="HiMAC-Sokoban-v0", flat_env=FLAT, seed=7, constrained=True, executor_history="episode"
    )
    agent = assemble(config, {"policy": Mute()}, ChatPrompts(benchmark="sokoban"), True)
    env = gym.make("HiMAC-Sokoban-v0", max_steps=9)

    def told(agent: HiMACAgent) -> dict[str, Any]:
        return manifest_of(agent, env, ["fast:0"], [], temperature=0.4, seeds=(3, 4))

    found = told(agent)
    assert found["training_seeds"] == {"planner": 7, "executor": 7}
    assert found["sampling_seeds"] == [3, 4] and found["temperature"] == 0.4
    assert found["admissible_only"] and found["history"] == "episode" and found["max_steps"] == 9
    assert found["prompts"]["planner"]["style"] == "ChatPrompts"
    assert found["data"]["sha256"] is None, "nothing was shown"
    untrained = assemble(config, {"policy": Mute()}, ChatPrompts(), True, trained=False)
    assert told(untrained)["training_seeds"] == {"planner": None, "executor": None}
    assert found["max_tokens"]["planner"] and found["max_tokens"]["executor"]
    assert told(_random())["max_tokens"] == {"planner": None, "executor": None}
    assert found["hierarchy"]["replans"] == 0 and not found["keep_thoughts"]
    # Episodes are others where sub-goals are cut short, answers are, or thoughts are read again.
    narrow = gym.make("HiMAC-Sokoban-v0", max_steps=9, subgoal_budget=3)
    cut = manifest_of(agent, narrow, ["fast:0"], [], temperature=0.4, seeds=(3, 4))
    assert {key for key in cut if cut[key] != found[key]} == {"hierarchy"}
    agent.executor.sampling, agent.executor.keep_thoughts = Sampling(0.4, 999), True
    assert {k for k in found if told(agent)[k] != found[k]} == {"max_tokens", "keep_thoughts"}
    flat_env = manifest_of(_random(), gym.make(FLAT), [], [], temperature=0.0, seeds=(0,))
    assert flat_env["hierarchy"] is None
    mixed = HiMACAgent(Planner(Mute(), training_seed=1), Executor(Mute(), training_seed=2))  # type: ignore[arg-type]
    assert told(mixed)["training_seeds"] == {"planner": 1, "executor": 2}
    flat = HiMACAgent.flat(Mute())  # type: ignore[arg-type]
    assert told(flat)["history"] == "episode" and told(flat)["prompts"]["planner"] is None
    flat.executor.history = 2
    assert told(flat)["history"] == 2


@dataclass(frozen=True, slots=True)
class OneWord(ChatPrompts):
    """Chat prompts with one more word behind each observation."""

    def observe(self, text: str, task: str, info: dict[str, Any]) -> Message:
        """See `Prompts.observe`."""
        message = ChatPrompts.observe(self, text, task, info)
        return Message(message.role, f"{message.content} Now.")


class NotForShops(CompactPrompts):
    """A style that cannot read a shop's pages."""

    def observe(self, text: str, task: str, info: dict[str, Any]) -> Message:
        """See `Prompts.observe`."""
        if "[SEP]" in text:
            raise KeyError("a shop")
        return CompactPrompts.observe(self, text, task, info)


def test_a_styles_hash_changes_with_any_word_that_is_read() -> None:
    styles = [
        CompactPrompts(), CompactPrompts(gather=True), CompactPrompts(remind=True), ChatPrompts(),
        ChatPrompts(think=True), ChatPrompts(benchmark="sokoban"), ChatPrompts(sub_done=False),
        VerlAgentPrompts(), OneWord(), NotForShops(),
    ]  # fmt: skip
    found = [prompts_hash(style) for style in styles]
    assert len(set(found)) == len(styles)
    assert found == [prompts_hash(style) for style in styles]


def test_each_task_is_played_exactly_once_a_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="task 'fast:0' is twice"):
        evaluate_tasks(_random(), _pool(), ["fast:0", "fast:1", "fast:0"])
    with pytest.raises(ValueError, match="seed 1 is twice"):
        evaluate(_random(), FLAT, "test", 2, seeds=(1, 1))
    levels = _levels(tmp_path, 3)
    asked = {"data": levels, "max_steps": 2}
    with pytest.warns(UserWarning, match="5 tasks were asked for, but split 'all' has 3"):
        found = evaluate(_random(), FLAT, "all", 5, seeds=(0, 1), env_kwargs=asked)
    assert Counter((r.task_id, r.seed) for r in found.records) == Counter(
        (f"few:{n}", seed) for n in range(3) for seed in (0, 1)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate(_random(), FLAT, "all", 3, env_kwargs=asked).manifest["tasks"] == 3
    args = ["eval", FLAT, "--agent", "random", "--data", levels, "--split", "all"]
    assert main([*args, "--episodes", "700", "--max-steps", "2"]) == 0
    assert "700 tasks were asked for, but split 'all' has 3" in capsys.readouterr().err


def test_workers_draw_from_orders_of_their_own() -> None:
    ids = [str(n) for n in range(140)]
    draws = [worker_tasks(ids, draw) for draw in range(3)]
    assert draws[1] == worker_tasks(ids, 1) and draws[0] != draws[1] != draws[2]
    for tasks in draws:
        # Of 140 games 128 draws with repeats meet 140 * (1 - (1 - 1/140) ** 128) = 84 or so.
        assert len(tasks) == 128 and 70 < len(set(tasks)) < 98
    assert worker_tasks(ids, 0, seed=1)[:-1] == worker_tasks(ids, 0)[1:], "seeds count up"
    # A worker plays every game once before any a second time.
    few = [worker_tasks(ids[:5], draw, workers=2) for draw in range(15)]
    for worker in range(2):
        played = [tasks[worker] for tasks in few]
        assert all(sorted(played[i : i + 5]) == ids[:5] for i in (0, 5, 10))


def test_repeats_of_a_game_are_sampled_anew_and_draws_are_told_apart(tmp_path: Path) -> None:
    data = _levels(tmp_path, 2)
    kwargs = {"data": data, "max_steps": 6}
    found = evaluate_resampled(_random(), FLAT, "all", 8, 3, env_kwargs=kwargs)
    told, result = found.to_json(), found.result
    assert len(result.records) == 24 and len(told["successes"]) == 3
    assert [r.seed for r in result.records] == [draw for draw in range(3) for _ in range(8)]
    assert [r.task_id for r in result.records] == [t for tasks in found.tasks for t in tasks]
    assert told["workers"] == 8 and set(told["distinct_tasks"]) <= {1, 2}
    assert told["mean"] == pytest.approx(result.success, abs=1e-6)
    assert told["least"] <= told["mean"] <= told["most"]
    assert result.manifest["resampled"] and result.manifest["tasks"] == 24
    again = evaluate_resampled(_random(), FLAT, "all", 8, 3, lanes=3, env_kwargs=kwargs)
    assert again.result.records == result.records and again.tasks == found.tasks
    rewards = {r.reward for r in result.records if r.task_id == "few:1"}
    assert len(rewards) > 1, "a repeat is another sample"
    once = evaluate_resampled(_random(), FLAT, "all", 2, 1, env_kwargs=kwargs)
    assert once.to_json()["sd"] is None
    with pytest.raises(ValueError, match="at least 1"):
        evaluate_resampled(_random(), FLAT, "all", 0)


def test_the_legacy_protocol_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [
        "eval", "--preset", "verl-agent-legacy", "--agent", "random", "--data", "generated",
        "--max-steps", "2", "--episodes", "4",
    ]  # fmt: skip
    file = tmp_path / "result.json"
    assert main([*args, "--draws", "2", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert found["episodes"] == 8 and len(found["draws"]["successes"]) == 2
    assert found["manifest"]["resampled"] and found["temperature"] == 0.4
    assert "successes" in capsys.readouterr().out
    for wrong, says in (
        (["--seeds", "0", "1"], "one seed"),
        (["--resume", "--records", str(tmp_path / "r.jsonl")], "cannot be resumed"),
    ):
        assert main([*args, *wrong]) == 1
        assert says in " ".join(capsys.readouterr().err.split())
    assert main(["eval", FLAT, "--agent", "random", "--draws", "3"]) == 1
    assert "same tasks again, give more --seeds" in " ".join(capsys.readouterr().err.split())


def test_a_style_may_hold_what_json_has_not() -> None:
    @dataclass(frozen=True)
    class Holding(CompactPrompts):
        pattern: object = object()
        words: tuple[str, ...] = ("a", "b")

    agent = HiMACAgent.flat(Mute())  # type: ignore[arg-type]
    agent.executor.prompts = Holding()
    found = manifest_of(agent, gym.make(FLAT), [], [], temperature=0.0, seeds=(0,))
    json.dumps(found)
    assert found["prompts"]["executor"]["pattern"] == "object", "not where it lies"
    assert found["prompts"]["executor"]["words"] == ["a", "b"]
