"""What a study is made of: its card's jobs, arms and warm starts."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from fruit_studies import CONFIG, options, written

from himac_agents.cli import study as command
from himac_agents.experiments.study import summary
from himac_agents.experiments.study.plan import Study


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return written(tmp_path)


def test_methods_of_the_same_roles_share_a_warm_start(card: Path) -> None:
    jobs = Study.load(str(card)).jobs()
    assert [job.name for job in jobs] == [
        "warm/fruit-hierarchical-seed0",
        "runs/fruit-himac-seed0",
        "runs/fruit-himac-joint-seed0",
        "warm/fruit-flat-seed0",
        "runs/fruit-grpo-seed0",
    ]
    assert jobs[1].config.baselines == ("supervised",)
    assert jobs[2].config.baselines == ()
    assert [job.config.warm_steps for job in jobs] == [10, 10, 10, 14, 14]
    assert [job.name for job in Study.load(str(card)).jobs(methods=["grpo"])] == [
        "warm/fruit-flat-seed0",
        "runs/fruit-grpo-seed0",
    ]
    rows = [{"method": "himac", "seed": 0}, {"method": "grpo", "seed": 0}]
    left = Study.load(str(card)).missing(jobs, {"fruit": {"runs": rows}})
    assert [job.name for job in left] == [jobs[0].name, jobs[2].name]


def test_a_row_may_have_seeds_of_its_own(card: Path) -> None:
    text = card.read_text()
    card.write_text(f'{text}[[runs]]\ncells = ["fruit"]\nmethods = ["grpo"]\nseeds = [3, 4]\n')
    study = Study.load(str(card))
    learned = [(j.method, j.seed) for j in study.jobs() if j.kind == "learn"]
    assert learned == [("himac", 0), ("himac-joint", 0), ("grpo", 0), ("grpo", 3), ("grpo", 4)]
    assert study.size == len(learned)
    assert [job.name for job in study.jobs(seeds=[4])] == [
        "warm/fruit-flat-seed4",
        "runs/fruit-grpo-seed4",
    ]
    with pytest.raises(ValueError, match=r"has no seed '?7'?: choose among 0, 3, 4"):
        study.jobs(seeds=[7])


def test_cards_that_cannot_be_run_say_why(card: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no method 'ppo'"):
        Study.load(str(card)).jobs(methods=["ppo"])
    with pytest.raises(FileNotFoundError, match="there are"):
        Study.load("medium")
    text = card.read_text()
    card.write_text(text.replace('cells = ["fruit"]', 'cells = ["vegetable"]'))
    with pytest.raises(ValueError, match="unknown cell 'vegetable'"):
        Study.load(str(card))
    card.write_text(text.replace("seeds = [0]", ""))
    with pytest.raises(ValueError, match="needs `seeds`"):
        Study.load(str(card))
    card.write_text(text + "[methods.himac-joint]\ndemos = 3\n")
    with pytest.raises(ValueError, match="changes demos, so it cannot share"):
        Study.load(str(card)).jobs()


def test_an_arm_is_a_method_with_settings_and_a_name_of_its_own(card: Path, tmp_path: Path) -> None:
    text = card.read_text().replace('"himac-joint", "grpo"', '"careful"')
    card.write_text(text + '[methods.careful]\nmethod = "himac"\nlr = 1e-5\n')
    study = Study.load(str(card))
    warm, plain, careful = study.jobs()
    assert careful.name == "runs/fruit-careful-seed0" and careful.needs == plain.needs == warm.name
    assert (careful.config.method, careful.config.lr) == ("himac", 1e-5)
    assert plain.config.lr == CONFIG.lr and summary.title("careful") == "careful"
    out = tmp_path / "out"
    assert command.run(options(card, out)) == 0
    recorded = tomllib.loads((out / "results" / "toy-fruit.toml").read_text())
    assert {row["method"] for row in recorded["runs"]} == {"himac", "careful"}
    assert [row["against"] for row in recorded["paired"]] == ["careful"]
    assert "| careful | 1 |" in (out / "page.md").read_text()
    # The warm start serves each of them, also where only some are asked for.
    (out / "runs" / "fruit-careful-seed0").rename(out / "elsewhere")
    assert command.run(options(card, out, methods=("careful",))) == 0
    card.write_text(text + "[methods.careful]\nlr = 1e-5\n")
    with pytest.raises(ValueError, match=r"unknown method 'careful'.*that it varies"):
        Study.load(str(card)).jobs()
    card.write_text(text.replace("[methods.himac]", '[methods.himac]\nmethod = "grpo"'))
    with pytest.raises(ValueError, match="give it another name"):
        Study.load(str(card)).jobs(methods=["himac"])


def test_methods_with_and_without_a_critic_share_a_warm_start(card: Path, tmp_path: Path) -> None:
    learned = []
    for first, second in (("himac", "hiper"), ("hiper", "himac")):
        out, order = tmp_path / first, f'methods = ["{first}", "{second}"]'
        card.write_text(re.sub(r"(?m)^methods = .*", order, card.read_text()))
        assert command.run(options(card, out)) == 0
        assert [folder.name for folder in (out / "warm").iterdir() if folder.is_dir()] == [
            "fruit-hierarchical-seed0"
        ]
        metrics = {
            name: (out / "runs" / f"fruit-{name}-seed0" / "metrics.jsonl").read_text()
            for name in ("himac", "hiper")
        }
        assert "critic_loss" in metrics["hiper"] and "critic_loss" not in metrics["himac"]
        learned.append({name: _losses(text) for name, text in metrics.items()})
    # Whichever of them made the warm start, each learns the same from it.
    assert learned[0] == learned[1] and learned[0]["himac"] and learned[0]["hiper"]


def _losses(metrics: str) -> list[float]:
    return [row["loss"] for line in metrics.splitlines() if "loss" in (row := json.loads(line))]
