"""The benchmark's figures as a table and a chart, and what they say of the kill criterion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from himac_agents.experiments.credit import scores
from himac_agents.experiments.credit.cells import Level
from himac_agents.experiments.study import summary
from himac_agents.reports.charts import interval_chart
from himac_agents.reports.marks import Mark, Row

#: The kill criterion: the first must get more signs right than the second.
CANDIDATE, BASELINE = "himac-graph", "himac-option"
#: What the candidate is compared with line by line: whole blueprints compared by their returns.
LINE_BASELINE = "himac"


def pooled(done: Sequence[Mapping[str, Any]], episodes: str, name: str) -> list[list[float]]:
    """The sums of an estimator over all cells, one row for each task of each environment and seed.

    The policies of an environment play a seed's tasks: what they did on one is one row, so that
    intervals over tasks do not take it for several. An estimator's numbers mean something in one
    cell only: they are divided by their root mean square there.
    """
    rows: dict[tuple[str, int, int], list[float]] = {}
    for cell in done:
        sums = cell["sums"][episodes][name]
        square, count = sum(row[3] for row in sums), sum(row[0] for row in sums)
        scale = (square / count) ** 0.5 if square else 1.0
        for place, row in enumerate(sums):
            n, x, y, xx, yy, xy, matter, right, repeated, var, mxx, mxy, myy = row
            scaled = [
                n, x / scale, y, xx / scale**2, yy, xy / scale, matter, right, repeated,
                var / scale**2, mxx / scale**2, mxy / scale, myy,
            ]  # fmt: skip
            task = cell["cell"]["env"], cell["cell"]["seed"], place
            own = rows.setdefault(task, [0.0] * len(scaled))
            rows[task] = [a + b for a, b in zip(own, scaled, strict=True)]
    return list(rows.values())


def of_level(done: Sequence[Mapping[str, Any]], level: Level) -> list[Mapping[str, Any]]:
    """The cells that measure one level's credit."""
    return [cell for cell in done if cell["cell"]["level"] == level]


def gained(
    done: Sequence[Mapping[str, Any]], episodes: str, name: str, baseline: str = BASELINE
) -> scores.Score:
    """How many more signs an estimator gets right than the baseline, paired by task."""
    ours, theirs = pooled(done, episodes, name), pooled(done, episodes, baseline)
    return scores.difference("sign accuracy", ours, theirs)


def passes(gain: scores.Score) -> bool:
    """The kill criterion, of what the candidate gained."""
    return gain.low > 0


def table(done: Sequence[Mapping[str, Any]]) -> str:
    """All figures as Markdown: policies, estimators over all cells, and each cell's signs."""
    parts = []
    if commands := of_level(done, "executor"):
        parts.append(_level(commands, "executor's commands", BASELINE, "the kill criterion is "))
    if lines := of_level(done, "planner"):
        parts.append(_level(lines, "planner's lines", LINE_BASELINE))
    return "\n".join(parts)


def _level(done: Sequence[Mapping[str, Any]], what: str, baseline: str, criterion: str = "") -> str:
    """The figures of one level's credit.

    Args:
        done: Its cells.
        what: Whose credit it is.
        baseline: What the candidate is compared with.
        criterion: How the sentence begins that tells whether the candidate has passed; "": none.
    """
    sizes = [str(n) for n in done[0]["cell"]["size"]["episodes"]]
    heads = [
        "environment", "policy", "seed", "success", "steps", "tasks", "decisions", "that matter"
    ]  # fmt: skip
    rows = []
    for cell in done:
        own, means = cell["cell"], (f"{cell['success']:.2f}", f"{cell['env_steps']:.1f}")
        counts = (str(cell[name]) for name in ("tasks", "decisions", "matter"))
        rows.append([own["env"], own["strength"], str(own["seed"]), *means, *counts])
    lines = [f"## Credit of the {what}", "", *summary.table(heads, rows, words=2)]
    for n in sizes:
        rows = []
        names = list(done[0]["sums"][n])
        gains = {name: gained(done, n, name, baseline) for name in names if name != baseline}
        for name in names:
            sums = pooled(done, n, name)
            figures = (str(scores.figure(f, sums)) for f in scores.FIGURES)
            rows.append([name, *figures, str(gains.get(name, ""))])
        lines += ["", f"All cells, groups of {n} episodes (signs against {baseline}: paired):", ""]
        lines += summary.table(["estimator", *scores.FIGURES, f"signs, minus {baseline}"], rows)
        gain = gains[CANDIDATE]
        verdict = "passed" if passes(gain) else "not passed"
        passed = f": {criterion}{verdict}" if criterion else ""
        lines += ["", f"Signs, {CANDIDATE} minus {baseline}, paired by task: {gain}{passed}."]
    last = sizes[-1]
    owns = [cell["cell"] for cell in done]
    names = [f"{own['env']} {own['strength']}" for own in owns]
    if len({own["seed"] for own in owns}) > 1:
        names = [f"{name}, seed {own['seed']}" for name, own in zip(names, owns, strict=True)]
    rows = [
        [name, *(str(scores.figure("sign accuracy", cell["sums"][last][name])) for cell in done)]
        for name in done[0]["sums"][last]
    ]
    lines += ["", f"Sign accuracy by cell, groups of {last}:", ""]
    return "\n".join([*lines, *summary.table(["estimator", *names], rows)]) + "\n"


def figure(done: Sequence[Mapping[str, Any]]) -> str:
    """Sign accuracy by environment (all policies together) at the largest groups, as an SVG."""
    last = str(done[0]["cell"]["size"]["episodes"][-1])
    rows: list[Row] = []
    levels: tuple[tuple[Level, str], ...] = (("executor", ""), ("planner", ", the planner's lines"))
    for level, said in levels:
        every = of_level(done, level)
        for env in dict.fromkeys(cell["cell"]["env"] for cell in every):
            rows.append(Row(f"{env}{said}", heading=True))
            own = [cell for cell in every if cell["cell"]["env"] == env]
            for name in own[0]["sums"][last]:
                score = scores.figure("sign accuracy", pooled(own, last, name))
                colour = 1 if name.startswith(CANDIDATE) else 0
                rows.append(
                    Row(name, [Mark(name, 0.0, score.value, score.low, score.high, colour)])
                )
    return interval_chart(
        rows,
        title=f"Signs that are right, groups of {last} episodes",
        x_label="share of the decisions that matter",
        row_height=20,
        standalone=True,
    )
