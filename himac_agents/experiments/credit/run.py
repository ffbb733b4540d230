"""The benchmark as a whole: cells in parallel, resumable, a table and a figure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym

from himac_agents.agents.agent import HiMACAgent
from himac_agents.experiments.credit import scores
from himac_agents.experiments.credit.estimators import ESTIMATORS, LINE_ESTIMATORS, VINE
from himac_agents.experiments.credit.measure import Size, measure
from himac_agents.experiments.credit.planner import measure_lines
from himac_agents.experiments.credit.policy import Strength
from himac_agents.experiments.credit.trained import Trained, measure_trained
from himac_agents.experiments.credit.trained_lines import measure_trained_lines
from himac_agents.experiments.study import summary
from himac_agents.files import write_atomically
from himac_agents.reports.charts import interval_chart
from himac_agents.reports.marks import Mark, Row
from himac_envs.hierarchy import HierarchicalEnv

#: Id and arguments of each environment; the official games are added where a folder is given.
ENVS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "alfworld": ("HiMAC-ALFWorld-v0", {"data": "generated"}),
    "long": ("HiMAC-ALFWorld-Long-v0", {"horizon": 40}),
    # A push around a corner cannot be planned anew on its way, as this policy does at each step.
    "sokoban": ("HiMAC-Sokoban-v0", {"straight": True}),
}
OFFICIAL = "alfworld-official"

_HOUSE = {"weak": Strength(0.45, 0.1), "half": Strength(0.3, 0.1), "strong": Strength(0.15, 0.05)}
#: The frozen policies of each environment.
STRENGTHS: Mapping[str, Mapping[str, Strength]] = {
    "alfworld": _HOUSE,
    OFFICIAL: _HOUSE,
    "long": _HOUSE,
    "sokoban": {
        "weak": Strength(0.6, 0.05), "half": Strength(0.4, 0.03), "strong": Strength(0.2, 0.02)
    },
}  # fmt: skip
SIZES: Mapping[str, Size] = {
    "full": Size(),
    "small": Size(6, 2, (8, 16), 12, 200),
    "tiny": Size(2, 2, (4,), 4, 20),
}

#: Supervised steps of a language model, by kind and size.
SUPERVISED: Mapping[tuple[str, str], Mapping[str, int]] = {
    ("tiny", "full"): {"weak": 700, "half": 1300, "strong": 2500},
    ("tiny", "small"): {"weak": 700, "half": 1300, "strong": 2500},
    ("tiny", "tiny"): {"weak": 20},
    ("hf", "full"): {"weak": 100, "half": 200, "strong": 400},
    ("hf", "small"): {"weak": 100, "half": 200, "strong": 400},
    ("hf", "tiny"): {"weak": 2},
}
#: Who may play.
POLICIES = ("scripted", "tiny", "hf")

#: Whose credit is measured.
Level = Literal["executor", "planner"]

#: The kill criterion: the first must get more signs right than the second.
CANDIDATE, BASELINE = "himac-graph", "himac-option"
#: What the candidate is compared with line by line: whole blueprints compared by their returns.
LINE_BASELINE = "himac"


@dataclass(frozen=True, slots=True)
class Cell:
    """One environment with one policy, as a process of its own can measure it.

    Attributes:
        env, strength: Names.
        env_id, kwargs: What is made.
        policy: The policy: scripted, or a language model.
        size, seed: See `measure`.
        level: Whose credit: the "executor"'s, or the "planner"'s, line by line.
    """

    env: str
    strength: str
    env_id: str
    kwargs: dict[str, Any]
    policy: Strength | Trained
    size: Size
    seed: int = 0
    level: Level = "executor"

    @property
    def name(self) -> str:
        """Its file's."""
        return f"{self.env}-{self.strength}" + ("" if self.level == "executor" else "-lines")

    def measured(self, out: Path) -> dict[str, Any]:
        """Its figures; a language model is kept in `out`."""

        def make() -> HierarchicalEnv:
            env = gym.make(self.env_id, **self.kwargs).unwrapped
            assert isinstance(env, HierarchicalEnv)
            return env

        if isinstance(self.policy, Trained):
            agent = self.trained(out)
            if self.level == "planner":
                found = measure_trained_lines(make, agent, self.size, seed=self.seed)
            else:
                found = measure_trained(make, agent.executor, self.size, seed=self.seed)
        elif self.level == "planner":
            found = measure_lines(make, self.policy, self.size, seed=self.seed)
        else:
            found = measure(make, self.policy, self.size, seed=self.seed)
        return {**found, **self.settings()}

    def place(self, out: Path) -> Path:
        """The folder of its language model, which both levels share."""
        return out / "policies" / f"{self.env}-{self.strength}-seed{self.seed}"

    def trained(self, out: Path) -> HiMACAgent:
        """Its language model, from `out` where it is there."""
        assert isinstance(self.policy, Trained)
        return self.policy.agent(self.place(out), self.env_id, self.kwargs, self.seed)

    def settings(self) -> dict[str, Any]:
        """What its figures follow from, but for the programs."""
        estimators = list(ESTIMATORS if self.level == "executor" else LINE_ESTIMATORS)
        if self.level == "executor" and isinstance(self.policy, Strength):
            estimators.append(VINE)
        return json.loads(json.dumps({"cell": asdict(self), "estimators": estimators}))  # type: ignore[no-any-return]


