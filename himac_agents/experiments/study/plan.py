"""What a study runs: cells, methods and seeds from `registry/studies`, as jobs.

A cell is one environment with one preset of `registry/presets`, the same for every method. Methods
that ask for the same roles share one warm start a seed: it is a job of its own, and each method's
run is forked from it. So is their stream of tasks: it depends on the seed alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from himac_agents.algorithms.methods import METHODS, check, method_of
from himac_agents.config import LEARNING_FIELDS, TrainConfig, check_seeds
from himac_agents.config.setting import check_keys, placed
from himac_agents.config.tables import read_table
from himac_agents.experiments.study import card
from himac_agents.register import did_you_mean

#: What a run of a method changes in the cell's preset.
Changes = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One environment of a study.

    Attributes:
        name: How the study calls it.
        preset: The settings that all its methods share: a card of `registry/presets`, or a file.
        changes: What all its methods change in the preset.
        flat: What flat methods change in it: above all the steps of their warm start, so that one
            flat agent sees as much supervision as a planner and an executor together.
        hierarchical: What hierarchical methods change in it.
        place: Where it stands on the axis of a sweep (see `views.sweep`).
    """

    name: str
    preset: str
    changes: Changes = field(default_factory=dict)
    flat: Changes = field(default_factory=dict)
    hierarchical: Changes = field(default_factory=dict)
    place: float | None = None


@dataclass(frozen=True)
class Runs:
    """Which methods are run on which cells, and with which seeds.

    Attributes:
        cells: The cells' names.
        methods: Methods and arms.
        seeds: The row's own, or the study's where it names none: a comparison that three seeds
            cannot decide is given more of them, without those of every other method.
    """

    cells: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """One process of a study.

    Attributes:
        kind: "warm" makes a warm start, "learn" a run from it.
        cell: The cell's name.
        method: The method, or the arm ("warm": the first that needs this warm start).
        seed: The run's seed.
        config: The run's settings.
        needs: The name of the warm start that a run is forked from; "" for a warm start.
    """

    kind: Literal["warm", "learn"]
    cell: str
    method: str
    seed: int
    config: TrainConfig
    needs: str = ""

    @property
    def name(self) -> str:
        """The job's name, and its folder's below the study's."""
        if self.kind == "warm":
            return f"warm/{self.cell}-{self.roles}-seed{self.seed}"
        return _named(self.cell, self.method, self.seed)

    @property
    def roles(self) -> str:
        """What the method asks of a warm start; methods that ask the same share it."""
        traits = method_of(self.config)
        if not traits.hierarchical:
            return "flat"
        return "hierarchical" if traits.sub_done else "hierarchical-fixed"

    def folder(self, out: Path) -> Path:
        """Where it is written."""
        return out / self.name


