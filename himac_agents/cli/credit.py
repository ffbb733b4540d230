"""``himac bench credit``: estimators of advantages against the true ones, resumable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from himac_agents.config.setting import setting, settle


@dataclass(frozen=True)
class Options:
    """Measure how far each method's credit is from the true advantages of frozen policies."""

    size: str = "small"
    """How much to measure: "tiny", "small" or "full"."""
    out: Path | None = None
    """Folder of the figures (default: runs/credit-SIZE, or runs/credit-POLICY-SIZE); figures
    already there are not measured again."""
    envs: tuple[str, ...] = ()
    """Only these environments: alfworld, long, sokoban, alfworld-official."""
    strengths: tuple[str, ...] = ()
    """Only these frozen policies: weak, half, strong."""
    policy: str = "scripted"
    """Which policies play: "scripted" (with known probabilities), or a language model after
    supervised learning: "tiny" (from scratch) or "hf"."""
    model: str = ""
    """The model of policy "hf": its folder or name."""
    official: Path | None = None
    """A folder with ALFWorld's official games, which are then measured too."""
    jobs: int = setting(2, least=1)
    """Cells (an environment and a policy) measured at a time, each in a process of one thread."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of tasks, episodes, decisions and continuations, and of a language model's training;
    their tasks stand in one table."""

    def __post_init__(self) -> None:
        settle(self)


def run(options: Options) -> int:
    """Measure, and print the table."""
    from himac_agents.experiments.credit.cells import cells
    from himac_agents.experiments.credit.run import run as measured
    from himac_agents.experiments.credit.table import table

    console = Console(stderr=True, highlight=False)
    kind = "" if options.policy == "scripted" else f"{options.policy}-"
    out = options.out or Path("runs") / f"credit-{kind}{options.size}"
    wanted = cells(
        options.size, options.envs, options.official, options.seeds, options.policy, options.model,
        options.strengths,
    )  # fmt: skip
    done = measured(wanted, out, jobs=options.jobs, say=console.print)
    print(table(done), end="")
    console.print(f"figures: {out}")
    return 0
