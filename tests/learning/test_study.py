"""Studies: resuming, dead workers, results and the page."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fruit_studies import CONFIG, options, written

from himac_agents.cli import study as command
from himac_agents.evaluation.intervals import difference_over_seeds, unpack
from himac_agents.experiments.study import overview, page, provenance, results, summary, work
from himac_agents.experiments.study.driver import Driver
from himac_agents.experiments.study.plan import Job, Study
from himac_envs import registry


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return written(tmp_path)


def test_a_study_runs_resumes_after_a_kill_and_reports(
    card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    # A first driver is killed, with its workers, once the first run is under way.
    code = (
        "import sys; from pathlib import Path; from himac_agents.cli import study as c;"
        f"c.run(c.Options(setting={str(card)!r}, out=Path({str(out)!r}), jobs=1, "
        "methods=('himac',), results=Path(sys.argv[1]), page=Path(sys.argv[2])))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(out / "results"), str(out / "page.md")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    run = out / "runs" / "fruit-himac-seed0"
    while process.poll() is None and len(list(run.glob("checkpoints/step-*"))) < 2:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (run / "config.toml").is_file()
    warm = out / "warm" / "fruit-hierarchical-seed0" / "ready.json"
    made = warm.stat().st_mtime_ns

    assert command.run(options(card, out)) == 0
    assert warm.stat().st_mtime_ns == made, "a finished warm start is not made again"
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if x["phase"] == "executor"] == [1, 2, 3]
    recorded = tomllib.loads((out / "results" / "toy-fruit.toml").read_text())
    assert recorded["missing"] == []
    rows = {row["method"]: row for row in recorded["runs"]}
    assert set(rows) == {"himac", "himac-joint", "grpo"}
    assert rows["himac"]["warm_start"] == rows["himac-joint"]["warm_start"]
    found = json.loads((run / "result.json").read_text())
    assert rows["himac"]["final"]["success"] == found["final"]["success"]
    assert rows["himac"]["supervised"]["success"] == found["baselines"]["supervised"]["success"]
    assert rows["himac"]["work"]["env_steps"] == found["work"]["env_steps"] > 0
    for key in ("version", "machine", "torch"):
        assert rows["grpo"][key]
    assert {row["against"] for row in recorded["paired"]} == {"himac-joint", "grpo"}
    assert {row["base"] for row in recorded["paired"]} == {recorded["base"]} == {"himac"}
    # Each task's outcome is kept, in a few digits, at temperature 1 and greedily.
    for name, kept in (("final", found["final"]), ("supervised", found["baselines"]["supervised"])):
        score, tasks = rows["himac"][name], recorded["episodes"]
        assert unpack(score["outcomes"], tasks).tolist() == kept["outcomes"]
        assert unpack(score["greedy_outcomes"], tasks).tolist() == kept["greedy"]["outcomes"]
    # Measured once more at equal tokens, in the run that was killed as in the others.
    for row in rows.values():
        assert 60 <= row["at_tokens"]["tokens"] < row["work"]["tokens"]
        assert 0 < row["at_tokens"]["env_steps"] < row["work"]["env_steps"]
    assert all("token_difference" in row for row in recorded["paired"])

    # The page is made of what was recorded, and of nothing else.
    shown = (out / "page.md").read_text()
    assert "after 60 tokens" in shown and "equal tokens: temperature 1" in shown
    assert "flat GRPO" in shown and "further supervision instead" in shown
    assert (out / "page" / "toy-fruit.svg").read_text().startswith("<svg")
    (out / "page.md").unlink()
    (out / "runs").rename(out / "elsewhere")
    assert command.run(options(card, out, report_only=True)) == 0
    assert (out / "page.md").read_text() == shown
    (out / "elsewhere").rename(out / "runs")

    # What is done needs no process.
    with monkeypatch.context() as patched:
        patched.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("a process was started"))
        jobs = Study.load(str(card)).jobs(methods=["grpo"])
        assert Driver(jobs, out, report=lambda line: None).run() == {}

    # Other settings in the same folder are refused, and the other runs are left alone.
    preset = tmp_path / "preset.toml"
    for change, whose in (
        ("lr", "runs"),
        ("warm_lr", "warm"),
    ):  # learning's own, and what is shared
        preset.write_text(CONFIG.replace(**{change: 1e-5}).to_toml())
        driver = Driver(Study.load(str(card)).jobs(methods=["grpo"]), out, report=lambda line: None)
        failed = driver.run()
        name = "runs/fruit-grpo-seed0" if whose == "runs" else "warm/fruit-flat-seed0"
        assert f"begun with other settings ({change})" in failed[name]
        assert whose == "runs" or "left out" in failed["runs/fruit-grpo-seed0"]


def test_a_dead_worker_is_reported_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [
        Job("warm", cell, "himac", 0, CONFIG) for cell in ("a", "b", "c")
    ] + [
        Job("learn", cell, "himac", 0, CONFIG, f"warm/{cell}-hierarchical-seed0")
        for cell in ("a", "b", "c")
    ]  # fmt: skip
    began: list[str] = []
    lock = threading.Lock()

    def execute(self: Driver, job: Job) -> int:
        with lock:
            began.append(job.name)
        self._log(job).parent.mkdir(parents=True, exist_ok=True)
        self._log(job).write_text("ValueError: out of fruit\n")
        return -9 if job.cell == "b" else 0

    monkeypatch.setattr(Driver, "_execute", execute)
    # One had been done before: nothing runs for it, and there is nothing new to publish.
    before = jobs[0].folder(tmp_path)
    monkeypatch.setattr(work, "done", lambda kind, config, folder: folder == before)
    lines: list[str] = []
    finished: list[str] = []
    done: list[str] = []
    driver = Driver(
        jobs, tmp_path, 2, lines.append, lambda job: finished.append(job.name),
        lambda job: done.append(job.name),
    )  # fmt: skip
    failed = driver.run()
    assert set(failed) == {"warm/b-hierarchical-seed0", "runs/b-himac-seed0"}
    assert "signal 9: ValueError: out of fruit" in failed["warm/b-hierarchical-seed0"]
    assert "left out" in failed["runs/b-himac-seed0"]
    assert sorted(done) == sorted(j.name for j in jobs if j.cell != "b")
    assert sorted(finished) == sorted(set(done) - {jobs[0].name})
    assert sorted(began) == sorted([*finished, "warm/b-hierarchical-seed0"])
    with pytest.raises(ValueError, match="at least one"):
        Driver(jobs, tmp_path, 0)


def test_results_survive_the_way_to_a_file_and_back(tmp_path: Path) -> None:
    score = {"success": 0.5, "ci95": [0.25, 0.75], "greedy": 1.0, "greedy_ci95": [0.7, 1.0]}
    difference = {"mean": 0.25, "ci95": [0.1, 0.4]}
    row = {
        "method": "himac", "seed": 0, "warm_start": {**score, "success": 0.25}, "final": score,
        "gain": difference, "greedy_gain": difference,
        "work": {"env_steps": 7, "tokens": 9, "learning_cpu_seconds": 1.5},
    }  # fmt: skip
    content = {
        "study": "toy", "cell": "fruit", "preset": "p", "env": 'An "env"', "split": "test",
        "base": "himac", "episodes": 8, "max_env_steps": 5, "command": "himac",
        "missing": ["fruit-grpo-seed0"],
        "runs": [row, {**row, "seed": 1}], "paired": [],
    }  # fmt: skip
    study = Study.load(str(written(tmp_path)))
    results.write(tmp_path, content, study)
    assert results.read_all(tmp_path, "toy") == {"fruit": content}
    assert results.read_all(tmp_path, "other") == {}
    # Another day, without the runs' folders: what is recorded stays, and need not be run again.
    other = {**row, "method": "grpo", "seed": 0, "final": {**score, "success": 0.75}}
    beside = {"base": "himac", "against": "grpo", "seed": 0, "difference": difference,
              "greedy_difference": difference}  # fmt: skip
    results.write(tmp_path, {**content, "runs": [other], "missing": ["fruit-himac-seed0"],
                             "paired": [beside]}, study)  # fmt: skip
    merged = results.read_all(tmp_path, "toy")["fruit"]
    assert merged["runs"] == [*content["runs"], other] and merged["missing"] == []
    assert merged["paired"] == [beside]
    # A run that is made anew takes its old differences with it, and one that is the same does not.
    results.write(tmp_path, content, study)
    assert results.read_all(tmp_path, "toy")["fruit"]["paired"] == [beside]
    anew = {**row, "final": {**score, "success": 0.25}}
    results.write(tmp_path, {**content, "runs": [anew], "paired": []}, study)
    merged = results.read_all(tmp_path, "toy")["fruit"]
    assert merged["paired"] == [] and merged["runs"] == [anew, {**row, "seed": 1}, other]
    text = page.section(content, "f.svg")
    assert "Not finished yet:** fruit-grpo-seed0" in text
    assert "50.0 [12.5, 87.5]**<br>50.0 · 50.0" in text, "two seeds alike: what 8 tasks can show"
    assert "without the outcomes of single tasks" in text
    with pytest.raises(ValueError, match="is no result"):
        results.to_toml({"x": float("nan")})


def test_the_page_lists_what_nobody_has_run(tmp_path: Path) -> None:
    score = {"success": 0.5, "ci95": [0.1, 0.9], "greedy": 0.25, "greedy_ci95": [0.1, 0.5]}
    gain = {"mean": 0.25, "ci95": [0.1, 0.4]}

    def cell(name: str, *methods: str) -> dict[str, Any]:
        runs = [
            {"method": m, "seed": 0, "warm_start": score, "final": score, "gain": gain,
             "greedy_gain": gain, "work": {}} for m in methods
        ]  # fmt: skip
        return {"cell": name, "env": "E", "preset": "p", "split": "test", "episodes": 8,
                "base": "himac", "max_env_steps": 5, "command": "himac", "runs": runs}  # fmt: skip

    small, official = Study.load("small"), Study.load("official")
    recorded = [
        (small, {"alfworld": cell("alfworld", "himac-option", "grpo")}),
        (official, {"alfworld-official": cell("alfworld-official", "himac-option", "grpo")}),
    ]
    text = page.write_page(tmp_path / "results.md", recorded).read_text(encoding="utf-8")
    lines = text.split("Of the small study not run")[1].split("\n\n**")[0]
    left = dict(re.findall(r"^- ([a-z-]+): (.*)$", lines, re.MULTILINE))
    assert "alfworld" not in left
    assert left["sokoban"].endswith("flat CRBC; flat GRPO; flat RLOO; flat GiGPO")
    titles = left["webshop"].split("; ")
    assert len(set(titles)) == len(titles) == 10, "methods with further seeds stand there once"
    assert "50.0 [21.5, 78.5]** (over tasks)" in text, "one seed is labelled as what it is"


def test_methods_are_compared_by_task_and_seed_whatever_their_names() -> None:
    def run(method: str, seed: int, outcomes: str, bare: bool = False) -> dict[str, Any]:
        bits = unpack(outcomes, 16)
        final = {"success": float(bits.mean()), "ci95": [0.0, 1.0], "outcomes": outcomes}
        if bare:
            del final["outcomes"]
        warm = {"success": 0.0, "ci95": [0.0, 0.2], "outcomes": "0000"}
        scores = {name: {**value, "greedy": value["success"], "greedy_ci95": [0.0, 1.0],
                         "greedy_outcomes": outcomes if name == "final" else "0000"}
                  for name, value in (("warm_start", warm), ("final", final))}  # fmt: skip
        difference = {"mean": float(bits.mean()), "ci95": [0.0, 0.5]}
        return {"method": method, "seed": seed, **scores, "gain": difference,
                "greedy_gain": difference, "work": {"env_steps": 5}}  # fmt: skip

    base, other = ("ff0f", "f0ff", "00ff"), ("000f", "f0f0", "ff00")
    runs = [run("ours", s, base[s]) for s in range(3)] + [
        run("theirs", s, other[s]) for s in (2, 1, 0)
    ]
    row = {"mean": 0.1, "ci95": [-0.1, 0.3]}
    pairs = [{"base": "ours", "against": "theirs", "seed": s, "difference": row,
              "greedy_difference": row} for s in range(3)]  # fmt: skip
    cell = {"cell": "c", "env": "E", "preset": "p", "split": "test", "episodes": 16, "base": "ours",
            "max_env_steps": 5, "command": "x", "runs": runs, "paired": pairs}  # fmt: skip
    tables = [np.stack([unpack(text, 16) for text in texts]) for texts in (other, base)]
    found = summary.paired(cell, pairs, "difference")
    assert found == difference_over_seeds(*tables) and found.over == "seeds and tasks"
    text = page.section(cell, "f.svg")
    assert "ours minus the other method" in text and "without the outcomes" not in text
    assert f"| **theirs** | **all seeds** | {100 * found.mean:+.1f} [" in text
    assert "| theirs, seed 0 |" in text and "| **ours, all seeds** |" in text
    # The seeds stand in the order of their numbers, in the table and in the figure.
    shown = " · ".join(f"{100 * unpack(text, 16).mean():.1f}" for text in other)
    assert shown in text and shown in overview.table([(Study.load("small"), {"c": cell})])
    drawn = page.draw(cell)
    for texts in (base, other):
        means = ", ".join(f"{100 * unpack(text, 16).mean():.0f}%" for text in texts)
        assert f"; seeds {means}</title>" in drawn
    # Where outcomes were not kept, what was recorded of each seed is used instead.
    old = {**cell, "runs": [run("ours", s, base[s], bare=True) for s in range(3)] + runs[3:]}
    assert summary.paired(old, pairs, "difference").counted
    assert summary.paired(old, pairs, "difference").mean == pytest.approx(0.1)
    assert "without the outcomes of single tasks" in page.section(old, "f.svg")


def test_records_of_the_registry_are_as_they_would_be_written() -> None:
    folder = Path(__file__).resolve().parents[2] / "registry" / "results"
    files = sorted(folder.glob("*.toml"))
    assert len(files) >= 6
    for path in files:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
        assert results.HEADER + results.to_toml(content) == text
        methods = {run["method"] for run in content["runs"]}
        assert content["base"] in methods or not content["paired"]
        assert all(row["base"] == content["base"] for row in content["paired"])
        ends = {(run["method"], run["seed"]): run["final"]["success"] for run in content["runs"]}
        for row in content["paired"]:
            base, other = (ends[row[key], row["seed"]] for key in ("base", "against"))
            assert row["difference"]["mean"] == pytest.approx(base - other, abs=1e-3), row
        # What was learned with option-level credit is not called by the paper's name: where that
        # was learned, too, it stands beside it.
        if content["study"] != "horizon":
            assert "himac-option" in methods


def test_the_overview_holds_the_table_that_the_results_give(tmp_path: Path) -> None:
    def score(success: float) -> dict[str, Any]:
        return {"success": success, "ci95": [0.0, 1.0], "greedy": 1 - success}

    def run(method: str, seed: int, final: float, **more: Any) -> dict[str, Any]:
        return {"method": method, "seed": seed, "warm_start": score(0.25), "final": score(final),
                **more}  # fmt: skip

    cell = {"episodes": 8, "max_env_steps": 5000, "runs": [
        run("himac", 0, 0.5, supervised=score(0.375)), run("himac", 1, 0.75),
        run("himac-no-subdone", 0, 0.5), run("grpo", 0, 0.25),
    ]}  # fmt: skip
    study = dataclasses.replace(Study.load("small"), seeds=(0, 1))
    fewer = {**cell, "runs": cell["runs"][:1]}
    found = overview.table([(study, {"b": fewer, "a": fewer}), (study, {"b": cell})])
    one = "25.0 → **{}** [{}, {}]<br>one seed, over tasks<br>greedy 75.0 → {}"
    alone = one.format("50.0", 22, 78, "50.0")
    assert found.splitlines() == [
        "| | a (8 tasks, 5,000 steps) | b (8 tasks, 5,000 steps) |",
        "|---|--:|--:|",
        f"| HiMAC | {alone} | "
        "25.0 → **62.5** [0, 100]<br>seeds 50.0 · 75.0<br>greedy 75.0 → 37.5 |",
        "| HiMAC's warm start, supervised for the same CPU time | "
        + " | ".join([one.format("37.5", 14, 69, "62.5")] * 2) + " |",
        f"| HiMAC, no `<sub_done>` |  | {alone} |",
        f"| flat GRPO |  | {one.format('25.0', 7, 59, '75.0')} |",
    ]  # fmt: skip
    path = tmp_path / "learning.md"
    path.write_text("# Ours\n", encoding="utf-8")
    assert not overview.update(path, [(study, {"b": cell})])
    path.write_text(f"# Ours\n\n{overview.BEGIN}\nold\n{overview.END}\nmore\n", encoding="utf-8")
    assert overview.update(path, [(study, {"b": cell})])
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Ours\n") and text.endswith(f"\n{overview.END}\nmore\n")
    assert overview.table([(study, {"b": cell})]) in text and "old" not in text


def test_our_own_overview_shows_what_is_recorded() -> None:
    root = Path(__file__).resolve().parents[2]
    recorded = [
        (Study.load(name), results.read_all(root / "registry" / "results", name))
        for name in ("small", "official")
    ]
    assert overview.table(recorded) in (root / "docs" / "learning.md").read_text(encoding="utf-8")


def test_results_of_a_checkout_are_written_into_it() -> None:
    assert provenance.checkout() == Path(__file__).resolve().parents[2]
    assert provenance.provenance()["commit"]


def test_every_study_of_the_registry_can_be_run() -> None:
    for name in registry.names("studies"):
        study = Study.load(name)
        jobs = study.jobs()
        assert study.summary and jobs
        for job in jobs:
            assert job.config.max_env_steps > 0, "methods are compared at equal environment steps"
            assert job.config.note, "a preset says what its figures rest on"
        budgets = {(job.cell, job.config.max_env_steps, job.config.eval_episodes) for job in jobs}
        assert len(budgets) == len(study.cells)


def test_results_of_tasks_that_changed_since_are_marked(tmp_path: Path) -> None:
    score = {"success": 0.5, "ci95": [0.1, 0.9], "greedy": 0.25, "greedy_ci95": [0.1, 0.5]}
    gain = {"mean": 0.25, "ci95": [0.1, 0.4]}

    def cell(env: str, version: str) -> dict[str, Any]:
        run = {"method": "grpo", "seed": 0, "warm_start": score, "final": score, "gain": gain,
               "greedy_gain": gain, "work": {}, "version": version}  # fmt: skip
        return {"study": "toy", "cell": "c", "env": env, "preset": "p", "split": "test",
                "episodes": 8, "base": "himac", "max_env_steps": 5, "command": "himac",
                "missing": [], "runs": [run], "paired": []}  # fmt: skip

    changed = registry.changes_since("sokoban", "0.1.9")
    assert [c.version for c in changed] == ["0.2.0"] and "floor plan" in changed[0].what
    assert registry.changes_since("sokoban", "0.2.0") == []
    assert registry.changes_since("sokoban", "0.10.0") == [], "versions are numbers"
    assert registry.changes_since("alfworld", "0.1.0") == []
    old, new = cell("HiMAC-Sokoban-v0", "0.1.0"), cell("HiMAC-Sokoban-v0", "0.2.0")
    assert f"Since 0.2.0: {changed[0].what}" in page.section(old, "f.svg")
    for current in (new, cell("HiMAC-ALFWorld-v0", "0.1.0")):
        assert "Older tasks" not in page.section(current, "f.svg")
    study = Study.load(str(written(tmp_path)))
    results.write(tmp_path, old, study)
    assert results.read_all(tmp_path, "toy")["c"]["older"] == summary.older(old)
    results.write(tmp_path, new, study)  # the same run, made anew
    assert "older" not in results.read_all(tmp_path, "toy")["c"]
