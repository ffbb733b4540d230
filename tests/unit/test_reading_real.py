"""What is written is read back: over the real games' and the real shop's own commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from himac_agents.prompts import make, read_blueprint, read_command
from himac_envs.blueprint import SUB_DONE

STYLES = ("compact", "compact-gather", "chat", "verl-agent")


def _steps(env: Any, tasks: int, steps: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Goal and info at the places of random walks through tasks spread over the split."""
    rng, ids = np.random.default_rng(3), env.task_ids("train")
    for k in np.linspace(0, len(ids) - 1, min(tasks, len(ids))).astype(int):
        _, info = env.reset(options={"task_id": ids[k]})
        for _ in range(steps):
            yield info["goal"], info
            command = info["admissible"][rng.integers(len(info["admissible"]))]
            _, _, terminated, truncated, info = env.step(command)
            if terminated or truncated:
                break


@pytest.mark.parametrize(
    ("env_id", "folder", "tasks", "steps", "least"),
    [
        ("HiMAC-ALFWorld-Flat-v0", "alfworld", 500, 15, 2_000),
        ("HiMAC-WebShop-Flat-v0", "webshop", 900, 15, 3_200),
        ("HiMAC-Sokoban-Flat-v0", None, 3, 5, 4),
    ],
)
def test_every_real_command_is_read_back(
    env_id: str, folder: str | None, tasks: int, steps: int, least: int, real_data: Path
) -> None:
    data: Any = "generated" if folder is None else real_data / folder
    if folder is not None and not data.is_dir():
        pytest.skip(f"no real {folder} data at {data}")
    env: Any = gym.make(env_id, data=data).unwrapped
    styles = {name: make(name, env_id) for name in STYLES}
    distinct: dict[str, None] = {}
    for goal, info in _steps(env, tasks, steps):
        known = [*info["admissible"], SUB_DONE]
        # The instruction itself may be searched for, and stands in no list.
        own = [f"search[{goal}]"] if folder == "webshop" else []
        distinct.update(dict.fromkeys([*known, *own]))
    env.close()
    assert len(distinct) >= least
    for name, style in styles.items():
        for command in distinct:
            # verl-agent reads in lower case, as the original does.
            expected = command.lower() if name == "verl-agent" else command
            written = style.write_command(command)
            assert style.read(written) == expected
            assert style.read(written, [command, "wait"]) == expected
            assert style.read(f"<think>\n1. no\n</think>\n\n{written}\n") == expected


def test_the_collected_answers(real_data: Path) -> None:
    path = real_data.parent / "cases" / "answers.json"
    if not path.is_file():
        pytest.skip(f"the collected answers are not at {path}")
    cases = json.loads(path.read_text(encoding="utf-8"))
    for case in cases["commands"]:
        assert read_command(case["answer"]) == case["command"], case["what"]
    for case in cases["blueprints"]:
        found = read_blueprint(case["answer"], "goal")
        assert found.valid == case["valid"], case["what"]
        assert not found.valid or found.texts() == case["subgoals"], case["what"]
