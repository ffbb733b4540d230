"""A real instruction-tuned model, from its file to a resumed run: SmolLM2-135M-Instruct."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crediting import credited
from safetensors.torch import load_file

from himac_agents.agents.agent import HiMACAgent
from himac_agents.algorithms import advantages
from himac_agents.algorithms.batching import token_batch
from himac_agents.algorithms.learner import Learner
from himac_agents.cli import main
from himac_agents.config import TrainConfig
from himac_agents.evaluation.loading import load_agent
from himac_agents.policies.base import Message, Prompt, Sampling, TokenBatch
from himac_agents.policies.hf import HFPolicy
from himac_agents.policies.lora import WEIGHTS, Lora
from himac_agents.prompts import ChatPrompts
from himac_agents.rollouts.types import Segment, Turn

ASKED = [
    [Message("user", "What is the capital of France?")],
    [Message("system", "Answer in one word."), Message("user", "What is 2 + 2?")],
]


def test_it_is_written_and_read_as_transformers_does(smollm2: Path) -> None:
    policy = HFPolicy.load(smollm2, device="cpu", dtype="float32")
    assert policy.context_length == 8192 and not policy.template.notes
    assert policy.tokenizer.convert_ids_to_tokens(policy.end_ids) == ["<|im_end|>"]
    prompts = []
    for messages in ASKED:
        turns = [{"role": m.role, "content": m.text} for m in messages]
        own = policy.tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=False
        )
        ids = policy.encode(messages)
        assert ids == list(own)
        prompts.append(Prompt((), ids))
    found = policy.generate(prompts, Sampling(0.0, 12))
    assert "Paris" in found[0].text
    for prompt, answer in zip(prompts, found, strict=True):
        with torch.inference_mode():
            expected = policy.model.generate(
                torch.tensor([prompt.token_ids]), max_new_tokens=12, do_sample=False
            )[0, len(prompt.token_ids) :].tolist()
        assert list(answer.token_ids) == expected
        assert answer.cut == (expected[-1] != policy.end_ids[0])


def _some(returns: Sequence[float], groups: Any = None, *, std: bool = True) -> Any:
    """Advantages, where a model that earns nothing would have none."""
    return np.resize([1.0, -1.0], len(returns))


def _batch(policy: HFPolicy) -> TokenBatch:
    ids = policy.encode([Message("user", "You see a mug 1. What do you do?")])
    mask = np.zeros((1, len(ids)), np.float32)
    mask[0, 5:] = 1
    zero = np.zeros_like(mask)
    return TokenBatch(np.array([ids]), mask, zero, zero, np.array([len(ids)]))


def test_the_whole_model_learns(smollm2: Path, tmp_path: Path) -> None:
    """Two supervised updates, two reinforced ones, and plain transformers reads the result."""
    policy = HFPolicy.load(smollm2, device="cpu", dtype="bfloat16")
    ids = policy.encode([Message("user", "You see a mug 1.")])
    answers = policy.generate([Prompt((), ids, noise=n) for n in (1, 2)], Sampling(1.0, 6))
    segments = []
    for answer, advantage in zip(answers, (1.0, -1.0), strict=True):
        segment = Segment("executor", 0, token_ids=[*ids, *answer.token_ids])
        segment.turns = [Turn("executor", len(ids), answer.token_ids, answer.logprobs, "", "")]
        segments += credited([segment], [advantage])
    shown = Segment("executor", 0, token_ids=[*ids, *policy.encode_reply("take mug 1")])
    said = tuple(shown.token_ids[len(ids) :])
    shown.turns = [Turn("executor", len(ids), said, (), "", "")]
    batch = token_batch([shown], imitate=True)
    learner = Learner(policy, TrainConfig(lr=1e-5, kl=0.0, minibatches=1, least_minibatch=1))
    learner.begin_supervision()
    losses = [learner.imitate(batch, 1e-5) for _ in range(2)]
    assert losses[1] < losses[0]
    learner.begin_reinforcement()
    for _ in range(2):
        metrics = learner.reinforce(segments, np.random.default_rng(0))
        assert metrics["updates"] == 1 and np.isfinite(metrics["grad_norm"])
    policy.save_pretrained(tmp_path)
    started, ended = (load_file(f / "model.safetensors") for f in (smollm2, tmp_path))
    moved = [k for k, v in ended.items() if not torch.equal(v.float(), started[k].float())]
    assert len(moved) > 200
    _read_back(tmp_path, smollm2, "whole")


@pytest.mark.parametrize(
    ("dtype", "tokens"), [("float32", 6), pytest.param("bfloat16", 12, marks=pytest.mark.slow)]
)
def test_rollouts_and_updates_say_the_same_of_a_token(
    smollm2: Path, dtype: Any, tokens: int
) -> None:
    """Log-probabilities with a cache, token by token, and of whole rows at once.

    In bfloat16 both add up in another order, and the two differ by about a rounding of a logit:
    between 16 and 32 numbers lie 0.125 apart, so that one is off by up to 0.0625. Measured over 433
    tokens of an adapter: 0.035 in the mean, 0.085 at the 0.9 quantile, 0.11 at 0.95, 0.20 at 0.99,
    0.26 at most. The largest grows with the tokens and bounds nothing; so the mean is held below
    one such error and the 0.9 quantile below three.
    """
    policy = HFPolicy.load(smollm2, device="cpu", dtype=dtype, lora=Lora(8))
    asked = [policy.encode([Message("user", f"Name {n} fruits.")]) for n in (2, 3, 5, 7)]
    prompts = [Prompt((), ids, noise=n) for n, ids in enumerate(asked)]
    answers = policy.generate(prompts, Sampling(1.0, tokens))
    segments = []
    for ids, answer in zip(asked, answers, strict=True):
        segment = Segment("executor", 0, token_ids=[*ids, *answer.token_ids])
        segment.turns = [Turn("executor", len(ids), answer.token_ids, answer.logprobs, "", "")]
        segments += credited([segment], [1.0])
    batch = token_batch(segments)
    with torch.no_grad():
        found = policy.logprobs(batch).float().numpy()
    gaps = np.abs(found - batch.old_logprobs)[batch.mask > 0]
    assert len(gaps) == sum(len(answer.token_ids) for answer in answers) > 2 * tokens
    if dtype == "float32":
        assert gaps.max() < 1e-4
    else:
        assert gaps.max() > 1e-4, "this is bfloat16"
        assert gaps.mean() < 0.0625 and np.quantile(gaps, 0.9) < 0.1875


@pytest.mark.slow
def test_an_adapter_learns_and_its_run_is_resumed(
    smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command: two supervised and two reinforced updates, saved, resumed, read back."""
    monkeypatch.setattr(advantages, "group_relative", _some)
    run = tmp_path / "run"
    options = (
        f"train --policy hf --model {smollm2} --out {run} --dtype float32 --expert oracle "
        "--env fruit_runs:Brief-v0 --flat-env fruit_runs:Brief-Flat-v0 --demos 1 --warm-steps 2 "
        "--warm-tokens 64 --warm-lr 1e-4 --iterations 2 --tasks 1 --blueprints 2 --executions 2 "
        "--eval-episodes 1 --lanes 4 --max-blueprint-tokens 4 --max-command-tokens 3 --lr 1e-4 "
        "--minibatches 1 --least-minibatch 1 --kl 0 --checkpoint-every 1 --lora-rank 8"
    )
    assert main(options.split()) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum(line.get("updates", 0) for line in lines) >= 2
    assert max(line["logprob_gap"] for line in lines if "logprob_gap" in line) < 1e-4
    steps = sorted((run / "checkpoints").iterdir())
    newest = steps[-1] / "policy"
    straight, before = (load_file(s / "policy" / WEIGHTS) for s in (steps[-1], steps[0]))
    assert any(not torch.equal(straight[k], before[k]) for k in straight)
    # The last iteration again, from the checkpoint before it: the same to the bit.
    shutil.rmtree(steps[-1])
    assert main(["train", "--resume", str(run)]) == 0
    again = load_file(newest / WEIGHTS)
    assert all(torch.equal(again[key], value) for key, value in straight.items())
    agent = load_agent(run)
    assert isinstance(agent, HiMACAgent) and isinstance(agent.executor.prompts, ChatPrompts)
    _read_back(newest, smollm2, "adapter")


