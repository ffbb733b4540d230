"""Every method, end to end: one iteration moves weights, budgets end runs, ablations ablate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from rich.console import Console
from toy import FruitEnv

from himac_agents.config import TrainConfig
from himac_agents.methods import METHODS, MethodName
from himac_agents.outcome import table
from himac_agents.trainer import Trainer, load_agent
from himac_envs.hierarchy import HierarchicalEnv

QUIET = Console(quiet=True)


@pytest.fixture(scope="module", autouse=True)
def _ids() -> Any:
    def hierarchical(**kwargs: Any) -> HierarchicalEnv:
        return HierarchicalEnv(FruitEnv(max_steps=12), **kwargs)

    gym.register("Berry-v0", entry_point=hierarchical, disable_env_checker=True)
    gym.register(
        "Berry-Flat-v0", entry_point=lambda: FruitEnv(max_steps=12), disable_env_checker=True
    )
    yield
    del gym.registry["Berry-v0"], gym.registry["Berry-Flat-v0"]


CONFIG = TrainConfig(
    env="Berry-v0", flat_env="Berry-Flat-v0", expert="oracle", demos=8, warm_steps=10,
    warm_tokens=256, hidden=32, layers=1, heads=2, feedforward=64, tasks=4, blueprints=3,
    executions=4, iterations=1, eval_episodes=4, lanes=16, checkpoint_every=1, constrained=True,
    max_command_tokens=8, max_blueprint_tokens=24, threads=1, least_minibatch=8,
    stop_at_failure=False,
)  # fmt: skip


def _config(method: MethodName, **changes: Any) -> TrainConfig:
    if method == "himac-no-subdone":
        changes = {"subgoal_budget": 4, **changes}
    return CONFIG.replace(method=method, **changes)


def _begun(config: TrainConfig, folder: Path) -> Trainer:
    trainer = Trainer(config, folder, console=QUIET)
    trainer.warm_start()
    for learner in trainer.learners.values():
        learner.begin_reinforcement()
    return trainer


def _weights(trainer: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for x in trainer.policies.values() for p in x.parameters()]


@pytest.mark.parametrize("method", list(METHODS))
def test_a_whole_run_of_each_method(method: MethodName, tmp_path: Path) -> None:
    result = Trainer(_config(method), tmp_path, console=QUIET).run()
    title = METHODS[method].title
    assert result["method"] == method
    assert table(result).columns[0]._cells[1] == title
    hierarchical = METHODS[method].hierarchical
    assert result["env"] == ("Berry-v0" if hierarchical else "Berry-Flat-v0")
    assert result["work"]["env_steps"] > 0 and result["work"]["tokens"] > 0
    agent = load_agent(tmp_path, flat=not hierarchical)
    assert (agent.planner is None) == (not hierarchical)
