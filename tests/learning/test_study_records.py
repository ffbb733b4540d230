"""What is recorded of a study: never of two kinds of settings, and never lost to a damaged file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fruit_studies import CONFIG, options, written

from himac_agents.cli import study as command
from himac_agents.evaluation.intervals import pack, unpack
from himac_agents.experiments.study import results
from himac_agents.experiments.study.driver import Driver
from himac_agents.experiments.study.plan import Job, Study
from himac_agents.experiments.study.provenance import settings_digest
from himac_agents.files import read_json, read_json_lines


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a card and what a study of one method left in `out`."""
    folder = tmp_path_factory.mktemp("ran")
    assert command.run(options(written(folder), folder / "out", methods=("grpo",))) == 0
    return folder


@pytest.fixture
def place(ran: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(ran / "out", tmp_path / "out")
    written(tmp_path)
    return tmp_path


def test_runs_with_other_settings_are_not_put_into_one_table(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = place / "out" / "results" / "toy-fruit.toml"
    before = table.read_text()
    monkeypatch.setattr(Driver, "run", lambda self: pytest.fail("nothing may run"))

    def refused(card: Path, out: Path) -> str:
        with pytest.raises(ValueError, match="other settings") as error:
            command.run(
                command.Options(
                    setting=str(card), out=out, results=table.parent, page=place / "page.md",
                    methods=("grpo",), seeds=(1,),
                )
            )  # fmt: skip
        assert table.read_text() == before
        return str(error.value)

    card = place / "toy.toml"
    card.write_text(card.read_text().replace("seeds = [0]", "seeds = [0, 1]"))
    # One run elsewhere with the same settings, and it may stand beside the first.
    again = place / "again"
    shutil.copytree(place / "out" / "runs" / "fruit-grpo-seed0", again / "runs/fruit-grpo-seed1")
    study = Study.load(str(card))
    (found,) = results.collect_results(study, again).values()
    results.write(place / "beside", found, study)

    preset = place / "preset.toml"
    for changes in ({"iterations": 6}, {"hidden": 16}, {"lr": 1e-5}):
        preset.write_text(CONFIG.replace(**changes).to_toml())
        assert "grpo seed 0" in refused(card, place / "out"), "its own folder"
        assert "grpo seed 0" in refused(card, again), "what is recorded, and a run below --out"
    preset.write_text(CONFIG.replace(eval_episodes=CONFIG.eval_episodes - 1).to_toml())
    assert "grpo seed 0" in refused(card, place / "out")


def test_a_digest_tells_settings_apart_that_count() -> None:
    same = [CONFIG, CONFIG.replace(seed=5), CONFIG.replace(note="x"), CONFIG.replace(lanes=3)]
    assert len({settings_digest(config) for config in same}) == 1
    other = [CONFIG.replace(lr=1e-5), CONFIG.replace(demos=3), CONFIG.replace(iterations=9)]
    assert len({settings_digest(config) for config in (CONFIG, *other)}) == 4


@pytest.mark.parametrize("name", ["result.json", "provenance.json", "config.toml"])
def test_a_damaged_file_is_named_before_anything_runs(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Driver, "run", lambda self: pytest.fail("nothing may run"))
    path = place / "out" / "runs" / "fruit-grpo-seed0" / name
    path.write_text(path.read_text()[:20])
    with pytest.raises(ValueError, match="not valid") as error:
        command.run(options(place / "toy.toml", place / "out"))
    assert str(path) in str(error.value)


def test_a_copy_of_a_record_is_not_read_in_its_place(place: Path) -> None:
    folder = place / "out" / "results"
    shutil.copy(folder / "toy-fruit.toml", folder / "toy-fruit-before.toml")
    with pytest.raises(
        ValueError, match=r"toy-fruit-before\.toml holds what belongs into toy-fruit"
    ):
        results.read_all(folder, "toy")


def test_a_torn_last_line_is_passed_over(place: Path) -> None:
    path = place / "out" / "runs" / "fruit-grpo-seed0" / "metrics.jsonl"
    rows = path.read_text()
    path.write_text(rows + '{"phase": "exec')
    study = Study.load(str(place / "toy.toml"))
    assert results.collect_results(study, place / "out")["fruit"]["runs"]
    path.write_text('{"phase": "exec\n' + rows)
    with pytest.raises(ValueError, match="line 1: not valid JSON"):
        results.collect_results(study, place / "out")


def test_what_cannot_be_published_stops_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Job("warm", "a", "himac", 0, CONFIG)]
    jobs += [Job("learn", "a", "himac", s, CONFIG, jobs[0].name) for s in (0, 1)]
    monkeypatch.setattr(Driver, "_execute", lambda self, job: 0)

    def full(job: Job) -> None:
        raise OSError(28, "No space left on device")

    lines: list[str] = []
    driver = Driver(jobs, tmp_path, 1, lines.append, full)
    assert driver.run() == {} and not driver.out_of_time
    assert sum("cannot be published" in line for line in lines) == 1, "once, not for every job"
    assert sum(": done" in line for line in lines) == len(jobs)


def test_outcomes_are_of_as_many_tasks_as_they_are_said_to_be() -> None:
    packed = pack([1, 0, 0, 0, 1])
    assert unpack(packed, 5).tolist() == [1, 0, 0, 0, 1]
    for count in (3, 4, 9):
        with pytest.raises(ValueError, match="tasks"):
            unpack(packed, count)
    assert np.array_equal(unpack(packed, 7), [1, 0, 0, 0, 1, 0, 0]), "zeros cannot be told"


def test_files_of_json_are_named_when_they_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in (b"", b'{"a": 1', b"[1]", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.json: "):
            read_json(path)
    path.write_text(json.dumps({"a": 1}))
    assert read_json(path) == {"a": 1}
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert read_json_lines(path) == ([{"a": 1}, {"a": 2}], False)
    path.write_text('{"a": 1}\n{"a"')
    assert read_json_lines(path, ["a"]) == ([{"a": 1}], True)
    for content, line in (('{"b": 1}\n', 1), ('{"a": 1}\n[]\n', 2)):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"line {line}: expected an object"):
            read_json_lines(path, ["a"])
