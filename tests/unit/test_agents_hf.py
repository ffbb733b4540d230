"""Any local causal language model: chat templates, pieces, adapters, a whole update."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from crediting import credited
from safetensors.torch import load_file
from tinymodels import CHATML, CHATML_THINKING, save_text_model

from himac_agents.agents.agent import HiMACAgent
from himac_agents.algorithms.batching import segments_of, token_batch
from himac_agents.algorithms.learner import Learner
from himac_agents.cli import main
from himac_agents.cli.players import Sampler
from himac_agents.config import TrainConfig
from himac_agents.config.pairs import read_pairs, write_pairs
from himac_agents.evaluation.loading import Players, load_agent
from himac_agents.policies.base import Completion, Message, Prompt, Sampling, TokenBatch
from himac_agents.policies.hf import HFPolicy, Loading
from himac_agents.policies.lora import WEIGHTS, Lora
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.prompts import ChatPrompts
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest, Segment, Turn

LORA = Lora(rank=4, alpha=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def policy(folder: Path) -> HFPolicy:
    return HFPolicy.load(folder, device="cpu")


def test_messages_are_written_by_the_template_once(
    policy: HFPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [Message("user", "You see a shelf 7. What do you do?")]
    known = [policy.encode(said), policy.encode(said, continues=True)]

    def refused(*args: object, **kwargs: object) -> str:
        raise AssertionError("the template is asked again")

    monkeypatch.setattr(policy.tokenizer, "apply_chat_template", refused)
    for _ in range(2):  # whoever is given the ids may do with them what they like
        for ids, continues in zip(known, (False, True), strict=True):
            again = policy.encode(said, continues=continues)
            assert again == ids and again is not ids
            again.append(1)
    with pytest.raises(AssertionError, match="asked again"):
        policy.encode([Message("assistant", said[0].text)])


def _stir(policy: HFPolicy, seed: int = 0) -> None:
    """A fresh adapter changes nothing: give it something to say."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    policy.forget()


def _play(policy: HFPolicy, *, constrained: bool = False) -> list[Episode]:
    pool = EnvPool(lambda: gym.make("HiMAC-ALFWorld-v0", data="generated", max_steps=3), 3)
    agent = HiMACAgent.shared(policy, ChatPrompts())
    agent.executor.constrained = constrained
    assert agent.planner is not None
    agent.planner.sampling = Sampling(1.0, 8)
    agent.executor.sampling = Sampling(1.0, 40 if constrained else 8)
    episodes = collect(agent, pool, [EpisodeRequest(t) for t in pool.task_ids("train")[:3]])
    assert all(e.error is None for e in episodes)
    return episodes


def _gap(policy: HFPolicy, episodes: list[Episode]) -> float:
    """How far training's log-probabilities are from the rollout's, at most."""
    worst = 0.0
    for role in ("planner", "executor"):
        batch = token_batch(segments_of(episodes, role), pad=policy.pad_id)  # type: ignore[arg-type]
        with torch.no_grad():
            gap = np.abs(policy.logprobs(batch).numpy() - batch.old_logprobs)
            worst = max(worst, float(gap.max()))
    return worst


@pytest.mark.parametrize("template", [CHATML, None])
def test_pieces_add_up_to_the_whole_conversation(tmp_path: Path, template: str | None) -> None:
    policy = HFPolicy.load(save_text_model(tmp_path, template, layers=1), device="cpu")
    opening = [Message("system", "Rules."), Message("user", "You see a mug 1.")]
    reply, heard = "take mug 1", Message("user", "You pick up the mug 1.")
    ids = policy.encode(opening)
    ids += policy.encode_reply(reply)
    ids += policy.encode([heard], continues=True)
    turns = [{"role": m.role, "content": m.text} for m in opening]
    turns += [{"role": "assistant", "content": reply}, {"role": "user", "content": heard.text}]
    whole = policy.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert policy.tokenizer.decode(ids) == whole


def test_a_template_that_adds_thoughts_to_the_last_answer(tmp_path: Path) -> None:
    folder = save_text_model(tmp_path, CHATML_THINKING, layers=1)
    policy = HFPolicy.load(folder, device="cpu")
    piece = policy.tokenizer.decode(policy.encode([Message("user", "Nothing.")], continues=True))
    assert piece == "\n<|im_start|>user\nNothing.<|im_end|>\n<|im_start|>assistant\n"
    calm = HFPolicy.load(folder, device="cpu", template_options={"enable_thinking": False})
    asked = calm.tokenizer.decode(calm.encode([Message("user", "Go.")]))
    assert asked.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_end_tokens_and_decoding(policy: HFPolicy) -> None:
    assert policy.tokenizer.convert_ids_to_tokens(policy.end_ids[0]) == "<|im_end|>"
    assert policy.decode(policy.encode_reply("go to cabinet 1")) == "go to cabinet 1"


