"""A trainer of one's own agent, environments, method and loggers; the rest is made by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from fruit_runs import CONFIG, QUIET
from toy import FruitEnv

from himac_agents.agents.agent import Executor, HiMACAgent, Planner
from himac_agents.agents.expert import Expert
from himac_agents.algorithms.methods import METHODS
from himac_agents.config import TrainConfig
from himac_agents.files import CheckpointError
from himac_agents.policies.base import Sampling
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.rollouts.pool import EnvPool
from himac_agents.training.rows import Row
from himac_agents.training.trainer import Trainer
from himac_envs.hierarchy import HierarchicalEnv

QUICK = CONFIG.replace(iterations=2, warm_steps=10, loggers=(), eval_episodes=2, tasks=2)
SIZE = TinySize(16, 1, 2, 32)


class Lines:
    """A logger that keeps the phases it was told of."""

    def __init__(self) -> None:
        self.phases: list[str] = []

    def log(self, row: Row) -> None:
        self.phases.append(row.phase)

    def rewind(self, rows: Any) -> None:
        self.phases = [row.phase for row in rows]

    def close(self) -> None:
        pass


def _fruit() -> gym.Env[Any, Any]:
    return HierarchicalEnv(FruitEnv(max_steps=12))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A trainer that makes everything itself: its model's vocabulary serves the others."""
    return Trainer(QUICK, tmp_path_factory.mktemp("made") / "run", console=QUIET)


def _agent(
    made: Trainer, wrap: Callable[[TinyPolicy], Any] = lambda policy: policy, apart: bool = False
) -> HiMACAgent:
    """An agent of one's own: unlike the settings', its commands are free and longer."""
    tokenizer = made.policies["policy"].tokenizer
    above = wrap(TinyPolicy.build(tokenizer, SIZE, seed=7))
    below = wrap(TinyPolicy.build(tokenizer, SIZE, seed=8)) if apart else above
    executor = Executor(below, made.prompts, Sampling(1.0, 9))
    return HiMACAgent(Planner(above, made.prompts, Sampling(1.0, 30)), executor)


def _weights(agent: HiMACAgent) -> list[torch.Tensor]:
    return [p.detach().clone() for x in agent.policies() for p in x.parameters()]  # type: ignore[attr-defined]


PARTS = [_fruit, EnvPool(_fruit, 5), "fruit_runs:Fruit-v0"]


@pytest.mark.parametrize("envs", PARTS, ids=["function", "pool", "id"])
def test_what_is_given_is_used_and_the_rest_is_made(
    envs: Any, made: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    agent, lines = _agent(made), Lines()
    before = _weights(agent)
    # Of the settings' environments nothing is asked: theirs would be ALFWorld's.
    config = QUICK.replace(env="", flat_env="", kl=0.01)
    trainer = Trainer(config, None, agent, envs, METHODS["himac-joint"], [lines], console=QUIET)
    assert trainer.agent is agent and trainer.pool[0].unwrapped.task.data_name == "fruit"
    assert isinstance(envs, (EnvPool,)) is (trainer.pool is envs)
    result = trainer.run()
    folder = tmp_path / "runs" / "himac-joint-seed0"
    assert result["method"] == "himac-joint" and (folder / "result.json").is_file()
    saved = TrainConfig.from_toml(folder / "config.toml")
    assert saved.env == (envs if isinstance(envs, str) else "HierarchicalEnv")
    assert result["env"] == saved.env
    assert any(not torch.equal(a, b) for a, b in zip(before, _weights(agent), strict=True))
    told = [json.loads(x)["phase"] for x in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines.phases == told and "evaluation/final" in told
    assert not list(folder.glob("events.out.*"))


@pytest.mark.parametrize("apart", [False, True])
def test_an_own_agent_goes_on_as_if_it_had_not_stopped(
    apart: bool, made: Trainer, tmp_path: Path
) -> None:
    config = QUICK.replace(iterations=4, kl=0.01)
    straight = _agent(made, apart=apart)
    whole = Trainer(config, tmp_path / "straight", straight, console=QUIET).run()
    first = _agent(made, apart=apart)
    Trainer(config.replace(iterations=2), tmp_path / "parts", first, console=QUIET).run()
    # Another process begins with a fresh agent: its weights come from the checkpoint.
    second = _agent(made, apart=apart)
    resumed = Trainer(config, tmp_path / "parts", second, resume=True, console=QUIET)
    assert sorted(resumed.policies) == (["executor", "planner"] if apart else ["policy"])
    again = resumed.run()
    pairs = zip(_weights(straight), _weights(second), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert again["final"] == whole["final"]


class Hidden:
    """Learns like another policy, and does not show its model."""

    def __init__(self, inner: TinyPolicy) -> None:
        self._inner = inner
        for name in ("generate", "encode", "encode_reply", "logprobs_and_entropy", "parameters",
                     "forget", "save_pretrained"):  # fmt: skip
            setattr(self, name, getattr(inner, name))


class Loads(Hidden):
    """The same with the hook that is asked for."""

    def load_weights(self, folder: Path) -> None:
        saved = TinyPolicy.load(folder)
        self._inner.model.load_state_dict(saved.model.state_dict())


def test_a_policy_says_how_it_is_read_back_or_is_refused(made: Trainer, tmp_path: Path) -> None:
    for wrap in (Hidden, Loads):
        agent = _agent(made, wrap)
        Trainer(QUICK, tmp_path / wrap.__name__, agent, console=QUIET).run()
        kept, fresh = _weights(agent), _agent(made, wrap)
        if wrap is Hidden:
            with pytest.raises(CheckpointError, match=r"Hidden \(policy\).*load_weights\(folder\)"):
                Trainer(QUICK, tmp_path / "Hidden", fresh, resume=True, console=QUIET)
        else:
            Trainer(QUICK, tmp_path / "Loads", fresh, resume=True, console=QUIET)
            assert all(torch.equal(a, b) for a, b in zip(kept, _weights(fresh), strict=True))


def test_what_does_not_fit_is_refused_before_anything_is_written(
    made: Trainer, tmp_path: Path
) -> None:
    run, agent = tmp_path / "run", _agent(made)
    for wrong, says, options in (
        (HiMACAgent.shared(Expert("oracle")), "cannot learn", {}),
        (agent, "has no planner", {"method": "grpo"}),
        (HiMACAgent(None, agent.executor), "needs a planner", {}),
    ):
        with pytest.raises(ValueError, match=says):
            Trainer(QUICK, run, wrong, console=QUIET, **options)
    with pytest.raises(ValueError, match="run them by themselves"):
        Trainer(QUICK.replace(baselines=("grpo",)), run, agent, console=QUIET)
    with pytest.raises(ValueError, match="no method"):
        Trainer(QUICK, run, method="ppo", console=QUIET)
    assert not run.exists()
