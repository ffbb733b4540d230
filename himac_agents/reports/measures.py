"""Which metrics the report draws, in which order, and how a reader should take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from himac_agents.reports.scales import Format


@dataclass(frozen=True)
class Measure:
    """One small chart.

    Attributes:
        key: The metric.
        title: What it is.
        hint: How to read it.
        level: Whose: the planner's phases, or those of the executor and of flat agents.
        form: How its numbers are written.
        low: Where the axis begins; None is found from the data.
        high: Where it ends.
    """

    key: str
    title: str
    hint: str
    level: Literal["planner", "executor"]
    form: Format = "number"
    low: float | None = None
    high: float | None = None


#: The sections of small charts.
SECTIONS: tuple[tuple[str, tuple[Measure, ...]], ...] = (
    (
        "Planner",
        (
            Measure(
                "success",
                "Success of its blueprints",
                "M blueprints a task, carried out by the frozen, greedy executor",
                "planner",
                "percent",
                0,
                1,
            ),
            Measure(
                "entropy",
                "Entropy",
                "nats a token; a collapse to 0 means nothing new is tried",
                "planner",
                low=0,
            ),
            Measure(
                "dead_groups",
                "Dead groups",
                "groups whose returns are all equal teach nothing",
                "planner",
                "percent",
                0,
                1,
            ),
            Measure(
                "approx_kl",
                "KL to the sampling policy",
                "how far one phase's updates move the planner",
                "planner",
                low=0,
            ),
            Measure(
                "kl",
                "KL to the warm start",
                "the penalty's estimate, where one is set",
                "planner",
                low=0,
            ),
            Measure(
                "clipped",
                "Clipped tokens",
                "share of tokens whose ratio left the clip range",
                "planner",
                "percent",
                0,
            ),
            Measure(
                "blueprints",
                "Distinct blueprints a task",
                "of the M that were sampled",
                "planner",
                low=0,
            ),
            Measure(
                "valid",
                "Readable blueprints",
                "the rest lose the format penalty",
                "planner",
                "percent",
                0,
                1,
            ),
        ),
    ),
    (
        "Executor",
        (
            Measure("return", "Return", "mean over the sampled episodes", "executor"),
            Measure(
                "entropy",
                "Entropy",
                "nats a token, over the tokens that were free to choose",
                "executor",
                low=0,
            ),
            Measure(
                "dead_groups",
                "Dead groups",
                "groups of episodes whose returns are all equal",
                "executor",
                "percent",
                0,
                1,
            ),
            Measure(
                "dead_options",
                "Dead options",
                "sub-goals whose executions were all worth the same",
                "executor",
                "percent",
                0,
                1,
            ),
            Measure(
                "approx_kl",
                "KL to the sampling policy",
                "how far one phase's updates move the executor",
                "executor",
                low=0,
            ),
            Measure(
                "kl",
                "KL to the warm start",
                "the penalty's estimate, where one is set",
                "executor",
                low=0,
            ),
            Measure(
                "clipped",
                "Clipped tokens",
                "share of tokens whose ratio left the clip range",
                "executor",
                "percent",
                0,
            ),
            Measure("env_steps", "Episode length", "steps of the task", "executor", low=0),
            Measure(
                "invalid",
                "Invalid commands",
                "share of turns that the environment did not understand",
                "executor",
                "percent",
                0,
            ),
        ),
    ),
    (
        "Options",
        (
            Measure(
                "option_steps", "Option length", "steps that one sub-goal takes", "executor", low=0
            ),
            Measure(
                "achieved",
                "Sub-goals achieved",
                "share of the options that reached what they were to",
                "executor",
                "percent",
                0,
                1,
            ),
            Measure(
                "sub_done_precision",
                "Precision of <sub_done>",
                "how often it was true when it was said",
                "executor",
                "percent",
                0,
                1,
            ),
        ),
    ),
    (
        "Health",
        (
            Measure("grad_norm", "Gradient norm, planner", "before clipping", "planner", low=0),
            Measure("grad_norm", "Gradient norm, executor", "before clipping", "executor", low=0),
            Measure(
                "logprob_gap",
                "Rollout against training",
                "largest difference of log-probabilities on the same tokens",
                "executor",
                low=0,
            ),
            Measure("seconds", "Seconds an iteration", "rollouts and updates", "executor", low=0),
            Measure("errors", "Crashed episodes", "they carry no loss", "executor", "percent", 0),
        ),
    ),
)
