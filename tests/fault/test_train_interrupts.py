"""A run that is interrupted, however, ends as if it had not been: bit for bit, times excepted."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fruit_runs
import numpy as np
import pytest
from fruit_runs import QUIET
from safetensors.torch import load_file

from himac_agents import cli
from himac_agents.files import latest_checkpoint
from himac_agents.training import checkpoint
from himac_agents.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")

CONFIG = fruit_runs.CONFIG.replace(
    share_parameters=False, baselines=("grpo", "oracle"), eval_at_tokens=150
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nobody disturbs, and how long it takes."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    began = time.perf_counter()
    Trainer(CONFIG, folder, console=QUIET).run()
    return folder, time.perf_counter() - began


def _train(run: Path, before: Callable[[], None] = lambda: None) -> int:
    """A process that begins the run, or continues it where it has begun; its id."""
    preset = run.with_suffix(".toml")
    preset.write_text(CONFIG.to_toml())
    begun = (run / "config.toml").exists()
    args = ["--resume", str(run)] if begun else [str(preset), "--out", str(run)]
    child = os.fork()
    if child == 0:  # pragma: no cover (another process)
        status = 70
        try:
            with run.with_suffix(".err").open("w") as told:
                os.dup2(told.fileno(), 1)
                os.dup2(told.fileno(), 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                signal.signal(signal.SIGINT, signal.default_int_handler)
                before()
                status = cli.main(["train", *args])
                sys.stderr.flush()
        finally:
            os._exit(status)
    return child


def _ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _wait_for(child: int, ready: Callable[[], bool]) -> None:
    while not ready():
        assert os.waitpid(child, os.WNOHANG)[0] == 0, "the run ended before it could be disturbed"
        time.sleep(0.002)


def _lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if "seconds" not in k}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def _charts(run: Path) -> dict[str, list[int]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return {tag: [e.step for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


def _assert_same(run: Path, other: Path, *, warm_lines: bool = True) -> None:
    for part in (".", "grpo"):
        a, b = run / part, other / part
        for name in ("result.json",):
            one, two = (json.loads((x / name).read_text()) for x in (a, b))
            assert _timeless(one) == _timeless(two)
        rows = [
            [
                _timeless(json.loads(line))
                for line in (x / "metrics.jsonl").read_text().splitlines()
                if warm_lines or "warm_start" not in line
            ]
            for x in (a, b)
        ]
        assert rows[0] == rows[1]
        assert _charts(a) == _charts(b)
        shown = [
            [json.loads(line)["step"] for line in (x / "episodes.jsonl").read_text().splitlines()]
            for x in (a, b)
        ]
        assert shown[0] == shown[1]
        last = [latest_checkpoint(x / "checkpoints") for x in (a, b)]
        assert last[0].name == last[1].name
        weights = sorted(p.relative_to(last[0]) for p in last[0].rglob("*.safetensors"))
        assert weights
        for path in weights:
            one, two = load_file(last[0] / path), load_file(last[1] / path)
            assert one.keys() == two.keys()
            assert all(one[key].equal(two[key]) for key in one), path


def test_kill_nine_at_random_moments(straight: tuple[Path, float], tmp_path: Path) -> None:
    whole, seconds = straight
    rng, run = np.random.default_rng(0), tmp_path / "run"
    # How far it comes is counted in lines, since a busy machine keeps no time.
    for lines in sorted(rng.integers(_lines(whole / "metrics.jsonl"), size=6)):
        child = _train(run)
        _wait_for(child, lambda at=int(lines): _lines(run / "metrics.jsonl") >= at)
        time.sleep(float(rng.uniform(0.0, 0.02)) * seconds)
        os.kill(child, signal.SIGKILL)
        assert _ended(child) == -signal.SIGKILL
    assert _ended(_train(run)) == 0, run.with_suffix(".err").read_text()[-2000:]
    _assert_same(run, whole)


@pytest.mark.parametrize("where", ["warm start", "learning"])
def test_control_c_leaves_a_checkpoint_and_names_the_command(
    where: str, straight: tuple[Path, float], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    child = _train(run)
    if where == "warm start":
        _wait_for(child, (run / "config.toml").exists)
    else:
        _wait_for(child, lambda: '"planner", "step": 1,' in _text(run / "metrics.jsonl"))
    told, left = run.with_suffix(".err"), 0
    os.kill(child, signal.SIGINT)
    left = _ended(child)
    assert left == 130, told.read_text()[-2000:]
    assert "stopped" in told.read_text()
    if where == "learning":
        # Nothing was lost: the checkpoint is of the very iteration.
        assert f"himac train --resume {run}" in told.read_text().replace("\n", "")
        state = checkpoint.read_state(latest_checkpoint(run / "checkpoints"))["state"]
        assert state["iteration"] >= 1 and state["lines"] == _lines(run / "metrics.jsonl")
    assert _ended(_train(run)) == 0, told.read_text()[-2000:]
    _assert_same(run, straight[0], warm_lines=False)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux's prlimit")
@pytest.mark.parametrize("where", ["at the first checkpoint", "learning"])
def test_a_disk_that_takes_no_more(
    where: str, straight: tuple[Path, float], tmp_path: Path
) -> None:
    run, full = tmp_path / "run", (30_000, 30_000)  # files end at 30 kB: less than the model's

    def ignore() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if where != "learning":
            resource.setrlimit(resource.RLIMIT_FSIZE, full)

    child = _train(run, ignore)
    if where == "learning":
        _wait_for(child, lambda: '"planner", "step": 2,' in _text(run / "metrics.jsonl"))
        resource.prlimit(child, resource.RLIMIT_FSIZE, full)
    assert _ended(child) == 1
    told = run.with_suffix(".err").read_text().replace("\n", " ")
    assert f"himac train --resume {run}" in told and "Traceback" not in told
    left = [path.name for path in (run / "checkpoints").glob("*")]
    assert bool(left) == (where == "learning"), "what could not be finished is cleared away"
    assert not any(name.startswith(".") for name in left)
    assert _ended(_train(run)) == 0, run.with_suffix(".err").read_text()[-2000:]
    _assert_same(run, straight[0])
