"""What the benchmark measures: environments, frozen policies and sizes, a cell for each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium as gym

from himac_agents.agents.agent import HiMACAgent
from himac_agents.config import check_seeds
from himac_agents.experiments.credit.estimators import ESTIMATORS, LINE_ESTIMATORS, VINE
from himac_agents.experiments.credit.measure import Size, measure
from himac_agents.experiments.credit.planner import measure_lines
from himac_agents.experiments.credit.policy import Strength
from himac_agents.experiments.credit.trained import Trained, measure_trained
from himac_agents.experiments.credit.trained_lines import measure_trained_lines
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
        return _name(self.env, self.strength, self.seed, self.level)

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


def place_in_tables(written: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Where a cell stands in tables, whichever call measured it.

    Args:
        written: What `Cell.settings` says of it as "cell".

    Raises:
        ValueError: It is of no cell that there is.
    """
    levels, envs, strengths = get_args(Level), [*ENVS, OFFICIAL], list(_HOUSE)
    if written.keys() != {field.name for field in fields(Cell)}:
        raise ValueError("not the figures of a cell")
    level, env, strength = (written[key] for key in ("level", "env", "strength"))
    return levels.index(level), envs.index(env), strengths.index(strength), int(written["seed"])


def name_of(written: Mapping[str, Any]) -> str:
    """The name of a cell of which `Cell.settings` says this as "cell"."""
    return _name(*(written[key] for key in ("env", "strength", "seed", "level")))


def _name(env: str, strength: str, seed: int, level: str) -> str:
    return f"{env}-{strength}-seed{seed}" + ("" if level == "executor" else "-lines")


def cells(
    size: str,
    envs: Sequence[str] = (),
    official: Path | None = None,
    seeds: Sequence[int] = (0,),
    policy: str = "scripted",
    model: str = "",
    strengths: Sequence[str] = (),
) -> list[Cell]:
    """The cells of a size.

    Args:
        size: One of `SIZES`.
        envs: Only these; none: all that there is data for.
        official: A folder with ALFWorld's official games.
        seeds: Each of everything: of tasks, episodes and, where they are trained, policies.
        policy: Who plays: "scripted", or a language model: "tiny" (built from scratch) or "hf".
        model: For "hf" its folder or name.
        strengths: Only policies of these names; none: all.

    Raises:
        ValueError: There is no such size, environment, policy, strength or seed.
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
    if not seeds:
        raise ValueError("seeds: at least one is needed")
    check_seeds(*seeds)
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
        for env in dict.fromkeys(envs or known)
        for name, player in players(env).items()
        if not strengths or name in strengths
        for seed in dict.fromkeys(seeds)
    ]
