"""The settings of a run: which are refused, and which preset an argument line means."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from himac_agents.algorithms.methods import check, supervised_steps
from himac_agents.cli import train
from himac_agents.config import TrainConfig
from himac_envs import registry


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"executor_advantage": "options"}, "trajectory, option, both"),
        ({"expert": "explorr"}, "explorer, oracle"),
        ({"policy": "HF"}, "tiny, hf"),
        ({"method": "ppo"}, "gigpo"),
        ({"prompt": "haiku"}, "verl-agent"),
        ({"loss_mean": "tokens"}, "sequence, token"),
        ({"baselines": ["supervise"]}, "'supervise'"),
        ({"baselines": ["supervised"], "warm_steps": 0}, "warm_steps=0"),
        ({"checkpoint_every": 0}, "at least 1"),
        ({"eval_episodes": 0}, "at least 1"),
        ({"lr": -1e-3}, "lr=-0.001"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"kl": -0.1}, "kl=-0.1"),
        ({"clip": float("inf")}, "clip=inf"),
        ({"temperature": 0.0}, "above 0"),
        ({"gigpo_discount": 1.5}, "between 0 and 1"),
        ({"hidden": 66}, "hidden=66, heads=4"),
        ({"history": "all"}, "of type int"),
        ({"method": "himac-no-subdone"}, "subgoal_budget"),
        ({"lora_rank": 4}, "policy='hf'"),
    ],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused_at_once(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check(TrainConfig.from_dict(changes))


def test_every_preset_of_training_is_valid() -> None:
    names = registry.names("presets")
    assert {"quickstart", "alfworld-real", "hf", "study-alfworld", "study-webshop"} <= set(names)
    for name in names:
        config = TrainConfig.preset(name)
        assert config.note, f"{name} says what its figures rest on"
        assert TrainConfig.from_dict(tomllib.loads(config.to_toml())) == config
        # With a model a role, a flat agent is shown as many batches as both together.
        if not config.share_parameters and config.policy == "tiny":
            flat = supervised_steps(config.replace(method="grpo"))
            assert flat == round(config.warm_steps * (1 + config.warm_planner_share)), name
        assert supervised_steps(config) == config.warm_steps


@pytest.mark.parametrize(
    ("args", "preset", "env"),
    [
        ([], "quickstart", "HiMAC-ALFWorld-v0"),
        (["study-sokoban", "--seed", "3"], "study-sokoban", "HiMAC-Sokoban-v0"),
        (["--seed", "3", "study-sokoban"], "study-sokoban", "HiMAC-Sokoban-v0"),
        (["--lanes", "4", "FILE", "--seed", "3"], "FILE", "HiMAC-WebShop-v0"),
        (["--policy", "hf", "--model", "m"], "hf", "HiMAC-ALFWorld-v0"),
    ],
    ids=str,
)
def test_the_preset_may_stand_anywhere(
    args: list[str], preset: str, env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(TrainConfig(env="HiMAC-WebShop-v0", demos=7).to_toml())
    args = [str(file) if word == "FILE" else word for word in args]
    seen: list[train.Options] = []
    monkeypatch.setattr(train, "run", lambda options: seen.append(options) or 0)
    assert train.main(args) == 0
    (options,) = seen
    assert options.preset == (str(file) if preset == "FILE" else preset)
    assert options.config.env == env and options.config.seed == (3 if "--seed" in args else 0)
    expected = train._settings(options.preset)
    folder = train._name(options)
    assert folder == f"{Path(options.preset).stem}-seed{options.config.seed}"
    other = dataclasses.replace(options, config=options.config.replace(method="gigpo"))
    assert train._name(other) == folder.replace("-seed", "-gigpo-seed")
    assert options.config.demos == expected.demos and options.config.policy == expected.policy
    with pytest.raises(ValueError, match="no preset 'nosuch'"):
        train.main(["--seed", "1", "nosuch"])
