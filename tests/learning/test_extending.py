"""A run goes further on request, and goes on as nothing else; what it shows on its way is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fruit_runs import CONFIG, QUIET

from himac_agents.cli import main
from himac_agents.cli import train as command
from himac_agents.config import TrainConfig
from himac_agents.evaluation.loading import load_agent, settings_of
from himac_agents.files import latest_checkpoint
from himac_agents.training.trainer import Trainer

QUICK = CONFIG.replace(iterations=2, warm_steps=10, loggers=(), share_parameters=False)


def _rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text())
    return found


def test_a_finished_run_goes_further_and_is_evaluated_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    first = Trainer(QUICK.replace(baselines=("supervised", "oracle")), run, console=QUIET).run()
    # Nothing is asked for: nothing is done.
    before = (run / "metrics.jsonl").read_text()
    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "metrics.jsonl").read_text() == before
    capsys.readouterr()
    assert main(["train", "--resume", str(run), "--iterations", "2"]) == 1
    told = capsys.readouterr().err.replace("\n", " ")
    assert "has reached its limit: iterations=2 (2 done)" in told

    assert main(["train", "--resume", str(run), "--iterations", "3"]) == 0
    assert TrainConfig.from_toml(run / "config.toml").iterations == 3
    again = _result(run)
    assert again["work"]["iterations"] == 3 and first["work"]["iterations"] == 2
    former = again["former"]["iteration_2"]
    assert former.pop("work")["env_steps"] == first["work"]["env_steps"]
    assert former == first["final"] and again["warm_start"] == first["warm_start"]
    # What was compared with the former end is compared with the new one; the oracle is the same.
    assert again["baselines"]["oracle"] == first["baselines"]["oracle"]
    supervised = [x["baselines"]["supervised"]["cpu_seconds"] for x in (first, again)]
    assert supervised[0] < supervised[1]
    ends = [(x["phase"], x["step"]) for x in _rows(run) if x["phase"].startswith("evaluation/")]
    assert ends == [
        ("evaluation/warm_start", 0), ("evaluation/iteration_2", 2), ("evaluation/final", 3),
    ]  # fmt: skip
    shown = [json.loads(x)["phase"] for x in (run / "episodes.jsonl").read_text().splitlines()]
    assert {"evaluation/iteration_2, greedy", "evaluation/final, greedy"} <= set(shown)
    straight = Trainer(QUICK.replace(iterations=3), tmp_path / "straight", console=QUIET).run()
    for key in ("success", "outcomes", "tokens", "env_steps"):
        assert straight["final"][key] == again["final"][key]


@pytest.mark.parametrize("budget", ["max_env_steps", "max_tokens"])
def test_a_budget_is_raised_likewise(budget: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = QUICK.replace(iterations=9, **{budget: 1})
    assert Trainer(config, run, console=QUIET).run()["work"]["iterations"] == 1
    spent = _result(run)["work"][budget.removeprefix("max_")]
    option = f"--{budget.replace('_', '-')}"
    assert main(["train", "--resume", str(run), f"{option}={spent + 1}"]) == 0
    assert _result(run)["work"]["iterations"] == 2


def test_other_edits_of_a_runs_settings_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    first = Trainer(QUICK, run, console=QUIET)
    first.warm_start(until=2)
    first.save()
    first.run_folder.close()
    file = run / "config.toml"
    for change in ({"lr": 0.25}, {"eval_episodes": 3}, {"seed": 1}, {"warm_steps": 12}):
        file.write_text(QUICK.replace(**change).to_toml())
        assert main(["train", "--resume", str(run)]) == 1
        ((name, value),) = change.items()
        told = capsys.readouterr().err.replace("\n", " ")
        assert f"{name}={value} (begun with {getattr(QUICK, name)!r})" in told
        assert "--iterations N" in told and "Traceback" not in told
    # What changes nothing of what is learned may be put better.
    file.write_text(QUICK.replace(note="later", threads=1, checkpoint_every=1).to_toml())
    assert main(["train", "--resume", str(run)]) == 0
    assert _result(run)["note"] == "later"


def test_the_panel_is_looked_at_and_the_best_and_the_last_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    # With this seed every iteration has something to learn from.
    config = QUICK.replace(seed=2, iterations=4, eval_every=2, panel_episodes=4, checkpoint_every=1)
    trainer = Trainer(config, run, console=QUIET)
    assert all(task.startswith("valid:") for task in trainer.panel.task_ids)
    assert len(trainer.panel.task_ids) == 4
    # What is learned does not depend on whether anybody looks.
    other = Trainer(config.replace(eval_every=0), tmp_path / "other", console=QUIET)
    result, unseen = trainer.run(), other.run()
    assert result["final"] == unseen["final"] and not (tmp_path / "other" / "best").exists()
    looks = {row["step"]: row["success"] for row in _rows(run) if row["phase"] == "panel"}
    assert list(looks) == [0, 2, 4]
    assert [look["iteration"] for look in result["panel"]] == [0, 2, 4]
    label = json.loads((run / "best" / "label.json").read_text())
    best = max(looks.values())
    assert label["success"] == pytest.approx(best) and looks[label["iteration"]] == best
    assert all(looks[step] < best for step in looks if step < label["iteration"])
    assert label["split"] == "valid" and label["episodes"] == 4

    # Any checkpoint plays, and each is what it says.
    last = latest_checkpoint(run / "checkpoints")
    older = sorted((run / "checkpoints").glob("step-*"))[0]
    assert older != last
    weights = {}
    for folder in (run, last, older, run / "best", run / "warm_start"):
        agent = load_agent(folder)
        assert agent.planner is not None and agent.executor.constrained
        assert settings_of(str(folder)) == TrainConfig.from_toml(run / "config.toml")
        weights[folder.name] = next(iter(agent.executor.policy.parameters())).detach()
    assert torch.equal(weights["run"], weights[last.name])
    assert not torch.equal(weights[older.name], weights[last.name])
    if label["iteration"] == 0:
        assert torch.equal(weights["best"], weights["warm_start"])
    monkeypatch.chdir(run)
    assert load_agent("best").planner is not None, "by a relative path, too"


def test_the_best_is_kept_until_a_better_one_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that gets worse, and of one that was resumed on its way."""
    run = tmp_path / "run"
    config = QUICK.replace(iterations=4, eval_every=1, checkpoint_every=1)
    seen = iter([0.25, 0.75, 0.5, 0.75, 0.5])
    trainer = Trainer(config.replace(iterations=2), run, console=QUIET)

    def look(agent: Any, at: Any) -> Any:
        success = next(seen)
        best = max((x["success"] for x in at.looks), default=-1.0)
        at.looks.append({"iteration": at.iteration, "success": success})
        label = {"iteration": at.iteration, "success": success}
        return {"success": success}, label if success > best else {}

    monkeypatch.setattr(trainer.panel, "look", look)
    trainer.run()
    resumed = Trainer(config, run, resume=True, console=QUIET)
    monkeypatch.setattr(resumed.panel, "look", look)
    resumed.run()
    assert json.loads((run / "best" / "label.json").read_text())["iteration"] == 1
    assert [x["success"] for x in _result(run)["panel"]] == [0.25, 0.75, 0.5, 0.75, 0.5]


