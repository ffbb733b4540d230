"""Sampling from real vLLM servers: the weights that learn, the same tokens, constrained answers."""

from __future__ import annotations

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
from served_policies import (
    COMMANDS,
    ask,
    config_of,
    ids_of,
    insist_on_exact_choices,
    move,
    served,
    taken,
)

from himac_agents.agents.asking import Question, submit
from himac_agents.policies.base import Prompt, Sampling
from himac_agents.policies.hf import HFPolicy
from himac_agents.policies.lora import Lora
from himac_agents.policies.served import weights
from himac_agents.policies.served.rollouts import make_rollouts
from himac_agents.policies.served.server import RolloutError

ROOT = Path(__file__).resolve().parents[2]


def test_the_gap_is_small_before_and_after_each_sync(whole: Any) -> None:
    learner, policy = served(whole.folder, whole.url)
    policy.forget()
    assert taken(policy)["sync_gap_max"] < 1e-4
    for seed in range(3):
        move(learner, seed)
        found = taken(policy)
        assert found["syncs"] == 1 and found["sync_gap_max"] < 1e-4
        print(f"sync {found['sync_seconds']:.2f} s, largest gap {found['sync_gap_max']:.1e}")


def test_a_sync_without_the_output_layer_is_found_out(
    whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is packed for the processor stays stale where a tied head is not sent by its name."""
    learner, policy = served(whole.folder, whole.url)
    policy.forget()
    every = weights.named_weights

    def without_head(model: Any) -> Any:
        return {name: tensor for name, tensor in every(model).items() if "lm_head" not in name}

    with monkeypatch.context() as patched:
        patched.setattr(weights, "named_weights", without_head)
        with pytest.raises(RolloutError, match="nats per token apart"):
            move(learner, 7)
    taken(policy)
    move(learner, 9)
    found = taken(policy)
    assert found["syncs"] == 1 and found["sync_gap_max"] < 1e-4


def test_a_sync_of_the_old_weights_is_found_out(
    whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, policy = served(whole.folder, whole.url)
    policy.forget()
    old = {n: t.clone() for n, t in weights.named_weights(learner.model).items()}
    monkeypatch.setattr(weights, "named_weights", lambda model: old)
    with pytest.raises(RolloutError, match="nats per token apart"):
        move(learner, 8)


def test_the_same_seed_gives_the_same_tokens_whatever_the_load(whole: Any) -> None:
    _, policy = served(whole.folder, whole.url)
    policy.forget()
    ids, how = ids_of(policy), Sampling(1.0, 24)
    prompts = [Prompt((), ids, noise=10**17 * i + i) for i in range(20)]
    others = [Prompt((), ids_of(policy, f"other {i}"), noise=i) for i in range(25)]
    together = ask(policy, prompts, how)
    backwards = ask(policy, prompts[::-1], how)[::-1]
    beside = ask(policy, [*others, *prompts], how)[len(others) :]
    alone = [ask(policy, [p], how)[0] for p in prompts[:4]]
    for found in (backwards, beside):
        assert [c.token_ids for c in found] == [c.token_ids for c in together]
    assert [c.token_ids for c in alone] == [c.token_ids for c in together[:4]]
    assert len({c.token_ids for c in together}) == len(prompts)


def test_more_is_asked_at_once_than_is_read_at_a_time(whole: Any) -> None:
    """Each prompt is read whole: of one that is read in parts the seed could not be kept."""
    _, policy = served(whole.folder, whole.url)
    policy.forget()
    ids = ids_of(policy, "Push the box to the wall and push it back. " * 30)
    assert 24 * len(ids) > 8192
    prompts = [Prompt((), [*ids, 9 + i], noise=3**20 * i) for i in range(24)]
    together = ask(policy, prompts, Sampling(1.0, 4))
    assert together[-1] == ask(policy, prompts[-1:], Sampling(1.0, 4))[0]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_constrained_answers_are_exact(whole: Any, temperature: float) -> None:
    learner, policy = served(whole.folder, whole.url)
    policy.forget()
    free = [Prompt((), ids_of(policy, f"other {i}"), noise=i) for i in range(8)]
    for most in (16, 3):
        insist_on_exact_choices(learner, policy, 48, Sampling(temperature, most), free)


def test_constrained_answers_are_drawn_from_the_models_distribution(whole: Any) -> None:
    learner, policy = served(whole.folder, whole.url)
    policy.forget()
    choices = [learner.encode_reply(c) for c in COMMANDS]
    prompts = [Prompt((), ids_of(policy), choices=choices, noise=11**12 * i) for i in range(400)]
    found = ask(policy, prompts, Sampling(1.0, 16))
    counts = Counter(c.token_ids for c in found)
    chances = {c.token_ids: float(torch.tensor(c.logprobs).sum().exp()) for c in found}
    for ids, chance in chances.items():
        # Five standard deviations of a share.
        assert abs(counts[ids] / 400 - chance) < 5 * (chance * (1 - chance) / 400) ** 0.5 + 1e-9


def test_ids_that_are_never_written_are_barred(whole: Any) -> None:
    learner, policy = served(whole.folder, whole.url)
    with torch.no_grad():  # the embedding is the output layer, too: make a barred id very likely
        learner.model.get_input_embeddings().weight[learner.barred] *= 50
    learner.forget()
    prompts = [Prompt((), ids_of(policy), noise=5**9 * i) for i in range(20)]
    found = ask(policy, prompts, Sampling(1.0, 12))
    barred = set(learner.barred.tolist())
    assert not any(barred & set(c.token_ids) for c in found)
    move(learner, 3)
    assert taken(policy)["sync_gap_max"] < 1e-4


def test_adapters_of_two_roles_on_one_server(adapters: Any) -> None:
    made = {
        name: HFPolicy.load(
            adapters.folder, device="cpu", dtype="float32", lora=Lora(8, 16), seed=seed
        )
        for seed, name in enumerate(("planner", "executor"))
    }
    config = config_of(adapters.folder, adapters.url, lora_rank=8, separate_adapters=True)
    players = make_rollouts(config, made).serve(made)
    players["planner"].forget()
    for seed, name in enumerate(("planner", "executor", "planner")):
        move(made[name], seed, by=0.1)
        assert taken(players[name])["sync_gap_max"] < 1e-4
    greedy = Sampling(0.0, 12)
    for name, policy in players.items():
        prompt = Prompt((), ids_of(policy))
        (found,), (own,) = ask(policy, [prompt], greedy), made[name].generate([prompt], greedy)
        assert found.token_ids == own.token_ids
        assert found.logprobs == pytest.approx(own.logprobs, abs=1e-4)


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
    config = config_of(adapters.folder, adapters.url, lora_rank=8)
    policy = make_rollouts(config, {"policy": learner}).serve({"policy": learner})["policy"]
    policy.forget()
    ids, long = ids_of(policy), Sampling(1.0, 1500)
    coming = [submit(Question(policy, Prompt((), ids, noise=i), long)) for i in range(16)]
    adapters.process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    with pytest.raises(RolloutError, match=adapters.url):
        for one in coming:
            one.result(60)
    assert time.monotonic() - begun < 60
