"""What a study runs: cells, methods and seeds from `registry/studies`, as jobs.

A cell is one environment with one preset of `registry/presets`, the same for every method. Methods
that ask for the same roles share one warm start a seed: it is a job of its own, and each method's
run is forked from it. So is their stream of tasks: it depends on the seed alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from himac_agents.algorithms.methods import METHODS, method_of, resolve
from himac_agents.config import LEARNING_FIELDS, TrainConfig
from himac_agents.config.values import read_file
from himac_envs import registry

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
        return f"runs/{self.cell}-{self.method}-seed{self.seed}"

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
        view: What is shown of all cells together; see `views.VIEWS`. "": nothing.
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
            ValueError: The card names unknown cells or misses a part. Unknown methods are refused
                when they are to be run.
        """
        if name.endswith(".toml"):
            if not Path(name).is_file():
                raise FileNotFoundError(f"there is no study {name}")
            content, name = read_file(Path(name)), Path(name).stem
        else:
            content = registry.read("studies", name)
        where = f"study {name!r}"
        try:
            cells = {key: Cell(key, **table) for key, table in content["cells"].items()}
            seeds = tuple(int(seed) for seed in content["seeds"])
            rows = tuple(
                Runs(tuple(row["cells"]), tuple(row["methods"]), tuple(row.get("seeds", seeds)))
                for row in content["runs"]
            )
            study = cls(
                name,
                str(content["summary"]),
                seeds,
                cells,
                rows,
                str(content.get("base", rows[0].methods[0])),
                {str(k): dict(v) for k, v in content.get("methods", {}).items()},
                str(content.get("notes", "")),
                bool(content.get("readme", True)),
                str(content.get("view", "")),
                str(content.get("axis", "")),
            )
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{where}: needs `summary`, `seeds`, tables [cells.NAME] with `preset`, and "
                f"[[runs]] with `cells` and `methods` ({error!r})"
            ) from error
        if unknown := sorted({c for row in rows for c in row.cells} - set(cells)):
            raise ValueError(f"{where}: [[runs]] names unknown cells: {', '.join(unknown)}")
        return study

    @property
    def size(self) -> int:
        """How many runs it is made of."""
        return sum(len(row.seeds) * len(row.cells) * len(row.methods) for row in self.rows)

    def config(self, cell: str, method: str, seed: int) -> TrainConfig:
        """The settings of one run: the cell's preset, the changes of the method or arm, the seed.

        Raises:
            ValueError: There is no such method (what is recorded of one can still be shown).
        """
        own = self.changes.get(method, {})
        of = str(own.get("method", method))
        if of not in METHODS:
            raise ValueError(
                f"study {self.name!r}: [[runs]] names an unknown method {of!r}: choose among "
                f"{', '.join(METHODS)}, or name the method that it varies: [methods.{method}] "
                "method = ..."
            )
        if method in METHODS and of != method:
            raise ValueError(
                f"study {self.name!r}: [methods.{method}] has a method's name, but sets method = "
                f"{of!r}: give it another name"
            )
        card = self.cells[cell]
        roles = card.hierarchical if METHODS[of].hierarchical else card.flat
        changes = {**card.changes, **roles, **own, "method": of, "seed": seed}
        values = {**vars(TrainConfig.named(card.preset)), **changes}
        found = TrainConfig.from_dict(values, f"study {self.name!r}, cell {cell!r}")
        return resolve(found)

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
            ValueError: A cell, a method or a seed is not in the study.
        """
        self._check("cell", cells, self.cells)
        self._check("method", methods, {m for row in self.rows for m in row.methods})
        self._check("seed", seeds, {s for row in self.rows for s in row.seeds})
        found: dict[str, Job] = {}
        for job in self._learning(cells, methods, seeds):
            warm = Job("warm", job.cell, job.method, job.seed, job.config)
            first = found.setdefault(warm.name, warm)
            _check_shared(first, job)
            found.setdefault(job.name, dataclasses.replace(job, needs=warm.name))
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

    def _learning(
        self, cells: Sequence[str], methods: Sequence[str], seeds: Sequence[int]
    ) -> Iterator[Job]:
        for row in self.rows:
            for seed, cell, method in product(row.seeds, row.cells, row.methods):
                asked = ((seed, seeds), (cell, cells), (method, methods))
                if all(not among or one in among for one, among in asked):
                    yield Job("learn", cell, method, seed, self.config(cell, method, seed))

    def _check(self, what: str, asked: Sequence[object], known: Any) -> None:
        for name in asked:
            if name not in known:
                raise ValueError(
                    f"study {self.name!r} has no {what} {name!r}: choose among "
                    f"{', '.join(map(str, sorted(known)))}"
                )


def _check_shared(first: Job, job: Job) -> None:
    for name, value in vars(job.config).items():
        if name not in LEARNING_FIELDS and getattr(first.config, name) != value:
            raise ValueError(
                f"{job.name} changes {name}, so it cannot share the warm start {first.name}: "
                "change it in the cell's preset, for all methods"
            )
