"""A tiny vision-language model reads Sokoban's frames, plans, acts and learns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from crediting import credited
from tinymodels import save_llava, save_vision_model

from himac_agents.agents.agent import HiMACAgent
from himac_agents.agents.conversation import shown
from himac_agents.algorithms import advantages
from himac_agents.algorithms.batching import rows, segments_of, token_batch
from himac_agents.algorithms.learner import Learner
from himac_agents.cli import main
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Message, Prompt, Sampling
from himac_agents.policies.hf import HFPolicy
from himac_agents.policies.vision import VisionPolicy
from himac_agents.prompts import ChatPrompts
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vision_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def policy(folder: Path) -> HFPolicy:
    return HFPolicy.load(folder, device="cpu")


def _play(policy: HFPolicy) -> list[Episode]:
    # Six rooms in three lanes: the second three find the first three's rows in the cache.
    pool = EnvPool(lambda: gym.make("HiMAC-Sokoban-v0", max_steps=3, image=True), 3)
    agent = HiMACAgent.shared(policy, ChatPrompts())
    assert agent.planner is not None
    agent.planner.sampling = agent.executor.sampling = Sampling(1.0, 8)
    episodes = collect(agent, pool, [EpisodeRequest(t) for t in pool.task_ids("train")[:6]])
    assert all(e.error is None for e in episodes)
    return episodes


@pytest.fixture(scope="module")
def episodes(policy: HFPolicy) -> list[Episode]:
    return _play(policy)


def test_a_picture_stands_where_the_template_puts_it(policy: VisionPolicy) -> None:
    assert isinstance(policy, VisionPolicy)
    frame = np.zeros((96, 96, 3), np.uint8)
    message = Message("user", "Where is the box?", (frame,))
    ids = policy.encode([message])
    # 96 pixels: 12 x 12 patches of 8, four of them to a token.
    assert ids.count(policy.eyes.image_token_id) == 36
    text = policy.tokenizer.decode(ids).replace("<|image_pad|>", "")
    assert "<|im_start|>user\n<|vision_start|><|vision_end|>Where is the box?<|im_end|>" in text
    piece = policy.tokenizer.decode(policy.encode([message], continues=True))
    assert piece.startswith("\n<|im_start|>user\n<|vision_start|>") and "system" not in piece
    # A word that reads like a picture is a word.
    words = Message("user", "<|image_pad|><|vision_end|>")
    assert policy.eyes.image_token_id not in policy.encode([words])
    assert (
        policy.encode([replace(message, text=words.text)]).count(policy.eyes.image_token_id) == 36
    )
    assert words.text in policy.tokenizer.decode(policy.encode([words], continues=True))
    kept = shown([Message("user", "look")], {"image": frame})
    frame[:] = 255
    assert (kept[0].images[0] == 0).all(), "a frame is copied: the environment draws on"


def test_rollouts_with_frames_agree_with_training(
    policy: VisionPolicy, episodes: list[Episode]
) -> None:
    for role in ("planner", "executor"):
        batch = token_batch(segments_of(episodes, role), pad=policy.pad_id)  # type: ignore[arg-type]
        assert len(batch.images) == len(batch)
        with torch.no_grad():
            logp = policy.logprobs(batch).numpy()
            assert np.abs(logp - batch.old_logprobs).max() < 1e-4
            # Cut into rows, each takes its own pictures along.
            part = rows(batch, np.array([2, 0]))
            width = part.mask.shape[1]
            assert np.abs(policy.logprobs(part).numpy() - logp[[2, 0], :width]).max() < 1e-4
            # And the pictures are really looked at.
            batch.images = batch.images[1:] + batch.images[:1]
            assert np.abs(policy.logprobs(batch).numpy() - logp).max() > 1e-3
    longest = max(segments_of(episodes, "executor"), key=lambda s: len(s.images))
    assert len(longest.images) > 1, "each step shows a new frame"


def test_a_model_whose_whole_processor_loads(tmp_path: Path) -> None:
    """LLaVA: through `AutoProcessor`, and with ordinary positions."""
    policy = HFPolicy.load(save_llava(tmp_path), device="cpu")
    assert isinstance(policy, VisionPolicy) and policy.eyes.processor is not None
    batch = token_batch(segments_of(_play(policy), "executor"), pad=policy.pad_id)
    assert batch.images and (batch.token_ids == policy.eyes.image_token_id).sum() >= 36
    with torch.no_grad():
        assert np.abs(policy.logprobs(batch).numpy() - batch.old_logprobs).max() < 1e-4


def test_positions_are_those_of_transformers_own_generation(policy: VisionPolicy) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    message = Message("user", "Where is the box?", (frame,))
    ids = policy.encode([message])
    (found,) = policy.generate([Prompt((message,), ids)], Sampling(0.0, 6))
    tokens = torch.tensor([ids])
    expected = policy.model.generate(
        input_ids=tokens,
        mm_token_type_ids=(tokens == policy.eyes.image_token_id).int(),
        **policy.eyes.see(frame).inputs,
        max_new_tokens=6,
        do_sample=False,
        eos_token_id=list(policy.end_ids),
        suppress_tokens=policy.barred.tolist(),
    )[0, len(ids) :].tolist()
    assert list(found.token_ids) == expected


def test_equal_words_under_unequal_pictures_share_no_cache(policy: VisionPolicy) -> None:
    rng = np.random.default_rng(1)
    policy.forget()
    said = []
    for number in range(3):
        frame = rng.integers(0, 255, (96, 96, 3)).astype(np.uint8)
        message = Message("user", "Where is the box?", (frame,))
        prompt = Prompt((message,), policy.encode([message]), slot=0)
        (cached,) = policy.generate([prompt], Sampling(0.0, 5))
        (alone,) = policy.generate([replace(prompt, slot=None)], Sampling(0.0, 5))
        assert np.allclose(cached.logprobs, alone.logprobs, atol=1e-4), number
        said.append(cached.logprobs)
    assert not np.allclose(said[0], said[1], atol=1e-3)


def test_one_command_trains_on_frames(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(returns: Sequence[float], groups: Any = None, *, std: bool = True) -> Any:
        return np.resize([1.0, -1.0], len(returns))

    # In two steps nobody earns anything: that something is learned is made sure of here.
    monkeypatch.setattr(advantages, "group_relative", some)
    run = tmp_path / "run"
    options = (
        "--env HiMAC-Sokoban-v0 --flat-env HiMAC-Sokoban-Flat-v0 --env-kwargs image=true "
        "max_steps=2 --iterations 2 --tasks 2 --blueprints 2 --executions 2 --eval-episodes 2 "
        "--lanes 4 --max-blueprint-tokens 8 --max-command-tokens 8 --lr 1e-3 --least-minibatch 1 "
        "--lora-rank 4 --demos 1 --warm-steps 1 --warm-tokens 2048"
    )
    command = ["train", "--policy", "hf", "--model", str(folder), "--out", str(run)]
    assert main([*command, *options.split()]) == 0
    assert json.loads((run / "result.json").read_text())["work"]["iterations"] == 2
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    gaps = [x["logprob_gap"] for x in lines if "logprob_gap" in x]
    assert gaps and max(gaps) < 1e-4


def test_an_update_moves_the_eyes_too(folder: Path, episodes: list[Episode]) -> None:
    policy = HFPolicy.load(folder, device="cpu")
    before = {k: v.clone() for k, v in policy.model.state_dict().items()}
    segments = segments_of(episodes, "executor")
    rng = np.random.default_rng(0)
    learner = Learner(policy, TrainConfig(lr=1e-3, kl=0.0))
    metrics = learner.reinforce(credited(segments, rng.normal(size=len(segments))), rng)
    assert metrics["updates"] == 1 and metrics["logprob_gap"] < 1e-4
    moved = {k for k, v in policy.model.state_dict().items() if not torch.equal(v, before[k])}
    assert any("visual" in key for key in moved) and any("self_attn" in key for key in moved)
