"""Inspect's own evaluation over the three benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

inspect_ai = pytest.importorskip(
    "inspect_ai", reason="Inspect is not installed: pip install inspect-ai"
)

from adapters.expert_model import ExpertModel  # noqa: E402
from inspect_ai.model import ChatMessage, ModelOutput, ModelUsage, get_model  # noqa: E402

from himac_envs.adapters import inspect_ai as himac  # noqa: E402
from himac_envs.errors import UnknownSplitError  # noqa: E402
from himac_envs.registry import UnknownEnvError, find_env  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples" / "adapters"
BENCHMARKS = ("alfworld", "webshop", "sokoban")
Answer = Callable[[list[dict[str, str]]], str]


def data(name: str) -> dict[str, Any]:
    return {} if name == "sokoban" else {"data": "generated"}


def model(answer: Answer) -> Any:
    """Inspect's mock model, which says what it is told."""

    def output(messages: list[ChatMessage], *rest: Any) -> ModelOutput:
        said = answer([{"role": m.role, "content": m.text} for m in messages])
        found = ModelOutput.from_content("mockllm", said)
        # Else Inspect counts with a file that it downloads.
        found.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return found

    return get_model("mockllm/model", custom_outputs=output, memoize=False)


def run(task: Any, answer: Answer, folder: Path, **options: Any) -> Any:
    (log,) = inspect_ai.eval(
        task, model=model(answer), display="none", log_dir=str(folder), **options
    )
    return log


def values(log: Any) -> list[dict[str, float]]:
    return [sample.scores["episode"].value for sample in log.samples]


@pytest.mark.parametrize("hierarchical", [False, True])
@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_expert_wins_each_benchmark(name: str, hierarchical: bool, tmp_path: Path) -> None:
    task = getattr(himac, name)(count=3, hierarchical=hierarchical, **data(name))
    ids = [sample.id for sample in task.dataset]
    env_id = find_env(name, flat=not hierarchical).id
    expert = ExpertModel(env_id, ids, split="test", **data(name))
    log = run(task, expert.answer, tmp_path, epochs=2)
    assert log.status == "success", log.error
    assert sorted(sample.id for sample in log.samples) == sorted(ids * 2)
    assert all(v["success"] == v["score"] == 1.0 and v["invalid"] == 0 for v in values(log))
    (success, *_others) = (s for s in log.results.scores if s.name == "success")
    assert success.metrics["mean"].value == 1.0 and success.metrics["stderr"].value == 0.0
    first = log.samples[0].messages
    assert [m.role for m in first[:3]] == ["system", "user", "assistant"]
    assert first[-1].role == "user", "what came of the last answer is on record"


def test_another_model_may_plan(tmp_path: Path) -> None:
    task = himac.sokoban(count=2, hierarchical=True)
    expert = ExpertModel("HiMAC-Sokoban-v0", [s.id for s in task.dataset], split="test")
    asked = {"planner": 0, "executor": 0}

    def say(who: str) -> Answer:
        def answer(messages: list[dict[str, str]]) -> str:
            asked[who] += 1
            return expert.answer(messages)

        return answer

    log = run(task, say("executor"), tmp_path, model_roles={"planner": model(say("planner"))})
    assert log.status == "success" and all(v["success"] == 1.0 for v in values(log))
    assert asked["planner"] == 2 and asked["executor"] == sum(v["steps"] for v in values(log)) + (
        _sub_dones(log)
    )


def _sub_dones(log: Any) -> int:
    return sum(m.text == "<sub_done>" for s in log.samples for m in s.messages)


def test_nonsense_costs_steps_and_the_episode_ends(tmp_path: Path) -> None:
    task = himac.sokoban(count=1, max_steps=4, reward="verl-agent")
    log = run(task, lambda _: "I would rather not.", tmp_path)
    assert values(log) == [
        {"success": 0.0, "score": 0.0, "return": pytest.approx(-0.4), "steps": 4, "invalid": 4}
    ]
    assert log.samples[0].scores["episode"].metadata == {"truncated": True}


@pytest.mark.parametrize("limit", [{"message_limit": 6}, {"token_limit": 5}])
def test_a_limit_of_inspects_leaves_an_episode_as_it_stands(
    limit: dict[str, int], tmp_path: Path
) -> None:
    log = run(himac.sokoban(count=1), lambda _: "up", tmp_path, **limit)
    assert log.status == "success" and log.samples[0].limit is not None
    (found,) = values(log)
    assert found["success"] == 0.0 and 1 <= found["steps"] <= 3


def test_what_is_wrong_is_told_before_the_first_sample() -> None:
    with pytest.raises(UnknownSplitError, match="not a split"):
        himac.sokoban(split="everything")
    with pytest.raises(UnknownEnvError, match="no environment"):
        himac.himac("HiMAC-Chess-v0")
    with pytest.raises(ValueError, match="max_steps=0"):
        himac.sokoban(max_steps=0)


def test_a_task_that_is_gone_is_an_error_of_its_sample(tmp_path: Path) -> None:
    task = himac.sokoban(count=2)
    lost, kept = task.dataset
    lost.metadata["task_id"] = "nowhere:1"
    log = run(task, lambda _: "up", tmp_path, fail_on_error=False)
    errors = {sample.id: sample.error for sample in log.samples}
    assert "there is no task 'nowhere:1'" in errors[lost.id].message and errors[kept.id] is None


def test_the_example_is_found_by_its_path(run_example: Callable[..., str], tmp_path: Path) -> None:
    run_example("inspect_tasks.py")
    log = run(
        str(EXAMPLES / "inspect_tasks.py@sokoban"),
        lambda _: "down",
        tmp_path,
        task_args={"count": 2, "max_steps": 2},
    )
    assert log.status == "success" and [v["steps"] for v in values(log)] == [2, 2]
