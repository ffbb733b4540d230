"""Log-probabilities made chunk by chunk: the same numbers and gradients, in less memory."""

from __future__ import annotations

import math
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tinymodels import make_tokenizer, save_text_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from himac_agents.policies import causal, selective
from himac_agents.policies.base import TokenBatch
from himac_agents.policies.chat import ChatPolicy
from himac_agents.policies.generation.constrained import constraints
from himac_agents.policies.hf import HFPolicy
from himac_agents.policies.selective import chunked_logprobs, selective_logprobs

Pair = tuple[Tensor, Tensor]


def plain(
    logits: Tensor, chosen: Tensor, temperature: float, barred: Tensor | None, only: Any
) -> Pair:
    """The textbook's way, all at once: what stood here before."""
    logits = logits.float() / temperature
    if barred is not None:
        logits = logits.index_fill(-1, barred, -math.inf)
    if only:
        closed = torch.full_like(logits, -math.inf)
        for row in range(len(logits)):
            ids = dict(only).get(row)
            closed[row, slice(None) if ids is None else list(ids)] = 0.0
        logits = logits + closed
    logp = torch.log_softmax(logits, dim=-1)
    with torch.no_grad():
        entropy = torch.special.entr(logp.exp()).sum(-1)
    return logp.gather(-1, chosen[:, None])[:, 0], entropy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("bars", [False, True])
@pytest.mark.parametrize("constrains", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 100])
def test_equal_to_the_textbook(
    dtype: torch.dtype,
    temperature: float,
    bars: bool,
    constrains: bool,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vocabulary, count = 37, 13
    monkeypatch.setattr(selective, "CHUNK", rows * vocabulary)
    generator = torch.Generator().manual_seed(3)
    logits = (torch.randn(count, vocabulary, generator=generator) * 4).to(dtype)
    before = logits.clone()
    chosen = torch.randint(2, vocabulary, (count,), generator=generator)
    barred = torch.tensor([0, 1]) if bars else None
    only = [(r, (int(chosen[r]), 5, 9, 36)) for r in (0, 4, 5, 12)] if constrains else []
    pull = torch.randn(count, generator=generator)
    found = []
    for how in (plain, lambda *a: selective_logprobs(a[0], a[1], temperature=a[2], barred=a[3],
                                                     constrained=a[4])):  # fmt: skip
        leaf = logits.clone().requires_grad_()
        logp, entropy = how(leaf, chosen, temperature, barred, only)
        (logp * pull).sum().backward()
        assert leaf.grad is not None and leaf.grad.dtype == dtype and not entropy.requires_grad
        found.append((logp.detach(), entropy, leaf.grad.float()))
    for name, one, other in zip(("value", "entropy", "gradient"), *found, strict=True):
        assert (one - other).abs().max() <= (1e-6 if dtype == torch.float32 else 1e-2), name
    assert torch.equal(logits, before), "the logits stay as they are"
    assert found[0][2].abs().max() > 0.01


def test_states_and_the_output_layer_get_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selective, "CHUNK", 4 * 50)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(11, 8, generator=generator, dtype=torch.float32)
    weight = torch.randn(50, 8, generator=generator)
    chosen = torch.randint(50, (11,), generator=generator)
    found = []
    for chunked in (False, True):
        s, w = states.clone().requires_grad_(), weight.clone().requires_grad_()
        if chunked:
            logp, _ = chunked_logprobs(s, lambda x, w=w: x @ w.T, chosen, 50, temperature=0.9)
        else:
            logp, _ = plain(s @ w.T, chosen, 0.9, None, None)
        (logp * torch.arange(11)).sum().backward()
        assert s.grad is not None and w.grad is not None
        found.append((logp.detach(), s.grad, w.grad))
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() < 1e-5


