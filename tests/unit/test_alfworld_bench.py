"""The benchmark measures what it says, and keeps what the project promises."""

from __future__ import annotations

import sys

import pytest

from himac_envs.alfworld import bench


def test_our_side_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_find_interpreter", lambda named: None)
    figures = bench.run(quick=True)
    assert figures["data"] == "generated"
    assert figures["original"] == figures["ratios"] == {}
    # The original takes 88 ms a step, 2 s a load, 1 s a reset; generating is slower than loading.
    assert figures["seconds"]["step, environment"] < 0.088 / 5_000 * 2
    assert figures["seconds"]["first load"] < 2.0 / 300 * 5
    assert figures["seconds"]["reset"] < 1.0 / 50_000 * 2
    for row, bar in bench.BATCH_BARS.items():
        assert figures["rates"][row] > bar
    assert figures["megabytes"] < 100
    told = capsys.readouterr().out
    assert "make reference" in told
    assert "1,000" in told


def test_an_interpreter_without_the_original_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="the original ended with code"):
        bench.run(quick=True, reference=sys.executable)