@pytest.mark.parametrize("constrained", [False, True])
def test_cached_rollouts_agree_with_training(policy: HFPolicy, constrained: bool) -> None:
    episodes = _play(policy, constrained=constrained)
    if constrained:
        assert not any(t.invalid for e in episodes for t in e.turns() if t.action != "<sub_done>")
    assert _gap(policy, episodes) < 1e-4


def test_who_watches_is_told_of_every_answer(policy: HFPolicy) -> None:
    heard: list[Completion] = []
    policy.on_answers = heard.extend
    ids = tuple(policy.encode([Message("user", "You see a mug 1.")]))
    given = policy.generate([Prompt((), ids), Prompt((), ids, noise=1)], Sampling(1.0, 3))
    policy.on_answers = None
    assert heard == given and len(given) == 2


def test_greedy_generation_equals_transformers_own(policy: HFPolicy) -> None:
    ids = policy.encode([Message("user", "You see a mug 1.")])
    policy.forget()
    (found,) = policy.generate([Prompt((), ids, slot=0)], Sampling(0.0, 10))
    expected = policy.model.generate(
        torch.tensor([ids]), max_new_tokens=10, do_sample=False, eos_token_id=list(policy.end_ids)
    )[0, len(ids) :].tolist()
    assert list(found.token_ids) == expected


