"""Any local causal language model: chat templates, pieces, end tokens, a whole update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from himac_agents.agent import HiMACAgent
from himac_agents.batching import segments_of, token_batch
from himac_agents.config import TrainConfig
from himac_agents.episodes import Task
from himac_agents.policies.hf import HFPolicy
from himac_agents.policy import Message, Prompt, Sampling
from himac_agents.prompts import ChatPrompts
from himac_agents.rollout import EnvPool, collect
from himac_agents.trainer import Trainer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_model(folder: Path, template: str | None = CHATML) -> Path:
    """A two-layer Qwen2-style model with a byte-level tokenizer, as a user would have on disk."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator(["go to cabinet 1", "take mug 1 from cabinet 1"] * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = template
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
        tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def policy(folder: Path) -> HFPolicy:
    return HFPolicy.load(folder, device="cpu")


@pytest.mark.parametrize("template", [CHATML, None])
def test_pieces_add_up_to_the_whole_conversation(tmp_path: Path, template: str | None) -> None:
    policy = HFPolicy.load(save_model(tmp_path, template), device="cpu")
    opening = [Message("system", "Rules."), Message("user", "You see a mug 1.")]
    reply, heard = "take mug 1", Message("user", "You pick up the mug 1.")
    ids = policy.encode(opening)
    ids += policy.encode_reply(reply)
    ids += policy.encode([heard], continues=True)
    turns = [{"role": m.role, "content": m.text} for m in opening]
    turns += [{"role": "assistant", "content": reply}, {"role": "user", "content": heard.text}]
    whole = policy.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert policy.tokenizer.decode(ids) == whole


def test_end_tokens_and_decoding(policy: HFPolicy) -> None:
    assert policy.tokenizer.convert_ids_to_tokens(policy.end_ids[0]) == "<|im_end|>"
    assert policy.decode(policy.encode_reply("go to cabinet 1")) == "go to cabinet 1"


def test_cached_rollouts_agree_with_training(policy: HFPolicy) -> None:
    pool = EnvPool(lambda: gym.make("HiMAC-ALFWorld-v0", data="generated", max_steps=3), 4)
    for bound in (False, True):
        agent = HiMACAgent.shared(policy, ChatPrompts())
        agent.executor.constrained = bound
        assert agent.planner is not None
        agent.planner.sampling = Sampling(1.0, 12)
        agent.executor.sampling = Sampling(1.0, 40)
        episodes = collect(agent, pool, [Task(t) for t in pool.task_ids("train")[:4]])
        assert all(e.error is None for e in episodes)
        if bound:
            assert not any(
                t.invalid for e in episodes for t in e.turns() if t.action != "<sub_done>"
            )
        for role in ("planner", "executor"):
            batch = token_batch(segments_of(episodes, role), pad=policy.pad_id)  # type: ignore[arg-type]
            with torch.no_grad():
                logp = policy.logprobs(batch).numpy()
            assert np.abs(logp - batch.old_logprobs).max() < 1e-4


def test_greedy_generation_equals_transformers_own(policy: HFPolicy) -> None:
    ids = policy.encode([Message("user", "You see a mug 1.")])
    policy.forget()
    (found,) = policy.generate([Prompt((), ids, slot=0)], Sampling(0.0, 10))
    expected = policy.model.generate(
        torch.tensor([ids]), max_new_tokens=10, do_sample=False, eos_token_id=list(policy.end_ids)
    )[0, len(ids) :].tolist()
    assert list(found.token_ids) == expected


def test_two_iterations_of_training_from_a_folder(folder: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        policy="hf", model=str(folder), env_kwargs={"data": "generated", "max_steps": 3},
        warm_steps=2, demos=2, warm_tokens=2048, iterations=2, tasks=2, blueprints=2,
        executions=2, eval_episodes=2, lanes=4, constrained=True, max_blueprint_tokens=8,
        max_command_tokens=40, eval_split="valid", checkpoint_every=1,
    )  # fmt: skip
    result: dict[str, Any] = Trainer(config, tmp_path / "run", console=Console(quiet=True)).run()
    assert result["work"]["iterations"] == 2 and result["work"]["tokens"] > 0
    saved = tmp_path / "run" / "checkpoints" / "step-00000004" / "policy"
    assert (saved / "model.safetensors").is_file() and (saved / "tokenizer.json").is_file()


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not a saved model"):
        HFPolicy.load(tmp_path)
