"""The tiny model learns in the shop and in the warehouse: one short run of each method."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from himac_agents.config import TrainConfig
from himac_agents.training.trainer import Trainer

SMALL: dict[str, Any] = {
    "demos": 24,
    "warm_steps": 3,
    "iterations": 1,
    "tasks": 2,
    "blueprints": 2,
    "executions": 2,
    "least_minibatch": 1,
    "eval_episodes": 4,
    "hidden": 32,
    "layers": 1,
    "heads": 2,
    "feedforward": 64,
    "baselines": (),
    "threads": 1,
    "lanes": 8,
}


@pytest.mark.parametrize("preset", ["study-webshop", "study-sokoban"])
@pytest.mark.parametrize("method", ["himac", "grpo"])
def test_one_iteration(preset: str, method: str, tmp_path: Path) -> None:
    config = TrainConfig.preset(preset, **SMALL, method=method)
    trainer = Trainer(config, tmp_path / "run", console=Console(file=io.StringIO()))
    demonstrated = trainer.demonstrations.segments(next(iter(trainer.policies.values())))
    turns = [t for s in demonstrated if s.role == "executor" for t in s.turns]
    # What the demonstrator did can be chosen, and is written in words that the model knows.
    assert all(t.allowed for t in turns)
    unknown = [i == 1 for s in demonstrated for i in s.token_ids]
    assert np.mean(unknown) < 0.02
    result = trainer.run()
    assert result["final"]["episodes"] == 4 and result["final"]["errors"] == 0
    # An executor that knows nothing may end each sub-goal at once: no steps then, but words.
    assert result["work"]["tokens"] > 0
