"""The command that measures what is held out."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import himac_envs
from himac_envs import held_out

assert himac_envs


def test_shares_are_of_the_held_out_tasks_and_among_training_ones_alone() -> None:
    splits = {
        "train": {"letter": list("aab"), "number": [1, 2, 3]},
        "valid": {"letter": list("cc"), "number": [1, 9]},
        "test": {"letter": list("bcac"), "number": [9, 9, 9, 9]},
    }
    found = {(row.what, row.split): row for row in held_out.compare("toys", splits)}
    assert found["letter", "valid"].share == 0 and found["letter", "test"].share == 0.5
    assert found["number", "valid"].share == 0.5 and found["number", "test"].share == 0
    row = found["letter", "test"]
    assert (row.tasks, row.among, row.shared) == (4, 3, 2)
    assert "| toys | letter | test | 4 | 3 | 50.0% |" in held_out.table(found.values())


def test_rooms_are_the_same_turned_and_mirrored() -> None:
    rng = np.random.default_rng(0)
    for rows, cols in ((4, 4), (3, 5)):
        grid = rng.integers(0, 9, (rows, cols)).astype(np.uint8)
        turns = range(4) if rows == cols else (0, 2)
        forms = [np.rot90(side, k) for side in (grid, grid[:, ::-1]) for k in turns]
        found = held_out.canonical_rooms([form.tobytes() for form in forms], rows, cols)
        assert len(set(found)) == 1
        grid[0, 0] += 1
        assert held_out.canonical_rooms([grid.tobytes()], rows, cols) != found[:1]


def test_what_the_compatible_generators_share_is_seen() -> None:
    """The measure finds what the fast generator was mended of."""
    shared = {}
    for generator in ("fast", "gym-sokoban"):
        env = gym.make(
            "HiMAC-Sokoban-Flat-v0", split="all", generator=generator, max_steps=200
        ).unwrapped
        splits = {
            split: held_out.sokoban_forms(env, env.task_ids(split)[:300])
            for split in ("train", "test")
        }
        for row in held_out.compare(generator, splits):
            shared[generator, row.what] = row.share
    assert shared["fast", "room"] == shared["fast", "floor plan"] == 0.0
    assert shared["gym-sokoban", "room"] > 0.2 < shared["gym-sokoban", "floor plan"]


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    held_out.main(["webshop"])
    lines = capsys.readouterr().out.splitlines()
    assert "| WebShop, generated | instruction | test | 500 | 11,826 | 0.0% |" in lines
    assert any("| product | test |" in line and "97.2%" in line for line in lines)
    with pytest.raises(SystemExit):
        held_out.main(["chess"])
    assert "choose among sokoban, alfworld, webshop" in capsys.readouterr().err