def _read_back(newest: Path, base: Path, kind: str) -> None:
    """Our reader and the plain libraries agree on what a checkpoint says."""
    from transformers import AutoModelForCausalLM

    ours = HFPolicy.load(newest, device="cpu", dtype="float32")
    source = newest if kind == "whole" else base
    theirs: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    if kind == "adapter":
        from peft import PeftModel

        theirs = PeftModel.from_pretrained(theirs, newest)
    batch = _batch(ours)
    with torch.no_grad():
        logits = theirs(torch.tensor(batch.token_ids)).logits[0, 4:-1].log_softmax(-1)
        expected = logits.gather(-1, torch.tensor(batch.token_ids)[0, 5:, None])[:, 0]
        assert torch.allclose(ours.logprobs(batch)[0, 5:], expected, atol=1e-4)


def test_it_is_evaluated_by_one_command(smollm2: Path, tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    words = (
        f"eval HiMAC-Sokoban-v0 --agent {smollm2} --episodes 3 --data generated --max-steps 2 "
        f"--max-command-tokens 12 --max-blueprint-tokens 24 --temperature 0 --records {records} "
        f"--json {tmp_path / 'result.json'}"
    )
    assert main(words.split()) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["episodes"] == 3 and result["errors"] == 0
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert len({line["task_id"] for line in lines}) == 3
    spoken = [t for line in lines for s in line["episode"]["segments"] for t in s["turns"]]
    assert all("<|im_" not in turn.get("text", "") for turn in spoken)
    assert any(turn.get("cut") for turn in spoken), "it has much to say"
