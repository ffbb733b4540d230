"""Loggers: passed or registered, told everything, rewound with the run, and never its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from fruit_runs import CONFIG

from himac_agents.config import TrainConfig
from himac_agents.training import loggers
from himac_agents.training.loggers import TensorBoardLogger, make_loggers, register_logger
from himac_agents.training.rows import Row
from himac_agents.training.run import Run


class Paper:
    """Keeps what it is told; raises where it is told to."""

    def __init__(self, *given: object, broken: bool = False) -> None:
        self.given, self.broken = given, broken
        self.rows: list[Row] = []
        self.calls: list[str] = []

    def log(self, row: Row) -> None:
        self.calls.append("log")
        if self.broken:
            raise OSError("no ink")
        self.rows.append(row)

    def rewind(self, rows: Sequence[Row]) -> None:
        self.calls.append("rewind")
        self.rows = list(rows)

    def close(self) -> None:
        self.calls.append("close")


def _events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def test_loggers_are_told_what_the_file_is_and_rewound_with_it(tmp_path: Path) -> None:
    paper = Paper()
    board = TensorBoardLogger(tmp_path, CONFIG)
    run = Run(tmp_path, CONFIG, loggers=[paper, board])
    run.begin()
    for step in (1, 2, 3):
        run.log("flat", step, {"success": step / 4, "loss": 1 / 3})
    run.close()
    assert paper.rows == [Row("flat", s, {"success": s / 4, "loss": 0.333333}) for s in (1, 2, 3)]
    assert paper.calls == ["log"] * 3 + ["close"]
    assert _events(tmp_path)["flat/success"] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    again = Run(tmp_path, CONFIG, resume=True, loggers=[paper, board])
    again.rewind(2)
    again.log("flat", 3, {"success": 1.0})
    again.rename("flat", 1, "first")
    again.close()
    told = [Row("first", 1, {"success": 0.25, "loss": 0.333333}), *paper.rows[1:]]
    assert paper.rows == told and [row.step for row in told] == [1, 2, 3]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [Row(x.pop("phase"), x.pop("step"), x) for x in lines] == told
    events = _events(tmp_path)
    assert events["flat/success"] == [(2, 0.5), (3, 1.0)]
    assert events["first/success"] == [(1, 0.25)]


def test_a_logger_that_raises_is_warned_of_once_and_the_others_go_on(tmp_path: Path) -> None:
    broken, whole, warned = Paper(broken=True), Paper(), []
    run = Run(tmp_path, CONFIG, loggers=[broken, whole], warn=warned.append)
    run.begin()
    for step in (1, 2):
        run.log("flat", step, {"success": 0.0})
    run.close()
    assert warned == ["Paper failed, the run goes on: OSError: no ink"]
    assert len(whole.rows) == 2 and broken.calls == ["log", "log", "close"]


def test_loggers_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers.LOGGERS, "_known", dict(loggers.LOGGERS._known))
    assert [type(x) for x in make_loggers(TrainConfig(), tmp_path)] == [TensorBoardLogger]
    assert make_loggers(TrainConfig(loggers=()), tmp_path) == []
    named = TrainConfig(loggers=["paper"])
    with pytest.raises(ValueError, match=r"loggers='paper': no logger.*tensorboard"):
        make_loggers(named, tmp_path)
    register_logger("paper", Paper)
    register_logger("paper", Paper)
    with pytest.raises(ValueError, match="already"):
        register_logger("paper", TensorBoardLogger)
    (made,) = make_loggers(named, tmp_path)
    assert isinstance(made, Paper) and made.given == (tmp_path, named)
