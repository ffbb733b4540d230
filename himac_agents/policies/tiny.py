"""A causal language model of 0.2M to 5M parameters that learns on a laptop's CPU.

The model is a transformers Llama built from a config; its word-level tokenizer is built from the
environment's own text. Two choices decide whether so small a model learns at all:

- `initializer_range` 0.1 with tied embeddings. Transformers' default of 0.02 leaves a model of
  width 64 near zero for hundreds of steps.
- Phrases. Fixed runs of words ("you arrive at", "in it, you see a") become one token. Names and
  numbers stay apart, so that "mug 2" shares what is known of mugs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from himac_agents.policies.base import Message
from himac_agents.policies.causal import CausalPolicy, without_progress_bars
from himac_agents.policies.generation.reader import Reader
from himac_agents.policies.trees import Layout

PAD, UNKNOWN, END, SAY = "<pad>", "<unk>", "<end>", "<say>"
SPECIAL = (PAD, UNKNOWN, END, SAY, "<plan>", "<act>", "<play>", "<sub_done>")

#: The marks that make a conversation of words; they stand for themselves in no text.
_STRUCTURE = re.compile(f"<({'|'.join(mark[1:-1] for mark in (PAD, UNKNOWN, END, SAY))})>")

#: A large base: in heads this narrow most dimensions must compare words, not places.
ROPE_THETA = 10_000.0

_PIECE = r" ?<\w+>| ?[\w/'-]+| ?[^\w\s]| ?\n|\s"
_WORD = re.compile(_PIECE)
#: Words tell phrases from names: a name is a word that a number follows somewhere.
_NUMBER = re.compile(r" ?\d+")


@dataclass(frozen=True, slots=True)
class TinySize:
    """The model's shape.

    Attributes:
        hidden: Width of the residual stream.
        layers: Decoder layers.
        heads: Attention heads.
        feedforward: Width of the feed-forward part.
        initializer_range: Standard deviation of the initial weights, tied embeddings included.
        match: Begin with equal query and key projections (free to part later), so that equal words
            attend to each other from the first step.
    """

    hidden: int = 64
    layers: int = 3
    heads: int = 4
    feedforward: int = 192
    initializer_range: float = 0.1
    match: bool = False


class TinyPolicy(CausalPolicy):
    """See the module's text. Build one with `TinyPolicy.build`, load one with `load`."""

    model: LlamaForCausalLM

    @classmethod
    def build(
        cls,
        texts: Iterable[str] | PreTrainedTokenizerFast,
        size: TinySize | None = None,
        *,
        seed: int = 0,
        phrases: int = 96,
    ) -> TinyPolicy:
        """A fresh model whose vocabulary is that of `texts`.

        Args:
            texts: Samples of everything the model will read and write, or the tokenizer that
                `build_tokenizer` made of them: it is shared, not copied.
            size: The model's shape.
            seed: Seeds the weights; no global random state is touched.
            phrases: The most multi-word tokens.
        """
        size = size or TinySize()
        given = isinstance(texts, PreTrainedTokenizerFast)
        tokenizer: Any = texts if given else build_tokenizer(texts, phrases)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden,
            intermediate_size=size.feedforward,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
            initializer_range=size.initializer_range,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config)
        if size.match:
            with torch.no_grad():
                for layer in model.model.layers:
                    layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
        return cls(model, tokenizer)

    @classmethod
    def load(cls, path: str | Path) -> TinyPolicy:
        """The policy that `save_pretrained` wrote into the folder `path`."""
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(path))
        with without_progress_bars():
            model = LlamaForCausalLM.from_pretrained(str(path), dtype=torch.float32)
        for parameter in model.parameters():
            # Loaded weights may lie at odd addresses, where vector kernels add up in another
            # order: a fresh copy makes a resumed run equal to the bit.
            parameter.data = parameter.data.clone()
        model.tie_weights()
        return cls(model, tokenizer)

    def __init__(self, model: LlamaForCausalLM, tokenizer: Any) -> None:
        super().__init__(model, tokenizer, [tokenizer.convert_tokens_to_ids(END)])
        self.reader = Reader(model) if Reader.fits(model) else None
        self._say = int(tokenizer.convert_tokens_to_ids(SAY))
        self._memo: dict[str, tuple[int, ...]] = {}
        self._replies: dict[str, tuple[int, ...]] = {}

    def _ids(self, text: str) -> tuple[int, ...]:
        # Games repeat themselves: "The drawer 3 is closed." is tokenised once.
        ids = self._memo.get(text)
        if ids is None:
            if len(self._memo) > 100_000:
                self._memo.clear()
            # No observation ends a turn or begins another.
            plain = _STRUCTURE.sub(lambda mark: f"< {mark[1]} >", text)
            ids = tuple(self.tokenizer.encode(plain, add_special_tokens=False))
            self._memo[text] = ids
        return ids

    def encode(self, messages: Sequence[Message], *, continues: bool = False) -> list[int]:
        """The messages' words, an end token after each assistant's turn, then the cue to speak."""
        ids: list[int] = []
        for message in messages:
            ids.extend(self._ids(message.text))
            ids.append(self.end_ids[0] if message.role == "assistant" else self._say)
        if messages and messages[-1].role == "assistant":
            ids.append(self._say)
        return ids

    def encode_reply(self, text: str) -> tuple[int, ...]:
        """See `Codec.encode_reply`."""
        ids = self._replies.get(text)
        if ids is None:
            if len(self._replies) > 100_000:
                self._replies.clear()
            ids = self._replies[text] = (*self._ids(text), *self.end_ids[:1])
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion; special tokens other than `<sub_done>` vanish."""
        kept = [i for i in ids if i not in self.end_ids and i != self.pad_id and i != self._say]
        return str(self.tokenizer.decode(kept)).replace(" \n ", "\n").strip()

    def _logits_before(self, layout: Layout, mask: Tensor) -> tuple[Tensor, Tensor]:
        # Only the positions that carry loss go through the output layer: a third of the time saved.
        hidden = self.model.model(**layout.inputs, use_cache=False).last_hidden_state
        return self.model.lm_head(layout.before(hidden, mask)), hidden


def build_tokenizer(texts: Iterable[str], phrases: int = 96) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over `texts`, with frequent fixed phrases as single tokens."""
    lines = [_normal(text) for text in texts]
    found = _mine_phrases(lines, phrases)
    words = {word for line in set(lines) for word in _WORD.findall(line)}
    pieces = words | set(found) | {f" {n}" for n in range(100)} | {" \n", ",", "."}
    vocabulary = {token: i for i, token in enumerate(SPECIAL)}
    for piece in sorted(pieces - {f" {s}" for s in SPECIAL}):
        vocabulary.setdefault(piece, len(vocabulary))
    core = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"\s*\n\s*"), " \n "),
            normalizers.Replace(Regex(r"\A +"), ""),
            normalizers.Prepend(" "),
        ]
    )
    longest_first = sorted(found, key=lambda p: (-len(p), p))
    pattern = "|".join([*(re.escape(p) + r"(?!\w)" for p in longest_first), _PIECE])
    core.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, unk_token=UNKNOWN, eos_token=END
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[3:])})
    return tokenizer