# -- options ---


def _options(args: list[str], monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    seen: list[command.Options] = []
    monkeypatch.setattr(command, "run", lambda options: seen.append(options) or 0)
    assert command.main(args) == 0
    return seen[0].config


def test_steps_of_the_warm_start_are_those_of_the_method_that_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from himac_agents.algorithms.methods import supervised_steps

    usual = supervised_steps(_options(["--method", "grpo"], monkeypatch))
    assert usual == TrainConfig.preset("quickstart").flat_warm_steps > 0
    for args in (["--warm-steps", "10"], ["--warm_steps=10"]):
        for method in ("grpo", "himac"):
            config = _options(["--method", method, *args], monkeypatch)
            assert supervised_steps(config) == 10, (method, args)
    both = ["--method", "grpo", "--warm-steps", "10", "--flat-warm-steps", "12"]
    assert supervised_steps(_options(both, monkeypatch)) == 12


def test_an_environment_on_the_command_line_brings_its_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for args in (["--env", "HiMAC-WebShop-v0"], ["--env=webshop"]):
        config = _options(args, monkeypatch)
        assert (config.env, config.flat_env) == ("HiMAC-WebShop-v0", "HiMAC-WebShop-Flat-v0")
    config = _options(["--flat-env", "HiMAC-Sokoban-Flat-v0", "--method", "grpo"], monkeypatch)
    assert (config.env, config.flat_env) == ("HiMAC-Sokoban-v0", "HiMAC-Sokoban-Flat-v0")
    # An own environment whose other is registered beside it.
    config = _options(["--env", "fruit_runs:Fruit-v0", "--method", "grpo"], monkeypatch)
    assert config.flat_env == "" and config.env_id(flat=True) == "fruit_runs:Fruit-Flat-v0"
