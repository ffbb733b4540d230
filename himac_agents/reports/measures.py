"""Which metrics the report draws, in which order, and how a reader should take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from himac_agents.reports.marks import Format

Level = Literal["planner", "executor"]


@dataclass(frozen=True)
class Measure:
    """One small chart.

    Attributes:
        level: Whose: the planner's phases, or those of the executor and of flat agents.
        key: The metric.
        title: What it is.
        hint: How to read it.
        form: How its numbers are written.
        low: Where the axis begins; None is found from the data.
        high: Where it ends.
    """

    level: Level
    key: str
    title: str
    hint: str
    form: Format = "number"
    low: float | None = 0
    high: float | None = None


def _updates(level: Level, entropy: str) -> tuple[Measure, Measure, Measure, Measure]:
    """What both levels' updates are measured by; `entropy` tells how to read it."""
    moved = f"how far one phase's updates move the {level}"
    beyond = "share of tokens whose ratio left the clip range"
    return (
        Measure(level, "entropy", "Entropy", entropy),
        Measure(level, "approx_kl", "KL to the sampling policy", moved),
        Measure(level, "kl", "KL to the warm start", "the penalty's estimate, where one is set"),
        Measure(level, "clipped", "Clipped tokens", beyond, "percent"),
    )


def _share(level: Level, key: str, title: str, hint: str) -> Measure:
    return Measure(level, key, title, hint, "percent", 0, 1)


_PLANNER = _updates("planner", "nats a token; a collapse to 0 means nothing new is tried")
_EXECUTOR = _updates("executor", "nats a token, over the tokens that were free to choose")

#: The sections of small charts.
SECTIONS: dict[str, tuple[Measure, ...]] = {
    "Planner": (
        _share("planner", "success", "Success of its blueprints",
               "M blueprints a task, carried out by the frozen, greedy executor"),
        _PLANNER[0],
        _share("planner", "dead_groups", "Dead groups",
               "groups whose returns are all equal teach nothing"),
        *_PLANNER[1:],
        Measure("planner", "blueprints", "Distinct blueprints a task",
                "of the M that were sampled"),
        _share("planner", "valid", "Readable blueprints", "the rest lose the format penalty"),
    ),
    "Executor": (
        Measure("executor", "return", "Return", "mean over the sampled episodes", low=None),
        _EXECUTOR[0],
        _share("executor", "dead_groups", "Dead groups",
               "groups of episodes whose returns are all equal"),
        _share("executor", "dead_options", "Dead options",
               "sub-goals whose executions were all worth the same"),
        *_EXECUTOR[1:],
        Measure("executor", "env_steps", "Episode length", "steps of the task"),
        Measure("executor", "invalid", "Invalid commands",
                "share of turns that the environment did not understand", "percent"),
    ),
    "Options": (
        Measure("executor", "option_steps", "Option length", "steps that one sub-goal takes"),
        _share("executor", "achieved", "Sub-goals achieved",
               "share of the options that reached what they were to"),
        _share("executor", "sub_done_precision", "Precision of <sub_done>",
               "how often it was true when it was said"),
    ),
    "Health": (
        Measure("planner", "grad_norm", "Gradient norm, planner", "before clipping"),
        Measure("executor", "grad_norm", "Gradient norm, executor", "before clipping"),
        Measure("executor", "logprob_gap", "Rollout against training",
                "largest difference of log-probabilities on the same tokens"),
        Measure("executor", "seconds", "Seconds an iteration", "rollouts and updates"),
        Measure("executor", "errors", "Crashed episodes", "they carry no loss", "percent"),
    ),
}  # fmt: skip
