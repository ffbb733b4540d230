"""Studies as a whole: cells that change their preset, sweeps, bottlenecks, time that runs out."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import fruit_runs
import pytest
from filelock import FileLock

from himac_agents.cli import study as command
from himac_agents.evaluation.intervals import unpack
from himac_agents.experiments.study import card, overview
from himac_agents.experiments.study.driver import Driver
from himac_agents.experiments.study.plan import Study
from himac_agents.experiments.study.views import VIEWS

CONFIG = fruit_runs.CONFIG.replace(warm_steps=10, iterations=3, checkpoint_every=1, note="a toy")


SWEEP = """
summary = "A toy."
seeds = {seeds}
base = "himac"
readme = false
view = "{view}"
axis = "steps"
[cells.short]
preset = "{preset}"
place = 1
changes = {{ demos = 6 }}
[cells.long]
preset = "{preset}"
place = 2
changes = {{ demos = 9 }}
[methods.himac]
baselines = ["oracle", "oracle-planner", "oracle-executor"]
[[runs]]
cells = ["short", "long"]
methods = ["himac", "grpo"]
"""


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "preset.toml"
    path.write_text(CONFIG.to_toml())
    return path


def _study(folder: Path, view: str) -> Path:
    path = folder / f"{view}.toml"
    path.write_text(SWEEP.format(view=view, preset=folder / "preset.toml", seeds=[0]))
    return path


def test_a_cell_may_change_its_preset_and_a_study_shows_all_cells_together(
    preset: Path, tmp_path: Path
) -> None:
    study = Study.load(str(_study(tmp_path, "sweep")))
    assert [study.config(cell, "grpo", 1).demos for cell in study.cells] == [6, 9]
    rows = {}

    def score(bits: str) -> dict[str, Any]:
        return {"success": float(unpack(bits, 8).mean()), "ci95": [0.0, 1.0], "outcomes": bits,
                "greedy": 0.0, "greedy_ci95": [0.0, 0.4], "greedy_outcomes": "00"}  # fmt: skip

    gain = {"mean": 0.0, "ci95": [0.0, 0.0]}
    for place, (cell, ours, theirs) in enumerate((("short", "0f", "0f"), ("long", "ff", "01")), 1):
        runs = [
            {"method": method, "seed": seed, "warm_start": score("01"), "final": score(bits),
             "gain": gain, "greedy_gain": gain, "work": {"tokens": 2000 * place}}
            for method, bits in (("himac", ours), ("grpo", theirs)) for seed in (0, 1)
        ]  # fmt: skip
        for run in runs[:2]:
            run |= {"oracle": score("ff"), "oracle-planner": score("7f")}
            run["blueprints"] = {"dead_groups": 0.75, "blueprints": 2.5, "lead": 0.125}
        pairs = [
            {"base": "himac", "against": "grpo", "seed": s, "difference": gain} for s in (0, 1)
        ]
        rows[cell] = {"cell": cell, "place": place, "episodes": 8, "base": "himac", "runs": runs,
                      "paired": pairs}  # fmt: skip
    text, drawn = VIEWS["sweep"](study, rows)
    lines = [line for line in text.splitlines() if line.startswith("| long")]
    assert "12.5 → **100.0** [" in lines[0] and "(4k)" in lines[0]
    assert lines[1].startswith("| long | +87.5 [") and "| short | +0.0 [" in text
    assert drawn.startswith("<svg") and "steps" in drawn and "flat GRPO" in drawn
    text, drawn = VIEWS["bottleneck"](study, rows)
    (line,) = [line for line in text.splitlines() if line.startswith("| short | HiMAC")]
    assert line.count("50.0 [") == 1 and "87.5 [" in line and "100.0 [" in line
    assert line.endswith("| 75.0% | 2.5 | 0.125 |") and "||" not in line
    assert "|  |" in line, "nothing was measured with the oracle in the executor's place"
    assert drawn.startswith("<svg") and "short" in drawn
    assert overview.table([(study, rows)]).count("\n") == 1, "it is not for README"
    with pytest.raises(ValueError, match="view='pie': choose one of sweep, bottleneck"):
        dataclasses.replace(study, view="pie")


def test_the_bottleneck_is_measured_by_runs(preset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = command.Options(
        setting=str(_study(tmp_path, "bottleneck")), out=out, results=out / "results",
        page=out / "page.md", cells=("short",), methods=("himac",),
    )  # fmt: skip
    assert command.run(options) == 0
    recorded = tomllib.loads((out / "results" / "bottleneck-short.toml").read_text())
    assert recorded["place"] == 1 and recorded["runs"][0]["oracle"]["success"] == 1.0
    blueprints = recorded["runs"][0]["blueprints"]
    assert 0 <= blueprints["dead_groups"] <= 1 <= blueprints["blueprints"] <= 3
    shown = (out / "page.md").read_text()
    assert "The bottleneck study as a whole" in shown and "both the oracle" in shown
    assert (out / "page" / "bottleneck.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("how", ["time", "interrupt"])
def test_a_study_leaves_when_its_time_is_over_and_goes_on(
    how: str, preset: Path, tmp_path: Path
) -> None:
    preset.write_text(CONFIG.replace(iterations=10**6, max_env_steps=0).to_toml())
    jobs = Study.load(str(_study(tmp_path, "sweep"))).jobs(["short"], ["grpo"])
    out = tmp_path / "out"
    # Two at a time, though at the end there is but one job to do.
    driver = Driver(jobs, out, 2, report=lambda line: None, minutes=30.0)
    run = jobs[1].folder(out)
    main = threading.main_thread().ident
    assert main is not None

    def end_early() -> None:
        while len(list(run.glob("checkpoints/step-*"))) < 2:
            time.sleep(0.05)
        if how == "time":
            driver.leave()
        else:
            signal.pthread_kill(main, signal.SIGTERM)

    # As `himac bench` does; a shell's background jobs ignore SIGINT.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        threading.Thread(target=end_early, daemon=True).start()
        if how == "time":
            assert driver.run() == {} and driver.out_of_time
        else:
            with pytest.raises(KeyboardInterrupt):
                driver.run()
    finally:
        signal.signal(signal.SIGTERM, before)
    # No job is left behind: it would hold the lock of its folder.
    FileLock(run.with_name(f".{run.name}.lock")).acquire(timeout=0).lock.release()
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    last = max(x["step"] for x in lines if x["phase"] == "flat")
    # It left with a checkpoint of all that it had done, and goes on from there.
    newest = max((run / "checkpoints").glob("step-*"))
    assert int(newest.name.removeprefix("step-")) == 10 + last
    assert not (run / "result.json").exists()
    again = Driver(jobs, out, 1, report=lambda line: None, minutes=1e-6)
    assert again.run() == {} and again.out_of_time


def test_a_card_may_name_every_view() -> None:
    assert set(VIEWS) == set(card.VIEWS)
