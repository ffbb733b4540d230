"""What a report says beside curves: kinds of task, time, versions, and the figures as a file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_pages import read, write_run

from himac_agents.cli import main
from himac_agents.evaluation.intervals import difference_over_seeds, wilson
from himac_agents.reports import groups, page
from himac_agents.reports.groups import differences
from himac_agents.reports.panels import learning_curve
from himac_agents.reports.runs import read_run
from himac_agents.reports.tables import COLUMNS
from himac_agents.training.result import versions


def _told(folder: Path, seed: int = 0, torch: str = "2.6", **more: Any) -> Path:
    """A run that tells kinds of tasks, seconds and versions."""
    write_run(folder, seed, **more)
    result = json.loads((folder / "result.json").read_text())
    kinds = {"pick": (0.5 + 0.1 * seed, 40), "cool": (0.25, 20)}
    result["final"]["by_type"] = {
        kind: {"success": success, "tasks": tasks, "episodes": tasks, "ci95": [0, 1], "score": 0}
        for kind, (success, tasks) in kinds.items()
    }
    result["versions"] = {"himac": "0.2.0", "torch": torch}
    (folder / "result.json").write_text(json.dumps(result))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if "env_steps_total" in row:
            row["seconds"] = 2.5
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def test_success_by_kind_of_task_stands_in_a_table_of_its_own(tmp_path: Path) -> None:
    paths = [_told(tmp_path / "a"), _told(tmp_path / "b", 1), _told(tmp_path / "g", method="grpo")]
    runs = [read_run(path) for path in paths]
    (family,) = groups.families(runs)
    ours, flat = (group.kinds() for group in family.groups)
    assert list(ours) == ["cool", "pick"]
    interval, tasks = ours["pick"]
    assert (interval.mean, tasks, interval.over) == (pytest.approx(0.55), 40, "seeds and tasks")
    assert interval.low < 0.5 and interval.high > 0.6  # two seeds that differ tell little
    alone, _ = flat["cool"]
    assert (alone.low, alone.high) == wilson(5, 20) and alone.over == "tasks"
    text = page.render(runs)
    read(text)
    table = text.split("by kind of task", 1)[1].split("</table>", 1)[0]
    assert ">pick<" in table and "55.0" in table and "40 tasks" in table
    assert "by kind of task" not in page.render([read_run(write_run(tmp_path / "old"))])


def test_methods_are_compared_with_the_first_paired_by_seed_and_task(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = (rng.random((2, 50)) < 0.3).astype(int)
    better = np.maximum(base, (rng.random((2, 50)) < 0.4).astype(int))
    runs = []
    for method, table in (("himac", base), ("grpo", better)):
        for seed, outcomes in enumerate(table):
            folder = _told(tmp_path / f"{method}{seed}", seed, method=method)
            result = json.loads((folder / "result.json").read_text())
            result["final"] |= {"outcomes": outcomes.tolist(), "episodes": 50}
            (folder / "result.json").write_text(json.dumps(result))
            runs.append(read_run(folder))
    (family,) = groups.families(runs)
    (found,) = differences(family)
    assert (found.base.label, found.group.label, found.seeds) == ("HiMAC", "Flat GRPO", 2)
    assert found.sampled == difference_over_seeds(base.astype(float), better.astype(float))
    assert found.greedy is None  # its outcomes were not kept
    text = page.render(runs)
    assert "minus HiMAC" in text and f"{100 * found.sampled.mean:+.1f}" in text
    # One seed alone: over tasks. Another split: other tasks, which cannot be paired.
    (family,) = groups.families([runs[0], runs[2]])
    (alone,) = differences(family)
    assert alone.sampled is not None and alone.sampled.over == "tasks"
    runs[2].settings["eval_split"] = "valid"
    (family,) = groups.families([runs[0], runs[2]])
    assert differences(family) == [] and "minus HiMAC" not in page.render([runs[0], runs[2]])


def test_curves_run_by_the_seconds_of_learning_too(tmp_path: Path) -> None:
    run = read_run(_told(tmp_path / "a"))
    # Planner and executor learn in one iteration, whose seconds count once.
    assert run.curve("executor", "success", "seconds")[0] == [2.5, 5.0, 7.5, 10.0]
    assert run.curve("planner", "entropy", "seconds")[0] == [2.5, 5.0, 7.5, 10.0]
    warm, final = run.evaluations
    assert (warm.seconds, final.seconds) == (0.0, 9.0)  # the run's own clock, where it tells
    (family,) = groups.families([run])
    assert "seconds of learning" in learning_curve(family).by["seconds"]
    old = read_run(write_run(tmp_path / "old"))
    assert old.curve("executor", "success", "seconds") == ([], [])
    read(page.render([old]))


def test_versions_are_told_and_their_differences(tmp_path: Path) -> None:
    same = [read_run(_told(tmp_path / "a")), read_run(_told(tmp_path / "b", 1))]
    text = page.render(same)
    assert "Finished with himac 0.2.0, torch 2.6." in text and "<code>versions</code>" not in text
    other = read_run(_told(tmp_path / "c", 2, torch="2.7"))
    assert "<code>versions</code>" in page.render([*same, other])
    assert "Finished with" not in page.render([read_run(write_run(tmp_path / "old"))])
    found = versions()
    assert found["himac"] and found["python"].startswith("3.") and found["numpy"]


def test_figures_are_written_as_a_long_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        _told(tmp_path / "runs" / str(seed), seed)
    out = tmp_path / "runs.csv"
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "r.html"),
                 "--csv", str(out)]) == 0  # fmt: skip
    lines = list(csv.DictReader(out.open()))
    assert tuple(lines[0]) == COLUMNS
    assert f"{out}: {len(lines)} lines" in capsys.readouterr().out
    mine = [row for row in lines if row["metric"] == "success" and row["phase"] == "executor"]
    assert len(mine) == 8
    last = [row for row in mine if row["seed"] == "1"][-1]
    assert (last["method"], last["env_steps"], last["seconds"]) == ("himac", "4010", "10.0")
    assert float(last["value"]) == pytest.approx(0.42)
    assert any(r["phase"] == "evaluation/final" and r["metric"] == "greedy" for r in lines)


def test_a_table_is_about_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = tmp_path / "e.jsonl"
    assert main(["eval", "HiMAC-ALFWorld-Flat-v0", "--data", "generated", "--episodes", "1",
                 "--max-steps", "2", "--records", str(records)]) == 0  # fmt: skip
    assert main(["report", str(records), "--csv", str(tmp_path / "x.csv")]) == 1
    assert "--csv writes the metrics of runs" in capsys.readouterr().err
