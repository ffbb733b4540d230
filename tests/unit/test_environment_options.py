"""Every command takes an environment, its data and its length in the same way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from himac_agents.cli import main
from himac_envs import registry
from himac_envs.registry import UnknownEnvError, find_env, find_id


def test_names() -> None:
    cards = registry.env_cards()
    for benchmark in registry.benchmarks():
        above, below = find_env(benchmark), find_env(benchmark, flat=True)
        assert above.hierarchical and below.flat
        assert (above.partner, below.partner) == (below.id, above.id)
        assert find_env(below.id, flat=False) == above and find_env(above.id, flat=True) == below
        assert find_env(benchmark.upper()) == above
    assert find_id("himac_envs:HiMAC-WebShop-Flat-v0") == "HiMAC-WebShop-Flat-v0"
    assert registry.benchmark_of("himac_envs:HiMAC-WebShop-v0") == "webshop"
    assert registry.benchmark_of("CartPole-v1") == ""
    assert not set(registry.own_envs()) & set(cards) and "CartPole-v1" not in registry.own_envs()
    for name, says in (
        ("HiMAC-Sokban-v0", "Did you mean HiMAC-Sokoban-v0"),
        ("himac-webshop-v0", "Did you mean HiMAC-WebShop-v0"),
        ("sokobann", "Did you mean sokoban"),
        ("no_such_module:Id-v0", "no module 'no_such_module'"),
        ("json:Id-v0", "MODULE:ID"),
        ("", "himac list"),
    ):
        with pytest.raises(UnknownEnvError, match=says):
            find_id(name)
    with pytest.raises(ValueError, match="no flat environment"):
        find_env("HiMAC-Sokoban-Pixels-v0", flat=True)
    with pytest.raises(ValueError, match="unexpected keyword argument 'colour'"):
        registry.make("sokoban", colour=3)


@pytest.mark.parametrize("command", ["eval", "play", "demos"])
def test_data_is_given_alike_everywhere(
    command: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HIMAC_HOME", str(tmp_path))
    monkeypatch.delenv("HIMAC_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    few = [] if command == "play" else ["--episodes", "2"]
    expert = ["--expert"] if command == "play" else []
    for words in (["--data", "generated"], ["--env-kwargs", "data=generated", "max_steps=40"]):
        file = ["--out", f"{len(words)}.jsonl"] if command == "demos" else []
        assert main([command, "alfworld", *few, *expert, *file, *words]) == 0
    capsys.readouterr()
    for words, says in (
        (["--data", "alfworld"], "himac data get alfworld"),
        (["--data", "$HIMAC_DATA/alfworld"], "himac data get alfworld"),
        (["--env-kwargs", "data=alfworld"], "himac data get alfworld"),
        (["--data", "/no/such/folder"], "/no/such/folder"),
        (["--data", "a", "--env-kwargs", "data=b"], "give one"),
        (["--max-steps", "3", "--env-kwargs", "max_steps=4"], "give one"),
        (["--env-kwargs", "split=test"], "--split"),
        (["--env-kwargs", "colour=red"], "unexpected keyword argument 'colour'"),
    ):
        assert main([command, "alfworld", *words]) == 1
        assert says in capsys.readouterr().err
    # HIMAC_DATA and an installed set are found by the name alone.
    monkeypatch.setenv("HIMAC_DATA", "/data/sets")
    assert main([command, "alfworld", "--data", "alfworld"]) == 1
    assert "/data/sets/alfworld" in capsys.readouterr().err


def test_train_takes_names_and_data_like_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from himac_agents.cli import train

    taken: list[Any] = []
    monkeypatch.setattr(train, "run", lambda options: taken.append(options.config) or 0)
    names = ["--env", "Sokoban", "--flat-env", "HiMAC-Sokoban-Flat-v0"]
    assert main(["train", *names, "--data", "generated", "--max-steps", "9"]) == 0
    assert taken[0].env == "HiMAC-Sokoban-v0"
    assert taken[0].env_kwargs["max_steps"] == 9 and taken[0].env_kwargs["data"] == "generated"
    assert main(["train", "alfworld-real", "--data", "generated"]) == 0
    assert taken[1].env_arguments()["data"] == "generated"
    assert main(["train", "sokoban"]) == 1
    assert "himac train --env sokoban" in capsys.readouterr().err
    assert main(["train", "--env", "sokobann"]) == 1
    assert "Did you mean sokoban" in capsys.readouterr().err


def test_flat_is_asked_for_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--episodes", "2", "--json", str(tmp_path / "a.json")]
    for words, played in (
        (["sokoban"], "HiMAC-Sokoban-v0"),
        (["sokoban", "--flat"], "HiMAC-Sokoban-Flat-v0"),
        (["--flat", "HiMAC-Sokoban-v0"], "HiMAC-Sokoban-Flat-v0"),
        (["HiMAC-Sokoban-Flat-v0", "--no-flat"], "HiMAC-Sokoban-v0"),
        (["sokoban", "--preset", "verl-agent-sokoban"], "HiMAC-Sokoban-Flat-v0"),
        (["--preset", "verl-agent-sokoban", "--no-flat"], "HiMAC-Sokoban-v0"),
        (["--preset", "verl-agent-sokoban", "--flat", "False"], "HiMAC-Sokoban-v0"),
    ):
        assert main(["eval", *words, *few]) == 0
        assert json.loads((tmp_path / "a.json").read_text())["env"] == played
    assert main(["play", "sokoban", "--flat", "--expert"]) == 0
    assert "sub-goal" not in capsys.readouterr().out.split("won")[1]


def test_an_agent_plays_what_it_was_trained_for(tmp_path: Path) -> None:
    from himac_agents.cli.evaluation import _asked
    from himac_agents.config import TrainConfig
    from himac_agents.evaluation.protocols import Protocol

    (tmp_path / "config.toml").write_text(TrainConfig(method="grpo").to_toml())
    run = str(tmp_path)
    assert _asked("sokoban", Protocol(), None, None, run) == ("HiMAC-Sokoban-v0", True)
    assert _asked("sokoban", Protocol(), None, "oracle", run) == ("HiMAC-Sokoban-v0", False)
    assert _asked("HiMAC-Sokoban-v0", Protocol(), None, None, run) == ("HiMAC-Sokoban-v0", None)


def test_demonstrations_are_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "demos.jsonl"
    file.write_text("mine\n")
    args = ["demos", "sokoban", "--episodes", "1", "--out", str(file)]
    assert main(args) == 1
    assert "--overwrite" in capsys.readouterr().err and file.read_text() == "mine\n"
    assert main([*args, "--overwrite"]) == 0
    assert json.loads(file.read_text().splitlines()[0])["role"] == "planner"


def test_benchmarks_are_measured_by_any_of_their_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from himac_envs.sokoban import bench

    monkeypatch.setattr(bench, "run", lambda quick: {"measured": 1})
    assert main(["bench", "HiMAC-Sokoban-v0"]) == 0
    assert main(["bench", "CartPole-v1"]) == 1 and "choose one of" in capsys.readouterr().err