@dataclass(frozen=True)
class Study:
    """A study as its card describes it.

    Attributes:
        name: "small", "official" or the stem of a file.
        summary: One sentence for readers.
        seeds: The seeds of the rows that name none.
        cells: By name.
        rows: What is to be run, in this order.
        base: The method that the others of a cell are compared with, task by task and seed by seed.
        changes: What single methods change in a preset, by method. A name that is no method's is an
            arm: its changes say of which `method` it is, and it stands in tables under its own
            name.
        notes: What was learned on the way and what the figures rest on, for the page of results.
        readme: Whether README's table shows its cells.
        view: What is shown of all cells together; see `card.VIEWS`. "": nothing.
        axis: What the cells' places are, in a sweep.
    """

    name: str
    summary: str
    seeds: tuple[int, ...]
    cells: dict[str, Cell]
    rows: tuple[Runs, ...]
    base: str
    changes: dict[str, Changes]
    notes: str = ""
    readme: bool = True
    view: str = ""
    axis: str = ""

    @classmethod
    def load(cls, name: str) -> Study:
        """A card of `registry/studies`, or a TOML file of the same form.

        Raises:
            FileNotFoundError: There is no such card; the message lists those that exist.
            ValueError: The card has an unknown or wrong key, misses one, or names what is not
                there. Unknown methods, and settings that do not go together, are refused when they
                are to be run: before any is, and what is recorded of them can still be shown.
        """
        name, found = card.read(name)
        where = f"study {name!r}"
        cells = {
            key: read_table(Cell, table, f"{where}, [cells.{key}]", name=key)
            for key, table in found.cells.items()
        }
        rows = tuple(
            read_table(Runs, {"seeds": found.seeds, **row}, _place(where, number))
            for number, row in enumerate(found.runs, 1)
        )
        first = next((method for row in rows for method in row.methods), "")
        return cls(
            name,
            found.summary,
            found.seeds,
            cells,
            rows,
            first if found.base is None else found.base,
            found.methods,
            found.notes,
            found.readme,
            found.view,
            found.axis,
        )

    def __post_init__(self) -> None:
        where, methods = f"study {self.name!r}", {m: None for row in self.rows for m in row.methods}
        card.check_name(where, "study", self.name)
        card.check_once(where, "runs", range(len(self.rows)))
        # Some file systems do not tell "A" from "a".
        card.check_once(where, "cells", map(str.casefold, self.cells))
        _check_seeds(where, self.seeds)
        for number, row in enumerate(self.rows, 1):
            place = _place(where, number)
            card.check_once(place, "cells", row.cells)
            card.check_once(place, "methods", row.methods)
            _check_seeds(place, row.seeds)
            check_keys(row.cells, self.cells, place, "cell")
            for method in row.methods:
                card.check_name(place, "method", method)
        for name, cell in self.cells.items():
            card.check_name(where, "cell", name)
            for key in ("changes", "flat", "hierarchical"):
                card.check_changes(f"{where}, [cells.{name}] {key}", getattr(cell, key))
            if self.view == "sweep" and cell.place is None:
                raise ValueError(f'{where}, [cells.{name}]: view = "sweep" needs `place`')
        for name, changes in self.changes.items():
            place = f"{where}, [methods.{name}]"
            if name not in methods:
                raise ValueError(f"{place}: no [[runs]] names it.{did_you_mean(name, methods)}")
            card.check_changes(place, changes, arm=True)
        if self.base not in methods:
            raise ValueError(
                f"{where}: base={self.base!r} is none of the methods of [[runs]]: "
                f"{', '.join(methods)}"
            )
        if self.view and self.view not in card.VIEWS:
            raise ValueError(f"{where}: view={self.view!r}: choose one of {', '.join(card.VIEWS)}")
        self._check_runs(where)

    def _check_runs(self, where: str) -> None:
        """Refuses what would be dropped: a second run of one name, the same or another."""
        known: dict[str, tuple[str, str, int]] = {}
        for run in self._runs():
            other = known.setdefault(_named(*run).casefold(), run)
            if other is not run:
                of = "{1!r} in cell {0!r}".format
                raise ValueError(
                    f"{where}: two rows of [[runs]] name {of(*run)} with seed {run[2]}"
                    if run == other
                    else f"{where}: {of(*run)} and {of(*other)} would share the folder "
                    f"{_named(*run)}: give a cell or an arm another name"
                )

    @property
    def size(self) -> int:
        """How many runs it is made of."""
        return sum(1 for _ in self._runs())

    def seeds_for(self, cell: str, method: str) -> set[int]:
        """The seeds with which a method is to be run on a cell, in whichever row."""
        return {seed for name, of, seed in self._runs() if (name, of) == (cell, method)}

    def left(self, cell: str, runs: Iterable[Mapping[str, Any]]) -> list[str]:
        """The runs of a cell that its recorded ones are not, by name."""
        known = {(run["method"], run["seed"]) for run in runs}
        return [_named(*run) for run in self._runs() if run[0] == cell and run[1:] not in known]

    def config(self, cell: str, method: str, seed: int) -> TrainConfig:
        """The settings of one run: the cell's preset, the changes of the method or arm, the seed.

        Raises:
            FileNotFoundError: The cell's preset is not there.
            ValueError: There is no such method (what is recorded of one can still be shown), or
                settings do not go together.
        """
        own, shared = self.changes.get(method, {}), self.cells[cell]
        of = str(own.get("method", method))
        with placed(f"study {self.name!r}, cell {cell!r}, method {method!r}"):
            if of not in METHODS:
                raise ValueError(
                    f"[[runs]] names an unknown method {of!r}: choose among {', '.join(METHODS)}, "
                    f"or name the method that it varies: [methods.{method}] method = ..."
                )
            if method in METHODS and of != method:
                raise ValueError(
                    f"[methods.{method}] has a method's name, but sets method = {of!r}: give it "
                    "another name"
                )
            roles = shared.hierarchical if METHODS[of].hierarchical else shared.flat
            changes = {**shared.changes, **roles, **own, "method": of, "seed": seed}
            return check(TrainConfig(**{**vars(TrainConfig.named(shared.preset)), **changes}))

    def jobs(
        self,
        cells: Sequence[str] = (),
        methods: Sequence[str] = (),
        seeds: Sequence[int] = (),
    ) -> list[Job]:
        """Every job in order; a warm start stands just before the first run that needs it.

        Args:
            cells: Only these; () is all.
            methods: Only these; () is all.
            seeds: Only these; () is all.

        Raises:
            ValueError: A cell, a method or a seed is not in the study, or one of all its runs,
                asked for or not, cannot be made.
        """
        self._check("cell", cells, self.cells)
        self._check("method", methods, {m for row in self.rows for m in row.methods})
        self._check("seed", seeds, {s for row in self.rows for s in row.seeds})
        every: dict[str, Job] = {}
        found: dict[str, Job] = {}
        for run in self._runs():
            config = self.config(*run)
            warm = Job("warm", *run, config)
            job = Job("learn", *run, config, needs=warm.name)
            _check_shared(every.setdefault(warm.name, warm), job)
            asked = zip(run, (cells, methods, seeds), strict=True)
            if all(not among or one in among for one, among in asked):
                found.setdefault(warm.name, warm)
                found[job.name] = job
        return list(found.values())

    def missing(self, jobs: Sequence[Job], recorded: Mapping[str, Mapping[str, Any]]) -> list[Job]:
        """The jobs without the runs that are recorded, and without warm starts nobody needs."""
        known = {(c, row["method"], row["seed"]) for c, v in recorded.items() for row in v["runs"]}
        left = [
            job
            for job in jobs
            if job.kind == "learn" and (job.cell, job.method, job.seed) not in known
        ]
        needed = {job.needs for job in left}
        return [job for job in jobs if job in left or job.name in needed]

    def _runs(self) -> Iterator[tuple[str, str, int]]:
        """Each run's cell, method and seed, in order."""
        for row in self.rows:
            for seed, cell, method in product(row.seeds, row.cells, row.methods):
                yield cell, method, seed

    def _check(self, what: str, asked: Sequence[object], known: Any) -> None:
        for name in asked:
            if name not in known:
                raise ValueError(
                    f"study {self.name!r} has no {what} {name!r}: choose among "
                    f"{', '.join(map(str, sorted(known)))}"
                )


def _named(cell: str, method: str, seed: int) -> str:
    """What a run is called."""
    return f"runs/{cell}-{method}-seed{seed}"


def _place(where: str, number: int) -> str:
    """Where a row stands, for errors."""
    return f"{where}, [[runs]] number {number}"


def _check_seeds(where: str, seeds: Sequence[int]) -> None:
    card.check_once(where, "seeds", seeds)
    with placed(where):
        check_seeds(*seeds)


def _check_shared(first: Job, job: Job) -> None:
    for name, value in vars(job.config).items():
        if name not in LEARNING_FIELDS and getattr(first.config, name) != value:
            raise ValueError(
                f"{job.name} changes {name}, so it cannot share the warm start {first.name}: "
                "change it in the cell's preset, for all methods"
            )
