"""Generated games against what the original ALFWorld answered when it played their exports.

The traces were recorded by ``tests/parity/compare_generated.py --record tests/golden``; they are
this project's own data, so this proof of exactness needs nothing downloaded.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from himac_envs.alfworld.engine import NOTHING_HAPPENS, State
from himac_envs.alfworld.generate import DEFAULT, Controls, game_from_id, long_horizon

HERE = Path(__file__).parent
FILES: dict[str, Controls] = {"default": DEFAULT, "long": long_horizon(100)}
FEWEST = {"default": 60, "long": 16}


def records(name: str) -> list[dict[str, Any]]:
    with gzip.open(HERE / f"alfworld_generated_{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("name", FILES)
def test_the_original_answers_the_same(name: str) -> None:
    differences: list[str] = []
    games = steps = wins = broken = 0
    for record in records(name):
        game = game_from_id(record["task_id"], controls=FILES[name])
        state = State(game)
        games += 1
        for number, row in enumerate(record["steps"]):
            text = game.intro if row["a"] is None else state.act(row["a"])
            if text is None:
                broken += 1
                text = NOTHING_HAPPENS
            seen = {"obs": text, "adm": state.admissible(), "score": int(state.won)}
            seen["done"] = state.won
            differences += [
                f"{record['task_id']} step {number} {row['a']!r}: {key}\n"
                f"  original: {row[key]!r}\n  here:     {seen[key]!r}"
                for key in seen
                if seen[key] != row[key]
            ]
            steps += 1
        wins += record["steps"][-1]["done"]
    print(f"{name}: {games} games, {steps} observations, {broken} broken commands, {wins} won")
    assert not differences, f"{len(differences)} differences, first:\n" + "\n".join(differences[:5])
    assert games >= FEWEST[name] and wins == games and broken > games
