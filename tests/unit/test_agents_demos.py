"""Demonstrations as files: written, read back, learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from rich.console import Console
from toy import FruitEnv

from himac_agents.cli import main
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Message
from himac_agents.prompts import make, read_blueprint, read_command
from himac_agents.rollouts.pool import EnvPool, make_pool
from himac_agents.rollouts.types import Segment
from himac_agents.training.demo_files import (
    Demo,
    demos_of,
    describe_demos,
    read_demos,
    segments_of_demos,
    write_demos,
)
from himac_agents.training.demonstrations import demonstrate
from himac_agents.training.supervision import Demonstrations
from himac_agents.training.trainer import Trainer


def _write(path: Path, *args: str) -> list[dict[str, Any]]:
    assert main(["demos", *args, "--data", "generated", "--out", str(path)]) == 0
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("env", ["HiMAC-ALFWorld-v0", "HiMAC-WebShop-v0", "HiMAC-Sokoban-v0"])
def test_both_levels_as_conversations(
    env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _write(tmp_path / "new" / "demos.jsonl", env, "--episodes", "3")
    assert "3 episodes, 3 solved" in capsys.readouterr().out
    assert {line["role"] for line in lines} == {"planner", "executor"}
    assert len({line["task_id"] for line in lines}) == 3
    plans = {}
    for line in lines:
        roles = [m["role"] for m in line["messages"]]
        assert roles[:2] == ["system", "user"] and roles[-1] == "assistant"
        assert roles[1:] == ["user", "assistant"] * (len(roles) // 2), "they take turns"
        answer = line["messages"][-1]["content"]
        if line["role"] == "planner":
            plans[line["episode"]] = read_blueprint(answer, "").texts()
        else:
            assert line["subgoal"] in plans[line["episode"]]
            assert line["subgoal"] in line["messages"][1]["content"]
            assert read_command(answer)
    # Every sub-goal was carried out; all but the last ended with <sub_done>.
    for episode, plan in plans.items():
        acted = [x for x in lines if x["episode"] == episode and x["role"] == "executor"]
        assert [x["subgoal"] for x in acted] == plan
        ends = [x["messages"][-1]["content"] for x in acted]
        assert set(ends[:-1]) <= {"<sub_done>"} and ends[-1] != "<sub_done>"
    # No column that TRL takes for something else.
    assert not {"prompt", "completion", "chosen", "rejected", "text"} & set(lines[0])
    assert [d.to_json() for d in read_demos(tmp_path / "new" / "demos.jsonl")] == lines


def test_flat_demonstrations_with_a_short_memory(tmp_path: Path) -> None:
    args = ["HiMAC-Sokoban-v0", "--flat", "--episodes", "2", "--prompt", "verl-agent"]
    lines = _write(tmp_path / "a.jsonl", *args)
    assert {(x["env"], x["role"]) for x in lines} == {("HiMAC-Sokoban-Flat-v0", "executor")}
    assert all(len(x["messages"]) == 2 and x["steps"] == 1 for x in lines)
    whole = _write(tmp_path / "b.jsonl", *args[:4], "--flat", "--expert", "explorer")
    assert [x["steps"] for x in whole] == [sum(y["episode"] == k for y in lines) for k in range(2)]
    assert _write(tmp_path / "c.jsonl", *args) == lines, "the same file every time"


def test_broken_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = Demo((Message("user", "a"), Message("assistant", "b")), "executor", "t", "e", "chat")
    path = tmp_path / "demos.jsonl"
    write_demos(path, [good, good])
    assert read_demos(path) == [good, good] and "1 episodes" in describe_demos([good, good])
    assert list(tmp_path.iterdir()) == [path], "nothing is left beside it"
    for line, says in (
        ("{", "line 3"),
        ("[]", "messages"),
        ('{"messages": []}', "not begin with the assistant"),
        ('{"messages": [{"role": "user", "content": "x"}], "role": "executor"}', "end with"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "tool"),
        ('{"messages": [{"role": "user"}]}', "content"),
        (
            json.dumps(
                {
                    "messages": [
                        {"role": r, "content": "x"} for r in ("user", "assistant", "assistant")
                    ],
                    "role": "executor",
                }
            ),
            "two answers in a row",
        ),
    ):
        write_demos(path, [good, good])
        path.write_text(path.read_text() + line + "\n")
        with pytest.raises(ValueError, match=f"line 3.*{says}|{says}") as error:
            read_demos(path)
        assert str(path) in str(error.value)
    path.write_text("\n")
    with pytest.raises(ValueError, match="no demonstrations"):
        read_demos(path)
    with pytest.raises(FileNotFoundError, match="himac demos"):
        read_demos(tmp_path / "none.jsonl")
    assert main(["demos", "HiMAC-Chess-v0"]) == 1
    assert "himac list" in capsys.readouterr().err


CONFIG = TrainConfig(
    env_kwargs={"data": "generated"}, demos=6, warm_steps=4, warm_tokens=512, hidden=16, layers=1,
    heads=2, feedforward=16, eval_episodes=2, lanes=8, threads=1, demo_noise=0.2, plan_noise=0.5,
    seed=3, share_parameters=False,
)  # fmt: skip


def test_a_warm_start_from_the_file_is_the_one_made_in_process(tmp_path: Path) -> None:
    path = tmp_path / "demos.jsonl"
    _write(
        path, "HiMAC-ALFWorld-v0", "--episodes", "6", "--expert", "explorer", "--noise", "0.2",
        "--plan-noise", "0.5", "--seed", "3", "--prompt", "compact",
    )  # fmt: skip
    trainers = [
        Trainer(config, tmp_path / name, console=Console(quiet=True))
        for name, config in (("a", CONFIG), ("b", CONFIG.replace(demo_file=str(path), demos=1)))
    ]
    made, read = (t.demonstrations.by_policy(t.policies) for t in trainers)
    for name in ("planner", "executor"):
        assert [s.token_ids for s in made[name]] == [s.token_ids for s in read[name]]
        for a, b in zip(made[name], read[name], strict=True):
            assert [(t.start, t.output_ids) for t in a.turns] == [
                (t.start, t.output_ids) for t in b.turns
            ]
    assert trainers[0].task_pool == trainers[1].task_pool
    assert trainers[0].demonstrations.task_ids == trainers[1].demonstrations.task_ids
    for trainer in trainers:
        trainer.warm_start()
    assert trainers[0].at.demo_steps == trainers[1].at.demo_steps > 0
    for name in ("planner", "executor"):
        a, b = (t.policies[name].model.state_dict() for t in trainers)
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_files_of_another_kind_of_agent_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "demos.jsonl"
    demo = Demo((Message("user", "a"), Message("assistant", "b")), "executor", "t", "e", "chat")
    write_demos(path, [demo])
    with pytest.raises(ValueError, match="--prompt compact"):
        Trainer(CONFIG.replace(demo_file=str(path)), tmp_path / "a")
    with pytest.raises(ValueError, match="needs executor and planner"):
        Trainer(CONFIG.replace(demo_file=str(path), prompt="chat"), tmp_path / "b")


class Letters:
    """A codec of letters, each conversation with a beginning and each answer with an end."""

    def encode(self, messages: Any, *, continues: bool = False) -> list[int]:
        return [2 if continues else 1, *(ord(c) for m in messages for c in m.role + m.text)]

    def encode_reply(self, text: str) -> tuple[int, ...]:
        return (*map(ord, text), 0)


def _rows(segments: list[Segment]) -> list[tuple[tuple[int, ...], list[tuple[int, int]]]]:
    """Training rows: tokens, and the stretches of them that are learned."""
    found: list[tuple[tuple[int, ...], list[tuple[int, int]]]] = []
    for segment in segments:
        rows: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for turn in segment.turns:
            tokens = segment.token_ids if turn.sequence is None else turn.sequence
            stretch = (turn.start, turn.start + len(turn.output_ids))
            rows.setdefault(tuple(tokens), []).append(stretch)
        found += rows.items()
    return found


@pytest.mark.parametrize(
    ("env", "style", "flat"),
    [
        ("HiMAC-ALFWorld-v0", "compact-gather", False),
        ("HiMAC-WebShop-v0", "compact", False),
        ("HiMAC-WebShop-Flat-v0", "chat", True),
        ("HiMAC-Sokoban-Flat-v0", "verl-agent", True),
        # Its answers hold a thought each, which later turns are not shown.
        ("HiMAC-Sokoban-v0", "verl-agent", False),
    ],
)
def test_a_file_holds_the_tokens_that_playing_gives(
    env: str, style: str, flat: bool, tmp_path: Path
) -> None:
    pool = EnvPool(lambda: gym.make(env, data="generated"), 4)
    played = demonstrate(
        pool, pool.task_ids("train")[:4], prompts=make(style, env), codec=Letters(), seed=1,
        noise=0.1, flat=flat, history=2 if style == "verl-agent" and flat else None,
    )  # fmt: skip
    assert not any(episode.error for episode in played)
    demos = demos_of(played, env, style)
    write_demos(tmp_path / "demos.jsonl", demos)
    read = segments_of_demos(read_demos(tmp_path / "demos.jsonl"), Letters())
    # Rows of one segment may come in another order: a turn that lost its thought has its own.
    assert sorted(_rows(read)) == sorted(_rows([s for e in played for s in e.segments]))
    assert sum(demo.steps for demo in demos) == sum(episode.steps for episode in played)


def test_trl_takes_the_file_as_it_is(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    _write(tmp_path / "demos.jsonl", "HiMAC-Sokoban-v0", "--episodes", "2")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<end>", "<im>", *alphabet])}
    core = Tokenizer(BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<im>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {% generation %}{{ m['content'] }}<end>"
        "{% endgeneration %}\n{% endfor %}"
    )
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **size, **heads))
    data = datasets.load_dataset(
        "json", data_files=str(tmp_path / "demos.jsonl"), cache_dir=str(tmp_path), split="train"
    )
    before = model.get_input_embeddings().weight.detach().clone()
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=2,
        max_length=2048, report_to="none", save_strategy="no", use_cpu=True, bf16=False,
        learning_rate=0.1, disable_tqdm=True, warmup_steps=0,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        processing_class=tokenizer,
    )
    assert trainer.train().training_loss > 0
    assert not torch.equal(before, model.get_input_embeddings().weight)


def test_nothing_is_shown_after_a_spoilt_blueprint() -> None:
    pool = EnvPool(lambda: gym.make("HiMAC-ALFWorld-v0", data="generated", max_steps=20), 8)
    episodes = demonstrate(
        pool, pool.task_ids("train")[:24], prompts=make("chat", "HiMAC-ALFWorld-v0"),
        expert="oracle", plan_noise=1.0, seed=1,
    )  # fmt: skip
    unsolved = [episode for episode in episodes if not episode.success]
    assert 3 <= len(unsolved) < 24, "some blueprints were spoilt for good, and some were not"
    for episode in episodes:
        assert episode.error is None and episode.blueprint is not None
        shown = [s for s in episode.segments if s.role == "executor"]
        assert [s.index for s in shown] == list(range(len(shown)))
        assert not any(t.invalid for t in episode.turns()), "<sub_done> is not said in vain"
        assert len(episode.options) == len(shown)
        assert episode.steps == sum(option["steps"] for option in episode.options)
    assert any(e.steps < 20 for e in unsolved), "the waiting is no part of what is shown"


def test_kinds_of_tasks_can_be_left_out_of_the_demonstrations() -> None:
    """Learning meets them all the same, and the vocabulary knows their words."""
    without = ("pick_two_obj_and_place", "pick_heat_then_place_in_recep")
    config = TrainConfig(
        env="HiMAC-ALFWorld-v0", env_kwargs={"data": "generated"}, demos=15, lanes=1
    )
    pool = make_pool(config, flat=False, sub_done=True)
    ids, prompts = pool.task_ids("train")[:60], make("compact")

    def kinds(task_ids: list[str]) -> set[str]:
        found = set()
        for task_id in task_ids:
            pool[0].reset(options={"task_id": task_id})
            found.add(pool[0].unwrapped.task_type)  # type: ignore[attr-defined]
        return found

    plain = Demonstrations(config, pool, prompts, ids)
    held = Demonstrations(config.replace(demo_without=without), pool, prompts, ids)
    assert len(held.task_ids) == 15 and not kinds(held.task_ids) & set(without)
    assert set(without) <= kinds(plain.task_ids) and set(without) <= kinds(held.other_ids)
    assert set(held.task_ids) | set(held.other_ids) == set(ids)
    assert held.texts() == plain.texts()
    with pytest.raises(ValueError, match="demonstrated tasks are of another kind: lower demos"):
        Demonstrations(config.replace(demo_without=without, demos=60), pool, prompts, ids)
    fruit = EnvPool(lambda: FruitEnv(), 1)
    with pytest.raises(ValueError, match="has no property task_type"):
        Demonstrations(
            config.replace(demo_without=without, demos=2), fruit, prompts, fruit.task_ids("train")
        )
