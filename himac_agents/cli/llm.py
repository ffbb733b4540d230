"""``himac bench llm``: a pretrained language model, in stretches of time, resumable."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console

from himac_agents.experiments.llm.plan import Plan as Options
from himac_agents.experiments.llm.plan import measured


def run(plan: Options) -> int:
    """Run what is missing while there is time, and write the page; 1 if a job failed."""
    import torch  # noqa: F401  (the jobs' processes need it)

    from himac_agents.experiments.llm import page
    from himac_agents.experiments.study import results
    from himac_agents.experiments.study.driver import Driver
    from himac_agents.experiments.study.plan import Job

    console = Console(stderr=True, highlight=False)
    out, frozen = plan.out, plan.frozen()
    over = time.monotonic() + 60.0 * plan.minutes
    curve, arms = plan.curve(), list[Job]()

    def publish() -> None:
        cell = None
        if frozen is not None and arms:
            study = plan.study([frozen.demos])
            for found in results.collect_results(study, out, arms).values():
                cell = {**found, "command": "himac bench llm"}
                results.write(out / "results", cell, study)
        known = frozen.curve if frozen is not None else measured(curve, out)
        page.write(out, known, frozen, cell, arms)

    def drive(jobs: Sequence[Job]) -> Driver:
        left = (over - time.monotonic()) / 60.0 if plan.minutes else 0.0
        driver = Driver(jobs, out, plan.jobs, console.print, lambda job: publish())
        if plan.minutes and left <= 0.0:
            driver.out_of_time = True
            return driver
        driver.minutes = left
        driver.run()
        return driver

    publish()  # what stands in the way of that is said before anything runs
    last = None if frozen else drive(curve)
    if last is None or not (last.failed or last.out_of_time):
        if frozen is None:
            frozen = plan.freeze(measured(curve, out))
        elif set(plan.counts) != set(frozen.curve):
            shown = ", ".join(map(str, frozen.curve))
            console.print(f"--counts changes nothing here: it was chosen among {shown} before")
        arms += plan.arms(frozen.demos)
        last = drive(arms)
    publish()
    for name, why in last.failed.items():
        console.print(f"[bold red]{name}[/]: {why}", soft_wrap=True)
    if last.out_of_time:
        console.print("out of time: the same command continues")
    console.print(f"page: {out / 'llm.md'}")
    return 1 if last.failed else 0
