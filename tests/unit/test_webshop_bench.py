"""The benchmark measures what it says, on a small shop."""

from __future__ import annotations

from himac_envs.webshop import bench


def test_figures_of_a_small_shop() -> None:
    figures = bench.run_size(300, steps=400, queries=40)
    assert figures["products"] == 300 and figures["goals"] > 300
    assert figures["pruned = unpruned"] == figures["queries"] == 40
    rates = figures["steps/s"]
    assert set(rates) >= {"all steps", "reset", "search", "click"}
    assert all(rate > 0 for rate in rates.values())
