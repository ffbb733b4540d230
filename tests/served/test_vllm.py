"""Sampling from real vLLM servers: the weights that learn, the same tokens, bound answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: `make served`")

import torch

from himac_agents.agents.asking import Question, submit
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Message, Prompt, Sampling
from himac_agents.policies.hf import HFPolicy
from himac_agents.policies.lora import Lora
from himac_agents.policies.served import weights
from himac_agents.policies.served.rollouts import ServedRollouts, make_rollouts
from himac_agents.policies.served.server import RolloutError

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("go to cabinet 1", "go to cabinet 12", "take mug 1 from cabinet 1", "look", "go")


def _config(server: Any, **settings: Any) -> TrainConfig:
    return TrainConfig(
        policy="hf", model=str(server.folder), dtype="float32", rollout="server",
        servers=(server.url,), **settings,
    )  # fmt: skip


def _served(server: Any) -> tuple[Any, Any]:
    learner = HFPolicy.load(server.folder, device="cpu", dtype="float32")
    rollouts = make_rollouts(_config(server), {"policy": learner})
    return learner, rollouts.serve({"policy": learner})["policy"]


def _move(policy: Any, seed: int, by: float = 0.05) -> None:
    """Other weights, as an update makes them."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise) * by)
    policy.forget()


def _ask(policy: Any, prompts: list[Prompt], how: Sampling) -> list[Any]:
    return [f.result(120) for f in [submit(Question(policy, p, how)) for p in prompts]]


def _ids(policy: Any, text: str = "You are in a room. What next?") -> list[int]:
    return list(policy.encode([Message("user", text)]))


def _taken(policy: Any) -> dict[str, float]:
    assert isinstance(policy.rollouts, ServedRollouts)
    return policy.rollouts.take()


def test_the_gap_is_small_before_and_after_each_sync(whole: Any) -> None:
    learner, policy = _served(whole)
    policy.forget()
    assert _taken(policy)["sync_gap_max"] < 1e-4
    for seed in range(3):
        _move(learner, seed)
        found = _taken(policy)
        assert found["syncs"] == 1 and found["sync_gap_max"] < 1e-4
        print(f"sync {found['sync_seconds']:.2f} s, largest gap {found['sync_gap_max']:.1e}")


