"""The benchmark of training runs, does equal work on both sides, and the quick pass is exact."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from himac_agents.experiments.bench import train
from himac_agents.experiments.bench.scripted import ScriptedEnv, Shape
from himac_agents.policies import noise
from himac_agents.policies.base import Prompt, Sampling
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_envs.errors import MissingDependencyError

SINGLE = Shape(prompts=2, generations=4, turns=1, first=5, written=6)
TURNS = Shape(prompts=2, generations=4, turns=4, first=5, observed=3, written=3)


@pytest.mark.parametrize("shape", [SINGLE, TURNS])
def test_rollout_and_training_agree(shape: Shape) -> None:
    ours = train.Ours(shape)
    for _ in range(2):  # the second rollout is by weights that have moved
        assert ours.step()["logprob_gap"] < train.GAP
    assert ours.learner.updates == 2


def test_a_script_is_the_same_for_every_answer() -> None:
    one, other = ScriptedEnv(TURNS), ScriptedEnv(TURNS)
    assert one.reset(options={"task_id": "1"})[0] == other.reset(options={"task_id": "1"})[0]
    seen = [(one.step("a"), other.step("b")) for _ in range(TURNS.turns)]
    assert all(a[0] == b[0] and len(a[0]["text"].split()) == TURNS.observed for a, b in seen)
    assert [a[2] for a, _ in seen] == [False, False, False, True]
    assert seen[-1][0][1] != seen[-1][1][1] > 0.0


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed")
def test_both_sides_do_the_same_work(capsys: pytest.CaptureFixture[str]) -> None:
    figures = train.run(quick=True, single=SINGLE, turns=TURNS)
    for work, shape in (("single turn", SINGLE), ("many turns", TURNS)):
        assert figures[work]["tokens"] == shape.tokens
        assert figures[work]["logprob_gap"] < train.GAP
        for side in ("ours", "trl"):
            assert figures[work][side]["rollout"] > 0 and figures[work][side]["update"] > 0
    assert set(train.BARS) <= set(figures["ratios"])
    assert "TRL" in capsys.readouterr().out


def test_without_trl_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"himac\[bench\]"):
        train.run(quick=True)


def test_the_quick_pass_predicts_what_the_model_does() -> None:
    texts = ["go to cabinet 4", "you open the cabinet 4 and see a mug 2"]
    policy = TinyPolicy.build(texts, TinySize(32, 3, 2, 48), seed=1)
    assert policy.reader is not None
    quick, rng = policy.reader, np.random.default_rng(0)
    size = len(policy.tokenizer)
    prompts = [
        Prompt((), tuple(rng.integers(4, size, int(n)).tolist()), slot=i)
        for i, n in enumerate(rng.integers(3, 40, 9))
    ]
    for move in (False, True):
        if move:  # an optimiser's step, in place: the joined weights must follow
            with torch.no_grad():
                for parameter in policy.model.parameters():
                    parameter.add_(0.05)
            policy.forget()
        found = []
        for reader in (quick, None):
            policy.reader = reader
            policy.forget()
            found.append(policy.generate(prompts, Sampling(0.0, 7)))
        for a, b in zip(*found, strict=True):
            assert a.token_ids == b.token_ids
            assert np.abs(np.array(a.logprobs) - np.array(b.logprobs)).max() < 1e-5
        policy.reader = quick


def test_draws_follow_the_distribution() -> None:
    policy = TinyPolicy.build(["a b c d"], TinySize(16, 1, 1, 16), seed=2)
    prompt = tuple(policy.tokenizer.encode("a b", add_special_tokens=False))
    count = 4000
    drawn = policy.generate(
        [Prompt((), prompt, noise=noise.key(k)) for k in range(count)], Sampling(1.0, 1)
    )
    chance: dict[int, float] = {d.token_ids[0]: float(np.exp(d.logprobs[0])) for d in drawn}
    for token, p in chance.items():
        share = sum(d.token_ids[0] == token for d in drawn) / count
        assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / count) + 1e-3
