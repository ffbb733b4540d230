"""Two processes make the update that one makes, and a run of two is one run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import fruit_runs
import numpy as np
import pytest
import torch
from fake_vllm import wait_for
from launching import ROOT, environment, launch
from safetensors.torch import load_file

from himac_agents.algorithms.batching import join
from himac_agents.cli import processes
from himac_agents.config import TrainConfig
from himac_agents.distributed import Team, team
from himac_agents.files import latest_checkpoint
from himac_agents.policies.base import TokenBatch
from himac_agents.training import checkpoint
from himac_agents.training.trainer import Trainer


def test_two_processes_make_the_update_of_one(tmp_path: Path) -> None:
    for count in (1, 2):
        launch(count, str(ROOT / "tests" / "parallel_runs.py"), str(tmp_path), "sequence")
    one = load_file(tmp_path / "rank0-of-1.safetensors")
    first, second = (load_file(tmp_path / f"rank{r}-of-2.safetensors") for r in (0, 1))
    assert one.keys() == first.keys() == second.keys()
    assert one["metric.updates"] >= 4 and one["metric.kl"] > 0
    for key, value in one.items():
        assert torch.equal(first[key], second[key]), f"{key} differs between the processes"
        if not key.startswith("metric."):
            assert (value - first[key]).abs().max() < 1e-5, key
        else:
            assert torch.allclose(value, first[key], rtol=1e-3, atol=1e-5), key


def test_a_number_that_is_none_in_one_process_stops_both(tmp_path: Path) -> None:
    """None waits for the other; the checkpoint is of before the step, and goes on."""
    launch(2, str(ROOT / "tests" / "parallel_runs.py"), str(tmp_path), "sequence", "broken")
    told = [(tmp_path / f"rank{rank}.txt").read_text() for rank in (0, 1)]
    assert told[0] == told[1]
    assert "supervised step 4, warm start, policy 'policy': a log-probability" in told[0]
    newest = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint.read_state(newest)["state"]["warm"] == 3
    config = TrainConfig.from_toml(tmp_path / "run" / "config.toml")
    again = Trainer(config, tmp_path / "run", resume=True, console=fruit_runs.QUIET)
    assert again.run()["work"]["iterations"] == 2


def test_a_run_of_two_processes_is_one_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = (
        "--env-kwargs data=generated max_steps=6 --demos 8 --warm-steps 3 --warm-tokens 256 "
        "--iterations 1 --tasks 3 --blueprints 2 --executions 2 --eval-episodes 5 --lanes 4 "
        "--eval-split valid --threads 1 --least-minibatch 1 --kl 0.01 --baselines supervised "
        "--resample-dead 1"
    )
    command = "-m himac_agents train quickstart --processes 2"
    launch(1, *command.split(), "--out", str(run), *options.split())
    result = json.loads((run / "result.json").read_text())
    assert result["work"]["processes"] == 2
    assert result["final"]["episodes"] == 5 and result["work"]["iterations"] == 1
    assert result["baselines"]["supervised"]["supervised_steps"] > 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [x["phase"] for x in lines if x["phase"] in ("planner", "executor")] == [
        "planner", "executor",
    ]  # fmt: skip
    # 3 tasks x 2 blueprints, 3 tasks x 2 executions: counted over both processes.
    planner = next(x for x in lines if x["phase"] == "planner")
    assert planner["sequences"] == 6
    assert len(list((run / "checkpoints").iterdir())) >= 1
    hidden = {path.name for path in run.rglob(".*")}
    assert hidden <= {".lock"}, "nothing half-written is left"


def test_control_c_ends_all_processes_and_the_run_goes_on(tmp_path: Path) -> None:
    preset, run = tmp_path / "brief.toml", tmp_path / "run"
    preset.write_text(fruit_runs.CONFIG.replace(checkpoint_every=1, iterations=500).to_toml())
    command = [sys.executable, "-m", "himac_agents", "train", "--processes", "2"]
    with subprocess.Popen(
        [*command, str(preset), "--out", str(run)], cwd=ROOT, env=environment(),
        stderr=subprocess.PIPE, text=True,
    ) as started:  # fmt: skip
        wait_for(lambda: '"executor", "step": 2,' in _text(run / "metrics.jsonl"), 240.0)
        started.send_signal(signal.SIGINT)
        told = started.communicate(timeout=60)[1]
    assert started.returncode == 130, told[-2000:]
    assert "continues the run" in told and "Traceback" not in told
    newest = latest_checkpoint(run / "checkpoints")
    further = checkpoint.read_state(newest)["state"]["iteration"] + 1
    launch(1, *command[1:], "--resume", str(run), "--iterations", str(further))
    work = json.loads((run / "result.json").read_text())["work"]
    assert work["iterations"] == further and work["processes"] == 2


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("count", ["0", "two", "-1", ""])
def test_a_number_of_processes_is_one(count: str) -> None:
    with pytest.raises(ValueError, match="must be a whole number, 1 or more"):
        processes.asked(["quickstart", f"--processes={count}"])


def test_processes_do_not_start_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="started several processes already"):
        processes.start(2, ["train"])


def test_by_itself_a_process_is_the_null_team() -> None:
    alone = team()
    assert type(alone) is Team and (alone.rank, alone.size) == (0, 1) and alone.leads
    assert alone.share([1, 2, 3]) == [1, 2, 3] and alone.gather("x") == ["x"]
    assert alone.mean({"a": 2.0}, 0.5) == {"a": 2.0} and alone.add({"a": 2.0}) == {"a": 2.0}


def test_shares_are_contiguous_and_whole() -> None:
    class One(Team):
        def __init__(self, rank: int, size: int) -> None:
            self.rank, self.size = rank, size

    for count in (0, 1, 5, 16):
        shares = [One(rank, 3).share(range(count)) for rank in range(3)]
        assert [x for share in shares for x in share] == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_joined_batches() -> None:
    def made(rows: int, width: int, temperature: float = 1.0) -> TokenBatch:
        ones = np.ones((rows, width), np.float32)
        ids = np.ones((rows, width), np.int64)
        lengths = np.full(rows, width)
        return TokenBatch(ids, ones, ones, ones, lengths, [[(1, (2, 3))]] * rows, temperature)

    whole = join([made(2, 3), None, made(1, 5)])
    assert whole is not None and whole.token_ids.shape == (3, 5)
    assert whole.mask.sum() == 2 * 3 + 5 and list(whole.lengths) == [3, 3, 5]
    assert len(whole.allowed) == 3 and join([None, None]) is None
    with pytest.raises(ValueError, match="different temperatures"):
        join([made(1, 2), made(1, 2, 0.5)])