def test_a_sync_without_the_output_layer_is_found_out(
    whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is packed for the processor stays stale where a tied head is not sent by its name."""
    learner, policy = _served(whole)
    policy.forget()
    every = weights.named_weights

    def without_head(model: Any) -> Any:
        return {name: tensor for name, tensor in every(model).items() if "lm_head" not in name}

    with monkeypatch.context() as patched:
        patched.setattr(weights, "named_weights", without_head)
        with pytest.raises(RolloutError, match="nats a token apart"):
            _move(learner, 7)
    _taken(policy)
    _move(learner, 9)
    found = _taken(policy)
    assert found["syncs"] == 1 and found["sync_gap_max"] < 1e-4


def test_a_sync_of_the_old_weights_is_found_out(
    whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, policy = _served(whole)
    policy.forget()
    old = {n: t.clone() for n, t in weights.named_weights(learner.model).items()}
    monkeypatch.setattr(weights, "named_weights", lambda model: old)
    with pytest.raises(RolloutError, match="nats a token apart"):
        _move(learner, 8)


def test_the_same_seed_gives_the_same_tokens_whatever_the_load(whole: Any) -> None:
    _, policy = _served(whole)
    policy.forget()
    ids, how = _ids(policy), Sampling(1.0, 24)
    prompts = [Prompt((), ids, noise=10**17 * i + i) for i in range(20)]
    others = [Prompt((), _ids(policy, f"other {i}"), noise=i) for i in range(25)]
    together = _ask(policy, prompts, how)
    backwards = _ask(policy, prompts[::-1], how)[::-1]
    beside = _ask(policy, [*others, *prompts], how)[len(others) :]
    alone = [_ask(policy, [p], how)[0] for p in prompts[:4]]
    for found in (backwards, beside):
        assert [c.token_ids for c in found] == [c.token_ids for c in together]
    assert [c.token_ids for c in alone] == [c.token_ids for c in together[:4]]
    assert len({c.token_ids for c in together}) == len(prompts)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_bound_answers_are_exact(whole: Any, temperature: float) -> None:
    learner, policy = _served(whole)
    policy.forget()
    choices = [learner.encode_reply(c) for c in COMMANDS]
    prompts = [Prompt((), _ids(policy), choices=choices, noise=7**13 * i) for i in range(48)]
    free = [Prompt((), _ids(policy, f"other {i}"), noise=i) for i in range(8)]
    for most in (16, 3):
        how = Sampling(temperature, most)
        found = _ask(policy, [*prompts, *free], how)[: len(prompts)]
        own = {c.token_ids: c for c in learner.generate(prompts, how)}
        # With so many draws of few answers, hardly one is written here that is not there.
        shared = [c for c in found if c.token_ids in own]
        assert len(shared) >= len(found) / 2
        for completion in shared:
            other = own[completion.token_ids]
            assert completion.allowed == other.allowed and completion.cut == other.cut
            assert completion.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        if most == 16:
            assert {c.token_ids for c in found} <= set(choices)
        if temperature == 0.0:
            assert {c.token_ids for c in found} == set(own)


def test_bound_answers_are_drawn_from_the_models_distribution(whole: Any) -> None:
    learner, policy = _served(whole)
    policy.forget()
    choices = [learner.encode_reply(c) for c in COMMANDS]
    prompts = [Prompt((), _ids(policy), choices=choices, noise=11**12 * i) for i in range(400)]
    found = _ask(policy, prompts, Sampling(1.0, 16))
    counts = Counter(c.token_ids for c in found)
    chances = {c.token_ids: float(torch.tensor(c.logprobs).sum().exp()) for c in found}
    for ids, chance in chances.items():
        # Five standard deviations of a share.
        assert abs(counts[ids] / 400 - chance) < 5 * (chance * (1 - chance) / 400) ** 0.5 + 1e-9


def test_ids_that_are_never_written_are_barred(whole: Any) -> None:
    learner, policy = _served(whole)
    with torch.no_grad():  # the embedding is the output layer, too: make a barred id very likely
        learner.model.get_input_embeddings().weight[learner.barred] *= 50
    learner.forget()
    prompts = [Prompt((), _ids(policy), noise=5**9 * i) for i in range(20)]
    found = _ask(policy, prompts, Sampling(1.0, 12))
    barred = set(learner.barred.tolist())
    assert not any(barred & set(c.token_ids) for c in found)
    _move(learner, 3)
    assert _taken(policy)["sync_gap_max"] < 1e-4


def test_adapters_of_two_roles_on_one_server(adapters: Any) -> None:
    made = {
        name: HFPolicy.load(
            adapters.folder, device="cpu", dtype="float32", lora=Lora(8, 16), seed=seed
        )
        for seed, name in enumerate(("planner", "executor"))
    }
    config = _config(adapters, lora_rank=8, separate_adapters=True)
    served = make_rollouts(config, made).serve(made)
    served["planner"].forget()
    for seed, name in enumerate(("planner", "executor", "planner")):
        _move(made[name], seed, by=0.1)
        assert _taken(served[name])["sync_gap_max"] < 1e-4
    greedy = Sampling(0.0, 12)
    for name, policy in served.items():
        prompt = Prompt((), _ids(policy))
        (found,), (own,) = _ask(policy, [prompt], greedy), made[name].generate([prompt], greedy)
        assert found.token_ids == own.token_ids
        assert found.logprobs == pytest.approx(own.logprobs, abs=1e-4)


def _train(*words: str, kill_at: int | None = None, folder: Path | None = None) -> int:
    """`himac train`, killed once an iteration's metrics are written."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "himac_agents", "train", *words],
        env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if kill_at is not None:
        assert folder is not None
        metrics, end = folder / "metrics.jsonl", time.monotonic() + 120
        while not metrics.exists() or f'"rollout", "step": {kill_at}' not in metrics.read_text():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    errors = process.communicate(timeout=240)[1]
    assert kill_at is not None or process.returncode == 0, errors[-3000:]
    return process.returncode


def test_a_training_is_killed_and_goes_on_as_if_it_had_not_been(whole: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    words = [
        "hf", "--model", str(whole.folder), "--env", "fruit_runs:Brief-v0", "--dtype", "float32",
        "--rollout", "server", "--servers", whole.url, "--demos", "2", "--warm-steps", "1",
        "--tasks", "2", "--blueprints", "2", "--executions", "4", "--iterations", "3", "--lr",
        "0.01", "--eval-episodes", "2", "--lanes", "8", "--max-command-tokens", "6",
        "--max-blueprint-tokens", "8", "--constrained", "--checkpoint-every", "1", "--prompt",
        "compact", "--kl", "0", "--least-minibatch", "1", "--threads", "1",
        "--executor-advantage", "trajectory",
    ]  # fmt: skip
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    _train(*words, "--out", str(straight))
    assert _train(*words, "--out", str(killed), kill_at=2, folder=killed) == -signal.SIGKILL
    _train("--resume", str(killed))
    rows = [json.loads(line) for line in (killed / "metrics.jsonl").read_text().splitlines()]
    gaps = [row["logprob_gap"] for row in rows if "logprob_gap" in row]
    assert gaps and max(gaps) < 1e-4
    assert [row["step"] for row in rows if row["phase"] == "rollout"] == [1, 2, 3]
    one, other = (
        load_file(max((run / "checkpoints").glob("step-*")) / "policy" / "model.safetensors")
        for run in (straight, killed)
    )
    for name, tensor in one.items():
        assert (tensor - other[name]).abs().max() < 1e-4, name


def test_a_taken_port_is_told_at_once(whole: Any) -> None:
    port = whole.url.rpartition(":")[2]
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "himac_agents", "serve", str(whole.folder), "--port", port],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and "is taken: --port names another" in done.stderr
    assert time.monotonic() - begun < 30


def test_a_server_that_is_killed_in_a_phase(adapters: Any) -> None:
    """The last test: nobody can ask this server afterwards."""
    learner = HFPolicy.load(adapters.folder, device="cpu", dtype="float32", lora=Lora(8, 16))
    config = _config(adapters, lora_rank=8)
    policy = make_rollouts(config, {"policy": learner}).serve({"policy": learner})["policy"]
    policy.forget()
    long = Sampling(1.0, 1500)
    coming = [submit(Question(policy, Prompt((), _ids(policy), noise=i), long)) for i in range(16)]
    adapters.process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    with pytest.raises(RolloutError, match=adapters.url):
        for one in coming:
            one.result(60)
    assert time.monotonic() - begun < 60
