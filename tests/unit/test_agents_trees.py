"""Sequences that begin alike are learned from together: read once, with the same gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tinymodels import save_text_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from himac_agents.algorithms import passes
from himac_agents.algorithms.batching import by_length
from himac_agents.distributed import team
from himac_agents.policies.base import TokenBatch
from himac_agents.policies.chat import ChatPolicy
from himac_agents.policies.hf import HFPolicy
from himac_agents.policies.lora import Lora
from himac_agents.policies.trees import Trees

Rows = list[list[int]]


def _padded(rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for row, held in zip(ids, rows, strict=True):
        row[: len(held)] = held
    return ids, np.asarray([len(row) for row in rows], dtype=np.int64)


def _batch(rows: Rows, written: int) -> TokenBatch:
    """A batch whose last tokens carry loss."""
    ids, lengths = _padded(rows)
    mask = np.zeros(ids.shape, dtype=np.float32)
    for row, length in zip(mask, lengths.tolist(), strict=True):
        row[max(1, length - written) : length] = 1.0
    zeros = np.zeros_like(mask)
    return TokenBatch(ids, mask, zeros, zeros, lengths, temperature=0.9)


def _rollout(tasks: int, group: int, prompt: int, answer: int, seed: int = 0) -> Rows:
    """A group of answers to each of some prompts, mixed; the second of a group says the same."""
    rng = np.random.default_rng(seed)
    rows: Rows = []
    for _ in range(tasks):
        asked = rng.integers(10, 60, prompt).tolist()
        rows += [asked + rng.integers(10, 60, answer + i % 3).tolist() for i in range(group)]
        rows[-1] = list(rows[-group])
    return [rows[i] for i in rng.permutation(len(rows))]


@pytest.mark.parametrize("seed", range(30))
def test_each_token_sees_its_own_sequence_and_nothing_else(seed: int) -> None:
    """Of random sequences of two letters, which share beginnings in every way there is."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, 3, rng.integers(1, 9)).tolist() for _ in range(rng.integers(1, 12))]
    ids, lengths = _padded(rows)
    trees = Trees(1e-9)
    trees.reach = int(rng.integers(9, 40))
    layout = trees.layout(ids, lengths, 0, torch.device("cpu"))
    if layout is None:
        assert len({tuple(row) for row in rows}) <= len(rows)
        return
    assert layout.index is not None
    read, place, sees = (
        layout.inputs[name] for name in ("input_ids", "position_ids", "attention_mask")
    )
    wide = read.shape[1]
    assert read.numel() < ids.size and wide <= trees.reach
    for row, held in enumerate(rows):
        at = layout.index[row, : len(held)]
        assert read.flatten()[at].tolist() == held
        assert place.flatten()[at].tolist() == list(range(len(held)))
        for time, where in enumerate(at.tolist()):
            line, own = divmod(where, wide)
            seen = sees[line, 0, own].nonzero().flatten() + line * wide
            assert seen.tolist() == sorted(at[: time + 1].tolist())
    # Padding sees itself, so that no softmax is of nothing.
    assert bool(sees.any(-1).all())


def test_sequences_that_share_little_stay_as_they_are() -> None:
    rng = np.random.default_rng(0)
    ids, lengths = _padded(rng.integers(10, 1000, (6, 600)).tolist())
    assert Trees(3e-4).layout(ids, lengths, 0, torch.device("cpu")) is None
    assert Trees(3e-4).reach == 833
    assert (Trees(1.0).reach, Trees(1e-9).reach) == (512, 8192)


@pytest.mark.parametrize("tokens", [40, 100, 1000])
def test_pieces_hold_every_sequence_once_and_no_more_than_is_read_at_once(tokens: int) -> None:
    rows = _rollout(5, 8, 25, 6)
    ids, lengths = _padded(rows)
    trees = Trees(1e-3)
    pieces = list(trees.pieces(ids, lengths, tokens))
    assert sorted(np.concatenate(pieces).tolist()) == list(range(len(rows)))
    for index in pieces:
        short = ids[index][:, : lengths[index].max()]
        layout = trees.layout(short, lengths[index], 0, torch.device("cpu"))
        read = short.size if layout is None else layout.inputs["input_ids"].numel()
        assert read <= tokens * 1.25
    alone = list(by_length(lengths, tokens))
    assert len(pieces) <= 0.6 * len(alone)


