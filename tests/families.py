"""Families of instruction-tuned models: templates in our own words, tokenizers, random weights.

A template is written from its public form: the markers, their order, what is trimmed, what is
refused. Tokenizers are built here, in the styles that the families use.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "go to cabinet 1", "take mug 1 from cabinet 1", "You see a desk 1.\n\nPossible commands:\nlook",
    "<action>go to desk 1</action>", "<think>\nWhere is it?\n</think>", "Rules of the game.",
    "system user assistant model INST [INST] [/INST] <<SYS>> <</SYS>>", "<sub_done>",
    "<blueprint>\n1. get the apple\n2. get the plum\n</blueprint>", "A row of 3 rooms.",
] * 20  # fmt: skip

# -- tokenizers -----------------------------------------------------------------------------------


@cache
def _byte_level() -> str:
    """As GPT-2, Llama-3 and Qwen: bytes, no blank of its own."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    )
    return core.to_str()


@cache
def _sentencepiece(style: str) -> str:
    """As Llama-2 and Gemma: `\u2581` for a blank, bytes for what is unknown.

    Args:
        style: "legacy" puts a blank before each text and behind each special token (Llama-2);
            "first" before each text (its newer form); "gemma" nowhere.
    """
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    letters = sorted({c for text in TEXTS for c in text if c not in "\n "} | {"\u2581"})
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=letters, show_progress=False)
    core.train_from_iterator([t for text in TEXTS for t in text.split("\n")], trainer)
    learned = json.loads(core.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    pieces += [p for p in learned["vocab"] if p not in pieces]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in learned["merges"]]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    core = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    blank = decoders.Replace("\u2581", " ")
    parts = [blank, decoders.ByteFallback(), decoders.Fuse()]
    if style == "first":
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        turned: list[Any] = [normalizers.Replace(" ", "\u2581")]
        if style == "legacy":
            turned.insert(0, normalizers.Prepend("\u2581"))
        core.normalizer = normalizers.Sequence(turned)
    if style != "gemma":
        parts.append(decoders.Strip(" ", 1, 0))
    core.decoder = decoders.Sequence(parts)
    return core.to_str()


# -- templates ------------------------------------------------------------------------------------

