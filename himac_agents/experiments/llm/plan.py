"""What the study of a language model runs: a curve of warm starts, then arms from one of them.

How well a warm start plays depends on how many demonstrations it was shown. One that plays well
leaves nothing to learn, one that never solves a task has nothing to learn from. So warm starts of
several sizes are measured first, and the arms begin from the one in between.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himac_agents.config import TrainConfig
from himac_agents.config.setting import MOST_MINUTES, setting, settle
from himac_agents.files import read_json, read_json_lines, write_atomically

if TYPE_CHECKING:
    from himac_agents.experiments.study.plan import Changes, Job, Study

#: Success at temperature 1 that a warm start should have.
BAND = (0.30, 0.55)
#: Where the one that was chosen is kept.
FROZEN = "frozen.json"
#: What every arm's end is measured at beside temperature 1 and greedily.
_BASELINES = ("temperature-0.4",)
#: Only the credit differs: one clip range, and no penalty, for all.
_ALIKE: Changes = {"kl": 0.0, "clip_high": 0.28}


@dataclass(frozen=True)
class Plan:
    """Measure warm starts of several sizes, then train methods from one of them; resumable."""

    preset: str = "study-llm"
    """The settings of all runs: a preset (himac list shows them), or a TOML file."""
    # Its `demos` and `warm_steps` say how many supervised steps a demonstration gets.
    model: str | None = None
    """The model's folder or name, instead of the preset's."""
    data: str | None = None
    """A folder of games, or "generated", instead of the preset's."""
    minutes: float = setting(0.0, least=0, most=MOST_MINUTES)
    """Stop after this many minutes, with checkpoints; the same command continues. 0: no limit."""
    counts: tuple[int, ...] = setting((20, 40, 80, 160, 240), least=1)
    """Numbers of demonstrations: a warm start of each is measured."""
    methods: tuple[str, ...] = (
        "beacon", "himac", "himac-graph", "himac-option", "crbc", "gigpo", "grpo"
    )  # fmt: skip
    """The methods to train; the first one is compared with the others."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    max_env_steps: int | None = setting(None, least=0)
    """Environment steps of each run, instead of the preset's."""
    jobs: int = setting(1, least=1)
    """Runs at the same time, each in a process of one thread."""
    out: Path = Path("runs/llm")
    """Folder of the runs and of llm.md."""

    def __post_init__(self) -> None:
        settle(self)
        for name in ("counts", "methods", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name}: give at least one")

    @property
    def changes(self) -> dict[str, Any]:
        """What is changed in the preset."""
        given: dict[str, Any] = {"model": self.model, "max_env_steps": self.max_env_steps}
        if self.data is not None:
            kwargs = TrainConfig.named(self.preset).env_kwargs
            given["env_kwargs"] = {**kwargs, "data": self.data}
        return {key: value for key, value in given.items() if value is not None}

    def study(self, counts: Sequence[int]) -> Study:
        """The arms, from warm starts of these sizes."""
        from himac_agents.experiments.study.plan import Cell, Runs, Study

        shared = TrainConfig.named(self.preset)
        if not (shared.demos and shared.warm_steps):
            raise ValueError(f"{self.preset}: needs demos and warm_steps above 0")
        cells = {}
        for count in counts:
            steps = max(1, round(shared.warm_steps * count / shared.demos))
            changes = {**self.changes, "demos": count, "warm_steps": steps}
            cells[f"demos-{count}"] = Cell(f"demos-{count}", self.preset, changes, place=count)
        arms: dict[str, Changes] = {m: {**_ALIKE, "baselines": _BASELINES} for m in self.methods}
        arms[self.methods[0]]["baselines"] = ("supervised", *_BASELINES)
        return Study(
            "llm",
            "A pretrained language model: from one warm start a seed, for the same number of "
            "environment steps, with the same rates, clip range and no KL penalty.",
            self.seeds,
            cells,
            (Runs(tuple(cells), self.methods, self.seeds),),
            self.methods[0],
            arms,
            readme=False,
        )

    def curve(self) -> list[Job]:
        """The warm starts that are measured, by planner and executor: one for each count.

        Raises:
            ValueError: No arm is hierarchical: the curve is measured with planner and executor.
        """
        jobs = [
            job
            for job in self.study(self.counts).jobs()
            if job.kind == "warm" and job.seed == self.seeds[0] and job.roles != "flat"
        ]
        if not jobs:
            raise ValueError("methods: the curve of warm starts needs a hierarchical one")
        return jobs

    def frozen(self) -> Frozen | None:
        """The warm start that was chosen in `out`; None where none was.

        Raises:
            ValueError: The file is damaged, or it was chosen among others than this plan's: of
                another preset, model or data.
        """
        path = self.out / FROZEN
        if not path.is_file():
            return None
        found = Frozen.read(path)
        if found.settings != self.settings(found.demos):
            raise ValueError(
                f"{path} was chosen with another preset, model or data: choose another --out"
            )
        return found

    def freeze(self, curve: Mapping[int, tuple[float, float]]) -> Frozen:
        """Chooses the arms' warm start, and keeps it: it is chosen once."""
        found = Frozen.of(curve)
        found = dataclasses.replace(found, settings=self.settings(found.demos))
        found.write(self.out / FROZEN)
        return found

    def settings(self, count: int) -> str:
        """The digest of the settings of the curve's warm start of a size."""
        from himac_agents.experiments.study.provenance import settings_digest

        jobs = dataclasses.replace(self, counts=(count,)).curve()
        return settings_digest(jobs[0].config, "warm")

    def arms(self, count: int) -> list[Job]:
        """The arms from the warm start that was chosen."""
        return self.study([count]).jobs()


