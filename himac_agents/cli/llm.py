"""``himac bench llm``: a pretrained language model, in stretches of time, resumable."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from himac_agents.cli.bench import with_options
from himac_envs.errors import explained


@dataclass(frozen=True)
class Options:
    """Warm starts of several sizes, then methods from one of them; goes on where it stopped."""

    preset: str = "study-llm"
    """The settings that all share: a preset of the registry, or a TOML file."""
    model: str | None = None
    """The model's folder or name, instead of the preset's."""
    data: str | None = None
    """A folder of games, or "generated", instead of the preset's."""
    minutes: float = 0.0
    """Leave after so many minutes, with checkpoints; called again, it goes on. 0: at the end."""
    counts: tuple[int, ...] = (20, 40, 80, 160, 240)
    """Demonstrations of the warm starts that are measured."""
    methods: tuple[str, ...] = ("himac-graph", "himac", "himac-option", "crbc", "gigpo", "grpo")
    """The arms; the first one is compared with the others."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the arms."""
    max_env_steps: int | None = None
    """Environment steps of an arm, instead of the preset's."""
    jobs: int = 1
    """Runs at a time, each a process of one thread."""
    out: Path = Path("runs/llm")
    """Folder of the runs and of llm.md."""


def main(args: Sequence[str]) -> int:
    """Run the command from its arguments."""
    return with_options("llm", Options, run, args)


def run(options: Options) -> int:
    """Run what is missing while there is time, and write the page; 1 if a job failed."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise explained(error, "training") from error
    from himac_agents.experiments.llm import page
    from himac_agents.experiments.llm.plan import Frozen, measured
    from himac_agents.experiments.study import results
    from himac_agents.experiments.study.driver import Driver
    from himac_agents.experiments.study.plan import Job

    console = Console(stderr=True, highlight=False)
    plan, out, chosen = _plan(options), options.out, options.out / "frozen.json"
    over = time.monotonic() + 60.0 * options.minutes
    curve, arms = plan.curve(), list[Job]()

    def publish(_: Job | None = None) -> None:
        frozen = Frozen.read(chosen) if chosen.is_file() else None
        cell = None
        if frozen is not None and arms:
            study = plan.study([frozen.demos])
            for found in results.collect_results(study, out, arms).values():
                cell = {**found, "command": "himac bench llm"}
                results.write(out / "results", cell)
        known = frozen.curve if frozen is not None else measured(curve, out)
        page.write(out, known, frozen, cell, arms)

    def drive(jobs: Sequence[Job]) -> Driver:
        left = (over - time.monotonic()) / 60.0 if options.minutes else 0.0
        driver = Driver(jobs, out, options.jobs, console.print, publish)
        if options.minutes and left <= 0.0:
            driver.out_of_time = True
            return driver
        driver.minutes = left
        driver.run()
        return driver

    last = None if chosen.is_file() else drive(curve)
    if last is None or not (last.failed or last.out_of_time):
        if not chosen.is_file():
            Frozen.of(measured(curve, out)).write(chosen)
        arms += plan.arms(Frozen.read(chosen).demos)
        last = drive(arms)
    publish()
    for name, why in last.failed.items():
        console.print(f"[bold red]{name}[/]: {why}", soft_wrap=True)
    if last.out_of_time:
        console.print("out of time: the same command goes on")
    console.print(f"page: {out / 'llm.md'}")
    return 1 if last.failed else 0


def _plan(options: Options) -> Any:
    from himac_agents.config import TrainConfig
    from himac_agents.experiments.llm.plan import Plan

    own = options.preset.endswith(".toml")
    preset = TrainConfig.from_toml(options.preset) if own else TrainConfig.preset(options.preset)
    changes: dict[str, Any] = {}
    if options.model is not None:
        changes["model"] = options.model
    if options.data is not None:
        changes["env_kwargs"] = {**preset.env_kwargs, "data": options.data}
    if options.max_env_steps is not None:
        changes["max_env_steps"] = options.max_env_steps
    return Plan(options.preset, changes, options.counts, options.methods, options.seeds)
