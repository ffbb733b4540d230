"""HiMAC on TRL: its phases are TRL's steps, with the gradient that the formula names."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from fruit_runs import _brief, _brief_hierarchical
from tinymodels import save_text_model
from whims import Whim, whims

pytest.importorskip("trl", reason="TRL is not installed: pip install 'trl>=1.16'")

from trl import GRPOConfig

from himac_agents import TrainConfig, load_agent
from himac_agents.adapters.handover import Handover
from himac_agents.adapters.trl import HiMACTrainer
from himac_agents.algorithms.methods import METHODS, register_method
from himac_agents.evaluation.evaluate import evaluate_tasks
from himac_agents.policies.base import TokenBatch
from himac_agents.rollouts.pool import EnvPool

SETTINGS = TrainConfig(
    method="whims", env="fruit_runs:Brief-v0", flat_env="fruit_runs:Brief-Flat-v0", policy="hf",
    model="given", tasks=2, blueprints=2, executions=3, lanes=4, share_parameters=True,
    max_command_tokens=6, max_blueprint_tokens=8, constrained=False, kl=None,
    greedy_execution=False,
)  # fmt: skip


@pytest.fixture(autouse=True)
def method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_known", dict(METHODS._known))
    register_method("whims", planner_credit=whims)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_model(tmp_path_factory.mktemp("trl") / "tiny", layers=2)


def _args(folder: Path, **given: Any) -> GRPOConfig:
    usual = {
        "use_cpu": True, "bf16": False, "max_steps": 2, "learning_rate": 1e-2, "logging_steps": 1,
        "report_to": "none", "save_strategy": "no", "num_generations": 2, "max_grad_norm": 0.0,
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
    }  # fmt: skip
    return GRPOConfig(str(folder), **{**usual, **given})


def _trainer(
    model: Path, args: GRPOConfig, settings: TrainConfig = SETTINGS, **further: Any
) -> HiMACTrainer:
    make = _brief if settings.method == "grpo" else _brief_hierarchical
    envs = EnvPool(lambda: Whim(make()), 4)
    return HiMACTrainer(str(model), settings, args, envs=envs, **further)


@pytest.mark.parametrize("name", ["whims", "grpo"])
def test_a_phase_is_a_step_along_the_formula(name: str, model: Path, tmp_path: Path) -> None:
    """Two parts of unequal size make one step of sum(A log p) / tokens."""
    args = _args(tmp_path, max_steps=1, learning_rate=1.0, lr_scheduler_type="constant")
    trainer = _trainer(model, args, SETTINGS.replace(method=name))
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=1.0)
    whole: list[TokenBatch] = []
    cut = trainer._cut
    trainer._cut = lambda batch: (whole.append(batch), cut(batch))[1]  # type: ignore[method-assign]
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    (batch,) = whole
    assert len(batch) == 3, "one part has two rows, the other one"
    after = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.model.load_state_dict({**trainer.model.state_dict(), **before})
    trainer.model.zero_grad()
    total = torch.zeros(())
    for row, length in enumerate(batch.lengths):
        ids = torch.as_tensor(batch.token_ids[row : row + 1, :length])
        logp = trainer.model(ids).logits[0, :-1].log_softmax(-1)
        chosen = logp.gather(-1, ids[0, 1:, None])[:, 0]
        total = total + (chosen * torch.as_tensor(batch.advantages[row, 1:length])).sum()
    (total / float(batch.mask.sum())).backward()
    moved = 0.0
    for name, parameter in trainer.model.named_parameters():
        assert parameter.grad is not None
        wanted = before[name] + parameter.grad
        assert (after[name] - wanted).abs().max() < 1e-5, name
        moved = max(moved, float(parameter.grad.abs().max()))
    assert moved > 1e-3


def test_phases_alternate_and_a_checkpoint_goes_on(model: Path, tmp_path: Path) -> None:
    args = _args(tmp_path, max_steps=4, save_strategy="steps", save_steps=2, num_iterations=1)
    trainer = _trainer(model, args)
    trainer.train()
    named = [{k.split("/")[0] for k in row if "/" in k} for row in trainer.state.log_history]
    assert {"planner", "executor"} <= set().union(*named)
    assert trainer.iterations == 1, "the second one stands still in its last phase"
    held = json.loads((tmp_path / "checkpoint-4" / "himac.json").read_text())
    assert held == {"iterations": 1}
    args = _args(tmp_path, max_steps=7, save_strategy="no")
    again = _trainer(model, args)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert again.state.global_step == 7 and again.iterations == 2
    agent = load_agent(tmp_path / "checkpoint-4", prompt="chat", constrained=False)
    envs = EnvPool(_brief_hierarchical, 2)
    assert evaluate_tasks(agent, envs, envs.task_ids("test")[:2]).to_json()["episodes"] == 2
    assert not [t for t in threading.enumerate() if t.name == "himac"]


def test_an_adapter_learns_alone(model: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = _trainer(model, _args(tmp_path, max_steps=1), peft_config=lora)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all("lora_" in name for name in moved)
    trainer.save_model(str(tmp_path / "saved"))
    agent = load_agent(tmp_path / "saved", prompt="chat")
    envs = EnvPool(_brief_hierarchical, 2)
    assert evaluate_tasks(agent, envs, envs.task_ids("test")[:1]).to_json()["episodes"] == 1


def test_several_steps_of_one_phase_clip_at_its_first_weights(model: Path, tmp_path: Path) -> None:
    args = _args(tmp_path, max_steps=3, num_iterations=3, learning_rate=0.1)
    trainer = _trainer(model, args)
    trainer.train()
    clipped = [row["clip_ratio/region_mean"] for row in trainer.state.log_history[:3]]
    assert clipped[0] == 0.0 and max(clipped[1:]) > 0.0


def test_what_an_environment_raises_ends_the_training_and_nothing_else(
    model: Path, tmp_path: Path
) -> None:
    trainer = _trainer(model, _args(tmp_path, max_steps=1))

    def fails(learner: Handover) -> None:
        raise OSError("the fruit is gone")

    play = trainer._handover._iterate
    trainer._handover._iterate = fails
    with pytest.raises(OSError, match="the fruit is gone"):
        trainer.train()
    assert not [t for t in threading.enumerate() if t.name == "himac"]
    trainer._handover._iterate = play
    trainer.train()
    assert trainer.state.global_step == 1


def test_no_evidence_is_said(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("himac_agents.adapters.trl.PATIENCE", 3)
    envs = EnvPool(_brief_hierarchical, 4)
    trainer = HiMACTrainer(
        str(model), SETTINGS.replace(method="himac"), _args(tmp_path, max_steps=1), envs=envs
    )
    with pytest.raises(ValueError, match="3 phases gave no evidence"):
        trainer.train()


@pytest.mark.parametrize(
    ("settings", "args", "told"),
    [
        ({"constrained": True}, {}, "constrained=True"),
        ({"policy": "tiny", "model": ""}, {}, "policy='tiny'"),
        ({"share_parameters": False}, {}, "share_parameters=False"),
        ({"kl": 0.1}, {}, r"kl=0\.1: a penalty"),
        ({}, {"beta": 0.1}, r"beta=0\.1: a penalty"),
        ({"temperature": 0.5}, {}, "temperature=1.0 in TRL's arguments, 0.5"),
    ],
)
def test_what_trl_cannot_do_is_refused(
    settings: dict[str, Any], args: dict[str, Any], told: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=told):
        HiMACTrainer(str(model), SETTINGS.replace(**settings), _args(tmp_path, **args))