@dataclass(frozen=True)
class Frozen:
    """The warm start that was chosen, and what it was chosen among.

    Attributes:
        demos: Its demonstrations.
        curve: Success by number of demonstrations: at temperature 1, and greedily.
        settings: The digest of the settings of the chosen one (see `Plan.settings`).
    """

    demos: int
    curve: dict[int, tuple[float, float]]
    settings: str = ""

    @classmethod
    def of(cls, curve: Mapping[int, tuple[float, float]]) -> Frozen:
        """The one whose success at temperature 1 is nearest to the middle of `BAND`.

        Of those in the band, if there are any; of several as near, the one with the fewest
        demonstrations.
        """
        middle = sum(BAND) / 2
        inside = {n: row for n, row in curve.items() if BAND[0] <= row[0] <= BAND[1]}
        found = inside or dict(curve)
        return cls(min(sorted(found), key=lambda n: abs(found[n][0] - middle)), dict(curve))

    @property
    def inside(self) -> bool:
        """Whether the chosen one is in the band at all."""
        return BAND[0] <= self.curve[self.demos][0] <= BAND[1]

    def write(self, path: Path) -> None:
        """Keeps it in a JSON file."""
        curve = {str(n): list(row) for n, row in self.curve.items()}
        content = {"demos": self.demos, "curve": curve, "settings": self.settings}
        write_atomically(path, json.dumps(content, indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Frozen:
        """What `write` kept.

        Raises:
            ValueError: It is something else; the message names the file.
        """
        found = read_json(path)
        try:
            curve = {int(n): (float(a), float(b)) for n, (a, b) in found["curve"].items()}
            demos = int(found["demos"])
            if demos not in curve:
                raise KeyError(demos)
            return cls(demos, curve, str(found["settings"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path}: not what `himac bench llm` wrote ({error!r}): remove it, and the warm "
                "start is chosen anew from those that were measured"
            ) from error


def measured(jobs: Sequence[Job], out: Path) -> dict[int, tuple[float, float]]:
    """How well the warm starts play that are there: by demonstrations, temperature 1 and greedy."""
    found = {}
    for job in jobs:
        path = job.folder(out) / "metrics.jsonl"
        rows, _ = read_json_lines(path, ["phase"]) if path.is_file() else ([], False)
        for row in rows:
            if row["phase"] == "evaluation/warm_start":
                found[job.config.demos] = (float(row["temperature_1"]), float(row["greedy"]))
    return found