def test_an_adapter_learns_and_its_base_does_not(folder: Path, tmp_path: Path) -> None:
    policy = HFPolicy.load(folder, device="cpu", lora=LORA, seed=3)
    _stir(policy)
    episodes = _play(policy)
    assert _gap(policy, episodes) < 1e-4
    segments = segments_of(episodes, "executor")
    before = {k: v.clone() for k, v in policy.model.state_dict().items()}
    config = TrainConfig(policy="hf", model=str(folder), lora_rank=4, kl=0.1, lr=1e-2)
    learner = Learner(policy, config, policy.without_adapter())
    rng = np.random.default_rng(0)
    metrics = learner.reinforce(credited(segments, rng.normal(size=len(segments))), rng)
    assert metrics["logprob_gap"] < 1e-4 and metrics["kl"] > 0
    for key, value in policy.model.state_dict().items():
        assert torch.equal(value, before[key]) == ("lora_" not in key), key
    policy.save_pretrained(tmp_path / "adapter")
    names = {p.name for p in (tmp_path / "adapter").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    named = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == str(folder.resolve())
    again = HFPolicy.load(tmp_path / "adapter", device="cpu")
    assert again.host is policy.host, "one base model in a process"
    batch = token_batch(segments)
    with torch.no_grad():
        assert torch.equal(again.logprobs(batch), policy.logprobs(batch))
        alone = policy.without_adapter().logprobs(batch)
        base = HFPolicy.load(folder, device="cpu").logprobs(batch)
    assert torch.allclose(alone, base, atol=1e-6)
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    own = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        theirs = HFPolicy(
            PeftModel.from_pretrained(own, tmp_path / "adapter"), policy.tokenizer
        ).logprobs(batch)
        assert torch.allclose(theirs, policy.logprobs(batch), atol=1e-6), "peft reads it alike"


def test_two_adapters_on_one_base_do_not_touch_each_other(folder: Path) -> None:
    planner, executor = (HFPolicy.load(folder, device="cpu", lora=LORA, seed=s) for s in (0, 1))
    assert planner.host is executor.host and planner.adapter != executor.adapter
    _stir(planner, 1), _stir(executor, 2)
    ids = planner.encode([Message("user", "You see a mug 1.")])
    both = (planner, executor)
    said = [p.generate([Prompt((), ids)], Sampling(0.0, 6))[0].logprobs for p in both]
    assert said[0] != said[1]
    episodes = _play(executor)
    learner = Learner(executor, TrainConfig(lr=1e-2, kl=0.0))
    before = [p.detach().clone() for p in planner.parameters()]
    moved = [p.detach().clone() for p in executor.parameters()]
    segments = segments_of(episodes, "executor")
    credit = [1.0, -1.0, 0.5][: len(segments)]
    learner.reinforce(credited(segments, credit), np.random.default_rng(0))
    assert all(torch.equal(a, b) for a, b in zip(before, planner.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(moved, executor.parameters(), strict=True))
    again = planner.generate([Prompt((), ids)], Sampling(0.0, 6))[0].logprobs
    assert again == said[0]


@pytest.mark.parametrize(
    ("targets", "learned"),
    [
        (("embed_tokens",), 2),
        (("embed_tokens", "q_proj"), 2 + 4 * 2),
        (("lm_head",), 2),
        (("layers.1.self_attn.q_proj", "v_proj"), 2 + 4 * 2),
        (("all-linear",), 4 * 7 * 2),
    ],
)
def test_every_target_learns(
    targets: tuple[str, ...], learned: int, folder: Path, tmp_path: Path
) -> None:
    policies = [HFPolicy.load(folder, device="cpu", lora=Lora(4, 8, targets)) for _ in range(2)]
    assert policies[0].host is policies[1].host
    for policy in policies:
        assert len(policy.parameters()) == learned
        ids = policy.encode([Message("user", "You see a mug 1.")])
        (said,) = policy.generate([Prompt((), ids)], Sampling(1.0, 6))
        segment = Segment("executor", 0, token_ids=[*ids, *said.token_ids])
        segment.turns = [Turn("executor", len(ids), said.token_ids, said.logprobs, "", "")]
        batch = token_batch(credited([segment], [1.0]))
        assert np.abs(policy.logprobs(batch).detach().numpy() - batch.old_logprobs).max() < 1e-4
        before = [p.detach().clone() for p in policy.parameters()]
        learner = Learner(policy, TrainConfig(lr=1e-2, kl=0.0, least_minibatch=1))
        for _ in range(2):  # in the first step only one of each two matrices has a gradient
            learner.reinforce([segment], np.random.default_rng(0))
        moved = [not torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True)]
        assert all(moved)
    policies[0].save_pretrained(tmp_path)
    again = HFPolicy.load(tmp_path, device="cpu")
    with torch.no_grad():
        assert torch.equal(again.logprobs(batch), policies[0].logprobs(batch))


def test_a_target_that_is_not_there_is_named(folder: Path) -> None:
    def load(*targets: str) -> HFPolicy:
        return HFPolicy.load(folder, device="cpu", lora=Lora(4, 8, targets))

    for targets in (("q_porj",), ("q_proj", "v_porj"), ("roj",)):
        with pytest.raises(
            ValueError, match=rf"no module {targets[-1]}; it has .*down_proj.*v_proj"
        ):
            load(*targets)
    kept = load("q_proj")
    with pytest.raises(ValueError, match="no module v_porj; it has down_proj, embed_tokens"):
        load("q_proj", "v_porj")  # also where the base has an adapter already
    with pytest.raises(ValueError, match="stands alone"):
        load("all-linear", "q_proj")
    assert kept.parameters()


def test_checkpointing_gives_the_same_gradient_and_bfloat16_a_near_one(folder: Path) -> None:
    found = {}
    for name, how in {
        "plain": {}, "checkpointed": {"gradient_checkpointing": True},
        "bfloat16": {"dtype": "bfloat16"},
    }.items():  # fmt: skip
        policy = HFPolicy.load(folder, device="cpu", **how)
        assert all(p.dtype == torch.float32 for p in policy.parameters())
        ids = policy.encode([Message("user", "You see a mug 1.")])
        mask = np.zeros((1, len(ids)), np.float32)
        mask[0, 5:] = 1
        zero = np.zeros_like(mask)
        batch = TokenBatch(np.array([ids]), mask, zero, zero, np.array([len(ids)]))
        policy.logprobs(batch).sum().backward()
        found[name] = torch.cat([p.grad.flatten() for p in policy.parameters()])
    assert torch.allclose(found["plain"], found["checkpointed"], atol=1e-6)
    near = torch.cosine_similarity(found["plain"], found["bfloat16"], dim=0)
    assert near > 0.99 and not torch.equal(found["plain"], found["bfloat16"])


@pytest.mark.parametrize("kind", ["whole", "adapters"])
def test_one_command_from_a_local_folder(kind: str, folder: Path, tmp_path: Path) -> None:
    options = (
        "--env-kwargs data=generated max_steps=3 --iterations 2 --tasks 2 --blueprints 2 "
        "--executions 2 --eval-episodes 2 --lanes 4 --max-blueprint-tokens 8 "
        "--max-command-tokens 8 --checkpoint-every 1 --lr 1e-3 --least-minibatch 1"
    )
    if kind == "adapters":
        # With a warm start, the penalty holds on to its adapters, frozen, on the same base.
        options += " --lora-rank 4 --separate-adapters --gradient-checkpointing --kl 0.01"
        options += " --demos 2 --warm-steps 1 --warm-tokens 2048"
    run = tmp_path / "run"
    command = ["train", "--policy", "hf", "--model", str(folder), "--out", str(run)]
    assert main([*command, *options.split()]) == 0
    result = json.loads((run / "result.json").read_text())
    assert result["work"]["iterations"] == 2 and result["work"]["tokens"] > 0
    newest = run / "checkpoints" / ("step-00000002" if kind == "whole" else "step-00000003")
    if kind == "whole":
        assert (newest / "policy" / "model.safetensors").is_file()
        assert (newest / "policy" / "tokenizer.json").is_file()
    else:
        for role in ("planner", "executor"):
            assert not (newest / role / "model.safetensors").exists()
            assert (newest / role / "adapter_model.safetensors").is_file()
        # The last iteration again, from the checkpoint before it: the same to the bit.
        straight = {r: load_file(newest / r / WEIGHTS) for r in ("planner", "executor")}
        shutil.rmtree(newest)
        assert main(["train", "--resume", str(run)]) == 0
        for role, weights in straight.items():
            again = load_file(newest / role / WEIGHTS)
            assert all(torch.equal(again[key], value) for key, value in weights.items())
    agent = load_agent(run)
    assert agent.planner is not None
    assert (agent.planner.policy is agent.executor.policy) == (kind == "whole")


def test_what_the_cache_cannot_do_is_refused(tmp_path: Path) -> None:
    folder = save_text_model(tmp_path, layers=2)
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1}
    settings["layer_types"] = ["full_attention", "sliding_attention"]
    (folder / "config.json").write_text(json.dumps(settings))
    policy = HFPolicy.load(folder, device="cpu")
    assert policy.generate([Prompt((), [5] * 20)], Sampling(0.0, 8))
    # One that would outgrow the window is no reason not to answer the other.
    long, short = policy.generate([Prompt((), [5] * 30), Prompt((), [5] * 20)], Sampling(0.0, 8))
    assert "sliding window of 32" in str(long.error) and not long.token_ids
    assert short.error is None and short.token_ids
    settings["layer_types"] = ["full_attention", "linear_attention"]
    with pytest.raises(ValueError, match="linear_attention"):
        policy.model.config.layer_types = settings["layer_types"]
        HFPolicy(policy.model, policy.tokenizer)


