"""What the report draws of a family of runs: which charts, in which order, from which metrics."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from himac_agents.reports.charts import interval_chart, line_chart, share_chart
from himac_agents.reports.groups import SMOOTH_FROM, Family, Group, mean_line, pool, smoothed
from himac_agents.reports.marks import Mark, Row, Series, write
from himac_agents.reports.measures import SECTIONS, Measure
from himac_agents.reports.runs import Evaluation

Axis = Literal["env_steps", "tokens", "seconds"]
AXES: dict[Axis, str] = {
    "env_steps": "environment steps",
    "tokens": "tokens written",
    "seconds": "seconds of learning",
}
#: What the switch of the axes says.
SHORT: dict[Axis, str] = {"env_steps": "Steps", "tokens": "Tokens", "seconds": "Time"}
#: Evaluations and baselines as a reader calls them.
NAMES = {
    "warm_start": "warm start",
    "final": "end of learning",
    "supervised": "further supervision, same time",
    "grpo": "flat GRPO, same environment steps",
    "demonstrator": "the demonstrator",
    "oracle": "the oracle",
    "oracle-planner": "under the oracle's blueprints",
    "oracle-executor": "carried out by the oracle",
    "temperature-0.4": "at temperature 0.4",
}
#: Sizes in pixels: of a small chart, and of a large one on a phone.
SMALL, PHONE = (380, 220), (340, 280)
REASONS = (("done", 2), ("budget", 4), ("terminated", 0), ("truncated", 6))


@dataclass
class Card:
    """One chart on the page.

    Attributes:
        title: Its heading.
        hint: How to read it.
        by: The SVG for each axis; a chart without a choice of axis has the same one key "".
        narrow: The same drawn for a phone, where the chart is too wide for one.
        legend: Names and colours of its own, where they are not the family's groups.
    """

    title: str
    hint: str
    by: dict[str, str]
    narrow: dict[str, str] = field(default_factory=dict)
    legend: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class Panel:
    """All that is drawn of a family.

    Attributes:
        family: The runs.
        curve: The learning curve.
        intervals: Evaluations side by side.
        smooth: Whether any curve is a running mean.
        sections: Headings with their small charts, and the measures that never changed, as text.
    """

    family: Family
    curve: Card
    intervals: Card
    smooth: bool
    sections: list[tuple[str, list[Card], list[tuple[str, str]]]]


def panel(family: Family) -> Panel:
    """Draws everything of a family."""
    sections = []
    for heading, measures in SECTIONS.items():
        cards: list[Card] = []
        constant: list[tuple[str, str]] = []
        for measure in measures:
            if (value := _constant(family, measure)) is not None:
                constant.append((measure.title, write(value, measure.form)))
            elif (card := small_chart(family, measure)) is not None:
                cards.append(card)
        if heading == "Options":
            cards += reasons(family)
        if heading == "Health" and (loss := warm_start_loss(family)) is not None:
            cards.append(loss)
        if cards or constant:
            sections.append((heading, cards, constant))
    smooth = any(
        len(run.curve(phase, "env_steps_total", "step")[0]) > SMOOTH_FROM
        for group in family.groups
        for run in group.runs
        for phase in run.phases()
    )
    return Panel(family, learning_curve(family), evaluations(family), smooth, sections)


def learning_curve(family: Family) -> Card:
    """Success while learning, with the evaluations on top."""
    wide: dict[str, str] = {}
    narrow: dict[str, str] = {}
    for axis, name in AXES.items():
        lines = _lines(family, "executor", "success", axis)
        for drawn, size in ((wide, (700, 350)), (narrow, PHONE)):
            drawn[axis] = line_chart(
                lines,
                title=f"Success on {family.title} by {name}",
                marks=[m for group in family.groups for m in _marks(group, axis)],
                x_label=name,
                y_label="success",
                x_range=(0, None),
                y_range=(0, 1),
                y_format="percent",
                size=size,
            )
    hint = (
        "Lines: success of the episodes that were learned from (mean of the seeds; the band runs "
        "from the lowest to the highest). Points: held-out tasks with 95% intervals, over seeds "
        "and tasks where there are several seeds (small dots), else over tasks; filled at "
        "temperature 1, rings greedy."
    )
    return Card("Success", hint, wide, narrow)


def evaluations(family: Family) -> Card:
    """Every evaluation and baseline of the family, as intervals."""
    rows: list[Row] = []
    methods = {run.method for group in family.groups for run in group.runs}
    for group in family.groups:
        rows.append(Row(_seeds(group), heading=True))
        for found in group.evaluations():
            rows.append(Row(_counted(found, group), _points(found, group.colour)))
        # A baseline whose own run is in the report has a heading of its own.
        beside = [e for run in group.runs for e in run.baselines if e.name not in methods]
        for name in dict.fromkeys(e.name for e in beside):
            pooled = pool([e for e in beside if e.name == name])
            rows.append(Row(_counted(pooled, group), _points(pooled, 7)))
    wide, narrow = (
        interval_chart(
            rows,
            title=f"Held-out success on {family.title}",
            x_label="success on held-out tasks",
            width=width,
            row_height=27,
        )
        for width in (520, PHONE[0])
    )
    hint = (
        "Success on tasks that were never learned on; small dots are seeds, whiskers 95% intervals "
        "over seeds and tasks, of one seed over tasks. Filled: temperature 1; rings: greedy. Grey: "
        "measured beside the run."
    )
    return Card("Evaluation", hint, {"": wide}, {"": narrow})


def small_chart(family: Family, measure: Measure) -> Card | None:
    """One metric of all groups; None where no run has it."""
    drawn: dict[str, str] = {}
    for axis, name in AXES.items():
        lines = _lines(family, measure.level, measure.key, axis)
        if not lines and not drawn:
            return None
        drawn[axis] = line_chart(
            # Small charts show the band only; where there is no band yet, the seeds.
            [replace(line, thin=()) if len(line.x) else line for line in lines],
            title=f"{measure.title} by {name}",
            x_label=name,
            x_range=(0, None),
            y_range=(measure.low, measure.high),
            y_format=measure.form,
            size=SMALL,
        )
    return Card(measure.title, measure.hint, drawn)


def reasons(family: Family) -> list[Card]:
    """Why options ended, a chart a group."""
    cards = []
    for group in family.groups:
        drawn: dict[str, str] = {}
        used: list[tuple[str, int]] = []
        for axis, name in AXES.items():
            lines = {
                reason: _line(group, phase, f"ended_{reason}", axis)
                for phase in _phases(group, "executor")
                for reason, _ in REASONS
            }
            known = {r: line for r, line in lines.items() if line is not None and len(line.x)}
            if not known:
                # An old run may have timed nothing: then this axis has no chart.
                continue
            x = next(iter(known.values())).x
            parts = [(r, known[r].y, colour) for r, colour in REASONS if r in known]
            used = [(r, c) for r, y, c in parts if any(v for v in y)]
            drawn[axis] = share_chart(
                x, parts, title=f"Why options ended by {name}", x_label=name, size=SMALL
            )
        if drawn:
            title = "Why options ended"
            hint = "by <sub_done>, by a bound, or with the episode"
            if len(family.groups) > 1:
                hint = group.label
            cards.append(Card(title, hint, drawn, legend=used))
    return cards


def warm_start_loss(family: Family) -> Card | None:
    """The loss of supervision, by its own steps."""
    lines = [
        line
        for group in family.groups
        if (line := _line(group, "warm_start", "loss", "step")) is not None
    ]
    if not lines:
        return None
    svg = line_chart(
        lines,
        title="Warm start: loss by supervised step",
        x_label="supervised steps",
        y_range=(0, None),
        size=SMALL,
    )
    return Card("Warm start", "cross-entropy on demonstrations, nats a token", {"": svg})


def _lines(family: Family, level: str, key: str, axis: str) -> list[Series]:
    """A metric of all groups that have it, in each phase of a level."""
    phases = ((group, phase) for group in family.groups for phase in _phases(group, level))
    lines = (_line(group, phase, key, axis) for group, phase in phases)
    return [line for line in lines if line is not None]


def _line(group: Group, phase: str, key: str, axis: str) -> Series | None:
    curves = [smoothed(*run.curve(phase, key, axis)) for run in group.runs]
    return mean_line(curves, _named(group, phase), group.colour)


def _named(group: Group, phase: str) -> str:
    several = len(_phases(group, "planner" if phase.startswith("planner") else "executor")) > 1
    return f"{group.label} ({phase})" if several else group.label


def _phases(group: Group, level: str) -> list[str]:
    planner = level == "planner"
    return [phase for phase in group.phases() if phase.startswith("planner") == planner]


def _constant(family: Family, measure: Measure) -> float | None:
    """The value of a metric that is the same in every row of every run; else None."""
    values = {
        value
        for group in family.groups
        for phase in _phases(group, measure.level)
        for run in group.runs
        for value in run.curve(phase, measure.key, "env_steps")[1]
    }
    return values.pop() if len(values) == 1 else None


def _marks(group: Group, axis: Axis) -> list[Mark]:
    found = []
    for pooled in group.evaluations():
        x = float(getattr(pooled, axis))
        label = f"{group.label}, {_counted(pooled, group)}"
        if pooled.greedy is not None:
            low, high = pooled.greedy_ci95 or (None, None)
            text = f"{label}, greedy"
            parts = pooled.greedy_seeds
            found.append(Mark(text, x, pooled.greedy, low, high, group.colour, True, parts))
        found.append(Mark(label, x, pooled.success, *pooled.ci95, group.colour, parts=pooled.seeds))
    return found


def _points(found: Evaluation, colour: int) -> list[Mark]:
    points = [Mark("temperature 1", 0, found.success, *found.ci95, colour, parts=found.seeds)]
    if found.greedy is not None:
        low, high = found.greedy_ci95 or (None, None)
        parts = found.greedy_seeds
        points.append(Mark("greedy", 0, found.greedy, low, high, colour, True, parts))
    return points


def _counted(found: Evaluation, group: Group) -> str:
    """An evaluation's name, with the number of seeds that have it where some have not."""
    spoken = NAMES.get(found.name, found.name.replace("_", " "))
    if found.runs == len(group.runs):
        return spoken
    return f"{spoken}, {found.runs} of {len(group.runs)} seeds"


def _seeds(group: Group) -> str:
    count = len(group.runs)
    return f"{group.label}, {count} seeds" if count > 1 else group.label