_HEAD = "{% for m in messages %}"
_CHATML_TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
_CHATML_ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_CHATML = _HEAD + _CHATML_TURN + "{% endfor %}" + _CHATML_ASK
# Qwen2.5 and SmolLM2 say who the assistant is where nobody else does.
_CHATML_NAMED = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant."
    "<|im_end|>\n{% endif %}" + _CHATML
)
# Qwen3: answers up to the last question are shown without thoughts, later ones with one.
_QWEN3 = (
    "{%- set asked = namespace(last=-1) %}"
    "{%- for m in messages %}{% if m.role == 'user' %}{% set asked.last = loop.index0 %}{% endif %}"
    "{% endfor %}" + _HEAD + "{%- if m.role == 'assistant' %}"
    "{%- set answer = m.content.split('</think>')[-1].lstrip('\\n') %}"
    "{{- '<|im_start|>assistant\n' }}"
    "{%- if loop.index0 > asked.last %}{{- '<think>\n' }}"
    "{%- if '</think>' in m.content %}"
    "{{- m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') }}{% endif %}"
    "{{- '\n</think>\n\n' }}{% endif %}{{- answer + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
# R1-Distill and QwQ: each answer begins inside a thought; earlier thoughts are cut away.
_R1 = (
    "{{- bos_token }}{%- for m in messages %}{%- if m.role == 'system' %}{{- m.content }}"
    "{%- elif m.role == 'user' %}{{- '<\uff5cUser\uff5c>' + m.content }}"
    "{%- else %}{{- '<\uff5cAssistant\uff5c>' + m.content.split('</think>')[-1] + eos_token }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<\uff5cAssistant\uff5c><think>\n' }}{%- endif %}"
)
_QWQ = _CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}").replace(
    "{{ m.content }}", "{{ m.content.split('</think>')[-1].lstrip('\\n') }}"
)
_ALTERNATE = (
    "{%- for m in turns %}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('roles must alternate') }}{%- endif %}{%- endfor %}"
)
# Llama-2: the system's words inside the first question.
_LLAMA2 = (
    "{%- if messages[0].role == 'system' %}{%- set rules = messages[0].content %}"
    "{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}"
    + _ALTERNATE
    + "{%- for m in turns %}{%- if m.role == 'user' %}{{- bos_token + '[INST] ' }}"
    "{%- if loop.first and rules is defined %}"
    "{{- '<<SYS>>\n' + rules + '\n<</SYS>>\n\n' }}{%- endif %}"
    "{{- m.content.strip() + ' [/INST]' }}"
    "{%- else %}{{- ' ' + m.content.strip() + ' ' + eos_token }}{%- endif %}{%- endfor %}"
)
_LLAMA3_TURN = (
    "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content.strip() + "
    "'<|eot_id|>' }}"
)
_LLAMA3_ASK = "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
# The first release asks for an answer whether it is told to or not.
_LLAMA3_FIRST = (
    "{{- bos_token }}{%- for m in messages %}" + _LLAMA3_TURN + "{%- endfor %}" + (_LLAMA3_ASK)
)
_LLAMA3 = (
    "{{- bos_token }}{%- if messages[0].role == 'system' %}{%- set rules = messages[0].content %}"
    "{%- set turns = messages[1:] %}{%- else %}{%- set rules = '' %}{%- set turns = messages %}"
    "{%- endif %}{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: "
    "December 2023\n' + rules + '<|eot_id|>' }}{%- for m in turns %}"
    + _LLAMA3_TURN
    + "{%- endfor %}{%- if add_generation_prompt %}"
    + _LLAMA3_ASK
    + "{%- endif %}"
)
_GEMMA_TURNS = (
    "{%- for m in turns %}{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) "
    "+ '\n' }}{%- if loop.first %}{{- rules }}{%- endif %}"
    "{{- m.content.strip() + '<end_of_turn>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}{%- endif %}"
)
_GEMMA2 = (
    "{{- bos_token }}{%- if messages[0].role == 'system' %}"
    "{{- raise_exception('System role not supported') }}{%- endif %}"
    "{%- set turns = messages %}{%- set rules = '' %}" + _ALTERNATE + _GEMMA_TURNS
)
_GEMMA3 = (
    "{{- bos_token }}{%- if messages[0].role == 'system' %}"
    "{%- set rules = messages[0].content + '\n\n' %}{%- set turns = messages[1:] %}"
    "{%- else %}{%- set rules = '' %}{%- set turns = messages %}{%- endif %}"
    + _ALTERNATE
    + _GEMMA_TURNS
)
_MISTRAL = (
    "{{- bos_token }}{%- set turns = messages %}"
    + _ALTERNATE
    + "{%- for m in turns %}{%- if m.role == 'user' %}{{- '[INST] ' + m.content + ' [/INST]' }}"
    "{%- else %}{{- m.content + eos_token + ' ' }}{%- endif %}{%- endfor %}"
)
# Later ones: the system's words stand in the last question, wherever that is.
_MISTRAL_LAST = (
    "{{- bos_token }}{%- if messages[0].role == 'system' %}{%- set rules = messages[0].content %}"
    "{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}"
    "{%- for m in turns %}{%- if m.role == 'user' %}{{- '[INST]' }}"
    "{%- if loop.last and rules is defined %}{{- ' ' + rules + '\n\n' + m.content }}"
    "{%- else %}{{- ' ' + m.content }}{%- endif %}{{- '[/INST]' }}"
    "{%- else %}{{- ' ' + m.content.strip() + eos_token }}{%- endif %}{%- endfor %}"
)
_PHI3 = (
    "{%- for m in messages %}{{- '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- else %}{{- eos_token }}{%- endif %}"
)

