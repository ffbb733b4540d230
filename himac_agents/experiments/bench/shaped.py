"""A model of a given shape with random weights: what speed is measured with where no model is.

It reads and writes the words of the environments; what it says means nothing, but costs as much.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from himac_agents.policies.causal import without_progress_bars

_OPEN, _CLOSE, _PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
_TEMPLATE = (
    "{% for turn in messages %}"
    "{{ '<|im_start|>' ~ turn.role ~ '\n' ~ turn.content ~ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The shape of a Llama.

    Attributes:
        hidden: Width of the residual stream.
        layers: Decoder layers.
        heads: Attention heads.
        shared: Heads that keys and values have.
        feedforward: Width of the feed-forward part.
        vocabulary: Ids, most of which stand for nothing here and are never written.
        words: Ids that stand for something, at most.
    """

    hidden: int
    layers: int
    heads: int
    shared: int
    feedforward: int
    vocabulary: int
    words: int


#: SmolLM2-135M's, and one for trying out.
SMOLLM2 = ModelShape(576, 30, 9, 3, 1536, 49_152, 4096)
SMALL = ModelShape(32, 2, 4, 2, 64, 512, 400)


def build(folder: Path, shape: ModelShape, texts: Iterable[str]) -> Path:
    """Writes a model with random weights (always the same) and its tokenizer into a folder.

    Args:
        folder: Where to.
        shape: Its shape.
        texts: What its tokenizer is to read.
    """
    tokenizer = _tokenizer(shape.words, texts)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feedforward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.shared,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(_CLOSE),
    )
    with torch.random.fork_rng(devices=[]), without_progress_bars():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(words: int, texts: Iterable[str]) -> Any:
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=words,
        special_tokens=[_PAD, _OPEN, _CLOSE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=_CLOSE, pad_token=_PAD)
    tokenizer.add_special_tokens({"additional_special_tokens": [_OPEN]})
    tokenizer.chat_template = _TEMPLATE
    return tokenizer