class Peak(TorchDispatchMode):
    """Counts the bytes of all storages that were made inside and still live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._meet(tensor.untyped_storage())
        return made

    def _meet(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known or size == 0:
            return
        self.known.add(key)
        self.now += size
        self.most = max(self.most, self.now)

        def gone() -> None:
            self.known.discard(key)
            self.now -= size

        weakref.finalize(storage, gone)


def _peak(work: Any) -> int:
    with Peak() as mode:
        work()
    return mode.most


def test_memory_at_the_peak() -> None:
    """At V = 151,936, beyond the hidden states and the weights; figures are printed with -s."""
    vocabulary, count, width = 151_936, 512, 16
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(count, width, generator=generator)
    weight = torch.randn(vocabulary, width, generator=generator) * 0.1
    chosen = torch.randint(vocabulary, (count,), generator=generator)
    only = [(row, (int(chosen[row]), 7, 9)) for row in range(0, count, 3)]
    whole = count * vocabulary * 4

    def before() -> None:
        s = states.clone().requires_grad_()
        plain(s @ weight.T, chosen, 0.9, None, only)[0].sum().backward()

    def there() -> None:
        s = states.clone().requires_grad_()
        selective_logprobs(s @ weight.T, chosen, temperature=0.9, constrained=only)[
            0
        ].sum().backward()

    def never() -> None:
        s = states.clone().requires_grad_()
        chunked_logprobs(
            s, lambda x: x @ weight.T, chosen, vocabulary, temperature=0.9, constrained=only
        )[0].sum().backward()

    peaks = {work.__name__: _peak(work) for work in (before, there, never)}
    chunk = selective.chunk_rows(vocabulary) * vocabulary * 4
    for name, peak in peaks.items():
        print(f"{name}: {peak / whole:.2f} x n x V floats, {peak / chunk:.2f} chunks")
    assert peaks["before"] > 3.9 * whole
    # The logits, their gradient, and what is at work on one chunk.
    assert peaks["there"] < 2 * whole + 3.1 * chunk
    assert peaks["never"] < 3.3 * chunk + 2**20


def _batch(ids: np.ndarray, allowed: bool) -> TokenBatch:
    mask = np.zeros(ids.shape, np.float32)
    mask[0, 2:6] = mask[1, 3:] = mask[2, 1:3] = 1
    zeros = np.zeros(ids.shape, np.float32)
    pairs = [[(2, (int(ids[0, 2]), 3, 4))], [], [(1, (int(ids[2, 1]), 8))]] if allowed else []
    lengths = np.full(len(ids), ids.shape[1])
    return TokenBatch(ids, mask, zeros, zeros, lengths, pairs, 0.8)


def _capped(folder: Path) -> ChatPolicy:
    """A model that does something of its own with its logits: it caps them softly."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    tokenizer = make_tokenizer(None)
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, final_logit_softcapping=1.5,
        eos_token_id=tokenizer.eos_token_id, initializer_range=0.3, sliding_window=4096,
        layer_types=["full_attention", "full_attention"],
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HFPolicy(Gemma2ForCausalLM(config).eval(), tokenizer)


@pytest.mark.parametrize("kind", ["qwen", "soft caps", "gradient checkpointing"])
def test_a_models_own_output_layer_is_called_chunk_by_chunk(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "soft caps":
        policy = _capped(tmp_path)
    else:
        folder = save_text_model(tmp_path / "model")
        policy = HFPolicy.load(folder, device="cpu", gradient_checkpointing=kind != "qwen")
    rng = np.random.default_rng(0)
    ids = rng.integers(9, policy.vocabulary, (3, 8))
    batch = _batch(ids, allowed=True)
    weights = torch.tensor(rng.normal(size=ids.shape), dtype=torch.float32)
    found = []
    for rows in (None, 1000, 3):
        policy.model.zero_grad()
        if rows is None:  # the model's own forward pass, whole
            with policy._ready(learning=True):
                logits = policy.model(torch.tensor(ids)).logits[:, :-1]
            mask = torch.tensor(batch.mask) > 0
            chosen = torch.tensor(ids)[mask]
            own = plain(logits[mask[:, 1:]], chosen, 0.8, None, constraints(batch))
            logp, entropy = (torch.zeros(ids.shape).masked_scatter(mask, x) for x in own)
        else:
            monkeypatch.setattr(selective, "CHUNK", rows * policy.vocabulary)
            logp, entropy = policy.logprobs_and_entropy(batch)
        (logp * weights).sum().backward()
        grads = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
        found.append((logp.detach(), entropy, grads))
    for other in found[1:]:
        for one, its in zip(found[0], other, strict=True):
            assert (one - its).abs().max() < 1e-5
    assert found[0][2].abs().max() > 1e-3


def test_many_logits_never_stand_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a chunk a model's output layer is asked for one chunk at most."""
    policy = HFPolicy.load(save_text_model(tmp_path / "model"), device="cpu")
    monkeypatch.setattr(selective, "CHUNK", 3 * policy.vocabulary)
    asked: list[int] = []
    handle = policy.model.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: asked.append(output.shape[-2])
    )
    ids = np.random.default_rng(0).integers(9, policy.vocabulary, (3, 8))
    policy.logprobs_and_entropy(_batch(ids, allowed=False))[0].sum().backward()
    handle.remove()
    assert max(asked) == 3 and sum(asked) == 1 + 2 * 11, "once forwards, once backwards"
    assert causal.chunk_rows(policy.vocabulary) == 3


def test_states_are_what_the_output_layer_reads(tmp_path: Path) -> None:
    policy = HFPolicy.load(save_text_model(tmp_path / "model"), device="cpu")
    ids = np.random.default_rng(0).integers(9, policy.vocabulary, (3, 8))
    batch = _batch(ids, allowed=False)
    where = np.zeros(ids.shape, bool)
    where[0, 2] = where[2, 7] = True
    logp, _, states = policy.logprobs_and_states(batch, where)
    assert states.shape == (2, policy.width) and states.requires_grad
    assert torch.equal(states, policy.states(batch, where))
    logits = policy.model.get_output_embeddings()(states[:1]) / 0.8
    said = torch.log_softmax(logits, -1)[0, int(ids[0, 2])]
    assert float(said.detach()) == pytest.approx(float(logp[0, 2].detach()), abs=1e-5)
