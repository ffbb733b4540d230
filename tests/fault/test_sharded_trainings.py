"""Whole runs whose model is sharded over processes: killed, resumed, on two nodes, by servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fruit_runs
import pytest
from fake_vllm import FakeVLLM
from forking import fork
from launching import launch_nodes
from safetensors.torch import load_file
from tinymodels import CHATML, save_text_model

from himac_agents.cli import main
from himac_agents.config import TrainConfig
from himac_agents.files import latest_checkpoint
from himac_agents.training.trainer import Trainer

SETTINGS: dict[str, Any] = {
    **fruit_runs.BRIEF, "warm_steps": 2, "tasks": 4, "seed": 1, "iterations": 3,
    "checkpoint_every": 1, "kl": 0.02,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_model(tmp_path_factory.mktemp("runs") / "tiny", CHATML, layers=1)


def _settings(folder: Path, place: Path, **others: Any) -> str:
    """A file of settings for `himac train`."""
    config = TrainConfig(model=str(folder), **{**SETTINGS, **others})
    (place / "settings.toml").write_text(config.to_toml())
    return str(place / "settings.toml")


def _weights(run: Path) -> dict[str, Any]:
    return load_file(latest_checkpoint(run / "checkpoints") / "policy" / "model.safetensors")


def _rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_two_nodes_learn_what_one_process_learns_killed_and_resumed(
    folder: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    config = TrainConfig(model=str(folder), **SETTINGS)
    Trainer(config, alone, console=fruit_runs.QUIET).run()
    run = tmp_path / "run"
    settings = _settings(folder, tmp_path, baselines=("supervised",))
    asked = [settings, "--shard", "--out", str(run)]
    # Before the last iteration, wherever the processes are then.
    due = run / "checkpoints" / "step-00000004" / "state.json"
    fork(2, tmp_path, main, ["train", *asked], until=due.is_file)
    assert not (run / "result.json").exists()
    launch_nodes("-m", "himac_agents", "train", "--resume", str(run))
    result = json.loads((run / "result.json").read_text())
    assert result["work"]["iterations"] == 3
    assert result["baselines"]["supervised"]["supervised_steps"] > 0
    phases = [(row["step"], row["phase"]) for row in _rows(run) if row.get("updates")]
    assert phases == [(row["step"], row["phase"]) for row in _rows(alone) if row.get("updates")]
    assert len(phases) >= 4
    for name, tensor in _weights(alone).items():
        assert (tensor - _weights(run)[name]).abs().max() < 1e-5, name
    # One process goes on with what two have written.
    assert main(["train", "--resume", str(run), "--no-shard", "--iterations", "4"]) == 0
    assert json.loads((run / "result.json").read_text())["work"]["iterations"] == 4
    assert (latest_checkpoint(run / "checkpoints") / "policy.optimizer.safetensors").is_file()
    assert not {path.name for path in run.rglob(".*")} - {".lock", ".metadata"}


@pytest.mark.parametrize("adapters", [False, True], ids=["whole", "adapters"])
def test_servers_sample_for_a_sharded_model(adapters: bool, folder: Path, tmp_path: Path) -> None:
    run, own = tmp_path / "run", {"iterations": 2, "rollout": "server"}
    if adapters:
        own |= {"lora_rank": 4, "separate_adapters": True}
    with FakeVLLM(folder, loras=2 if adapters else 0) as fake:
        settings = _settings(folder, tmp_path, servers=(fake.url,), **own)
        fork(2, tmp_path, main, ["train", settings, "--shard", "--out", str(run)])
        told = [row for row in _rows(run) if row["phase"] == "rollout"]
        learned = [row for row in _rows(run) if row.get("updates")]
        assert len(told) == 2 and all(row["sync_gap_max"] < 1e-4 for row in told)
        assert len(learned) >= 2, "a phase that learns nothing proves nothing"
        if adapters:
            # Both at first, and then those that have learned.
            loaded = fake.calls.count(("POST", "/v1/load_lora_adapter"))
            assert loaded >= 2 + len(learned)
            return
        assert fake.calls.count(("POST", "/update_weights")) == 1 + len(learned)
        sent = dict(fake.policy.model.named_parameters())
        for name, tensor in _weights(run).items():
            assert (sent[name] == tensor).all(), name
