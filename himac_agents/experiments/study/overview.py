"""The table of what was learned, in one look: written from the recorded results, like the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from himac_agents.experiments.study import summary
from himac_agents.experiments.study.page import Recorded
from himac_agents.experiments.study.summary import Run, by_method, seeds_of, titled
from himac_agents.files import write_atomically

#: The table stands between these two lines; all else in the file is left as it is.
BEGIN = "<!-- results: written by `himac bench methods` -->"
END = "<!-- end of results -->"


def update(path: Path, studies: Sequence[Recorded]) -> bool:
    """Writes the table anew where a file has the two lines; tells whether it has.

    Args:
        path: The Markdown file, e.g. `docs/learning.md`.
        studies: Each study with its recorded cells. A cell that several have recorded is taken
            from the one with the most runs. Studies that are not for README are left out.
    """
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8")
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        return False
    found = f"{before}{BEGIN}\n{table(studies)}\n{END}{after}"
    if found != text:
        write_atomically(path, found)
    return True


def table(studies: Sequence[Recorded]) -> str:
    """Success of every method in every cell, warm start and end: all seeds, and each."""
    shown = [(study, found) for study, found in studies if study.readme]
    every = [(name, cell, study) for study, found in shown for name, cell in found.items()]
    # The last of a name wins: the one with the most runs.
    every.sort(key=lambda item: (item[0], len(item[1]["runs"])))
    cells = {name: (cell, study) for name, cell, study in every}
    heads = [
        f"{name} ({int(cell['episodes'])} tasks, {int(cell['max_env_steps']):,} steps)"
        for name, (cell, _) in cells.items()
    ]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(cells)]
    every_run = [run for cell, _ in cells.values() for run in cell["runs"]]
    for method in by_method(every_run):
        for title, end in (
            (titled(method), "final"),
            (f"{titled(method)}'s warm start, supervised for the same CPU time", "supervised"),
        ):
            row = []
            for name, (cell, study) in cells.items():
                runs = [run for run in by_method(cell["runs"]).get(method, []) if end in run]
                wanted = study.seeds_for(name, method)
                row.append(_cell(runs, end, int(cell["episodes"]), wanted))
            if any(row):
                lines.append(f"| {title} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def _cell(runs: Sequence[Run], end: str, episodes: int, wanted: set[int]) -> str:
    """Before -> after with its interval in whole points; each seed's end; the same greedily."""
    if not runs:
        return ""
    before, after = [run["warm_start"] for run in runs], [run[end] for run in runs]

    def percent(scores: Sequence[Mapping[str, Any]], key: str) -> str:
        return f"{100 * sum(score[key] for score in scores) / len(scores):.1f}"

    found = summary.success(after, episodes)
    lines = [
        f"{percent(before, 'success')} → **{percent(after, 'success')}** "
        f"[{100 * found.low:.0f}, {100 * found.high:.0f}]",
        f"seeds {seeds_of(after)}" if len(runs) > 1 else "one seed, over tasks",
        f"greedy {percent(before, 'greedy')} → {percent(after, 'greedy')}",
    ]
    if 1 < len(runs) < (seeds := len(wanted.union(int(run["seed"]) for run in runs))):
        lines.append(f"{len(runs)} of {seeds} seeds")
    return "<br>".join(lines)
