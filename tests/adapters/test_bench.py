"""The figures of docs/adapters.md: each stack plays the expert's steps and no others."""

from __future__ import annotations

from typing import Any

import pytest

from himac_envs.adapters import bench


@pytest.mark.parametrize("stack", ["gymnasium", "session", "trl", "verl_agent"])
def test_a_stack_plays_whole_episodes(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[list[str]] = []
    made = bench.PLAYERS[stack]

    def watched(env_id: str) -> bench.Episode:
        play = made(env_id)

        def once(task_id: str, answers: Any) -> None:
            played.append(list(answers))
            play(task_id, answers)

        return once

    monkeypatch.setitem(bench.PLAYERS, stack, watched)
    found = bench.measure(stack, "HiMAC-Sokoban-Flat-v0", seconds=0.0)
    assert found.steps == 0 and len(played) == 1, "the first episode is not measured"
    found = bench.measure(stack, "HiMAC-Sokoban-Flat-v0", seconds=0.01)
    assert found.steps == sum(map(len, played[2:])) > 0
    assert found.seconds >= 0.01 and found.rate == found.steps / found.seconds


def test_the_table_has_a_row_a_stack(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["session", "verl_agent", "--seconds", "0.01"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| stack | ALFWorld | WebShop | Sokoban |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| session", "| verl_agent"]
    assert lines[2].count("%)") == 3
