"""``himac bench methods``: methods x environments x seeds at equal budgets, resumable."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from himac_agents.config.setting import MOST_MINUTES, settle
from himac_agents.config.setting import setting as option
from himac_agents.training.progress import Display
from himac_envs import registry

if TYPE_CHECKING:
    from himac_agents.experiments.study.page import Recorded
    from himac_agents.experiments.study.plan import Study

#: Seconds after which a study says how far it is, where its output is no terminal.
_EVERY = 20.0


@dataclass(frozen=True)
class Options:
    """Train methods x environments x seeds at equal budgets; started again, continue the study."""

    setting: str = "small"
    """A study of registry/studies ("small", "official", "credit", "attempts", "bottleneck",
    "horizon"), or a TOML file of the same form."""
    jobs: int = option(2, least=1)
    """Runs at the same time, each in a process of one thread."""
    out: Path | None = None
    """Folder of the runs (default: runs/study-SETTING)."""
    cells: tuple[str, ...] = ()
    """Only these cells (columns of the table: an environment with its settings)."""
    methods: tuple[str, ...] = ()
    """Only these methods."""
    seeds: tuple[int, ...] = ()
    """Only these seeds."""
    results: Path | None = None
    """Folder of recorded results (default: registry/results in a checkout, else OUT/results)."""
    page: Path | None = None
    """The page to write (default: docs/results.md in a checkout, else OUT/results.md)."""
    minutes: float = option(0.0, least=0, most=MOST_MINUTES)
    """Stop after this many minutes, with checkpoints; the same command continues. 0: no limit."""
    missing_only: bool = False
    """Skip runs whose results are recorded, even if their folders are not in OUT."""
    report_only: bool = False
    """Run nothing; write the page anew from the recorded results."""

    def __post_init__(self) -> None:
        settle(self)


def run(options: Options) -> int:
    """Run what is missing, record it, write the page; 1 if a job failed."""
    import torch  # noqa: F401  (the jobs' processes need it)

    from himac_agents.experiments.study import overview, page, results
    from himac_agents.experiments.study.driver import Driver
    from himac_agents.experiments.study.plan import Study
    from himac_agents.experiments.study.provenance import checkout

    console = Console(stderr=True, highlight=False)
    study = Study.load(options.setting)
    out = options.out or Path("runs") / f"study-{study.name}"
    root = checkout()
    recorded = options.results or (root / "registry" if root else out) / "results"
    shown = options.page or (root / "docs" if root else out) / "results.md"

    def show() -> None:
        known = _recorded(study, recorded)
        page.write_page(shown, known)
        if root and not options.page:
            overview.update(root / "docs" / "learning.md", known)

    # What has ended of all its jobs is looked for whenever one ends.
    every = [] if options.report_only else study.jobs()

    def publish() -> None:
        for content in results.collect_results(study, out, every).values():
            results.write(recorded, content, study)
        show()

    failed: dict[str, str] = {}
    if options.report_only:
        show()
    else:
        jobs = study.jobs(options.cells, options.methods, options.seeds)
        if options.missing_only:
            jobs = study.missing(jobs, results.read_all(recorded, study.name))
        publish()  # what stands in the way of that is said before anything runs
        console.print(f"{len(jobs)} jobs in {out}, {options.jobs} at a time")
        began = time.monotonic()
        display = Display(console, every=_EVERY)
        with display.stage("jobs", len(jobs)) as tick:
            driver = Driver(
                jobs, out, options.jobs, display.say, lambda job: publish(), lambda job: tick(),
                options.minutes,
            )  # fmt: skip
            failed = driver.run()
        publish()
        if driver.out_of_time:
            console.print("out of time: the same command continues")
        console.print(f"{len(jobs)} jobs in {(time.monotonic() - began) / 60:.1f} minutes")
    console.print(f"results: {recorded}   page: {shown}")
    for name, why in failed.items():
        console.print(f"[bold red]{name}[/]: {why}", soft_wrap=True)
    return 1 if failed else 0


def _recorded(study: Study, folder: Path) -> list[Recorded]:
    """This study and every other that is recorded, smaller ones first."""
    from himac_agents.experiments.study import results
    from himac_agents.experiments.study.plan import Study

    others = (name for name in registry.names("studies") if name != study.name)
    studies = [study, *map(Study.load, others)]
    studies.sort(key=lambda s: (s.size, s.name))
    return [(s, results.read_all(folder, s.name)) for s in studies]
