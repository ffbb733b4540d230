"""TRL's own GRPOTrainer plays, wins and learns through its environment factory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from adapters.tiny import make_model, texts_of

from himac_envs.adapters import EpisodeOverError
from himac_envs.adapters.errors import NoTaskError, NotTextError
from himac_envs.adapters.trl import dataset, environment
from himac_envs.errors import UnknownTaskError

trl = pytest.importorskip("trl", reason="TRL is not installed: pip install 'trl>=1.16'")
#: Each is a whole training; the long hierarchical conversations are left to --runslow.
IDS = [
    *(f"HiMAC-{name}-Flat-v0" for name in ("ALFWorld", "WebShop", "Sokoban")),
    "HiMAC-Sokoban-v0",
    pytest.param("HiMAC-ALFWorld-v0", marks=pytest.mark.slow),
    pytest.param("HiMAC-WebShop-v0", marks=pytest.mark.slow),
]


def template() -> str:
    """The chat template with tools that TRL ships for Qwen2.5."""
    return (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text("utf-8")


class Script:
    """Writes what a model would: the expert's tool calls, or nothing for those who give up."""

    def __init__(self, trainer: Any, quitters: set[int]) -> None:
        self.trainer = trainer
        self.quitters = quitters
        self.live: list[int] | None = None
        self.tasks: list[list[str]] = []

    def __call__(self, prompt_ids: list[list[int]], *rest: Any, **more: Any) -> Any:
        if self.live is None:
            self.live = list(range(len(prompt_ids)))
            self.tasks.append([e._session.task_id for e in self.trainer.environments])
        assert len(self.live) == len(prompt_ids), "TRL asks for those that called a tool"
        said = [self.say(self.trainer.environments[i], i) for i in self.live]
        calls = ["<tool_call>" in text for text in said]
        self.live = [i for i, call in zip(self.live, calls, strict=True) if call] or None
        tokenizer = self.trainer.processing_class
        return [[*tokenizer.encode(t), tokenizer.eos_token_id] for t in said], None

    def say(self, env: Any, number: int) -> str:
        session = env._session
        if session.done or number in self.quitters:
            return "I am done."
        answer = session.expert()
        name, arguments = "act", {"command": answer}
        if session.planning:
            subgoals = [line.split(". ", 1)[1] for line in answer.splitlines()]
            name, arguments = "blueprint", {"subgoals": subgoals}
        elif answer == "<sub_done>":
            name, arguments = "sub_done", {}
        call = json.dumps({"name": name, "arguments": arguments})
        return f"<tool_call>\n{call}\n</tool_call>"


@pytest.mark.parametrize("env_id", IDS)
def test_a_group_of_eight_wins_one_task_and_the_model_learns(env_id: str, tmp_path: Path) -> None:
    import torch

    model = make_model(tmp_path / "model", texts_of(env_id), template())
    config = trl.GRPOConfig(
        str(tmp_path / "run"),
        use_cpu=True,
        bf16=False,
        num_generations=8,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        max_steps=1,
        learning_rate=1e-2,
        max_completion_length=12_000,
        max_tool_calling_iterations=60,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
    )
    rows = dataset(env_id, count=3, data="generated")
    factory = environment(env_id, data="generated")
    trainer = trl.GRPOTrainer(model, None, config, rows, environment_factory=factory)
    script = Script(trainer, quitters={1, 4, 5, 6, 7})
    trainer._generate_single_turn = script
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()

    assert {t.__name__ for t in trainer.tools} == (
        {"act"} if "Flat" in env_id else {"act", "blueprint", "sub_done"}
    )
    assert [len(tasks) for tasks in script.tasks] == [8]
    assert set(script.tasks[0]) <= set(rows["task_id"]) and len(set(script.tasks[0])) == 1
    played = [e._session for e in trainer.environments]
    assert [s.won for s in played] == [i not in script.quitters for i in range(8)]
    log = trainer.state.log_history[0]
    earned = sum(s.episode_return for s in played) / 8
    assert log[f"rewards/{env_id}/mean"] == pytest.approx(earned, abs=1e-5)
    assert log["tools/failure_frequency"] == 0
    moved = [
        float((a - b).detach().abs().max())
        for a, b in zip(before, trainer.model.parameters(), strict=True)
    ]
    assert max(moved) > 0 and all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_rows_carry_their_task() -> None:
    rows = dataset("HiMAC-Sokoban-v0", count=5, seed=1, data="generated")
    assert len(rows) == len(set(rows["task_id"])) == 5
    assert rows["task_id"] == dataset("HiMAC-Sokoban-v0", count=5, seed=1)["task_id"]
    assert rows["task_id"] != dataset("HiMAC-Sokoban-v0", count=5, seed=2)["task_id"]
    said = rows[0]["prompt"]
    assert [m["role"] for m in said] == ["system", "user"] and "sub_done" in said[0]["content"]
    assert "sub_done" not in dataset("HiMAC-Sokoban-Flat-v0", count=1)[0]["prompt"][0]["content"]
    env = environment("HiMAC-Sokoban-v0")()
    assert env.reset(**rows[0]).endswith("Call blueprint with your sub-goals, in order.")
    assert env._session.task_id == rows[0]["task_id"]


def test_bad_input_is_answered() -> None:
    env = environment("HiMAC-Sokoban-Flat-v0", max_steps=2)()
    with pytest.raises(NoTaskError, match="dataset"):
        env.reset(prompt=[])
    with pytest.raises(UnknownTaskError):
        env.reset(task_id="no such task")
    with pytest.raises(EpisodeOverError):
        env.act("up")
    env.reset(seed=3)
    assert env.act(7) and env._session.invalid  # type: ignore[arg-type]
    assert env.act("\x00") and env.get_reward() == pytest.approx(-0.2)
    with pytest.raises(EpisodeOverError, match="the episode is over"):
        env.act("up")
    with pytest.raises(NotTextError):
        environment("HiMAC-Sokoban-Pixels-v0")


def test_the_example_runs(run_example: Any, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", texts_of("HiMAC-Sokoban-v0"), template(), context=4_096)
    assert "reward 0.0" in run_example("trl_grpo.py", model, "--cpu")
