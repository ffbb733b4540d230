"""Answers that are cut at their limit, and conversations that outgrow what a model can read."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from families import FAMILIES, build_model, build_tokenizer
from rich.console import Console
from toy import FruitEnv

from himac_agents.agents.agent import Executor, HiMACAgent, Planner
from himac_agents.cli import main
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Completion, Message, Prompt, Sampling, TokenBatch
from himac_agents.policies.hf import HFPolicy, Loading
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.prompts import ChatPrompts, CompactPrompts, Prompts, finished
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.trace import describe
from himac_agents.rollouts.types import EpisodeRequest
from himac_agents.training.progress import Display
from himac_agents.training.supervision import Demonstrations

CABINETS = [f"go to cabinet {n}" for n in range(1, 13)]


@pytest.mark.parametrize(
    ("answer", "certain"),
    [
        ("<action>go to cabinet 1", ""),
        ("<think>a</think><action>go to cabinet 1", ""),
        ("<action>go to cabinet 2</action><action>go to cabinet 1", ""),
        ("<action>go to cabinet 2</action> since I", "<action>go to cabinet 2</action> since I"),
        ("<blueprint>\n1. find and take a mug\n2. put the", ""),
        ("<blueprint>1. wait</blueprint> It", "<blueprint>1. wait</blueprint> It"),
        ("go to cabinet 1", ""),
        ("go to cabinet 12", "go to cabinet 12"),
        ("go to cabinet 2", "go to cabinet 2"),
        ("go to cab", ""),
        ("go to cabinet 1\nsince I", "go to cabinet 1"),
        ("- find and take a mug\n- put the mu", "- find and take a mug"),
        ("<sub_done>", "<sub_done>"),
        ("<think> go to cabinet 2", ""),
        ("<blueprint>\n<sub_goal>take a mug</sub_goal>\n<sub_goal>put it</sub_goal>", ""),
        ("<answer>\n<action>go to cabinet 2</action>", ""),
        ("", ""),
    ],
)
def test_what_is_certain_of_an_answer_that_was_cut(answer: str, certain: str) -> None:
    assert finished(answer, CABINETS).strip() == certain


class Says:
    """A policy that says one thing, and how it ended."""

    def __init__(self, text: str, cut: bool) -> None:
        self.text, self.cut = text, cut

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        return [Completion(self.text, cut=self.cut) for _ in prompts]


@pytest.mark.parametrize("prompts", [ChatPrompts(), CompactPrompts()])
def test_half_a_command_is_not_executed(prompts: Prompts) -> None:
    observation = {"text": "a room"}
    info = {"goal": "look", "step": 0, "task_id": "t", "admissible": CABINETS}
    said = "<action>go to cabinet 1"
    act = {cut: Executor(Says(said, cut), prompts).act(observation, info) for cut in (True, False)}
    assert act == {True: "", False: "go to cabinet 1"}
    plan = "<blueprint>\n1. find and take a mug\n2. put the"
    halves = {cut: Planner(Says(plan, cut), prompts).plan(observation, info) for cut in act}
    assert not halves[True].valid and halves[True].texts() == ["look"]
    assert halves[False].texts()[0] == "find and take a mug"


@cache
def load(family: str, limit: int) -> HFPolicy:
    tokenizer = build_tokenizer(FAMILIES[family])
    model = build_model(FAMILIES[family], tokenizer)
    name = "n_positions" if family.startswith("plain") else "max_position_embeddings"
    setattr(model.config, name, limit)
    return HFPolicy(model, tokenizer, loading=Loading(device="cpu"))


def test_cut_answers_are_recorded() -> None:
    policy = load("Qwen3", 8192)
    pool = EnvPool(lambda: FruitEnv(max_steps=4), 1)
    agent = HiMACAgent(None, Executor(policy, ChatPrompts(), Sampling(1.0, 3)))
    (episode,) = collect(agent, pool, [EpisodeRequest("train:00")])
    assert [t.cut for t in episode.turns()] == [
        t.output_ids[-1] not in policy.end_ids for t in episode.turns()
    ]
    shown = describe(episode, "train", 0)["segments"][0]["turns"]
    assert [turn.get("cut", False) for turn in shown] == [t.cut for t in episode.turns()]
    assert any(t.cut for t in episode.turns())


@pytest.mark.parametrize("family", ["Qwen3", "plain, bytes"])
def test_a_conversation_that_outgrows_the_model_ends_its_episode_alone(family: str) -> None:
    opening = len(load(family, 8192).encode([Message("user", "You see a desk 1.")]))
    policy = load(family, opening + 6)
    assert policy.context_length == opening + 6
    ids = policy.encode([Message("user", "You see a desk 1.")])
    short, long = policy.generate([Prompt((), ids), Prompt((), [*ids, 5])], Sampling(1.0, 6))
    assert short.error is None and len(short.token_ids) > 0
    assert long.error is not None and not long.token_ids
    assert f"{opening + 1} tokens" in long.error and "--history N" in long.error
    mask = np.ones((1, opening + 7), np.float32)
    mask[0, 0] = 0
    batch = TokenBatch(np.full(mask.shape, 5), mask, mask, mask, np.array([mask.size]))
    with pytest.raises(ValueError, match="context length: a training sequence"):
        policy.logprobs(batch)


def test_an_episode_says_what_it_would_have_needed() -> None:
    pool = EnvPool(lambda: FruitEnv(max_steps=20), 2)
    found = {}
    for history in (None, 1):
        policy = load("Qwen3", 600)
        executor = Executor(policy, ChatPrompts(), Sampling(1.0, 4), history=history)
        requests = [EpisodeRequest(t) for t in pool.task_ids("train")[:3]]
        found[history] = collect(HiMACAgent(None, executor), pool, requests)
    for episode in found[None]:
        assert episode.error is not None and episode.error.startswith("context length: ")
        assert episode.steps > 1, "it went on for as long as it could"
    assert all(e.error is None and e.steps == 20 for e in found[1])


class _Textual(SimpleNamespace):
    def get_text_config(self) -> SimpleNamespace:
        return self


def test_lengths_of_stretched_models() -> None:
    from himac_agents.policies.chat import _context_length

    tokenizer = build_tokenizer(FAMILIES["ChatML, SmolLM2"])
    model = build_model(FAMILIES["ChatML, SmolLM2"], tokenizer)
    config = model.config
    for limit, rope, expected in (
        (2048, {"rope_type": "default"}, 2048),
        (32768, {"rope_type": "yarn", "factor": 4.0,
                 "original_max_position_embeddings": 32768}, 131072),
        (131072, {"rope_type": "llama3", "factor": 8.0,
                  "original_max_position_embeddings": 8192}, 131072),
        (4096, {"rope_type": "linear", "factor": 2.0}, 8192),
        (4096, {"full_attention": {"rope_type": "linear", "factor": 8.0},
                "sliding_attention": {"rope_type": "default"}}, 32768),
    ):  # fmt: skip
        config.max_position_embeddings, config.rope_parameters = limit, rope
        assert _context_length(model) == expected
    # Gemma-3's limit has the factor in it.
    tokenizer = build_tokenizer(FAMILIES["Gemma-3"])
    model = build_model(FAMILIES["Gemma-3"], tokenizer)
    model.config.max_position_embeddings = 131072
    model.config.rope_parameters = {"full_attention": {"rope_type": "linear", "factor": 8.0}}
    assert _context_length(model) == 131072
    config = _Textual(rope_parameters=None)  # as of a model that counts no positions
    assert _context_length(SimpleNamespace(config=config)) is None


def test_demonstrations_that_are_too_long_are_left_out() -> None:
    config = TrainConfig(
        method="grpo", env="HiMAC-ALFWorld-v0", policy="hf", model="m", prompt="chat",
        demos=6, expert="oracle",
    )  # fmt: skip
    pool = EnvPool(lambda: FruitEnv(), 2)
    lengths, said = {}, io.StringIO()
    for limit in (8192, 420):
        display = Display(Console(file=said, width=300))
        made = Demonstrations(config, pool, ChatPrompts(), pool.task_ids("train"), display)
        lengths[limit] = [len(s.token_ids) for s in made.segments(load("Qwen3", limit))]
    assert lengths[420] == [n for n in lengths[8192] if n <= 420]
    assert 0 < len(lengths[420]) < len(lengths[8192])
    assert "are left out" in said.getvalue() and "420 tokens" in said.getvalue()


def test_one_command_tells_and_its_advice_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = FAMILIES["Qwen3"]
    tokenizer = build_tokenizer(family)
    model = build_model(family, tokenizer)
    model.config.max_position_embeddings = 1800
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    args = ["eval", "HiMAC-Sokoban-Flat-v0", "--agent", str(tmp_path / "model"), "--episodes", "2",
            "--max-command-tokens", "4", "--json", str(tmp_path / "r.json"), "--data", "generated",
            "--max-steps", "8"]  # fmt: skip
    assert main(args) == 1
    told = capsys.readouterr().err
    assert "2 episodes were cut off by errors" in told and "--history N" in told
    assert main([*args, "--history", "1"]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["env_steps"] == 16
    with pytest.raises(SystemExit):
        main([*args, "--history", "few"])


def test_no_observation_ends_a_tiny_models_turn() -> None:
    words = "a <end> b <say> <pad> c < end > <sub_done> <plan>"
    tiny = TinyPolicy.build([words], TinySize(16, 1, 1, 16))
    ids = tiny.encode([Message("user", words)])
    marks = tiny.tokenizer.convert_tokens_to_ids(["<end>", "<say>", "<pad>"])
    assert [ids.count(mark) for mark in marks] == [0, 1, 0]
    assert tiny.tokenizer.convert_tokens_to_ids("<sub_done>") in ids
    assert tiny.encode_reply(words).count(tiny.end_ids[0]) == 1
    with torch.no_grad():
        assert tiny.context_length is None, "it is trained with whatever length it meets"
