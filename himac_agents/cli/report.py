"""``himac report RUN|FILE ...``: one offline HTML file about runs and evaluations."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console


def run(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FILE ...")],
    *,
    out: Path | None = None,
    episodes: int = 40,
    csv: Path | None = None,
    open: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Write one HTML file about training runs and evaluations: results, curves, episodes, settings.

    The file needs no network and no server. Runs that differ only in their seed are drawn as one
    line with a band; an unfinished run is shown as far as it got. An evaluation
    (himac eval --records FILE) is shown by kind of task, with its episodes, failures first.

    Args:
        runs: Folders of runs, files of evaluations, or folders that hold either.
        out: The file to write (default for one run: report.html in its folder; for one evaluation:
            beside its file; for several: ./report.html).
        episodes: How many episodes to show of each.
        csv: Also write the runs' metrics to this file, one figure per line.
        open: Open the file in the web browser.
    """
    from himac_agents.reports.page import counted, write_report

    if not runs:
        raise ValueError("which runs? For example: himac report runs/quickstart-seed0")
    if episodes < 0:
        raise ValueError(f"--episodes {episodes}: must be 0 or more")
    target = out or _target(runs)
    path, found, evaluations = write_report(runs, target, episodes=episodes)
    size = path.stat().st_size
    if csv is not None:
        from himac_agents.reports.tables import write_csv

        if not found:
            raise ValueError(
                "--csv writes the metrics of runs, and there is no run here; a file of records is "
                "JSON lines already"
            )
        print(f"{csv}: {write_csv(found, csv)} lines")
    said = counted(found, evaluations)
    Console().print(f"{path}: {said}, {size / 1e6:.1f} MB", highlight=False, soft_wrap=True)
    if open:
        webbrowser.open(path.resolve().as_uri())
    return 0


def _target(paths: tuple[Path, ...]) -> Path:
    """Where a report goes unless told otherwise."""
    if len(paths) == 1 and (paths[0] / "config.toml").is_file():
        return paths[0] / "report.html"
    if len(paths) == 1 and paths[0].is_file():
        return paths[0].with_suffix(".html")
    return Path("report.html")
