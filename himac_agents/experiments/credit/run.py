"""The benchmark as a whole: cells in parallel, resumable, a table and a figure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from himac_agents.experiments.credit.cells import Cell, name_of, place_in_tables
from himac_agents.experiments.credit.table import figure, table
from himac_agents.experiments.credit.trained import Trained
from himac_agents.files import read_json, write_atomically


def run(
    wanted: Sequence[Cell],
    out: Path,
    *,
    jobs: int = 2,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Measures what is not there yet, and writes the table and the figure.

    Both show what else was measured in the folder with the same kind of policy and size.

    Args:
        wanted: The cells.
        out: Folder of one JSON file a cell, `credit.md` and `credit.svg`. A damaged file is told of
            and measured anew.
        jobs: Processes; 1 measures here.
        say: Told of each cell that is done.

    Returns:
        The figures that are shown, in the order of `cells`.

    Raises:
        OSError: The folder cannot be written to.
    """
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=out):  # that it can be is known before hours of measuring
        pass
    there = _there(out, say)
    found = {
        cell.name: there[cell.name]
        for cell in wanted
        if cell.name in there and cell.settings().items() <= there[cell.name].items()
    }

    def keep(cell: Cell, figures: dict[str, Any]) -> None:
        text = json.dumps(figures)
        found[cell.name] = json.loads(text)  # as it will be read back
        write_atomically(out / f"{cell.name}.json", f"{text}\n")
        say(f"{cell.name}: success {figures['success']:.2f}, {figures['matter']} decisions matter")

    missing = [cell for cell in wanted if cell.name not in found]
    if jobs == 1:
        for cell in missing:
            keep(cell, cell.measured(out))
    elif missing:
        # Left in whatever way, the pool ends its processes.
        with get_context("spawn").Pool(min(jobs, len(missing))) as pool:
            asked = [(cell, out) for cell in missing]
            models = {c.place(out): (c, out) for c in missing if isinstance(c.policy, Trained)}
            pool.map(_trained, models.values())  # a folder each, before two cells share one
            for cell, figures in pool.imap_unordered(_measured, asked):
                keep(cell, figures)
    kinds = {_kind(figures) for figures in found.values()}
    found |= {n: known for n, known in there.items() if n not in found and _kind(known) in kinds}
    done = sorted(found.values(), key=lambda figures: place_in_tables(figures["cell"]))
    write_atomically(out / "credit.md", table(done))
    write_atomically(out / "credit.svg", figure(done))
    return done


def _there(out: Path, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """The figures in a folder, by cell."""
    found = {}
    for path in sorted(out.glob("*.json")):
        try:
            figures = read_json(path)
            place_in_tables(figures["cell"])
            _ = _kind(figures)
            for groups in figures["cell"]["size"]["episodes"]:
                for name in figures["estimators"]:
                    _ = figures["sums"][str(groups)][name]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            why = str(error) if str(path) in str(error) else f"{path}: {error!r}"
            say(f"{why}; left out")
            continue
        found[name_of(figures["cell"])] = figures
    return found


def _kind(figures: Mapping[str, Any]) -> str:
    """Equal for cells that may stand in one table."""
    cell = figures["cell"]
    kind = [cell["size"], sorted(cell["policy"]), cell["policy"].get("model")]
    return json.dumps([*kind, cell["level"], figures["estimators"]])


def _trained(asked: tuple[Cell, Path]) -> None:
    cell, out = asked
    cell.trained(out)


def _measured(asked: tuple[Cell, Path]) -> tuple[Cell, dict[str, Any]]:
    cell, out = asked
    return cell, cell.measured(out)