def _normal(text: str) -> str:
    return " " + re.sub(r"\s*\n\s*", " \n ", text)


def _mine_phrases(lines: Sequence[str], most: int) -> list[str]:
    """The runs of words that save the most tokens, grown pair by pair (as byte-pair encoding).

    Words that a number follows somewhere are names and join no phrase, nor do numbers.
    """
    split = Counter({tuple(_WORD.findall(line)): n for line, n in Counter(lines).items()})
    names: set[str] = set()
    for words in split:
        names.update(a for a, b in pairwise(words) if _NUMBER.fullmatch(b))
    barred = {w for words in split for w in words if _NUMBER.fullmatch(w) or "<" in w or ">" in w}
    barred |= names
    found: list[str] = []
    least = max(8, len(lines) // 200)
    # Of each pair, how often it comes and in which runs of words: a round counts anew only those
    # that it changes.
    pairs: Counter[tuple[str, str]] = Counter()
    places: dict[tuple[str, str], set[tuple[str, ...]]] = {}

    def count(words: tuple[str, ...], n: int) -> None:
        for pair in pairwise(words):
            if pair[0] not in barred and pair[1] not in barred:
                pairs[pair] += n
                places.setdefault(pair, set()).add(words)

    for words, n in split.items():
        count(words, n)
    for _ in range(most):
        pair, n = min(pairs.items(), key=lambda item: (-item[1], item[0]), default=(("", ""), 0))
        if n < least:
            break
        found.append(pair[0] + pair[1])
        for words in places.pop(pair):
            n = split.pop(words)
            for other in pairwise(words):
                if other in pairs:
                    pairs[other] -= n
                    places.get(other, set()).discard(words)
            merged = _join(words, *pair)
            split[merged] += n
            count(merged, n)
        del pairs[pair]
    return found


def _join(words: tuple[str, ...], a: str, b: str) -> tuple[str, ...]:
    out: list[str] = []
    i = 0
    while i < len(words):
        if i + 1 < len(words) and words[i] == a and words[i + 1] == b:
            out.append(a + b)
            i += 2
        else:
            out.append(words[i])
            i += 1
    return tuple(out)


def is_tiny(folder: str | Path) -> bool:
    """Whether a saved model is one of ours: its tokenizer knows the role tokens."""
    path = Path(folder) / "tokenizer.json"
    return path.is_file() and f'"{SAY}"' in path.read_text(encoding="utf-8")