def cells(
    size: str,
    envs: Sequence[str] = (),
    official: Path | None = None,
    seed: int = 0,
    policy: str = "scripted",
    model: str = "",
    strengths: Sequence[str] = (),
) -> list[Cell]:
    """The cells of a size.

    Args:
        size: One of `SIZES`.
        envs: Only these; none: all that there is data for.
        official: A folder with ALFWorld's official games.
        seed: Of everything.
        policy: Who plays: "scripted", or a language model: "tiny" (built from scratch) or "hf".
        model: For "hf" its folder or name.
        strengths: Only policies of these names; none: all.

    Raises:
        ValueError: There is no such size, environment, policy or strength.
    """
    known = dict(ENVS)
    if official is not None:
        known[OFFICIAL] = ("HiMAC-ALFWorld-v0", {"data": str(official)})
    if size not in SIZES:
        raise ValueError(f"size={size!r}: choose one of {', '.join(SIZES)}")
    if strange := [name for name in envs if name not in known]:
        raise ValueError(
            f"no environment {strange[0]!r}: choose among {', '.join(known)}"
            + ("" if official else f" ({OFFICIAL} needs its games: --official FOLDER)")
        )
    if policy not in POLICIES:
        raise ValueError(f"policy={policy!r}: choose one of {', '.join(POLICIES)}")
    names = {name for env in envs or known for name in STRENGTHS[env]}
    if policy != "scripted":
        names = set(SUPERVISED[policy, size])
    if strange := [name for name in strengths if name not in names]:
        raise ValueError(f"no policy {strange[0]!r}: choose among {', '.join(sorted(names))}")

    def players(env: str) -> Mapping[str, Strength | Trained]:
        if policy == "scripted":
            return STRENGTHS[env]
        kinds = SUPERVISED[policy, size].items()
        return {name: Trained(policy, steps, model) for name, steps in kinds}  # type: ignore[arg-type]

    levels: tuple[Level, ...] = ("executor", "planner")
    return [
        Cell(env, name, *known[env], player, SIZES[size], seed, level)
        for level in levels
        for env in (envs or known)
        for name, player in players(env).items()
        if not strengths or name in strengths
    ]


def run(
    wanted: Sequence[Cell],
    out: Path,
    *,
    jobs: int = 2,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Measures what is not there yet, and writes the table and the figure.

    Args:
        wanted: The cells.
        out: Folder of one JSON file a cell, `credit.md` and `credit.svg`.
        jobs: Processes; 1 measures here.
        say: Told of each cell that is done.

    Returns:
        The cells' figures, in order.
    """
    found: dict[str, dict[str, Any]] = {}
    for cell in wanted:
        path = out / f"{cell.name}.json"
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
            if all(known.get(key) == value for key, value in cell.settings().items()):
                found[cell.name] = known

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
    done = [found[cell.name] for cell in wanted]
    write_atomically(out / "credit.md", table(done))
    write_atomically(out / "credit.svg", figure(done))
    return done


def _trained(asked: tuple[Cell, Path]) -> None:
    cell, out = asked
    cell.trained(out)


def _measured(asked: tuple[Cell, Path]) -> tuple[Cell, dict[str, Any]]:
    cell, out = asked
    return cell, cell.measured(out)


def pooled(done: Sequence[Mapping[str, Any]], episodes: str, name: str) -> list[list[float]]:
    """The sums of an estimator over all cells, one row for each task of each environment.

    The policies of an environment play the same tasks: what they did on one is one row, so that
    intervals over tasks do not take it for several. An estimator's numbers mean something in one
    cell only: they are divided by their root mean square there.
    """
    rows: dict[tuple[str, int], list[float]] = {}
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
            own = rows.setdefault((cell["cell"]["env"], place), [0.0] * len(scaled))
            rows[cell["cell"]["env"], place] = [a + b for a, b in zip(own, scaled, strict=True)]
    return list(rows.values())


def of_level(done: Sequence[Mapping[str, Any]], level: Level) -> list[Mapping[str, Any]]:
    """The cells that measure one level's credit."""
    return [cell for cell in done if cell["cell"]["level"] == level]


def verdict(
    done: Sequence[Mapping[str, Any]], episodes: str, baseline: str = BASELINE
) -> tuple[scores.Score, bool]:
    """The kill criterion: how many more signs the candidate gets right, and whether it passes."""
    gain = scores.difference(
        "sign accuracy", pooled(done, episodes, CANDIDATE), pooled(done, episodes, baseline)
    )
    return gain, gain.low > 0


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
    heads = ["environment", "policy", "success", "steps", "tasks", "decisions", "that matter"]
    rows = []
    for cell in done:
        own, means = cell["cell"], (f"{cell['success']:.2f}", f"{cell['env_steps']:.1f}")
        counts = (str(cell[name]) for name in ("tasks", "decisions", "matter"))
        rows.append([own["env"], own["strength"], *means, *counts])
    lines = [f"## Credit of the {what}", "", *summary.table(heads, rows, words=2)]
    for n in sizes:
        rows = []
        against = pooled(done, n, baseline)
        for name in done[0]["sums"][n]:
            sums = pooled(done, n, name)
            more = "" if name == baseline else scores.difference("sign accuracy", sums, against)
            rows.append([name, *(str(scores.figure(f, sums)) for f in scores.FIGURES), str(more)])
        lines += ["", f"All cells, groups of {n} episodes (signs against {baseline}: paired):", ""]
        lines += summary.table(["estimator", *scores.FIGURES, f"signs, minus {baseline}"], rows)
        gain, better = verdict(done, n, baseline)
        passed = f": {criterion}{'passed' if better else 'not passed'}" if criterion else ""
        lines += ["", f"Signs, {CANDIDATE} minus {baseline}, paired by task: {gain}{passed}."]
    last = sizes[-1]
    names = [f"{cell['cell']['env']} {cell['cell']['strength']}" for cell in done]
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
