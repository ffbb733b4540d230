"""Whole trainings on real servers: two processes that are killed and go on, two servers at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: `make served`")

import fruit_runs
import psutil
from fake_vllm import wait_for
from gates import Gate
from launching import ROOT, environment
from safetensors.torch import load_file
from served_policies import ask, ids_of, move, served, taken

from himac_agents.agents.asking import Question, submit
from himac_agents.config import TrainConfig
from himac_agents.files import latest_checkpoint
from himac_agents.policies.base import Prompt, Sampling

#: Of another length than what a sync asks for, so that a blueprint's request is known by it.
_BLUEPRINT = 10
SETTINGS: dict[str, Any] = {
    **fruit_runs.BRIEF, "warm_steps": 1, "tasks": 6, "iterations": 2, "checkpoint_every": 1,
    "kl": 0.0, "lanes": 16, "executions": 8, "max_blueprint_tokens": _BLUEPRINT,
    "rollout": "server",
}  # fmt: skip
#: The checkpoint before the last iteration.
_BEFORE = "step-00000002"


@dataclass
class Training:
    """`himac train` under way, in processes of its own."""

    process: subprocess.Popen[str]

    @classmethod
    def of(cls, *words: str) -> Training:
        return cls(
            subprocess.Popen(
                [sys.executable, "-m", "himac_agents", "train", *words],
                env=environment(),
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def kill(self) -> None:
        """Ends all of its processes, wherever they are."""
        launcher = psutil.Process(self.process.pid)
        for one in [launcher, *launcher.children(recursive=True)]:
            one.send_signal(signal.SIGKILL)

    def wait(self) -> str:
        """What it printed; it has ended."""
        try:
            return str(self.process.communicate(timeout=240)[1])
        finally:
            if self.process.poll() is None:
                self.kill()

    def succeed(self) -> None:
        printed = self.wait()
        assert self.process.returncode == 0, printed[-4000:]


def _begin(folder: Path, run: Path, *urls: str) -> Training:
    """Two processes that share a model, each played by the same servers."""
    config = TrainConfig(model=str(folder), servers=urls, **SETTINGS)
    run.parent.mkdir(parents=True, exist_ok=True)
    settings = run.parent / "settings.toml"
    settings.write_text(config.to_toml())
    return Training.of(str(settings), "--processes", "2", "--shard", "--out", str(run))


def _rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _learned(run: Path) -> list[tuple[Any, ...]]:
    """What was played and learned, phase by phase, without what it took and what syncs found."""
    kept = ("phase", "step", "updates", "sequences", "live", "success", "return", "tokens_total")
    return [tuple(row.get(k) for k in kept) for row in _rows(run) if row["phase"] != "rollout"]


def _is_as_if_unbroken(run: Path, unbroken: Path) -> None:
    """The same episodes in the same phases, and the same weights; the syncs' gaps are small."""
    assert _learned(run) == _learned(unbroken)
    gaps = [row["sync_gap_max"] for row in _rows(run) if row["phase"] == "rollout"]
    gaps += [row["logprob_gap"] for row in _rows(run) if "logprob_gap" in row]
    assert len(gaps) > SETTINGS["iterations"] and max(gaps) < 1e-4
    one, other = (
        load_file(latest_checkpoint(which / "checkpoints") / "policy" / "model.safetensors")
        for which in (run, unbroken)
    )
    for name, tensor in one.items():
        assert (tensor - other[name]).abs().max() < 1e-5, name


