"""Checkpoints survive `kill -9` at any moment, and say what is wrong when they cannot be read."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import fruit_runs
import numpy as np
import pytest
import torch

from himac_agents.cli import main
from himac_agents.evaluation.loading import load_agent
from himac_agents.files import CheckpointError, latest_checkpoint
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.training import checkpoint
from himac_agents.training.trainer import Trainer

TEXTS = ["go to cabinet 1", "take mug 1 from cabinet 1", "<sub_done>"]


def _policy(seed: int = 0) -> TinyPolicy:
    return TinyPolicy.build(TEXTS, TinySize(16, 1, 1, 16), seed=seed)


def _optimizer(policy: TinyPolicy) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    for parameter in policy.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    return optimizer


def _readable(folder: Path) -> int:
    path = latest_checkpoint(folder)
    state = checkpoint.read_state(path)
    policy = TinyPolicy.load(path / "policy")
    checkpoint.restore_optimizer(path, "policy", torch.optim.AdamW(policy.parameters()))
    # Every file of one checkpoint is of one moment: the weights carry the step they were saved at.
    assert policy.model.model.norm.weight[0].item() == state["state"]["mark"]
    return int(state["step"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_kill_nine_at_thirty_random_moments_leaves_a_loadable_run(tmp_path: Path) -> None:
    policy = _policy()
    optimizer = _optimizer(policy)
    rng = np.random.default_rng(0)
    folder = tmp_path / "checkpoints"

    def save(step: int) -> None:
        with torch.no_grad():
            policy.model.model.norm.weight[0] = float(step)
        checkpoint.save(
            folder, step, {"mark": float(step)}, {"policy": policy}, {"policy": optimizer}
        )

    began = time.perf_counter()
    save(0)
    once = time.perf_counter() - began
    last, killed_amid = 0, 0
    for _ in range(30):
        child = os.fork()
        if child == 0:  # pragma: no cover (dies by SIGKILL)
            try:
                for step in range(last + 1, last + 10_000):
                    save(step)
            finally:
                os._exit(1)
        time.sleep(float(rng.uniform(0.2, 3.0)) * once)
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the child was to die by the signal"
        killed_amid += bool(list(folder.glob(".writing-*")))
        found = _readable(folder)
        assert found >= last
        # On a busy machine a save may take longer than the first one did: wait longer then.
        once = once * 1.3 if found == last else once
        last = found
    assert last > 0, "some checkpoint was finished between the kills"
    assert killed_amid > 0, "some kill fell into the writing of a checkpoint"
    save(last + 1)
    assert not list(folder.glob(".writing-*")), "what a kill left is cleared away"
    assert _readable(folder) == last + 1


def test_only_the_newest_are_kept_and_a_step_can_be_saved_again(tmp_path: Path) -> None:
    policy = _policy()
    optimizer = _optimizer(policy)
    for step in (1, 2, 3, 3):
        checkpoint.save(tmp_path, step, {}, {"policy": policy}, {"policy": optimizer}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_what_was_saved_is_what_is_restored(tmp_path: Path) -> None:
    policy = _policy()
    optimizer = _optimizer(policy)
    path = checkpoint.save(tmp_path, 7, {"a": [1]}, {"policy": policy}, {"policy": optimizer})
    again = TinyPolicy.load(path / "policy")
    other = torch.optim.AdamW(again.parameters(), lr=5.0)
    checkpoint.restore_optimizer(path, "policy", other)
    old, new = optimizer.state_dict(), other.state_dict()
    assert new["param_groups"][0]["lr"] == 1e-3
    for index, fields in old["state"].items():
        for field, value in fields.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(new["state"][index][field]))


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        latest_checkpoint(tmp_path)
    policy = _policy()
    path = checkpoint.save(tmp_path, 1, {}, {"policy": policy}, {"policy": _optimizer(policy)})
    bigger = TinyPolicy.build(TEXTS, TinySize(16, 2, 1, 16))
    with pytest.raises(CheckpointError, match="parameters, this model has"):
        checkpoint.restore_optimizer(path, "policy", torch.optim.AdamW(bigger.parameters()))
    (path / "policy.optimizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"optimizer\.json cannot be read"):
        checkpoint.restore_optimizer(path, "policy", torch.optim.AdamW(policy.parameters()))
    (path / "policy.optimizer.safetensors").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.restore_optimizer(path, "policy", torch.optim.AdamW(policy.parameters()))
    (path / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"state\.json cannot be read"):
        checkpoint.read_state(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with two models, to its end."""
    run = tmp_path_factory.mktemp("finished") / "run"
    config = fruit_runs.CONFIG.replace(
        share_parameters=False, warm_steps=4, iterations=2, checkpoint_every=1
    )
    Trainer(config, run, console=fruit_runs.QUIET).run()
    return run


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("state.json", b"[]"),
        ("state.json", b'{"format": 1}'),
        ("state.json", b'{"format": 1, "state": {"surprise": 3}}'),
        ("executor/model.safetensors", b""),
        ("executor/model.safetensors", b"short"),
        ("executor/config.json", b"{"),
        ("planner/tokenizer.json", b"{}"),
        ("planner", None),
    ],
    ids=str,
)
def test_a_damaged_checkpoint_of_a_run(
    file: str,
    damage: bytes | None,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Resumed or loaded, the error names what is damaged and how to go on without it."""
    run = shutil.copytree(finished, tmp_path / "run")
    newest = latest_checkpoint(run / "checkpoints")
    if damage is None:
        shutil.rmtree(newest / file)
    else:
        (newest / file).write_bytes(damage)
    assert main(["train", "--resume", str(run)]) == 1
    told = capsys.readouterr().err.replace("\n", " ")
    part = newest / file if file == "state.json" else newest / file.split("/")[0]
    assert f"{part} cannot be read" in told and f"Move {newest} away" in told
    if file != "state.json":
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_agent(run)
    # What it tells to do helps.
    (run / "result.json").unlink()
    shutil.rmtree(newest)
    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "result.json").is_file()
