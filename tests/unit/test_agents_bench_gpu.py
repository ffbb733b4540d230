"""`himac bench gpu` runs: the same code on a CPU with a small model, part by part and whole."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from himac_agents.cli import main
from himac_agents.experiments.bench import gpu, gpu_parts
from himac_agents.experiments.bench.gpu_parts import Row, Setup

SMALL = Setup("cpu", small=True, lanes=3, steps=3)


def test_without_a_gpu_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "gpu"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "no device 'cuda'" in said and "--device cpu --small" in said
    with pytest.raises(ValueError, match=r"'all': choose among checks, local, update, vllm"):
        gpu.run(SMALL, ["all"])


@pytest.mark.parametrize("part", ["checks", "local", "update"])
def test_each_part_runs_alone(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = gpu.run(SMALL, [part])
    assert report.rows and not report.failed and not report.skipped
    assert {row.part for row in report.rows} == {part}
    units = {row.unit for row in report.rows}
    if part == "checks":
        assert sum(row.passed is True for row in report.rows) >= 6
    else:
        assert all(row.figure > 0 for row in report.rows)
        assert {"local": "steps/s", "update": "tokens/s"}[part] in units and "GiB" in units
    gpu.show(report, SMALL)
    told = capsys.readouterr().out
    assert f"himac bench gpu --parts {part} --device cpu --small" in told and "two layers" in told
    json.dumps(asdict(report))


def test_a_part_is_a_process_of_its_own() -> None:
    report = gpu.Report("")
    gpu._apart(SMALL, "update", 300.0, report)
    assert not report.skipped and {row.part for row in report.rows} == {"update"}
    assert all(row.figure > 0 for row in report.rows)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_what_was_not_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    words = ["--device", "cpu", "--small", "--parts", "vllm", "--json", str(path)]
    assert main(["bench", "gpu", *words]) == 0
    found = json.loads(path.read_text())
    assert found["rows"] == [] and "vLLM is not installed here" in found["skipped"]["vllm"]
    assert found["commands"]["vllm"].startswith("himac bench gpu --parts vllm --device cpu --small")
    assert "vllm: not run: vLLM is not installed here" in capsys.readouterr().out


def test_what_fails_or_comes_too_late_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    report = gpu.run(SMALL, minutes=0.0)
    assert set(report.skipped) == set(gpu.PARTS) and not report.failed
    assert all("minutes were over" in why for why in report.skipped.values())

    def slow(*args: Any, timeout: float, **kwargs: Any) -> Any:
        raise subprocess.TimeoutExpired("himac", timeout)

    monkeypatch.setattr(subprocess, "run", slow)
    report = gpu.run(SMALL, ["checks", "local"])
    assert report.failed and all("stopped after" in why for why in report.skipped.values())

    def broken(words: list[str], **kwargs: Any) -> Any:
        return subprocess.CompletedProcess(words, 1, "", "│ out of memory │\n╰────╯\n")

    monkeypatch.setattr(subprocess, "run", broken)
    report = gpu.run(SMALL, ["checks", "local"])
    assert report.failed and report.skipped["local"] == "failed with status 1: out of memory"
    assert gpu.Report("", [Row("checks", "gap", 2.0, "nats", 1.0)]).failed
    assert not gpu.Report("", [Row("checks", "gap", 0.5, "nats", 1.0)]).failed


def test_a_check_finds_weights_that_are_not_those_that_learn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rollout reads with a layer that was not joined anew."""
    from himac_agents.policies.generation.reader import Reader

    real = Reader.refresh

    def stale(self: Reader) -> None:
        real(self)
        for layer in self._layers:
            layer.down = layer.down * 1.5

    monkeypatch.setattr(Reader, "refresh", stale)
    wrong = [row.what for row in gpu_parts.checks(SMALL) if row.passed is False]
    assert any("rollout against learning, float32" in what for what in wrong)