def _kinds() -> dict[str, Callable[[Path], ChatPolicy]]:
    def of(kind: str, **changes: Any) -> Callable[[Path], ChatPolicy]:
        def build(folder: Path) -> ChatPolicy:
            save_text_model(folder, layers=2)
            config = AutoConfig.for_model(
                kind, vocab_size=AutoConfig.from_pretrained(folder).vocab_size, hidden_size=32,
                intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, head_dim=8, max_position_embeddings=512,
                sliding_window=None, **changes,
            )  # fmt: skip
            torch.manual_seed(1)
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            return HFPolicy.load(folder, device="cpu")

        return build

    def checkpointed(folder: Path) -> ChatPolicy:
        save_text_model(folder, layers=2)
        return HFPolicy.load(folder, device="cpu", gradient_checkpointing=True)

    def adapter(folder: Path) -> ChatPolicy:
        save_text_model(folder, layers=2)
        return HFPolicy.load(folder, device="cpu", lora=Lora(rank=4))

    families = {kind: of(kind) for kind in ("llama", "mistral", "qwen2", "qwen3")}
    return {**families, "checkpointed": checkpointed, "adapter": adapter}


def _learned(policy: ChatPolicy, batch: TokenBatch) -> tuple[Tensor, Tensor, Tensor, int]:
    """Log-probabilities, entropies, gradients, and how many tokens the layers were given."""
    read: list[int] = []
    embedded = policy.model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: read.append(int(inputs[0].numel()))
    )
    pull = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(5))
    where = np.zeros(batch.mask.shape, dtype=bool)
    where[:, 3] = True
    logp, entropy, states = policy.logprobs_and_states(batch, where)
    (logp * pull).sum().backward(retain_graph=True)
    (states * 0.1).sum().backward()
    embedded.remove()
    grads = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    for parameter in policy.parameters():
        parameter.grad = None
    return logp.detach(), entropy, grads, read[0]


@pytest.mark.parametrize("kind", list(_kinds()))
def test_a_beginning_is_read_once_and_learned_from_as_before(kind: str, tmp_path: Path) -> None:
    policy = _kinds()[kind](tmp_path / "model")
    batch = _batch(_rollout(3, 8, 40, 6), written=5)
    assert policy.trees is not None
    logp, entropy, grads, read = _learned(policy, batch)
    policy.trees = None
    by_itself = _learned(policy, batch)
    assert by_itself[3] == batch.token_ids.size > 3 * read
    for one, other in zip((logp, entropy, grads), by_itself, strict=False):
        assert (one - other).abs().max() < 1e-5 * other.abs().max().clamp(min=1.0)
    assert grads.abs().max() > 1e-3


def test_in_bfloat16_it_rounds_as_much_as_before(tmp_path: Path) -> None:
    save_text_model(tmp_path / "model", layers=2)
    exact = HFPolicy.load(tmp_path / "model", device="cpu")
    policy = HFPolicy.load(tmp_path / "model", device="cpu", dtype="bfloat16")
    batch = _batch(_rollout(3, 8, 40, 6), written=5)
    truth = exact.logprobs(batch).detach()
    errors = []
    for trees in (policy.trees, None):
        policy.trees = trees
        errors.append(float((policy.logprobs(batch).detach() - truth).abs().mean()))
    assert policy.model.dtype == torch.float32 and 0.0 < errors[0] < 1.5 * errors[1] < 1e-2


def test_a_minibatch_is_cut_so_that_groups_stay_together(tmp_path: Path) -> None:
    save_text_model(tmp_path / "model", layers=1)
    policy = HFPolicy.load(tmp_path / "model", device="cpu")
    rows = _rollout(6, 8, 60, 6)
    batch = _batch(rows, written=5)
    cut = [index for index, _ in passes.pieces(batch, 256, team(), policy)]
    tasks = [{tuple(rows[i][:60]) for i in index} for index in cut]
    assert sum(map(len, tasks)) <= 6 + len(cut) - 1 and len(cut) <= 4
    policy.trees = None
    assert len(list(passes.pieces(batch, 256, team(), policy))) > 10


def test_models_whose_layers_look_back_only_so_far_read_each_sequence(tmp_path: Path) -> None:
    save_text_model(tmp_path / "model", layers=1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert Trees.fit(model)
    model.config._attn_implementation = "eager"
    assert not Trees.fit(model)
    model.config._attn_implementation = "sdpa"
    model.config.layer_types = ["sliding_attention"]
    assert not Trees.fit(model)
    model.config.layer_types, model.config.model_type = None, "gemma3_text"
    assert not Trees.fit(model)
