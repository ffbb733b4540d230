"""wandb and trackio as loggers: offline, what they hold is what the run's own file holds."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fruit_runs import CONFIG

from himac_agents.config import TrainConfig
from himac_agents.training.loggers import make_loggers
from himac_agents.training.rows import Row
from himac_agents.training.run import Run
from himac_agents.training.trackers import Tracker
from himac_envs.errors import MissingDependencyError


class Memory(Tracker):
    """A service in a dictionary: tracked runs by id, none of which can take anything back."""

    package = "json"
    held: dict[str, dict[str, Any]]

    def _begin(self, name: str, group: str, run_id: str) -> None:
        self.now = self.held.setdefault(run_id, {"name": name, "group": group, "rows": []})

    def _log(self, row: Row) -> None:
        self.now["rows"].append(row)

    def _end(self) -> None:
        del self.now


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    monkeypatch.setattr(Memory, "held", found, raising=False)
    return found


def _row(step: int, value: float = 0.5, phase: str = "executor") -> Row:
    return Row(phase, step, {"success": value})


def test_a_run_that_goes_on_where_it_was_stays_one_tracked_run(
    tmp_path: Path, held: dict[str, dict[str, Any]]
) -> None:
    first = Memory(tmp_path, CONFIG)
    rows = [_row(1), _row(2, 1 / 3)]
    for row in rows:
        first.log(row)
    first.close()
    again = Memory(tmp_path, CONFIG)
    again.rewind(rows)
    again.log(_row(3))
    (only,) = held.values()
    assert only["rows"] == [*rows, _row(3)] and only["name"] == tmp_path.name


@pytest.mark.parametrize(
    "kept",
    [[_row(1)], [], [_row(1), _row(2, phase="renamed")]],
    ids=["cut", "emptied", "renamed"],
)
def test_lines_that_no_longer_hold_begin_another_of_the_same_group(
    kept: list[Row], tmp_path: Path, held: dict[str, dict[str, Any]]
) -> None:
    first = Memory(tmp_path, CONFIG)
    for row in (_row(1), _row(2)):
        first.log(row)
    # Killed here: nothing was closed.
    again = Memory(tmp_path, CONFIG)
    again.rewind(kept)
    again.log(_row(9))
    old, new = held.values()
    assert old["rows"] == [_row(1), _row(2)] and new["rows"] == [*kept, _row(9)]
    assert new["group"] == old["group"] and new["name"] == f"{tmp_path.name} (resumed 1)"


def test_a_tracker_that_comes_later_hears_what_was_before(
    tmp_path: Path, held: dict[str, dict[str, Any]]
) -> None:
    late = Memory(tmp_path, CONFIG)
    late.rewind([_row(1), _row(2)])
    (only,) = held.values()
    assert only["rows"] == [_row(1), _row(2)] and only["name"] == tmp_path.name


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("wandb", "trackio"):
        with pytest.raises(MissingDependencyError, match=rf"pip install 'himac\[{name}\]'"):
            make_loggers(CONFIG.replace(loggers=(name,)), tmp_path)


def _train(folder: Path, config: TrainConfig) -> None:
    """As a run logs: two phases whose steps overlap, a cut, and one line more."""
    run = Run(folder, config)
    run.begin()
    for step in (1, 2, 3):
        run.log("warm_start", step, {"loss": 1 / step})
        run.log("executor", step, {"success": step / 4})
    run.close()
    again = Run(folder, config, resume=True)
    again.rewind(4)
    again.log("executor", 3, {"success": 1.0})
    again.close()


#: What holds of that in the end.
CUT = [
    {"warm_start/step": 1, "warm_start/loss": 1.0},
    {"executor/step": 1, "executor/success": 0.25},
    {"warm_start/step": 2, "warm_start/loss": 0.5},
    {"executor/step": 2, "executor/success": 0.5},
    {"executor/step": 3, "executor/success": 1.0},
]


def _own(row: dict[str, Any]) -> dict[str, Any]:
    """A line without what the service adds."""
    return {key: value for key, value in row.items() if "/" in key}


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "run"
    _train(folder, CONFIG.replace(loggers=("wandb",), project="tests"))
    # A run that has finished is written by wandb's own process, which may be behind.
    wandb.teardown()
    # They may begin in the same second, of which their names are made.
    last = json.loads((folder / "wandb.json").read_text())["id"]
    places = (folder / "wandb").glob("offline-run-*")
    first, second = (_history(p) for p in sorted(places, key=lambda p: p.name.endswith(last)))
    assert [row["executor/success"] for row in first if "executor/success" in row] == [
        0.25, 0.5, 0.75,
    ]  # fmt: skip
    assert second == CUT


def _history(folder: Path) -> list[dict[str, Any]]:
    """The lines of an offline run, without the service's own."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for data in _records(next(folder.glob("*.wandb")).read_bytes()):
        record = Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
                for item in record.history.item
            }
            found.append(_own(items))
    return found


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's form: blocks of 32 KiB, pieces with a head of 7 bytes."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        _, length, kind = struct.unpack_from("<IHB", content, place)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last piece
            yield parts
            parts = b""


def test_trackio_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    from trackio import sqlite_storage

    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
    _train(tmp_path / "run", CONFIG.replace(loggers=("trackio",), project="tests"))
    store = sqlite_storage.SQLiteStorage
    first, second = sorted(store.get_runs("tests"), key=lambda name: "resumed" in name)
    assert first.startswith("run ") and second.startswith("run (resumed 1) ")
    held = [_own(row) for row in store.get_logs("tests", first)]
    assert [row for row in held if "executor/step" in row] == [
        {"executor/step": step, "executor/success": step / 4} for step in (1, 2, 3)
    ]
    assert [_own(row) for row in store.get_logs("tests", second)] == CUT