# -- models ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        template: The chat template; None for a tokenizer without one.
        tokenizer: "bytes", or a style of `_sentencepiece`.
        end: The token that ends a turn.
        special: Tokens that the map of special tokens knows.
        added: Tokens that it does not.
        eos: The tokenizer's end token.
        bos: The token that a conversation begins with.
        model: The architecture, by its class.
        settings: Its settings beside the usual ones.
        named: Tokens that generation settings name as ends.
        options: Arguments of the template.
        strips: Whether added tokens swallow the white space behind them.
    """

    template: str | None
    tokenizer: str
    end: str
    special: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    eos: str = "</s>"
    bos: str = "<s>"
    model: str = "Llama"
    settings: dict[str, Any] = field(default_factory=dict)
    named: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    strips: bool = False


_IM = ("<|im_start|>", "<|im_end|>")
_THINK = ("<think>", "</think>")
_HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_TURNS = ("<start_of_turn>", "<end_of_turn>")
_GEMMA = {"tokenizer": "gemma", "end": "<end_of_turn>", "special": _TURNS, "eos": "<eos>",
          "bos": "<bos>"}  # fmt: skip
_HYBRID = {"head_dim": 16, "sliding_window": 4096, "query_pre_attn_scalar": 16}

FAMILIES: dict[str, Family] = {
    "ChatML, Qwen2.5": Family(_CHATML_NAMED, "bytes", "<|im_end|>", _IM, eos="<|im_end|>",
                              model="Qwen2", named=("<|im_end|>", "<|endoftext|>"),
                              bos="<|endoftext|>"),
    "ChatML, SmolLM2": Family(_CHATML_NAMED, "bytes", "<|im_end|>", _IM, eos="<|im_end|>",
                              bos="<|im_start|>"),
    "ChatML, eos </s>": Family(_CHATML, "legacy", "<|im_end|>", added=_IM),
    "ChatML, eos </s>, bytes": Family(_CHATML, "bytes", "<|im_end|>", added=_IM),
    "Qwen3": Family(_QWEN3, "bytes", "<|im_end|>", _IM, _THINK, eos="<|im_end|>", model="Qwen3",
                    settings={"head_dim": 16}, bos="<|endoftext|>"),
    "Qwen3, no thinking": Family(_QWEN3, "bytes", "<|im_end|>", _IM, _THINK, eos="<|im_end|>",
                                 model="Qwen3", settings={"head_dim": 16}, bos="<|endoftext|>",
                                 options={"enable_thinking": False}),
    "R1-Distill": Family(_R1, "bytes", "<\uff5cend\uff5c>",
                         added=("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", *_THINK),
                         eos="<\uff5cend\uff5c>", bos="<\uff5cbegin\uff5c>", model="Qwen2"),
    "QwQ": Family(_QWQ, "bytes", "<|im_end|>", _IM, _THINK, eos="<|im_end|>", model="Qwen2",
                  bos="<|endoftext|>"),
    "Llama-2": Family(_LLAMA2, "legacy", "</s>"),
    "Llama-2, newer tokenizer": Family(_LLAMA2, "first", "</s>"),
    "Llama-3, first release": Family(_LLAMA3_FIRST, "bytes", "<|eot_id|>", _HEADERS,
                                     eos="<|end_of_text|>", bos="<|begin_of_text|>"),
    "Llama-3": Family(_LLAMA3, "bytes", "<|eot_id|>", _HEADERS, eos="<|eot_id|>",
                      bos="<|begin_of_text|>", named=("<|eot_id|>",)),
    "Gemma-2": Family(_GEMMA2, model="Gemma2", settings=_HYBRID, **_GEMMA),
    "Gemma-3": Family(_GEMMA3, model="Gemma3", settings=_HYBRID,
                      named=("<eos>", "<end_of_turn>"), **_GEMMA),
    "Mistral-0.1": Family(_MISTRAL, "legacy", "</s>", model="Mistral"),
    "Mistral, rules last": Family(_MISTRAL_LAST, "legacy", "</s>", ("[INST]", "[/INST]"),
                                  model="Mistral"),
    "Phi-3": Family(_PHI3, "legacy", "<|end|>", ("<|system|>", "<|user|>", "<|assistant|>",
                    "<|end|>"), eos="<|endoftext|>", model="Phi3", strips=True,
                    named=("<|endoftext|>", "<|assistant|>", "<|end|>")),
    "plain, bytes": Family(None, "bytes", "<|endoftext|>", eos="<|endoftext|>",
                           bos="<|endoftext|>", model="GPT2"),
    "plain, SentencePiece": Family(None, "first", "</s>"),
}  # fmt: skip


def build_tokenizer(family: Family) -> Any:
    """A family's tokenizer, with its chat template."""
    text = _byte_level() if family.tokenizer == "bytes" else _sentencepiece(family.tokenizer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text),
        bos_token=family.bos,
        eos_token=family.eos,
        **({} if family.tokenizer == "bytes" else {"unk_token": "<unk>"}),
    )

    def tokens(names: tuple[str, ...], special: bool) -> list[AddedToken]:
        strip = family.strips
        return [AddedToken(n, special=special, normalized=False, rstrip=strip) for n in names]

    if family.special:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": tokens(family.special, special=True)}
        )
    tokenizer.add_tokens(tokens(family.added, special=False))
    tokenizer.chat_template = family.template
    return tokenizer


def build_model(family: Family, tokenizer: Any, *, spare: int = 7) -> Any:
    """A tiny model of a family's architecture with random weights.

    Args:
        family: Which.
        tokenizer: Its tokenizer.
        spare: Rows of the vocabulary beyond the tokenizer's, as real models have them.
    """
    usual = {
        "vocab_size": len(tokenizer) + spare, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "max_position_embeddings": 8192, "initializer_range": 0.1, "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    if family.model == "GPT2":
        usual = {key: usual[key] for key in ("vocab_size", "bos_token_id", "eos_token_id")}
        usual |= {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 4096}
    kind = family.model + ("TextConfig" if family.model == "Gemma3" else "Config")
    config = getattr(transformers, kind)(**{**usual, **family.settings})
    head = "LMHeadModel" if family.model == "GPT2" else "ForCausalLM"
    make: Callable[[Any], Any] = getattr(transformers, family.model + head)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make(config).eval()
    if family.named:
        ends = tokenizer.convert_tokens_to_ids(list(family.named))
        model.generation_config.eos_token_id = [int(i) for i in ends]
    return model
