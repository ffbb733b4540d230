"""Runs whose servers fail: a clear error, nothing lost, and the same run behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fruit_runs
import pytest
from fake_vllm import FakeVLLM, Faults
from safetensors.torch import load_file
from tinymodels import CHATML, save_text_model

from himac_agents.cli import main
from himac_agents.config import TrainConfig
from himac_agents.policies.served import server as servers
from himac_agents.policies.served.server import RolloutError
from himac_agents.training.stopping import StoppedError
from himac_agents.training.trainer import Trainer

SETTINGS: dict[str, Any] = {
    **fruit_runs.BRIEF, "warm_steps": 1, "tasks": 2, "iterations": 2, "checkpoint_every": 9,
    "kl": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_model(tmp_path_factory.mktemp("runs") / "tiny", CHATML, layers=1)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_PATIENCE", 0.5)


def _config(folder: Path, *urls: str) -> TrainConfig:
    return TrainConfig(model=str(folder), rollout="server", servers=urls, **SETTINGS)


def _train(folder: Path, run: Path, *urls: str, resume: bool = False) -> None:
    config = _config(folder, *urls)
    Trainer(config, run, resume=resume, console=fruit_runs.QUIET).run()


def _weights(run: Path) -> dict[str, Any]:
    newest = max((run / "checkpoints").glob("step-*"))
    return load_file(newest / "policy" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FakeVLLM]:
    """An uninterrupted run, and the server that it had."""
    run = tmp_path_factory.mktemp("whole") / "run"
    with FakeVLLM(folder) as fake:
        _train(folder, run, fake.url)
    return run, fake


def test_a_run_samples_from_the_server_and_tells_what_syncs_cost(
    whole: tuple[Path, FakeVLLM],
) -> None:
    run, fake = whole
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    told = [row for row in rows if row["phase"] == "rollout"]
    assert [row["step"] for row in told] == [1, 2]
    assert all(row["sync_gap_max"] < 1e-4 for row in told)
    # After the warm start, and after each phase in which anything was learned.
    learned = [row for row in rows if row.get("updates")]
    assert len({row["phase"] for row in learned}) == 2, "a phase that learns nothing proves nothing"
    assert fake.calls.count(("POST", "/update_weights")) == 1 + len(learned)


@pytest.mark.parametrize("share", [0.1, 0.55, 0.9])
def test_a_server_that_dies_in_a_phase_stops_the_run_which_goes_on_elsewhere(
    folder: Path, whole: tuple[Path, FakeVLLM], tmp_path: Path, share: float
) -> None:
    run, (first, fake) = tmp_path / "run", whole
    most = int(fake.answered * share)
    told = r"does not answer.*himac train --resume .*--servers"
    with (
        FakeVLLM(folder, Faults(dies_after=most)) as dying,
        pytest.raises(StoppedError, match=told),
    ):
        _train(folder, run, dying.url)
    with FakeVLLM(folder) as other:
        assert main(["train", "--resume", str(run), "--servers", other.url]) == 0
        assert other.asked
    for name, tensor in _weights(first).items():
        assert (tensor - _weights(run)[name]).abs().max() < 1e-5, name


def test_what_was_not_learned_in_is_saved_whatever_was_due(folder: Path, tmp_path: Path) -> None:
    """With a checkpoint due every ninth iteration, one iteration is kept all the same."""
    run = tmp_path / "run"
    with FakeVLLM(folder) as dying:

        def die(at: Trainer) -> None:
            if at.at.iteration == 1:
                dying.gone.set()

        trainer = Trainer(_config(folder, dying.url), run, console=fruit_runs.QUIET)
        look = trainer._look
        trainer._look = lambda: (look(), die(trainer))[0]  # type: ignore[method-assign]
        with pytest.raises(StoppedError, match=r"iteration 2, .*learned in 1 iterations is saved"):
            trainer.run()
    assert [p.name for p in sorted((run / "checkpoints").iterdir())][-1] == "step-00000002"


def test_a_sync_that_does_nothing_ends_the_run(folder: Path, tmp_path: Path) -> None:
    told = "nats per token apart"
    with FakeVLLM(folder, Faults(withhold=True)) as fake, pytest.raises(StoppedError, match=told):
        _train(folder, tmp_path / "run", fake.url)


def test_a_wrong_address_is_told_before_anything_is_done(folder: Path, tmp_path: Path) -> None:
    with FakeVLLM(folder) as fake:
        url = fake.url
    with pytest.raises(RolloutError, match="is the server running"):
        _train(folder, tmp_path / "run", url)
    with FakeVLLM(folder) as fake:
        _train(folder, tmp_path / "run", fake.url)


def test_evaluation_asks_the_server(
    folder: Path, whole: tuple[Path, FakeVLLM], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = whole
    asked = ["eval", "fruit_runs:Brief-v0", "--agent", str(run), "--episodes", "2"]
    with FakeVLLM(folder) as fake:
        assert main([*asked, "--rollout", "server", "--servers", fake.url]) == 0
        assert fake.asked and fake.calls.count(("POST", "/update_weights")) == 1
        for name, tensor in _weights(run).items():
            assert (dict(fake.policy.model.named_parameters())[name] == tensor).all()
        before = len(fake.asked)
        assert main(asked) == 0
        assert len(fake.asked) == before, "a run's own servers are not asked by themselves"
    assert main([*asked, "--rollout", "server", "--servers", fake.url]) == 1
    assert "is the server running" in capsys.readouterr().err
