"""A model that learns and who samples for it, as the tests of real servers want them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from himac_agents.agents.asking import Question, submit
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Message, Prompt, Sampling
from himac_agents.policies.hf import HFPolicy
from himac_agents.policies.served.rollouts import ServedRollouts, make_rollouts

COMMANDS = ("go to cabinet 1", "go to cabinet 12", "take mug 1 from cabinet 1", "look", "go")


def config_of(folder: Path, *urls: str, **settings: Any) -> TrainConfig:
    """Settings with which servers sample for a model."""
    return TrainConfig(
        policy="hf", model=str(folder), dtype="float32", rollout="server", servers=urls, **settings
    )


def served(folder: Path, *urls: str) -> tuple[Any, Any]:
    """The model that learns, and the policy that servers sample."""
    learner = HFPolicy.load(folder, device="cpu", dtype="float32")
    rollouts = make_rollouts(config_of(folder, *urls), {"policy": learner})
    return learner, rollouts.serve({"policy": learner})["policy"]


def move(policy: Any, seed: int, by: float = 0.05) -> None:
    """Other weights, as an update makes them."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise) * by)
    policy.forget()


def ask(policy: Any, prompts: list[Prompt], how: Sampling) -> list[Any]:
    """Answers of all prompts, asked for at the same time."""
    return [f.result(300) for f in [submit(Question(policy, p, how)) for p in prompts]]


def ids_of(policy: Any, text: str = "You are in a room. What next?") -> list[int]:
    """A question as tokens."""
    return list(policy.encode([Message("user", text)]))


def taken(policy: Any) -> dict[str, float]:
    """What syncs cost and found since this was last asked."""
    assert isinstance(policy.rollouts, ServedRollouts)
    return policy.rollouts.take()


def insist_on_exact_choices(
    learner: Any, policy: Any, count: int, how: Sampling, beside: Sequence[Prompt] = ()
) -> None:
    """Makes sure that answers constrained to `COMMANDS` are what the learning model would write.

    Args:
        learner: The model that learns.
        policy: What servers sample.
        count: How many answers are asked for, at the same time.
        how: How they are drawn.
        beside: What else is asked for meanwhile.
    """
    choices = [learner.encode_reply(command) for command in COMMANDS]
    ids = ids_of(policy)
    prompts = [Prompt((), ids, choices=choices, noise=7**13 * i) for i in range(count)]
    found = ask(policy, [*prompts, *beside], how)[:count]
    own = {c.token_ids: c for c in learner.generate(prompts, how)}
    # With so many draws of few answers, hardly one is written there that is not here.
    shared = [c for c in found if c.token_ids in own]
    assert len(shared) >= len(found) / 2
    for completion in shared:
        other = own[completion.token_ids]
        assert completion.allowed == other.allowed and completion.cut == other.cut
        assert completion.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    if how.max_tokens >= max(map(len, choices)):
        assert {c.token_ids for c in found} <= set(choices)
    if how.temperature == 0.0:
        assert {c.token_ids for c in found} == set(own)
