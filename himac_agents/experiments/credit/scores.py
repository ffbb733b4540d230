"""Figures of estimators from the sums of tasks, with intervals over tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from himac_agents.experiments.credit.measure import SUMS

DRAWS = 2000
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """A figure with its 95% bootstrap interval over tasks; not a number where nothing tells it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """The figure and the ends, in two digits."""
        if not np.isfinite(self.value):
            return "-"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def sign_accuracy(s: dict[str, Floats]) -> Floats:
    """Share of the decisions that matter whose sign is right; an estimate of 0 counts half."""
    return _ratio(s["right"], s["matter"])


def correlation(s: dict[str, Floats]) -> Floats:
    """Pearson's, over all decisions."""
    both = s["n"] * s["xy"] - s["x"] * s["y"]
    own = (s["n"] * s["xx"] - s["x"] ** 2) * (s["n"] * s["yy"] - s["y"] ** 2)
    return _ratio(both, np.sqrt(np.maximum(own, 0.0)))


def cosine(s: dict[str, Floats]) -> Floats:
    """Of estimates and truths: the policy gradient's, had every decision a parameter of its own."""
    return _ratio(s["xy"], np.sqrt(s["xx"] * s["yy"]))


def bias(s: dict[str, Floats]) -> Floats:
    """Root mean square of c E[x] - y over decisions met in several groups, c the best scale."""
    c = _ratio(s["xy"], s["xx"])
    square = c**2 * s["mean_xx"] - 2 * c * s["mean_xy"] + s["mean_yy"]
    return np.sqrt(np.maximum(_ratio(square, s["repeated"]), 0.0))


def deviation(s: dict[str, Floats]) -> Floats:
    """Root of the mean variance between groups of c x, over the same decisions."""
    return np.abs(_ratio(s["xy"], s["xx"])) * np.sqrt(_ratio(s["var"], s["repeated"]))


FIGURES: dict[str, Callable[[dict[str, Floats]], Floats]] = {
    "sign accuracy": sign_accuracy,
    "correlation": correlation,
    "cosine": cosine,
    "bias": bias,
    "deviation": deviation,
}


def weights(tasks: int, seed: int = 0) -> Floats:
    """[1 + draws, tasks] how often each task counts: once, then as the bootstrap draws it."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=DRAWS)
    return np.concatenate([np.ones((1, tasks)), drawn.astype(np.float64)])


def figure(name: str, sums: Sequence[Sequence[float]]) -> Score:
    """A figure of one estimator.

    Args:
        name: One of `FIGURES`.
        sums: [tasks][sums] as `measure` keeps them.
    """
    return _score(_drawn(name, sums))


def difference(
    name: str, sums: Sequence[Sequence[float]], than: Sequence[Sequence[float]]
) -> Score:
    """How much larger a figure is than another's of the same tasks, paired by task."""
    return _score(_drawn(name, sums) - _drawn(name, than))


def _drawn(name: str, sums: Sequence[Sequence[float]]) -> Floats:
    table = np.asarray(sums, np.float64)
    totals = weights(len(table)) @ table
    return FIGURES[name](dict(zip(SUMS, totals.T, strict=True)))


def _score(drawn: Floats) -> Score:
    again = drawn[1:][np.isfinite(drawn[1:])]  # a draw may hold no decision that matters
    low, high = np.quantile(again, [0.025, 0.975]) if len(again) else (np.nan, np.nan)
    return Score(float(drawn[0]), float(low), float(high))
