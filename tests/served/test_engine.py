"""vLLM in this process: the same sync, the same answers as the model that learns would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: `make served`")

from served_policies import COMMANDS, move, taken
from tinymodels import save_served_model

from himac_agents.config import TrainConfig
from himac_agents.policies.base import Message, Prompt, Sampling
from himac_agents.policies.hf import HFPolicy
from himac_agents.policies.served import weights
from himac_agents.policies.served.rollouts import make_rollouts
from himac_agents.policies.served.server import RolloutError


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A model whose output layer is its own, and the policy that samples for it."""
    folder: Path = save_served_model(tmp_path_factory.mktemp("engine") / "untied", tied=False)
    learner = HFPolicy.load(folder, device="cpu", dtype="float32")
    config = TrainConfig(policy="hf", model=str(folder), dtype="float32", rollout="vllm", lanes=32)
    return learner, make_rollouts(config, {"policy": learner}).serve({"policy": learner})["policy"]


def test_the_gap_is_small_before_and_after_each_sync(both: Any) -> None:
    learner, policy = both
    policy.forget()
    assert taken(policy)["sync_gap_max"] < 1e-4
    for seed in range(3):
        move(learner, seed)
        found = taken(policy)
        assert found["syncs"] == 1 and found["sync_gap_max"] < 1e-4


def test_answers_are_those_of_the_model(both: Any) -> None:
    learner, policy = both
    policy.forget()
    choices = [learner.encode_reply(c) for c in COMMANDS]
    ids = policy.encode([Message("user", "You are in a room. What next?")])
    constrained = [Prompt((), ids, choices=choices, noise=7**13 * i) for i in range(24)]
    greedy = Sampling(0.0, 12)
    for prompts in (constrained[:2], [Prompt((), ids), Prompt((), [*ids, 9])]):
        for found, own in zip(
            policy.generate(prompts, greedy), learner.generate(prompts, greedy), strict=True
        ):
            assert (found.token_ids, found.allowed) == (own.token_ids, own.allowed)
            assert found.logprobs == pytest.approx(own.logprobs, abs=1e-4)
    drawn = policy.generate(constrained, Sampling(1.0, 16))
    assert {c.token_ids for c in drawn} <= set(choices)
    again = policy.generate(constrained[::-1], Sampling(1.0, 16))[::-1]
    assert [c.token_ids for c in again] == [c.token_ids for c in drawn]


def test_a_sync_of_the_old_weights_is_found_out(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, policy = both
    policy.forget()
    old = {n: t.clone() for n, t in weights.named_weights(learner.model).items()}
    monkeypatch.setattr(weights, "named_weights", lambda model: old)
    with pytest.raises(RolloutError, match="nats per token apart"):
        move(learner, 8)