@pytest.fixture(scope="module")
def unbroken(whole: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes on one server, from its beginning to its end."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    _begin(whole.folder, run, whole.url).succeed()
    phases = [(row["step"], row["phase"]) for row in _rows(run) if row.get("updates")]
    last = SETTINGS["iterations"]
    assert {(last, "planner"), (last, "executor")} <= set(phases), "both phases are to learn"
    return run


class Killer:
    """Kills what it is told to, once, at a moment of the last iteration.

    Args:
        run: The run's folder.
        moment: "planner": blueprints are being written. "executor": commands are, after the
            planner has learned. "sync": the weights after the executor's update have just been
            sent, and no checkpoint holds them.
    """

    def __init__(self, run: Path, moment: str) -> None:
        self._due = run / "checkpoints" / _BEFORE / "state.json"
        self._moment, self._lock = moment, threading.Lock()
        self._seen: list[str] = []
        self.kill: Any = None
        self.killed = 0.0

    def __call__(self, path: str, body: dict[str, Any]) -> None:
        with self._lock:
            if self.killed or not self._due.is_file():
                return
            kind = path
            if path == "/v1/completions":
                constrained = "himac_choices" in body.get("vllm_xargs", {})
                kind = "command" if constrained else str(body["max_tokens"])
            self._seen.append(kind)
            sent, blueprint = self._seen.count("/resume"), str(_BLUEPRINT)
            reached = {
                "planner": self._seen.count(blueprint) == 3,
                "executor": sent == 1 and kind == "command",
                "sync": sent == 2,
            }
            if reached[self._moment]:
                self.kill()
                self.killed = time.monotonic()


@pytest.mark.parametrize(
    "moment",
    [
        "executor",
        pytest.param("planner", marks=pytest.mark.slow),
        pytest.param("sync", marks=pytest.mark.slow),
    ],
)
def test_two_processes_are_killed_and_go_on_as_if_they_had_not_been(
    moment: str, whole: Any, unbroken: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    killer = Killer(run, moment)
    with Gate(whole.url, killer) as gate:
        training = _begin(whole.folder, run, gate.address)
        killer.kill = training.kill
        training.wait()
    assert killer.killed and training.process.returncode == -signal.SIGKILL
    assert latest_checkpoint(run / "checkpoints").name == _BEFORE
    # One process may go on where two were; the server is asked by its own address.
    words = ["--no-shard"] if moment == "executor" else ["--processes", "2"]
    Training.of("--resume", str(run), "--servers", whole.url, *words).succeed()
    _is_as_if_unbroken(run, unbroken)


def test_the_least_busy_of_two_servers_is_asked_and_both_get_the_weights(
    whole: Any, second: Any
) -> None:
    released, holding = threading.Event(), []

    def hold(path: str, body: dict[str, Any]) -> None:
        if path == "/v1/completions" and body["max_tokens"] == 5:
            holding.append(path)
            released.wait(120)

    with Gate(whole.url) as one, Gate(second.url, hold) as two:
        learner, policy = served(whole.folder, one.address, two.address)
        policy.forget()
        taken(policy)
        sent = [gate.count("/update_weights") for gate in (one, two)]
        move(learner, 4)
        found = taken(policy)
        assert found["syncs"] == 1 and found["sync_gap_max"] < 1e-4
        assert [gate.count("/update_weights") for gate in (one, two)] == [n + 1 for n in sent]
        ids, how = ids_of(policy), Sampling(1.0, 24)
        prompts = [Prompt((), ids, noise=10**17 * i + i) for i in range(16)]
        before = [gate.count("/v1/completions") for gate in (one, two)]
        both = ask(policy, prompts, how)
        asked = [g.count("/v1/completions") - n for g, n in zip((one, two), before, strict=True)]
        assert sum(asked) == len(prompts) and min(asked) >= 4
        # Whoever answers, the tokens are those of the model that learns.
        greedy = Sampling(0.0, 24)
        (own,) = learner.generate(prompts[:1], greedy)
        for answer in ask(policy, [prompts[0]] * 2, greedy):
            assert answer.token_ids == own.token_ids
        # Of four, two are held back at the second one, which from then on is the busier.
        coming = [submit(Question(policy, p, Sampling(1.0, 5))) for p in prompts[:4]]
        wait_for(lambda: len(holding) == sum(future.done() for future in coming) == 2, 120)
        before = [gate.count("/v1/completions") for gate in (one, two)]
        for prompt in prompts[4:10]:
            ask(policy, [prompt], how)
        asked = [g.count("/v1/completions") - n for g, n in zip((one, two), before, strict=True)]
        assert asked == [6, 0]
        released.set()
        assert all(future.result(60) for future in coming)
    _, alone = served(whole.folder, whole.url)
    alone.learner.model.load_state_dict(learner.model.state_dict())
    alone.forget()
    assert [c.token_ids for c in ask(alone, prompts, how)] == [c.token_ids for c in both]


def test_one_of_two_servers_dies_and_the_run_goes_on_with_the_other(
    whole: Any, second: Any, unbroken: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    killer = Killer(run, "executor")
    killer.kill = second.kill
    with Gate(second.url, killer) as gate:
        training = _begin(whole.folder, run, whole.url, gate.address)
        printed = training.wait()
        ended = time.monotonic()
        assert killer.killed and ended - killer.killed < 30
        assert training.process.returncode == 1
        told = " ".join(printed.split())
        assert f"{gate.address} does not answer" in told
        assert f"himac train --resume {run}" in told and "--servers" in told
        assert gate.count("/update_weights") >= 3 and gate.count("/v1/completions") > 20
    assert latest_checkpoint(run / "checkpoints").name == _BEFORE
    Training.of("--resume", str(run), "--servers", whole.url, "--processes", "2").succeed()
    _is_as_if_unbroken(run, unbroken)
