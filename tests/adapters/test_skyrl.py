"""skyrl-gym's own registry and BaseTextEnv over the environments."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

skyrl_gym = pytest.importorskip(
    "skyrl_gym", reason="skyrl-gym is not installed: pip install skyrl-gym"
)

from skyrl_gym.envs.base_text_env import BaseTextEnv  # noqa: E402

import himac_envs.adapters.skyrl as himac  # noqa: E402
from himac_envs.adapters import EpisodeOverError  # noqa: E402
from himac_envs.adapters.errors import NoTaskError  # noqa: E402
from himac_envs.errors import UnknownTaskError  # noqa: E402


def make(row: dict[str, Any], **extras: Any) -> Any:
    """As SkyRL's generator makes it: the row's columns and the configuration's max_turns."""
    return skyrl_gym.make(row["env_class"], env_config={}, extras={**row, **extras})


def play(env: Any, prompt: list[dict[str, str]]) -> tuple[list[dict[str, str]], float, Any]:
    """The generator's loop, with an expert in the model's place."""
    messages, about = env.init(prompt)
    assert about["task_id"] == env.session.task_id
    total = 0.0
    while True:
        answer = env.session.expert()
        messages = [*messages, {"role": "assistant", "content": answer}]
        step = env.step(f"<think>hm</think><action>{answer}</action>")
        total += step["reward"]
        messages += step["observations"]
        if step["done"]:
            return messages, total, step


def test_an_expert_wins(env_id: str) -> None:
    row = himac.rows(env_id, count=1, seed=3, data="generated")[0]
    env = make(row)
    assert isinstance(env, BaseTextEnv)
    messages, total, step = play(env, row["prompt"])
    assert [m["role"] for m in messages[:3]] == ["system", "user", "assistant"]
    assert all(a["role"] != b["role"] for a, b in itertools.pairwise(messages))
    assert step["metadata"]["won"] and total == env.session.episode_return
    assert env.get_metrics()["success"] == 1.0
    assert BaseTextEnv.aggregate_metrics([env.get_metrics()] * 2)["success"] == 1.0
    again = env.step("look")
    assert again["done"] and again["reward"] == 0 and again["observations"] == []
    assert "the episode is over" in again["metadata"]["error"]
    env.close()


def test_rows_survive_a_file_and_groups_share_their_task(tmp_path: Path) -> None:
    import pandas

    rows = himac.rows("HiMAC-Sokoban-v0", count=4, room=[7, 7], boxes=2, max_steps=30)
    assert len({row["task_id"] for row in rows}) == 4
    kept = tmp_path / "train.parquet"
    pandas.DataFrame(rows).to_parquet(kept)
    row = pandas.read_parquet(kept).to_dict("records")[1]
    group = [make(row) for _ in range(8)]
    firsts = {env.init(list(row["prompt"]))[0][-1]["content"] for env in group}
    assert len(firsts) == 1 and group[0].session.task_id == rows[1]["task_id"]
    assert group[0].session.text.count("\n") > 6, "the row's room has seven rows"


def test_max_turns_ends_an_episode() -> None:
    row = himac.rows("HiMAC-ALFWorld-Flat-v0", count=1, data="generated")[0]
    env = make(row, max_turns=2)
    env.init(row["prompt"])
    assert not env.step("look")["done"]
    last = env.step("look")
    assert last["done"] and last["metadata"]["truncated"] and not last["metadata"]["won"]
    assert env.step("look")["metadata"]["error"]
    env.init(row["prompt"])
    assert not env.step("look")["done"]


def test_a_prompt_that_ends_with_a_user_is_continued() -> None:
    row = himac.rows("HiMAC-Sokoban-Flat-v0", count=1)[0]
    env = make(row)
    prompt = [{"role": "user", "content": "Play."}]
    messages, _ = env.init(prompt)
    assert len(messages) == 1 and messages[0]["content"].startswith("Play.\n\n")
    assert prompt == [{"role": "user", "content": "Play."}], "the row is left as it was"


def test_bad_input_is_answered() -> None:
    row = himac.rows("HiMAC-Sokoban-Flat-v0", count=1, max_steps=2)[0]
    with pytest.raises(NoTaskError, match=r"adapters\.skyrl\.rows"):
        make({**row, "task_id": None})
    with pytest.raises(ValueError, match="names no env_id"):
        make({**row, "env_id": None})
    with pytest.raises(ValueError, match="is not JSON"):
        make({**row, "env_kwargs": "{"})
    env = make(row)
    with pytest.raises(EpisodeOverError, match="no episode has begun"):
        env.step("up")
    with pytest.raises(UnknownTaskError):
        make({**row, "task_id": "no such task"}).init(row["prompt"])
    env.init(row["prompt"])
    broken = env.step("<action>\x00\ud800")
    assert broken["metadata"]["invalid"] and broken["reward"] == pytest.approx(-0.1)
    assert env.step("")["done"]
    himac.register()  # twice does no harm


def test_the_example_runs(run_example: Any) -> None:
    assert "'success': 1.0" in run_example("skyrl_episode.py")
