"""The benchmark runs, with and without the original."""

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
    assert set(figures["seconds"]) == set(bench.BARS)
    assert set(figures["rates"]) == set(bench.BATCH_BARS)
    assert all(value > 0 for value in (*figures["seconds"].values(), *figures["rates"].values()))
    told = capsys.readouterr().out
    assert "make reference" in told
    assert "1,000" in told
    # A promise is told with its direction and its unit, whichever it has.
    for bar in bench.BARS.values():
        assert f"at least {bar:,}x" in told
    assert "at least" in told and "at most 100 MB" in told


def test_an_interpreter_without_the_original_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="the original ended with code"):
        bench.run(quick=True, reference=sys.executable)
