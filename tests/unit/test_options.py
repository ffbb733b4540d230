"""Options of commands that are no settings of a run: numbers that mean nothing are refused."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any

import pytest

from himac_agents.cli import app, servers
from himac_agents.config import settings_of
from himac_agents.policies.endpoint import Endpoint

OPTIONS = {
    name: import_module(f"himac_agents.cli.{module}").Options
    for name, module in app._STUDIES.items()
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_number_of_a_benchmark_has_limits(options: type[Any]) -> None:
    numbers = [f.name for f in dataclasses.fields(options) if type(f.default) in (int, float)]
    assert {"lanes", "jobs"} & set(numbers)
    for name in numbers:
        told = settings_of(options)[name]
        assert told.least is not None
        options(**{name: type(getattr(options(), name))(told.least)})
        for wrong in (told.least - 1, float("nan"), float("inf"), float("-inf")):
            with pytest.raises(ValueError, match=f"{name}={wrong}"):
                options(**{name: wrong})


@pytest.mark.parametrize("name", ["methods", "llm", "gpu"])
@pytest.mark.parametrize("minutes", ["-1", "nan", "inf", "1e300"])
def test_time_that_no_clock_measures_is_refused(
    name: str, minutes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        app.main(["bench", name, f"--minutes={minutes}"])
    told = capsys.readouterr().err
    assert left.value.code == 2 and "minutes=" in told and "must be between" in told
    assert "out of time" not in told


@pytest.mark.parametrize(
    "wrong",
    [{"timeout": 0.0}, {"timeout": float("nan")}, {"retries": -1}, {"concurrency": 0},
     {"price_in": -1.0}, {"price_in": float("nan"), "max_cost": 1.0},
     {"price_in": 1.0, "max_cost": float("nan")}],
    ids=str,
)  # fmt: skip
def test_an_endpoint_refuses_what_would_never_end_or_never_stop(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be (at least|above)"):
        Endpoint("m", **wrong)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_sessions_that_would_end_at_once_or_never_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"session_timeout=.*must be above 0"):
        servers.environment("sokoban", session_timeout=seconds)
    with pytest.raises(ValueError, match="max_sessions=0: must be at least 1"):
        servers.environment("sokoban", max_sessions=0)
