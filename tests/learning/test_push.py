"""`himac push`: what a hub holds afterwards is the run, for `load_agent` and for transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub
from fruit_runs import CONFIG, QUIET

pytest.importorskip("huggingface_hub")

from himac_agents.cli.app import main
from himac_agents.evaluation.loading import load_agent
from himac_agents.reports.card import files
from himac_agents.training.trainer import Trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push") / "fruit"
    config = CONFIG.replace(iterations=1, note="A toy's figures.")
    Trainer(config, folder, console=QUIET).run()
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    with FakeHub() as one:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", one.url)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        # Xet is a service of its own beside a hub; without it large files go by HTTP.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True, raising=False)
        yield one


def _written(content: dict[str, bytes], folder: Path) -> Path:
    for place, held in content.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(held)
    return folder


def test_a_pushed_run_is_the_run(
    run: Path, hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run), "me/fruit", "--private", "--license", "mit"]) == 0
    assert f"{hub.url}/me/fruit" in capsys.readouterr().out
    repository = hub.repositories["me/fruit"]
    assert repository.private and len(repository.commits) == 1
    assert set(repository.files) == {*files(run), "README.md"}
    assert not any("optimizer" in place for place in repository.files)
    copy = _written(repository.files, tmp_path / "copy")
    ours, theirs = load_agent(run), load_agent(copy)
    for one, other in zip(ours.policies(), theirs.policies(), strict=True):
        mine, other_ = (list(p.parameters()) for p in (one, other))
        assert all((a == b).all() for a, b in zip(mine, other_, strict=True))


def test_the_card_holds_the_evaluation_and_its_manifest(run: Path, hub: FakeHub) -> None:
    from huggingface_hub import ModelCard

    assert main(["push", str(run), "me/fruit", "--base", "a/b"]) == 0
    text = hub.repositories["me/fruit"].files["README.md"].decode()
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    data = ModelCard(text).data
    assert data.base_model == "a/b" and data.library_name == "himac" and data.eval_results
    values = {one.metric_name: one.metric_value for one in data.eval_results}
    final = result["final"]
    assert values == {
        "success at temperature 1": final["success"], "success, greedy": final["greedy"]["success"],
    }  # fmt: skip
    low, high = (f"{100 * x:.1f}" for x in final["ci95"])
    assert f"{100 * final['success']:.1f}% [{low}, {high}]" in text
    told = json.loads(text.split("```json\n")[1].split("```")[0])
    assert told == final["manifest"] and told["task_ids_sha256"]
    assert "A toy's figures." in text and "One training seed (0)" in text
    assert 'load_agent(snapshot_download("me/fruit"))' in text


def test_pushing_again_sends_no_large_file_twice(run: Path, hub: FakeHub) -> None:
    assert main(["push", str(run), "me/fruit"]) == 0
    held = dict(hub.large)
    hub.asked.clear()
    assert main(["push", str(run), "me/fruit"]) == 0
    assert hub.large == held and len(hub.repositories["me/fruit"].commits) == 2


def test_a_run_that_is_not_finished_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {p.relative_to(run).as_posix(): p.read_bytes() for p in run.rglob("*") if p.is_file()}
    del whole["result.json"]
    half = _written(whole, tmp_path / "half")
    assert main(["push", str(half), "me/half", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "None: the run is not finished (1 iterations)" in shown and "model-index" not in shown
    assert "checkpoints/step-" in shown


@pytest.mark.parametrize(
    ("token", "fail", "told"),
    [
        ("", {}, "hf auth login"),
        ("hf_other", {}, "refused (401)"),
        ("hf_test", {"/commit/": 507}, "refused (507): the shelves are full"),
    ],
)
def test_a_hub_that_refuses(
    token: str, fail: dict[str, int], told: str, run: Path, hub: FakeHub,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere/token")
    hub.fail.update(fail)
    assert main(["push", str(run), "me/fruit"]) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert told in shown and "Traceback" not in shown
    assert not any(one.files for one in hub.repositories.values())


def test_what_cannot_be_pushed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.toml").write_text(CONFIG.to_toml())
    for arguments, told in (
        ([str(tmp_path), "me/x"], "is not a run (it has no config.toml)"),
        ([str(tmp_path / "begun"), "me/x"], "holds no checkpoint"),
        ([str(run), "me/too/long"], "not the name of a repository (OWNER/NAME)"),
        ([str(run), "me/x"], "http://127.0.0.1:9 cannot be reached"),
    ):
        assert main(["push", *arguments]) == 1
        assert told in " ".join(capsys.readouterr().err.split())
