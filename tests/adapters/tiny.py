"""A model of a few thousand weights whose tokenizer knows the words of a session's texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from himac_envs.adapters import Session


def texts_of(env_id: str) -> list[str]:
    """What an expert reads and says in a few episodes."""
    found = []
    with Session(env_id, data="generated") as session:
        for task_id in session.task_ids("train")[:3]:
            found.append(session.reset(task_id))
            while not session.done:
                found.append(session.expert())
                found.append(session.step(found[-1]))
    return found


def make_model(folder: Path, texts: list[str], template: str, context: int = 16_384) -> str:
    """Write a model and its tokenizer to a folder, as a user would have them on disk."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=1_500,
        special_tokens=named,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*texts, template], trainer)
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)
