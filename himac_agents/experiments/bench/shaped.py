"""A model of a given shape with random weights: what speed is measured with where no model is.

It reads and writes the words of the environments; what it says means nothing, but costs as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
#: The shape of SmolLM2-135M, and one for trying out, as settings of `LlamaConfig`. Most ids stand
#: for nothing here, and are never written.
SMOLLM2 = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49_152,
}  # fmt: skip
SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
}  # fmt: skip
#: The most ids that stand for something.
_WORDS = 4096


def build(folder: Path, shape: Mapping[str, Any], texts: Iterable[str]) -> Path:
    """Writes a model with random weights (always the same) and a tokenizer of texts; the folder."""
    tokenizer = _tokenizer(min(_WORDS, shape["vocab_size"]), texts)
    config = LlamaConfig(
        **shape,
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
