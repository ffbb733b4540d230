"""The language model's study, at a size that a CPU takes: a tiny random Qwen2, generated games."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from fruit_runs import CONFIG
from tinymodels import save_text_model

from himac_agents.cli import app, llm
from himac_agents.experiments.llm.plan import Frozen, Plan, measured
from himac_agents.experiments.study.driver import Driver

SETTINGS = CONFIG.replace(
    method="himac", env="HiMAC-ALFWorld-v0", flat_env="HiMAC-ALFWorld-Flat-v0", policy="hf",
    env_kwargs={"data": "$HIMAC_DATA/alfworld", "max_steps": 4}, prompt="compact", demos=8,
    expert="explorer", warm_steps=4, warm_tokens=2048, iterations=100, max_env_steps=8, tasks=2,
    blueprints=2, executions=2, eval_episodes=6, eval_split="valid", least_minibatch=1,
    max_blueprint_tokens=8, checkpoint_every=1, note="tiny",
)  # fmt: skip


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "llm.toml"
    path.write_text(SETTINGS.to_toml())
    return path


def test_the_warm_start_in_between_is_frozen() -> None:
    curve = {20: (0.1, 0.2), 40: (0.33, 0.5), 80: (0.5, 0.6), 160: (0.8, 0.8)}
    assert Frozen.of(curve).demos == 80 and Frozen.of(curve).inside  # .5 is nearer to .425
    del curve[80]
    assert Frozen.of(curve).demos == 40
    del curve[40]
    found = Frozen.of(curve)
    assert found.demos == 20 and not found.inside  # |.1 - .425| < |.8 - .425|


def test_arms_differ_in_their_credit_only(preset: Path) -> None:
    plan = Plan(
        str(preset), "m", counts=(4, 8), methods=("himac-graph", "himac", "grpo"), seeds=(3, 4)
    )
    assert [(job.config.demos, job.config.warm_steps) for job in plan.curve()] == [(4, 2), (8, 4)]
    assert {job.seed for job in plan.curve()} == {3}
    arms = [job for job in plan.arms(4) if job.kind == "learn"]
    assert [(job.method, job.seed) for job in arms] == [
        (m, seed) for seed in (3, 4) for m in ("himac-graph", "himac", "grpo")
    ]
    alike = {(j.config.kl, j.config.clip_high, j.config.lr, j.config.max_env_steps) for j in arms}
    assert len(alike) == 1
    assert arms[0].config.baselines == ("supervised", "temperature-0.4")
    # The curve's warm start is the first seed's of the arms: it is not made twice.
    assert plan.curve()[0].name in {job.needs for job in arms}
    with pytest.raises(ValueError, match="needs a hierarchical one"):
        Plan(str(preset), methods=("grpo",)).curve()


def test_it_goes_on_in_stretches_and_ends_with_a_page(
    preset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, out = save_text_model(tmp_path / "model", layers=1), tmp_path / "out"
    options = (
        f"--preset {preset} --model {model} --data generated --counts 2 4 --seeds 0 "
        f"--methods himac-graph himac --out {out}"
    )
    # No time at all: nothing is begun, and that is no failure.
    assert app.main(["bench", "llm", *options.split(), "--minutes", "1e-9"]) == 0
    assert "out of time: the same command continues" in capsys.readouterr().err
    begun: list[str] = []
    execute = Driver._execute

    def counted(self: Driver, job: Any) -> int:
        begun.append(job.name)
        return execute(self, job)

    monkeypatch.setattr(Driver, "_execute", counted)
    plan = Plan(str(preset), counts=(2, 4))
    asked = Plan(
        str(preset), str(model), "generated", counts=(2, 4), methods=("himac-graph", "himac"),
        seeds=(0,), out=out, jobs=2,
    )  # fmt: skip
    assert llm.run(asked) == 0
    curve = measured(plan.curve(), out)
    frozen = Frozen.read(out / "frozen.json")
    assert set(curve) == {2, 4} and frozen.curve == curve
    chosen = f"demos-{frozen.demos}"
    assert {f"runs/{chosen}-himac-graph-seed0", f"runs/{chosen}-himac-seed0"} <= set(begun)
    page = (out / "llm.md").read_text()
    assert f"begin from {frozen.demos} demonstrations; none lay between 30.0 and 55.0" in page
    for part in ("## Warm starts", "### Temperatures", "### Kinds of tasks", "himac bench llm"):
        assert part in page
    assert "pick_and_place_simple" in page or "pick_" in page
    for name in ("llm-curve.svg", "llm-arms.svg"):
        assert (out / name).read_text().startswith("<svg")
    result = json.loads((out / "runs" / f"{chosen}-himac-graph-seed0" / "result.json").read_text())
    assert result["baselines"]["temperature-0.4"]["temperature"] == 0.4
    assert "supervised" in result["baselines"]
    # Again: everything is there.
    times = {p: p.stat().st_mtime_ns for p in out.glob("*/*/result.json")}
    assert llm.run(asked) == 0
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/*/result.json")} == times
    assert (out / "llm.md").read_text() == page


def test_the_chosen_warm_start_is_of_this_plan_and_readable(preset: Path, tmp_path: Path) -> None:
    curve = {4: (0.4, 0.5), 8: (0.9, 0.9)}
    plan = Plan(str(preset), "m", counts=(4, 8), out=tmp_path)
    assert plan.frozen() is None
    assert plan.freeze(curve).demos == 4 and plan.frozen() == plan.freeze(curve)
    # Other seeds, arms and limits begin from it too; another model, preset or data do not.
    for same in ({"seeds": (7,)}, {"methods": ("himac",)}, {"max_env_steps": 9}, {"counts": (4,)}):
        assert dataclasses.replace(plan, **same).frozen() == plan.frozen()
    other = tmp_path / "other.toml"
    other.write_text(SETTINGS.replace(warm_lr=0.5).to_toml())
    for change in ({"model": "n"}, {"data": "generated"}, {"preset": str(other)}):
        with pytest.raises(ValueError, match="another preset, model or data"):
            dataclasses.replace(plan, **change).frozen()
    path = tmp_path / "frozen.json"
    for damaged in ("", "[]", '{"demos": 4}', '{"demos": 5, "curve": {"4": [0.1, 0.2]}}'):
        path.write_text(damaged)
        with pytest.raises(ValueError, match=r"frozen\.json"):
            plan.frozen()


@pytest.mark.parametrize("name", ["counts", "methods", "seeds"])
def test_a_plan_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: give at least one"):
        Plan(**{name: ()})


def test_the_preset_of_the_registry_is_complete() -> None:
    plan = Plan("study-llm")
    assert [job.config.demos for job in plan.curve()] == [20, 40, 80, 160, 240]
    assert [job.config.warm_steps for job in plan.curve()] == [10, 20, 40, 80, 120]
    assert all(job.config.max_env_steps > 0 and job.config.note for job in plan.arms(40))
