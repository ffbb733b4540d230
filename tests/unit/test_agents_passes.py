"""Fewer and fuller passes: rows are put together as it costs least, and no answer changes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tinymodels import CHATML, make_tokenizer
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from himac_agents.policies import noise
from himac_agents.policies.base import Completion, Message, Prompt, Sampling
from himac_agents.policies.causal import CausalPolicy
from himac_agents.policies.chat import ChatPolicy, Loading
from himac_agents.policies.generation import prefixes
from himac_agents.policies.generation.costs import Block, Costs, cheapest
from himac_agents.policies.generation.draw import draw, draw_among
from himac_agents.policies.generation.prefixes import LEAST, sharing
from himac_agents.policies.generation.reader import Reader
from himac_agents.policies.tiny import TinyPolicy, TinySize

SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "initializer_range": 0.2,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
#: Kinds of layers that are read by ours: heads that share keys, biases, norms of heads, ...
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "llama3": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": LLAMA3}),
    "yarn": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": YARN, "attention_bias": True,
                                             "mlp_bias": True}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": None, "head_dim": 16}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 12}),
}  # fmt: skip
WORDS = "go to cabinet 1", "take mug 1 from cabinet 1", "look", "push the box", "open cabinet 12"


def _model(kind: tuple[Any, Any, dict[str, Any]], vocabulary: int) -> Any:
    config, model, further = kind
    with torch.random.fork_rng():
        torch.manual_seed(1)
        found = model(config(vocab_size=vocabulary, bos_token_id=None, **{**SHAPE, **further}))
        for name, parameter in found.named_parameters():
            # Norms and biases begin at one and nought, which hides where they are left out.
            if parameter.ndim == 1:
                torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.3)
    return found


def _policy(kind: tuple[Any, Any, dict[str, Any]], dtype: str = "float32") -> ChatPolicy:
    tokenizer = make_tokenizer(CHATML)
    model = _model(kind, len(tokenizer))
    loading = Loading("cpu", dtype)  # type: ignore[arg-type]
    return ChatPolicy(model, tokenizer, loading=loading)


def _talk(
    policy: CausalPolicy, numbers: list[int], turns: int = 3, constrained: bool = True
) -> list[list[Completion]]:
    """Conversations of a few turns, each a function of its number alone; two share a beginning."""
    choices = tuple(policy.encode_reply(word) for word in WORDS)
    talks = []
    for number in numbers:
        opening = f"{' '.join(WORDS)} in room {number // 2}. " * 3 + f"You are {number}."
        talks.append(policy.encode([Message("user", opening)]))
    found: list[list[Completion]] = [[] for _ in numbers]
    for turn in range(turns):
        prompts = [
            Prompt((), tuple(talk), slot, noise=noise.key(number, turn),
                   choices=choices if constrained and number % 3 else None)
            for slot, (number, talk) in enumerate(zip(numbers, talks, strict=True))
        ]  # fmt: skip
        for answers, talk, answer in zip(
            found, talks, policy.generate(prompts, Sampling(1.0, 9)), strict=True
        ):
            answers.append(answer)
            seen = " ".join(WORDS[: 1 + len(talk) % 4])
            talk += [*answer.token_ids, *policy.encode([Message("user", seen)], continues=True)]
    policy.forget()
    return found


def _same(one: list[list[Completion]], other: list[list[Completion]], bound: float = 1e-5) -> None:
    for a, b in zip(itertools.chain(*one), itertools.chain(*other), strict=True):
        assert (a.token_ids, a.allowed, a.cut) == (b.token_ids, b.allowed, b.cut)
        assert np.abs(np.array(a.logprobs) - np.array(b.logprobs)).max() < bound


@pytest.mark.parametrize("kind", KINDS)
def test_our_pass_is_transformers_pass(kind: str) -> None:
    policy = _policy(KINDS[kind])
    assert policy.reader is not None
    ours = _talk(policy, list(range(5)))
    policy.reader = None
    _same(ours, _talk(policy, list(range(5))))


def test_what_it_does_not_know_is_left_to_transformers() -> None:
    size = len(make_tokenizer(CHATML))
    slides = {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 1}
    strange = [
        (Qwen2Config, Qwen2ForCausalLM, slides),
        (MistralConfig, MistralForCausalLM, {"sliding_window": 64}),
        (LlamaConfig, LlamaForCausalLM, {"hidden_act": "gelu"}),
        (LlamaConfig, LlamaForCausalLM,
         {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
        (Gemma2Config, Gemma2ForCausalLM, {}),
    ]  # fmt: skip
    for kind in strange:
        assert not Reader.fits(_model(kind, size)), kind
    adapted = _model(KINDS["llama"], size)
    assert Reader.fits(adapted)
    adapted.model.layers[1].mlp.up_proj = torch.nn.Sequential(adapted.model.layers[1].mlp.up_proj)
    assert not Reader.fits(adapted)


def test_weights_are_kept_in_what_is_computed_in_and_follow_an_update() -> None:
    policy = _policy(KINDS["llama"], "bfloat16")
    assert policy.reader is not None and policy.reader.dtype == torch.bfloat16
    for _ in range(2):
        ours = _talk(policy, [1, 2])
        exact = Reader(policy.model)
        policy.reader, kept = exact, policy.reader
        other = _talk(policy, [1, 2], turns=1)
        policy.reader = kept
        for a, b in zip(ours, other, strict=True):
            # Of the first token: those that follow may be others.
            assert 0 < abs(a[0].logprobs[0] - b[0].logprobs[0]) < 0.3 or a[0].allowed
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(1.1)
        policy.forget()


@pytest.mark.parametrize("kind", ["llama", "transformers", "tiny"])
def test_answers_do_not_depend_on_who_is_read_beside(kind: str) -> None:
    policy: CausalPolicy
    if kind == "tiny":
        policy = TinyPolicy.build([*WORDS, "room You are in"], TinySize(32, 2, 2, 48), seed=1)
    else:
        policy = _policy(KINDS["llama"])
    if kind == "transformers":
        policy.reader = None
    numbers = list(range(12))
    together = _talk(policy, numbers)
    for group in ([0], [5, 3], [7, 6, 11, 2]):
        _same(_talk(policy, group), [together[i] for i in group])
    # Whatever reading costs elsewhere, and so however rows are put together.
    for changed in (Costs(1e5, 1e4, 0.0, 0.0, 0.0), Costs(0.1, 0.01, 0.1, 0.01, 0.1),
                    Costs(10, 10, 0.01, 0.001, 10.0, most=40)):  # fmt: skip
        policy._costs = {True: changed, False: changed}
        _same(_talk(policy, numbers), together)


def test_a_group_reads_its_beginning_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = _policy(KINDS["llama"])
    assert policy.reader is not None
    policy._costs = {True: Costs(1.0, 1.0, 0.001, 0.0, 0.001)}
    real, read = policy.reader.read, [0]

    def counted(ids: torch.Tensor, *others: Any) -> torch.Tensor:
        read[0] += len(ids)
        return real(ids, *others)

    monkeypatch.setattr(policy.reader, "read", counted)
    numbers = [0, 1] * 6  # two conversations of one room, six times each
    shared = _talk(policy, numbers, turns=1)
    once, read[0] = read[0], 0
    monkeypatch.setattr(prefixes, "LEAST", 10_000)
    _same(_talk(policy, numbers, turns=1), shared)
    assert once < read[0] / 4


def test_what_one_conversation_held_is_given_to_the_next() -> None:
    """Rows give what they are about to lose, in both directions at the same time."""
    policy = _policy(KINDS["llama"])
    openings = [
        policy.encode([Message("user", f"{word} " * 20)]) for word in ("cabinet", "mug", "box")
    ]
    first = [Prompt((), tuple(ids), slot, noise=slot) for slot, ids in enumerate(openings)]
    turned = [Prompt((), tuple(openings[(slot + 1) % 3]), slot, noise=slot) for slot in range(3)]
    policy.generate(first, Sampling(1.0, 4))
    found = policy.generate(turned, Sampling(1.0, 4))
    policy.forget()
    for one, other in zip(found, policy.generate(turned, Sampling(1.0, 4)), strict=True):
        assert one.token_ids == other.token_ids
        assert np.allclose(one.logprobs, other.logprobs, rtol=0, atol=1e-5)


# -- who shares what -------------------------------------------------------------------------------


def _common(one: list[int], other: list[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((k for k, (a, b) in pairs if a != b), min(len(one), len(other)))


def test_sharing_finds_the_longest_beginnings() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        stems = [rng.integers(0, 3, 60).tolist() for _ in range(3)]

        def text(stems: list[list[int]] = stems) -> list[int]:
            kept = int(rng.integers(1, 60))
            tail = rng.integers(3, 6, int(rng.integers(1, 40))).tolist()
            return stems[int(rng.integers(3))][:kept] + tail

        prompts = [text() for _ in range(int(rng.integers(1, 8)))]
        held = {slot: text() for slot in range(int(rng.integers(0, 6)))}
        starts = [int(rng.integers(0, min(20, len(p)))) for p in prompts]
        from_held, from_read = sharing(prompts, starts, held, range(len(prompts)))
        given = {i: stop for _, i, _, stop in from_held}
        for slot, i, start, stop in from_held:
            assert start == starts[i] and held[slot][:stop] == prompts[i][:stop]
        for i, prompt in enumerate(prompts):
            best = max((_common(prompt[:-1], tokens) for tokens in held.values()), default=0)
            if len(prompt) - starts[i] > LEAST and best > starts[i] + LEAST:
                assert given[i] == best
            else:
                assert i not in given
        takers = {i for _, i, _, _ in from_read}
        for giver, i, start, stop in from_read:
            assert (
                giver not in takers and start == given.get(i, starts[i]) and stop < len(prompts[i])
            )
            assert prompts[giver][:stop] == prompts[i][:stop]


def test_of_two_groups_each_has_a_reader() -> None:
    rules = [1] * 40
    groups = [[*rules, *[g] * 60, 90 + n] for g in (2, 3) for n in range(3)]
    _, found = sharing(groups, [0] * 6, {}, range(6))
    assert {(giver, taker) for giver, taker, _, _ in found} == {(0, 1), (0, 2), (3, 4), (3, 5)}
    assert all((start, stop) == (0, 100) for _, _, start, stop in found)
    assert sharing(groups, [0] * 6, {}, [1]) == ([], [])


# -- blocks ----------------------------------------------------------------------------------------


def _cost(blocks: list[Block], costs: Costs) -> float:
    total = 0.0
    for block in blocks:
        copied = block.width * costs.copied if block.picked else 0.0
        each = float(costs.work(block.time, block.width)) + copied
        total += costs.block + len(block.rows) * each
    return total


def _cuts(count: int) -> Iterator[list[range]]:
    for bits in itertools.product((False, True), repeat=count - 1):
        edges = [0, *(k + 1 for k, cut in enumerate(bits) if cut), count]
        yield [range(a, b) for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("between", [True, False])
def test_blocks_are_the_cheapest(between: bool) -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        count = int(rng.integers(1, 7))
        rows = rng.permutation(9)[:count].tolist()
        lengths = rng.integers(1, 9, count).tolist()
        widths = (np.array(lengths) + 64 * rng.integers(0, 4, count)).tolist()
        costs = Costs(1.0, float(rng.choice([0.1, 5, 100])), 0.05, 0.001,
                      float(rng.choice([0.0001, 0.05])))  # fmt: skip
        found = cheapest(lengths, widths, rows, costs, between=between)
        members = sorted(i for block in found for i in block.members if i is not None)
        assert members == list(range(count))
        for block in found:
            assert list(block.rows) == sorted(block.rows)
            own = [i for i in block.members if i is not None]
            assert block.time == max(lengths[i] for i in own)
            assert block.width == max(widths[i] for i in own)
            assert between or None not in block.members
            for row, i in zip(block.rows, block.members, strict=True):
                assert i is None or rows[i] == row
        order = sorted(range(count), key=lambda i: (lengths[i], widths[i] // 64, rows[i]))
        least = float("inf")
        for cut in _cuts(count):
            total = 0.0
            for part in cut:
                own = [order[k] for k in part]
                time, width = max(lengths[i] for i in own), max(widths[i] for i in own)
                held = [rows[i] for i in own]
                span = max(held) - min(held) + 1
                each = float(costs.work(time, width))
                ways = [len(own) * (each + width * costs.copied)]
                if between or span == len(own):
                    ways.append(span * each)
                total += costs.block + min(ways)
            least = min(least, total)
        assert _cost(found, costs) == pytest.approx(least)


def test_no_pass_holds_more_than_there_is_room_for() -> None:
    costs = Costs(1e6, 1e6, 0.0, 0.0, 0.0, most=100)
    found = cheapest([10] * 8 + [30] * 5 + [300], [400] * 14, list(range(14)), costs)
    assert all(len(b.rows) * b.time <= 100 or len(b.rows) == 1 for b in found)
    assert cheapest([10] * 8, [64] * 8, list(range(8)), costs)[0].rows == tuple(range(8))


def test_costs_follow_the_model_and_the_place() -> None:
    small = TinyPolicy.build(WORDS, TinySize(32, 2, 2, 48))
    large = TinyPolicy.build(WORDS, TinySize(512, 4, 8, 1536))
    # A pass costs a small model as much as many tokens, a large one as much as a few.
    assert small.costs.pass_ > 100 > 30 > large.costs.pass_
    # Guesses pay where passes are dear and few share them.
    assert large.costs.least_chance(1) < large.costs.least_chance(128)
    assert small.costs.least_chance(8) < large.costs.least_chance(8)
    theirs = Costs.of(large.model, torch.float32, ours=False)
    assert theirs.pass_ > large.costs.pass_ and theirs.block == theirs.pass_


# -- drawing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_drawing_among_few_is_drawing_with_the_rest_forbidden(temperature: float) -> None:
    rng = np.random.default_rng(2)
    logits = torch.from_numpy(rng.normal(0, 3, (200, 50)).astype(np.float32))
    options = [sorted(rng.permutation(50)[: int(n)].tolist()) for n in rng.integers(1, 9, 200)]
    barred = torch.tensor([3, 7, 49])
    options = [[i for i in ids if i not in (3, 7)] or [5] for ids in options]
    options = [[*ids, 49] if ids[-1] < 49 else ids for ids in options]
    options = [[5, *ids] if ids == [49] else ids for ids in options]
    closed = torch.full_like(logits, -torch.inf)
    for row, ids in enumerate(options):
        closed[row, ids] = 0.0
    how = Sampling(temperature, 4)
    drawn = None if temperature == 0.0 else rng.random(200)
    plain = draw(logits + closed, how, barred, drawn)
    few = draw_among(lambda ids: logits[:, torch.from_numpy(ids)], options, how, {3, 7, 49}, drawn)
    assert few[0] == plain[0] and 49 not in few[0]
    assert np.allclose(few[1], plain[1], rtol=0, atol=1e-6)