def test_mappings_on_the_command_line() -> None:
    words = ["image=true", "max_steps=6", "data=generated", "room=[6, 7]", "seed=-1.5"]
    values = {"image": True, "max_steps": 6, "data": "generated", "room": [6, 7], "seed": -1.5}
    assert read_pairs(words) == values and read_pairs(write_pairs(values)) == values
    with pytest.raises(ValueError, match="KEY=VALUE"):
        read_pairs(["image"])


def test_errors_teach(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not a saved model"):
        HFPolicy.load(tmp_path)
    gone = {"base_model_name_or_path": str(tmp_path / "gone")}
    (tmp_path / "adapter_config.json").write_text(json.dumps(gone))
    with pytest.raises(FileNotFoundError, match="which no longer exists"):
        HFPolicy.load(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="does not name"):
        HFPolicy.load(tmp_path)
    with pytest.raises(ValueError, match="needs lora_rank"):
        TrainConfig(separate_adapters=True)
    with pytest.raises(ValueError, match="needs policy='hf'"):
        TrainConfig(lora_rank=4)


def test_precision_is_that_of_the_models_own_device(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model on the CPU of a machine with a GPU computes as it does anywhere else."""
    loaded = HFPolicy.load(folder, device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Loading().where() == "cuda"
    made = HFPolicy(loaded.model, loaded.tokenizer)
    assert made._autocast is None and loaded._autocast is None
    ids = made.encode([Message("user", "go to cabinet 1")])
    one, other = (p.generate([Prompt((), ids)], Sampling(0.0, 4))[0] for p in (made, loaded))
    assert one.logprobs == other.logprobs
    assert Loading().precision("cpu") == torch.float32
    assert Loading().precision(torch.device("cuda", 1)) == torch.bfloat16
    assert Loading(dtype="bfloat16").precision("cpu") == torch.bfloat16


def test_an_evaluation_may_give_the_chat_template_other_options(tmp_path: Path) -> None:
    model = save_text_model(tmp_path / "model", CHATML_THINKING, layers=1)
    run = tmp_path / "run"
    shutil.copytree(model, run / "best" / "policy")
    trained = TrainConfig(policy="hf", method="grpo", template_options={"enable_thinking": True})
    (run / "config.toml").write_text(trained.to_toml())
    calm = Sampler(template_options={"enable_thinking": False}).settings()
    for folder in (model, run / "best"):
        opened = []
        for settings in (calm, {}):
            made = Players("HiMAC-ALFWorld-Flat-v0", flat=True, settings=settings)
            policy = made.make(str(folder)).executor.policy
            opened.append(policy.decode(policy.encode([Message("user", "Go.")])))
        assert "<think>\n\n</think>" in opened[0] and "</think>" not in opened[1]
    TinyPolicy.build(["go to shelf 1"], TinySize(16, 1, 2, 16)).save_pretrained(tmp_path / "tiny")
    with pytest.raises(ValueError, match="no chat template"):
        load_agent(tmp_path / "tiny", template_options={"enable_thinking": False})
