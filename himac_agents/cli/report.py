"""``himac report RUN [RUN ...]``: one offline HTML file with the curves and episodes of runs."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from himac_envs.task import MissingDependencyError


def run(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")],
    *,
    out: Path | None = None,
    episodes: int = 40,
    open: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Write one HTML file about training runs: results, curves, episodes, settings.

    It needs no network and no server. Runs that differ in their seed only are drawn as one line
    with a band; a run that is not finished is shown as far as it has come.

    Args:
        runs: Folders of runs, or folders that hold such folders.
        out: Where the file goes (one run: report.html in its folder; several: ./report.html).
        episodes: Episodes that are shown of each run.
        open: Open the file in the web browser.
    """
    try:
        from himac_agents.reports.page import write_report
    except ImportError as error:
        raise MissingDependencyError("jinja2", "reports", "agents") from error
    if not runs:
        raise ValueError("which runs? For example: himac report runs/quickstart-seed0")
    if episodes < 0:
        raise ValueError(f"--episodes {episodes}: must be 0 or more")
    alone = len(runs) == 1 and (runs[0] / "config.toml").is_file()
    target = out or (runs[0] / "report.html" if alone else Path("report.html"))
    path, found = write_report(runs, target, episodes=episodes)
    size = path.stat().st_size
    unfinished = sum(not one.finished for one in found)
    said = f"{len(found)} run{'s' if len(found) != 1 else ''}"
    said += f" ({unfinished} unfinished)" if unfinished else ""
    Console().print(f"{path}: {said}, {size / 1e6:.1f} MB", highlight=False, soft_wrap=True)
    if open:
        webbrowser.open(path.resolve().as_uri())
    return 0
