"""The report's page: what it reads, how it groups, what hostile text cannot do, what it refuses."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_pages import HOSTILE, OLD_EPISODE, data_of, read, write_run

from himac_agents.cli import main
from himac_agents.evaluation.intervals import difference_over_seeds, success_over_seeds
from himac_agents.reports import groups, page
from himac_agents.reports.panels import panel
from himac_agents.reports.runs import RunError, find_runs, read_run


def test_seeds_of_a_method_are_one_group_and_methods_share_a_family(tmp_path: Path) -> None:
    for seed in (1, 0):
        write_run(tmp_path / f"h{seed}", seed, iterations=18 + seed)
    write_run(tmp_path / "g", method="grpo", max_env_steps=123)
    write_run(tmp_path / "t", executor_advantage="trajectory")
    write_run(tmp_path / "o", executor_advantage="option")
    runs = [read_run(p) for p in find_runs([tmp_path])]
    (family,) = groups.families(runs)
    assert family.title == "ALFWorld"
    assert [(g.label, [r.seed for r in g.runs]) for g in family.groups] == [
        ("Flat GRPO", [0]),
        ("HiMAC · executor_advantage=None", [0, 1]),
        ("HiMAC · executor_advantage=option", [0]),
        ("HiMAC · executor_advantage=trajectory", [0]),
    ]
    apart = groups.differing(runs)
    assert "iterations" in apart and "seed" in apart and "env" not in apart


def test_families_are_told_apart_by_their_tasks(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", env="HiMAC-ALFWorld-Long-v0", finished=False)
    found = groups.families([read_run(tmp_path / "a"), read_run(tmp_path / "b")])
    assert [f.title for f in found] == ["ALFWorld", "ALFWorld Long"]


def test_a_band_is_the_range_of_seeds_where_all_have_values() -> None:
    line = groups.mean_line([([0, 10, 20], [0.0, 1.0, 2.0]), ([5, 15], [1.0, 1.0])], "x", 0)
    assert line is not None
    assert list(line.x) == [5, 10, 15]
    assert list(line.y) == pytest.approx([0.75, 1.0, 1.25])
    assert list(line.low) == pytest.approx([0.5, 1.0, 1.0])
    assert list(line.high) == pytest.approx([1.0, 1.0, 1.5])
    apart = groups.mean_line([([0, 1], [0.0, 0.0]), ([5, 6], [1.0, 1.0])], "x", 0)
    assert apart is not None and list(apart.x) == [] and len(apart.thin) == 2
    alone = groups.mean_line([([0, 1], [0.0, 1.0]), ([], [])], "x", 0)
    assert alone is not None and list(alone.low) == []
    assert groups.mean_line([([], [])], "x", 0) is None


def test_long_curves_are_running_means() -> None:
    short = list(range(60)), [float(k % 2) for k in range(60)]
    assert groups.smoothed(*short) == short
    x, y = groups.smoothed(list(range(600)), [float(k % 2) for k in range(600)])
    assert len(x) == len(y) == 600
    assert (y[0], y[599]) == (0.0, 1.0)  # the window is centred, also at the ends
    assert all(abs(v - 0.5) < 0.03 for v in y[20:-20])
    line = [3.0 * k + 1 for k in range(600)]
    assert groups.smoothed(x, line)[1] == pytest.approx(line)


def test_pooled_evaluations_have_intervals_over_seeds_and_tasks(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / str(seed), seed) for seed in (0, 1, 2)]
    (family,) = groups.families([read_run(folder) for folder in folders])
    pooled = family.groups[0].pooled("final")
    assert pooled is not None and pooled.episodes == 300 and pooled.success == pytest.approx(0.6)
    assert pooled.ci95 == pytest.approx((0.50, 0.695), abs=0.01), "no seed differs: the tasks' part"
    assert pooled.greedy == pytest.approx(0.7) and pooled.over == "seeds and tasks"
    assert family.groups[0].pooled("nothing") is None
    # Seeds that lie apart: no interval over tasks is as wide as that.
    tables: dict[str, list[list[int]]] = {"warm_start": [], "final": []}
    for seed, folder in enumerate(folders):
        result = json.loads((folder / "result.json").read_text())
        for name, share in (("warm_start", 20), ("final", 30 + 20 * seed)):
            outcomes = [int(k % 100 < share) for k in range(100)]
            result[name] |= {"success": share / 100, "outcomes": outcomes}
            tables[name].append(outcomes)
        (folder / "result.json").write_text(json.dumps(result))
    runs = [read_run(folder) for folder in folders]
    (family,) = groups.families(runs)
    pooled = family.groups[0].pooled("final")
    before, after = (np.asarray(tables[name], float) for name in ("warm_start", "final"))
    assert pooled is not None and pooled.ci95 == success_over_seeds(after).ci95
    assert pooled.ci95[0] < 0.05 and pooled.ci95[1] > 0.95 and pooled.seeds == (0.3, 0.5, 0.7)
    assert family.groups[0].gain() == difference_over_seeds(before, after)
    alone = groups.pool(runs[0].evaluations[-1:])
    assert alone.over == "tasks" and alone.runs == 1
    text = page.render(runs)
    assert "over seeds and tasks" in text and "seeds 30%, 50%, 70%" in text


def test_one_unfinished_run_does_not_blank_its_group(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write_run(tmp_path / str(seed), seed, finished=seed != 1)
    runs = [read_run(path) for path in find_runs([tmp_path])]
    (family,) = groups.families(runs)
    (group,) = family.groups
    pooled = group.pooled("final")
    assert pooled is not None and pooled.runs == 2 and pooled.success == pytest.approx(0.6)
    gain = group.gain()
    assert gain is not None and gain.mean == pytest.approx(0.2)
    text = page.render(runs)
    read(text)
    assert "2 of 3 seeds" in text and "1 of 3 unfinished" in text
    (line,) = [
        line for line in page._table(family, {id(r): "r" for r in runs})["lines"] if line.whole
    ]
    assert line.cells["final"].success == pytest.approx(0.6) and line.cells["seconds"] == 9.0
    assert line.cells["gain"][0] == pytest.approx(0.2)


def test_copies_of_a_seed_are_counted_once(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0)
    write_run(tmp_path / "b", 1)
    shutil.copytree(tmp_path / "a", tmp_path / "again")
    # The same run as it stood before its end, and with other times.
    early = write_run(tmp_path / "early", 0, finished=False)
    rows = [json.loads(line) for line in (early / "metrics.jsonl").read_text().splitlines()]
    lines = [json.dumps({**row, "seconds": 3.5}) + "\n" for row in rows[:4]]
    (early / "metrics.jsonl").write_text("".join(lines))
    runs = [read_run(path) for path in find_runs([tmp_path])]
    (family,) = groups.families(runs)
    (group,) = family.groups
    assert sorted(run.path.name for run in group.runs) == ["a", "b"]
    assert {copy.path.name for copy, of in group.copies} == {"again", "early"}
    pooled = group.pooled("final")
    assert pooled is not None and pooled.runs == 2
    text = page.render(runs)
    assert text.count("not counted") == 2 and "2 seeds" in text and "4 seeds" not in text
    assert len(data_of(text)) == 2, "episodes of copies are not shown twice"
    # The same seed with other figures is another run, and that is said.
    other = write_run(tmp_path / "other", 0)
    metrics = (other / "metrics.jsonl").read_text()
    (other / "metrics.jsonl").write_text(metrics.replace('"entropy": 0.5', '"entropy": 0.4'))
    runs = [read_run(path) for path in find_runs([tmp_path])]
    (family,) = groups.families(runs)
    assert len(family.groups[0].runs) == 3
    assert "of the same seed (0) as other, with other figures" in page.render(runs)


def test_an_unfinished_run_is_shown_as_such(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", finished=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "executor", "st')  # it is writing at this moment
    run = read_run(folder)
    assert not run.finished and run.work["env_steps"] == 4000
    assert [e.name for e in run.evaluations] == ["warm_start"]
    assert run.evaluations[0].ci95 == pytest.approx((0.309, 0.498), abs=1e-3)
    text = page.render([run])
    assert "unfinished" in text and "in the middle of a line" in text
    read(text)


def test_a_run_that_has_only_begun_is_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", finished=False)
    (folder / "metrics.jsonl").unlink()
    (folder / "episodes.jsonl").unlink()
    text = page.render([read_run(folder)])
    assert "there is no metrics.jsonl" in text and "have kept no episodes" in text
    read(text)


def test_constant_metrics_are_a_line_and_not_a_chart(tmp_path: Path) -> None:
    (family,) = groups.families([read_run(write_run(tmp_path / "r"))])
    sections = {name: (cards, constant) for name, cards, constant in panel(family).sections}
    cards, constant = sections["Planner"]
    assert [c.title for c in cards] == ["Entropy"]
    assert constant == [("Clipped tokens", "0%")]
    assert ("Entropy", "0.5") in sections["Executor"][1]
    assert [c.title for c in sections["Options"][0]] == ["Why options ended"]
    assert set(cards[0].by) == {"env_steps", "tokens", "seconds"}


def test_the_page_is_complete_in_itself(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / str(seed), seed)) for seed in (0, 1)]
    text = page.render(runs)
    reader = read(text)
    assert reader.loads == [] and reader.handlers == []
    assert "url(" not in text and "@import" not in text
    assert "ALFWorld" in text and "+20.0" in text
    (entry, other) = data_of(text)
    assert entry["episodes"] == [OLD_EPISODE] and other["hidden"] == 0
    # The policy of the page names its one script by its hash.
    assert "script-src 'sha256-" in text and "unsafe-eval" not in text


def test_only_a_clear_gain_is_coloured() -> None:
    assert page._direction((0.1, 0.05, 0.15)) == "up"
    assert page._direction((0.1, -0.05, 0.15)) == "" == page._direction((-0.1, -0.2, 0.01))
    assert page._direction((-0.1, None, None)) == "down"
    assert page._direction((0.0, None, None)) == ""
    assert [page._points(v) for v in (0.2, -0.0004, -0.022)] == ["+20.0", "0.0", "−2.2"]


def test_tasks_that_changed_alike_have_no_interval(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    out = tmp_path / "out.html"
    for bounds, shown in (([0.1, 0.3], "+10.0 to +30.0"), ([0.2, 0.2], "too few tasks")):
        result = json.loads((folder / "result.json").read_text())
        result["gain"]["temperature_1"]["ci95"] = bounds
        (folder / "result.json").write_text(json.dumps(result))
        page.write_report([folder], out)
        assert (shown in out.read_text()) and ("+20.0 to +20.0" not in out.read_text())


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    turn = {"action": HOSTILE, "text": HOSTILE, "observation": HOSTILE, "reward": math.nan,
            "invalid": True, "advantage": math.inf, "frame": "javascript:alert(1)"}  # fmt: skip
    episode = {
        **OLD_EPISODE, "goal": HOSTILE, "task_id": HOSTILE, "blueprint": [HOSTILE],
        "phase": HOSTILE, "error": HOSTILE,
        "segments": [{"role": "executor", "subgoal": HOSTILE, "index": 0, "turns": [turn]}],
    }  # fmt: skip
    folder = write_run(tmp_path / "<b>r&", episodes=[episode], note="</style><script>1</script>")
    out = tmp_path / "out.html"
    page.write_report([folder], out)
    text = out.read_text(encoding="utf-8")
    reader = read(text)
    assert sorted(reader.scripts) == ["application/json", "script"]
    assert reader.tags.count("script") == 2 and reader.tags.count("img") == 0
    assert reader.handlers == [] and "<b>r" not in text
    (entry,) = json.loads(reader.scripts["application/json"])
    shown = entry["episodes"][0]
    assert shown["goal"] == HOSTILE and shown["segments"][0]["turns"][0]["text"] == HOSTILE
    assert shown["segments"][0]["turns"][0]["reward"] is None


def test_many_episodes_are_thinned_and_counted(tmp_path: Path, monkeypatch: Any) -> None:
    many = [{**OLD_EPISODE, "step": k} for k in range(100)]
    folder = write_run(tmp_path / "r", episodes=many)
    (entry,) = data_of(page.render([read_run(folder)], episodes=10))
    assert [e["step"] for e in entry["episodes"]] == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    assert entry["hidden"] == 90
    monkeypatch.setattr(page, "MAX_DATA", 3 * len(page.script_json(many[99])))
    (entry,) = data_of(page.render([read_run(folder)], episodes=10))
    assert [e["step"] for e in entry["episodes"]] == [77, 88, 99]
    assert "99" not in page.render([read_run(folder)], episodes=0).split('id="data">')[1][:200]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.toml", "method = ", "config.toml: not valid TOML"),
        ("metrics.jsonl", '{"phase": 1\n{"phase": "x", "step": 1}\n', "metrics.jsonl, line 1"),
        ("metrics.jsonl", '{"phase": "executor"}\n', "line 1: expected an object with phase and"),
        ("metrics.jsonl", "[1]\n", "metrics.jsonl, line 1: expected"),
        ("episodes.jsonl", '{"phase": "train"}\n', "episodes.jsonl, line 1"),
        ("result.json", "{", "result.json: not valid JSON"),
        ("result.json", "[]", "result.json: expected an object"),
        ("result.json", '{"final": {"success": "good"}}', "'final' holds no number 'success'"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: str, says: str) -> None:
    folder = write_run(tmp_path / "r")
    (folder / name).write_text(content)
    with pytest.raises(RunError, match="r/") as caught:
        read_run(folder)
    assert says in str(caught.value)


def test_folders_without_runs_are_refused(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(RunError, match="no such file or folder"):
        find_runs([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="has no run"):
        find_runs([tmp_path / "empty"])
    assert main(["report", str(tmp_path / "nowhere")]) == 1
    assert "no such file or folder" in capsys.readouterr().err


def test_inner_runs_are_found_once(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a")
    write_run(tmp_path / "runs" / "a" / "grpo", method="grpo")
    write_run(tmp_path / "runs" / "b")
    for given in ([tmp_path / "runs" / "a", tmp_path / "runs"], [tmp_path / "runs"]):
        found = find_runs(given)
        assert [str(p.relative_to(tmp_path / "runs")) for p in found] == ["a", "a/grpo", "b"]


def test_the_command_writes_whole_files_only(tmp_path: Path, monkeypatch: Any) -> None:
    folder = write_run(tmp_path / "r")
    assert main(["report", str(folder)]) == 0
    written = (folder / "report.html").read_bytes()
    target = tmp_path / "sub" / "all.html"
    assert main(["report", str(folder), "--out", str(target)]) == 0
    assert target.read_bytes() == written

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert main(["report", str(folder), "--episodes", "0"]) == 1
    assert (folder / "report.html").read_bytes() == written
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_reporting_needs_no_torch() -> None:
    code = "import himac_agents.reports.page, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
