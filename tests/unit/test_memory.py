"""What a model is reckoned to take is what its tensors take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tinymodels import save_text_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from himac_agents.algorithms.learner import Learner
from himac_agents.config import TrainConfig
from himac_agents.policies import memory
from himac_agents.policies.base import TokenBatch
from himac_agents.policies.hf import HFPolicy
from himac_agents.policies.loading import load_reference, make_policies
from himac_agents.policies.memory import need, shape_of, told


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_model(tmp_path_factory.mktemp("model") / "tiny", layers=3)


def _batch(tokens: int) -> TokenBatch:
    ids = np.random.default_rng(0).integers(0, 250, size=(2, tokens // 2))
    mask = np.zeros(ids.shape, dtype=np.float32)
    mask[:, -tokens // 8 :] = 1.0  # a quarter of them
    lengths = np.full(2, tokens // 2)
    return TokenBatch(ids, mask, mask, mask, lengths)


@pytest.mark.parametrize(
    "settings",
    [
        {"kl": 0.0},
        {"kl": 0.1},
        {"kl": 0.0, "lora_rank": 4},
        {"kl": 0.0, "lora_rank": 2, "lora_targets": ("q_proj", "down_proj")},
    ],
    ids=str,
)
def test_weights_gradients_and_moments_are_counted(model: Path, settings: dict[str, Any]) -> None:
    config = TrainConfig(
        policy="hf", model=str(model), dtype="float32", clip=0.2, clip_high=0.2, **settings
    )
    found = need(shape_of(config), config, 1, computes=4)
    policy = make_policies(config, True, None, list)["policy"]
    learner = Learner(policy, config)
    taken: dict[str, float] = {}
    step = learner._step

    def stepping(*args: Any) -> float:
        own = [p.grad for p in policy.parameters() if p.grad is not None]
        taken["gradients"] = sum(g.nbytes for g in own)
        return step(*args)

    learner._step = stepping  # type: ignore[method-assign]
    learner.imitate(_batch(64), 1e-3)
    named = policy.model.named_parameters()
    held = sum(p.nbytes for name, p in named if "lora_" not in name)
    held += sum(p.nbytes for p in policy.parameters()) if config.lora_rank else 0
    if config.kl:
        reference = load_reference(policy, model, config, fresh=False)
        held += sum(p.nbytes for p in reference.model.parameters())
    states = learner.optimizer.state.values()
    moments = sum(t.nbytes for s in states for name, t in s.items() if name != "step")
    assert (found.weights, found.gradients, found.moments) == (held, taken["gradients"], moments)


def _kept(policy: Any, tokens: int) -> int:
    """Bytes that a pass keeps for its gradient, weights apart."""
    own = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.logprobs_and_entropy(_batch(tokens))
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("width", [32, 128])
def test_activations_are_about_what_a_pass_keeps(width: int, model: Path) -> None:
    settings = Qwen2Config(
        vocab_size=400, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        bos_token_id=None,
    )  # fmt: skip
    found = []
    for again in (False, True):
        policy = HFPolicy.load(model, device="cpu", dtype="float32", gradient_checkpointing=again)
        policy.model = Qwen2ForCausalLM(settings)
        if again:
            policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        found.append(_kept(policy, 128))
    shape = memory.counted(policy.model, TrainConfig(policy="hf", model=str(model), kl=0.0))
    reckoned = [memory.activations(shape, 128, 4, again=again) for again in (False, True)]
    assert 0.8 < found[0] / reckoned[0] < 1.2
    # A layer's are there, once it computes them again.
    assert 0.8 < (found[1] + found[0] / shape.layers) / reckoned[1] < 1.2
    assert found[1] < 0.5 * found[0]


def _seven_billion(folder: Path) -> TrainConfig:
    """Settings that name a model of the size of Qwen2.5-7B; its weights are nowhere."""
    Qwen2Config(
        vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
        num_attention_heads=28, num_key_value_heads=4, tie_word_embeddings=False,
    ).save_pretrained(folder)  # fmt: skip
    return TrainConfig(policy="hf", model=str(folder), dtype="bfloat16", kl=0.01, warm_steps=0)


def test_the_line_is_told_before_anything_is_read(tmp_path: Path) -> None:
    config = _seven_billion(tmp_path)
    shape = shape_of(config)
    assert shape.parameters == 7_615_616_512, "as its card says"
    alone, four = (need(shape, config, n, computes=2) for n in (1, 4))
    assert alone.weights == 8 * shape.parameters, "its own and the reference's"
    assert alone.weights == pytest.approx(4 * four.weights)
    assert four.played == 2 * shape.parameters, "all of them, in bfloat16"
    line = told(config, 1, 1)
    assert f"this needs about {alone.most / 1e9:.0f} GB a process" in line
    assert f"--shard over 4 processes takes {four.most / 1e9:.0f} GB in each" in line
    assert "56 KiB for each token" in line
    served = config.replace(rollout="server", servers=("http://127.0.0.1:1",))
    assert need(shape, served, 4, computes=2).played == 0, "others play"
    assert told(config.replace(policy="tiny", model=""), 1, 1) == ""
    assert told(config.replace(model=str(tmp_path / "none")), 1, 1) == ""
