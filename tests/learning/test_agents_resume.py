"""Runs: resuming is exact, results are complete, errors teach."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from fruit_runs import CONFIG, QUIET

from himac_agents.algorithms.methods import resolve
from himac_agents.config import TrainConfig
from himac_agents.evaluation.loading import load_agent
from himac_agents.files import latest_checkpoint
from himac_agents.training import checkpoint
from himac_agents.training import trainer as trainer_module
from himac_agents.training.progress import Clock
from himac_agents.training.trainer import Trainer
from himac_envs import data


def _weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, policy in trainer.policies.items()
        for key, value in policy.model.state_dict().items()
    }


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    "change", [{}, {"share_parameters": False}, {"kl": 0.01}, {"method": "grpo"}]
)
def test_resuming_equals_going_straight_bit_for_bit(change: dict[str, Any], tmp_path: Path) -> None:
    config = CONFIG.replace(**change)
    straight = Trainer(config, tmp_path / "straight", console=QUIET)
    result = straight.run()
    first = Trainer(config.replace(iterations=2), tmp_path / "parts", console=QUIET).run()
    # The first part evaluated at its end: the run that goes further evaluates at its own.
    resumed = Trainer(config, tmp_path / "parts", resume=True, console=QUIET)
    assert resumed.at.iteration == 2
    again = resumed.run()
    assert again["former"]["iteration_2"].pop("work")["iterations"] == 2
    assert again["former"] == {"iteration_2": first["final"]} and "former" not in result
    assert _equal(_weights(straight), _weights(resumed))
    for key in ("warm_start", "final"):
        assert again[key] == result[key]
    assert again["work"]["env_steps"] == result["work"]["env_steps"] > 0
    lines = [json.loads(x) for x in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    phase = "flat" if config.method == "grpo" else "executor"
    assert [x["step"] for x in lines if x["phase"] == phase] == [1, 2, 3, 4]


@pytest.mark.parametrize("change", [{}, {"share_parameters": False, "warm_planner_share": 0.4}])
def test_resuming_amid_the_warm_start(change: dict[str, Any], tmp_path: Path) -> None:
    config = CONFIG.replace(**change)
    straight = Trainer(config, tmp_path / "straight", console=QUIET)
    straight.warm_start()
    updates = {name: learner.updates for name, learner in straight.learners.items()}
    assert updates == ({"planner": 12, "executor": 30} if change else {"policy": 30})
    part = Trainer(config, tmp_path / "part", console=QUIET)
    part.warm_start(until=13)
    part.save()
    resumed = Trainer(config, tmp_path / "part", resume=True, console=QUIET)
    assert resumed.at.warm == 13
    resumed.warm_start()
    assert _equal(_weights(straight), _weights(resumed))


@pytest.mark.parametrize("how", ["asked to leave", "killed after a checkpoint"])
def test_an_interrupted_warm_start_counts_the_time_of_both_parts(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Trainer(CONFIG, tmp_path, console=QUIET)
    if how == "asked to leave":
        monkeypatch.setattr(Trainer, "stop", threading.Event())
        Trainer.stop.set()
    else:
        monkeypatch.setattr(trainer_module, "_WARM_SAVE", 10)
        real = checkpoint.save

        def save_and_die(*args: Any, **kwargs: Any) -> None:
            real(*args, **kwargs)
            raise KeyboardInterrupt

        monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        part.warm_start()
    monkeypatch.undo()
    saved = checkpoint.read_state(latest_checkpoint(tmp_path / "checkpoints"))["state"]
    assert saved["warm"] == (1 if how == "asked to leave" else 10)
    assert saved["warm_seconds"] > 0 and saved["warm_cpu_seconds"] > 0
    resumed = Trainer(CONFIG, tmp_path, resume=True, console=QUIET)
    assert resumed.at.warm_seconds == saved["warm_seconds"]
    assert resumed.at.warm_cpu_seconds == saved["warm_cpu_seconds"]
    second = Clock()
    resumed.warm_start()
    whole, whole_cpu = second.read()
    for key, most in (("warm_seconds", whole), ("warm_cpu_seconds", whole_cpu)):
        # Both parts, and nothing twice.
        assert saved[key] < getattr(resumed.at, key) <= saved[key] + most


def test_the_result_holds_what_was_promised(tmp_path: Path) -> None:
    config = CONFIG.replace(baselines=("supervised", "grpo", "demonstrator", "oracle"))
    result = Trainer(config, tmp_path / "run", console=QUIET).run()
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved == result
    for entry in (saved["warm_start"], saved["final"], saved["baselines"]["supervised"]):
        for key in ("success", "episodes", "seeds", "ci95", "return", "env_steps", "tokens"):
            assert key in entry and key in entry["greedy"]
    assert saved["baselines"]["oracle"]["success"] == 1.0
    grpo = saved["baselines"]["grpo"]
    assert grpo["work"]["env_steps"] >= saved["work"]["env_steps"]
    low, high = saved["gain"]["temperature_1"]["ci95"]
    assert low <= saved["gain"]["temperature_1"]["mean"] <= high
    assert TrainConfig.from_toml(tmp_path / "run" / "config.toml") == resolve(config)
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    agent = load_agent(tmp_path / "run")
    assert agent.planner is not None and agent.executor.constrained
    flat = load_agent(tmp_path / "run" / "grpo", flat=True)
    assert flat.planner is None


def test_errors_teach(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text(CONFIG.to_toml())
    with pytest.raises(FileExistsError, match="--resume"):
        Trainer(CONFIG, tmp_path / "run", console=QUIET)
    # Stopped before its first checkpoint, a run begins anew in its place.
    assert Trainer(CONFIG, tmp_path / "run", resume=True, console=QUIET).at.warm == 0
    with pytest.raises(FileNotFoundError, match="neither a run"):
        load_agent(tmp_path)
    with pytest.raises(ValueError, match="Did you mean iterations"):
        TrainConfig.from_dict({"iteration": 3})
    with pytest.raises(ValueError, match="should be of type int"):
        TrainConfig.from_dict({"tasks": "many"})
    with pytest.raises(ValueError, match="between 0 and 1"):
        TrainConfig(demo_noise=2.0)
    (tmp_path / "bad.toml").write_text("tasks = = 3")
    with pytest.raises(ValueError, match="not valid TOML"):
        TrainConfig.from_toml(tmp_path / "bad.toml")


def test_one_process_trains_a_run(tmp_path: Path) -> None:
    """Another one is told so; one that has died has let go of it."""
    run = tmp_path / "run"
    first = Trainer(CONFIG, run, console=QUIET)
    first.warm_start(until=2)
    other = (
        "import sys; sys.path.insert(0, sys.argv[1]); from himac_agents.cli import main; "
        "sys.exit(main(['train', '--resume', sys.argv[2]]))"
    )
    command = [sys.executable, "-c", other, str(Path(__file__).parent.parent), str(run)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1, refused.stderr
    assert "another process is training" in refused.stderr.replace("\n", " ")
    first.run_folder.close()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and (run / "result.json").is_file(), done.stderr


def test_a_start_that_fails_leaves_no_run_behind(tmp_path: Path) -> None:
    run, missing = tmp_path / "run", tmp_path / "no-model"
    with pytest.raises(Exception, match="no-model"):
        Trainer(CONFIG.replace(policy="hf", model=str(missing)), run, console=QUIET)
    assert not (run / "config.toml").exists()
    trainer = Trainer(CONFIG, run, console=QUIET)
    assert (run / "config.toml").read_text() == resolve(CONFIG).to_toml()
    trainer.run_folder.close()


def test_official_data_is_where_it_was_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.replace(env_kwargs={"data": "$HIMAC_DATA/alfworld"})
    monkeypatch.delenv("HIMAC_DATA", raising=False)
    monkeypatch.setenv("HIMAC_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="himac data get alfworld"):
        config.env_arguments()
    folder = tmp_path / "data" / "alfworld"
    folder.mkdir(parents=True)
    (folder / data.READY).touch()
    assert config.env_arguments() == {"data": str(folder)}
    monkeypatch.setenv("HIMAC_DATA", "/elsewhere")
    assert config.env_arguments() == {"data": "/elsewhere/alfworld"}
