"""The figures of runs as one long table (CSV), for a spreadsheet or pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from himac_agents.files import write_atomically
from himac_agents.reports.runs import RunData, is_number

#: One line a figure: whose, when, which, how much.
COLUMNS = (
    "run", "method", "env", "seed", "phase", "step", "env_steps", "tokens", "seconds",
    "metric", "value",
)  # fmt: skip
#: What tells when a figure was measured is a column, and no figure.
_WHEN = ("phase", "step", "env_steps_total", "tokens_total")


def write_csv(runs: Sequence[RunData], path: Path) -> int:
    """Writes every metric of some runs; tells how many lines there are.

    Args:
        runs: The runs.
        path: The file; replaced if there. Its columns are `COLUMNS`; `env_steps`, `tokens` and
            `seconds` are what learning had taken by then, empty where nothing says so.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    lines = 0
    for run in runs:
        for line in _lines(run):
            writer.writerow(line)
            lines += 1
    write_atomically(path, text.getvalue())
    return lines


def _lines(run: RunData) -> Iterator[list[Any]]:
    whose = [str(run.path), run.method, run.env, run.seed]
    for row in run.metrics:
        seconds = run.clock.get(row["step"], "") if "env_steps_total" in row else ""
        when = [row["phase"], row["step"], row.get("env_steps_total", ""),
                row.get("tokens_total", ""), seconds]  # fmt: skip
        for name, value in row.items():
            if name not in _WHEN and is_number(value):
                yield [*whose, *when, name, value]
