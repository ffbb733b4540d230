"""The engine against traces recorded from the original, and against its two dialects."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from himac_envs.alfworld.engine import NOTHING_HAPPENS, State
from himac_envs.alfworld.games import OfficialLibrary, open_library


@pytest.fixture(scope="module")
def library(real_data: Path) -> OfficialLibrary:
    return open_library(real_data / "alfworld")


def traces(folder: Path) -> Iterator[dict[str, Any]]:
    for name in ("train", "valid_seen"):
        with gzip.open(folder / "alfworld" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            for line in file:
                trace = json.loads(line)
                # "member" is the file in the archive; its "task_id" lacks the split.
                trace["task_id"] = "/".join(trace["member"].split("/")[-4:-1])
                yield trace


def test_every_recorded_trace_replays_without_a_difference(
    golden_dir: Path, library: OfficialLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    games = steps = wins = 0
    for trace in traces(golden_dir):
        games += 1
        game = library.game(trace["task_id"])
        state = State(game)
        won_before = False
        for step in trace["steps"]:
            where = f"{trace['task_id']}, {step['a']!r}"
            if step["a"] is None:
                text = game.intro
            else:
                answer = state.act(step["a"])
                text = NOTHING_HAPPENS if answer is None else answer
                assert (answer is None) == (step["obs"] == NOTHING_HAPPENS), where
                assert int(state.won) == step["score"], where
                assert state.won == step["done"], where
                wins += state.won and not won_before
                won_before = state.won
            assert text == step["obs"], where
            assert state.admissible() == step["adm"], where
            steps += 1
    with capsys.disabled():
        print(f"\nALFWorld golden: {games} games, {steps} steps, {wins} wins, 0 differences")
    assert games == 120
    assert steps > 5000
    assert wins > 20


def test_a_saved_state_restored_in_mid_trace_gives_the_same_tail(
    golden_dir: Path, library: OfficialLibrary
) -> None:
    for number, trace in enumerate(traces(golden_dir)):
        if number % 10:
            continue
        commands = [step["a"] for step in trace["steps"][1:]]
        half = len(commands) // 2
        state = State(library.game(trace["task_id"]))
        for command in commands[:half]:
            state.act(command)
        saved, twin = state.save(), state.copy()
        tail = [(state.act(c), state.admissible(), state.won) for c in commands[half:]]
        end = state.save()
        assert [(twin.act(c), twin.admissible(), twin.won) for c in commands[half:]] == tail
        state.restore(saved)
        assert [(state.act(c), state.admissible(), state.won) for c in commands[half:]] == tail
        assert state.save() == end == twin.save()


def test_the_old_dialect_differs_in_its_strings_only(
    golden_dir: Path, library: OfficialLibrary
) -> None:
    """2.1.1 is 2.1.2 with three strings changed and no help, over the whole recorded play."""
    put = 0
    for number, trace in enumerate(traces(golden_dir)):
        if number % 6:
            continue
        new = State(library.game(trace["task_id"]))
        old = State(library.game(trace["task_id"], "2.1.1"))
        assert old.game.intro == new.game.intro
        for step in trace["steps"][1:]:
            command: str = step["a"]
            if command.strip() == "help":
                assert old.act(command) is None
                continue
            translated = command
            if command.strip().startswith("move ") and " to " in command:
                translated = command.replace("move ", "put ", 1).replace(" to ", " in/on ", 1)
                if old.act(command) is not None:
                    pytest.fail(f"{command!r} is not of the old dialect")
            expected = new.act(command)
            got = old.act(translated)
            if expected is not None and expected.startswith("You arrive at "):
                assert got is not None
                arrived, _, rest = got.partition(". ")
                assert arrived == f"You arrive at {old.game.location_names[old.location]}"
                assert arrived.startswith("You arrive at loc ")
                assert rest == expected.partition(". ")[2]
            elif expected is not None and expected.startswith("You move the "):
                put += 1
                words = expected.replace("You move the ", "You put the ", 1)
                assert got == words.replace(" to the ", " in/on the ", 1)
            else:
                assert got == expected
            assert old.save() == new.save()
            commands = [
                c.replace("move ", "put ", 1).replace(" to ", " in/on ", 1)
                if c.startswith("move ")
                else c
                for c in new.admissible()
                if c != "help"
            ]
            assert old.admissible() == sorted(commands)
    assert put > 5
