"""Evaluations are recorded whole, and a report opens them: figures, episodes, the prompts read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from report_pages import HOSTILE, data_of, read, write_run

from himac_agents.cli import main
from himac_agents.evaluation.metrics import Record
from himac_agents.evaluation.records import RecordFile
from himac_agents.reports import page
from himac_agents.reports.evaluations import find_all, read_evaluation
from himac_agents.reports.runs import RunError
from himac_agents.rollouts.trace import MAX_TEXT
from himac_agents.rollouts.types import Episode, EpisodeRequest, Segment, Turn


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("env", ["HiMAC-Sokoban-Flat-v0", "HiMAC-Sokoban-v0"])
def test_records_hold_the_very_messages_that_a_model_was_sent(tmp_path: Path, env: str) -> None:
    pytest.importorskip("httpx")
    file = tmp_path / "records.jsonl"
    count = [0]

    def answer(request: dict[str, Any]) -> str:
        count[0] += 1
        return f"<think>{count[0]}</think><action>{'up' if count[0] % 2 else 'left'}</action>"

    with ChatServer(answer) as server:
        args = [
            "eval", env, "--agent", "api", "--model", "m", "--base-url", server.url, "--think",
            "--episodes", "2", "--max-steps", "3", "--records", str(file), "--lanes", "1",
        ]  # fmt: skip
        assert main(args) == 0
        sent = [request["messages"] for request in server.requests]
    read_back = []
    for line in _lines(file):
        episode = line["episode"]
        assert episode["task_id"] == line["task_id"] and episode["env_steps"] == line["steps"]
        paid = [turn["reward"] for s in episode["segments"] for turn in s["turns"]]
        assert sum(paid) == pytest.approx(line["return"], abs=1e-6)
        for segment in episode["segments"]:
            spoken = [k for k, m in enumerate(segment["messages"]) if m["role"] == "assistant"]
            assert len(spoken) == len(segment["turns"])
            for turn, k in zip(segment["turns"], spoken, strict=True):
                read_back.append(segment["messages"][:k])
                assert turn["text"].startswith("<think>"), "answers with their thoughts"
    assert read_back == sent and len(sent) >= 5


def _record(task: str, success: bool, kind: str = "") -> Record:
    return Record(task, 0, kind, success, float(success), float(success), 2, 5, 0, None, True, (),
                  None)  # fmt: skip


def _episode(task: str, success: bool, text: str = "a hall") -> Episode:
    turn = Turn("executor", 0, (1,), (-0.5,), "go", "go", observation=text)
    segment = Segment("executor", 0, turns=[turn])
    return Episode(
        EpisodeRequest(task), [segment], success=success, goal=f"goal of {task}", first="a door"
    )


def _file(path: Path, solved: int, failed: int, **more: Any) -> RecordFile:
    file = RecordFile(path, {"agent": "runs/mine", "env": "HiMAC-X-v0", "split": "test"}, **more)
    for k in range(solved + failed):
        kind = "tidy" if k % 2 else "wash"
        file.add(_record(f"t{k}", k < solved, kind), _episode(f"t{k}", k < solved))
    return file


def test_nothing_of_an_evaluation_is_cut(tmp_path: Path) -> None:
    file = _file(tmp_path / "r.jsonl", 0, 0)
    file.add(_record("t", False), _episode("t", False, "x" * (MAX_TEXT * 100)))
    (line,) = _lines(file.path)
    assert len(line["episode"]["segments"][0]["turns"][0]["observation"]) == MAX_TEXT * 100
    assert "cut" not in line["episode"]
    bare = _file(tmp_path / "bare.jsonl", 1, 1, transcripts=False)
    assert all("episode" not in line for line in _lines(bare.path))


def test_going_on_keeps_the_transcripts_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    file = _file(path, 2, 1)
    before = path.read_text()
    path.write_text(before + before[:50])  # torn
    again = RecordFile(path, file.about, resume=True)
    assert path.read_text() == before and [r.task_id for r in again.known] == ["t0", "t1", "t2"]
    again.add(_record("t3", True), _episode("t3", True))
    assert len(_lines(path)) == 4 and path.read_text().startswith(before)
    path.write_text(before.replace("\n", "\n{}\n", 1))
    with pytest.raises(ValueError, match="line 2: not a record"):
        RecordFile(path, file.about, resume=True)


def test_a_report_opens_an_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    _file(path, 6, 3)
    assert main(["report", str(path)]) == 0
    text = (tmp_path / "mine.html").read_text(encoding="utf-8")
    reader = read(text)
    assert reader.loads == [] and "runs/mine on HiMAC-X-v0" in text
    assert "66.7" in text and "35.4–87.9" in text, "Wilson's interval of 6 of 9"
    assert "tidy" in text and "wash" in text and "95% over tasks" in text
    assert 'id="curves"' not in text and 'id="settings"' not in text
    (entry,) = data_of(text)
    solved = [episode["success"] for episode in entry["episodes"]]
    assert solved == [False] * 3 + [True] * 6 and entry["hidden"] == 0
    # Where not all are shown: failures first, some solved ones among them, the rest counted.
    one = read_evaluation(path)
    assert [e["success"] for e in one.shown(4)] == [False, False, False, True]
    assert [e["success"] for e in one.shown(8)] == [False] * 3 + [True] * 5
    assert [e["success"] for e in one.shown(1)] == [False] and one.shown(0) == []
    (entry,) = data_of(page.render([], [one], episodes=4))
    assert entry["hidden"] == 5


def test_a_folder_may_hold_runs_and_evaluations(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "evals").mkdir()
    _file(tmp_path / "evals" / "a.jsonl", 1, 1)
    runs, files = find_all([tmp_path, tmp_path / "evals" / "a.jsonl"])
    assert [p.name for p in runs] == ["run"] and [p.name for p in files] == ["a.jsonl"]
    out = tmp_path / "all.html"
    assert main(["report", str(tmp_path), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "1 run; 1 evaluation" in text and len(data_of(text)) == 2
    assert 'id="curves"' in text and 'id="evaluations"' in text


def test_what_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "demos.jsonl"
    other.write_text('{"messages": []}\n')
    with pytest.raises(RunError, match=r"himac eval --records FILE"):
        find_all([other])
    with pytest.raises(RunError, match="and no evaluation"):
        find_all([tmp_path])
    path = tmp_path / "r.jsonl"
    _file(path, 1, 1)
    path.write_text(path.read_text().replace("\n", "\n[]\n", 1))
    with pytest.raises(RunError, match="line 2"):
        read_evaluation(path)


def test_transcripts_that_were_left_out_are_missed(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    _file(path, 1, 1, transcripts=False)
    text = page.render([], [read_evaluation(path)])
    read(text)
    assert "No transcripts were kept in r.jsonl" in text and "have kept no episodes" in text


def test_a_models_words_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    file = RecordFile(path, {"agent": HOSTILE, "env": HOSTILE, "split": "test"})
    file.add(_record(HOSTILE, False, HOSTILE), _episode(HOSTILE, False, HOSTILE))
    out = tmp_path / "out.html"
    page.write_report([path], out)
    reader = read(out.read_text(encoding="utf-8"))
    assert sorted(reader.scripts) == ["application/json", "script"]
    assert reader.tags.count("script") == 2 and reader.handlers == []
