"""Intervals: of one agent over tasks, of a method over training seeds and tasks, of differences.

A success figure carries two uncertainties: other tasks might have been drawn, and other training
seeds. An interval says which of them it is over:

- **over tasks**: one trained agent (or several seeds of sampling of one). `wilson` for success,
  `paired_difference` for two evaluations on the same tasks. It tells nothing of what training
  again would give.
- **over seeds and tasks**: a method, trained with several seeds. `over_seeds`, from outcomes
  [seeds, tasks]; from means and a number of tasks where outcomes were not kept.

The estimator of `over_seeds` is a hierarchical bootstrap (Davison and Hinkley, Bootstrap Methods
and their Application, 1997, section 3.8), in the crossed form that belongs to this design, since
all seeds play the same tasks (Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1,
2007): a draw of the mean is

    mean + s / sqrt(R) * t + (mean over tasks drawn with replacement - mean)

R is the number of seeds, s the standard deviation of the seeds' means, t a draw of Student's
distribution with R - 1 degrees of freedom; the interval is the draws' 2.5% and 97.5% quantiles.
The seeds' level is drawn from t rather than resampled, because a few values cannot be resampled
into a distribution: a percentile interval of three resampled seeds never leaves their range and so
covers 75% at best (Hesterberg, What Teachers Should Know About the Bootstrap, The American
Statistician 69, 2015, on its narrowness and the correction by t). The noise of single episodes is
in both levels, so that where seeds are alike the interval is a little too wide, never too narrow.
Of a success it holds at least Wilson's interval over tasks. With three seeds it is wide: the
quantile of t is 4.3 where that of many seeds is 2.0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

#: The two-sided 95% quantile of the normal distribution.
Z95 = 1.959963984540054
#: Draws of the tasks' level; the seeds' level is drawn this many times for each of them.
DRAWS, SEED_DRAWS = 10_000, 10

Floats = NDArray[np.float64]
Over = Literal["tasks", "seeds and tasks"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95% interval.

    Attributes:
        mean: The estimate.
        low: Lower end.
        high: Upper end.
        over: What the interval is over.
        counted: The tasks' level was drawn from counts, since outcomes of tasks were not kept.
    """

    mean: float
    low: float
    high: float
    over: Over = "tasks"
    counted: bool = False

    @property
    def ci95(self) -> tuple[float, float]:
        """Its two ends."""
        return self.low, self.high

    def to_json(self) -> dict[str, Any]:
        """The form in which results hold it."""
        ends = [round(self.low, 6), round(self.high, 6)]
        return {"mean": round(self.mean, 6), "ci95": ends, "over": self.over}


# -- over tasks ------------------------------------------------------------------------------------


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion; (0, 1) with no trials.

    Args:
        successes: How many, or a sum of means.
        trials: Out of how many.
    """
    if trials <= 0:
        return 0.0, 1.0
    p = successes / trials
    z2 = Z95 * Z95
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(
    before: Floats, after: Floats, *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of `after - before` on the same tasks, with its 95% bootstrap interval over tasks.

    Raises:
        ValueError: The two are not of the same length.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} against {len(after)} episodes: not the same tasks")
    delta = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    means = _resampled(delta, draws, np.random.default_rng(seed))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(delta.mean()), float(low), float(high)


# -- over seeds and tasks --------------------------------------------------------------------------


def over_seeds(values: Floats, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """The mean of a method's outcomes, or of its differences, over training seeds and tasks.

    Args:
        values: [seeds, tasks] outcomes, or differences between two methods, the same tasks in the
            same order in each row. One row gives an interval over tasks.
        draws: Draws of the tasks' level.
        seed: Of the draws.

    Raises:
        ValueError: There are no seeds or no tasks.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"outcomes of shape {table.shape}: give [seeds, tasks], at least one each")
    rng = np.random.default_rng(seed)
    tasks = _resampled(table.mean(axis=0), draws, rng) - table.mean()
    return _combined(table.mean(axis=1), tasks, rng, counted=False)


def success_over_seeds(values: Floats) -> Interval:
    """`over_seeds` of outcomes in [0, 1]: within [0, 1], and no narrower than Wilson's over tasks.

    Args:
        values: [seeds, tasks].
    """
    found = over_seeds(values)
    return _as_success(found, np.asarray(values).shape[1])


def difference_over_seeds(before: Floats, after: Floats) -> Interval:
    """`over_seeds` of `after - before`, paired by task and seed: within [-1, 1].

    Args:
        before: [seeds, tasks] outcomes in [0, 1].
        after: The same of another method, or at another time; the same seeds and tasks, in order.

    Raises:
        ValueError: The two are not of the same shape.
    """
    if np.shape(before) != np.shape(after):
        raise ValueError(
            f"{np.shape(before)} against {np.shape(after)} outcomes: not the same seeds and tasks"
        )
    return _within(over_seeds(np.asarray(after) - np.asarray(before)), -1.0, 1.0)


def success_from_means(means: Sequence[float], tasks: int) -> Interval:
    """A method's success where only each seed's mean is known, and the number of tasks.

    The tasks' level is drawn from a binomial distribution with as many trials as tasks, as if all
    seeds solved the same ones: wider than any agreement between seeds would make it.

    Args:
        means: One a seed.
        tasks: How many tasks every seed played; 0 where that is not known.
    """
    known = np.asarray(means, dtype=np.float64)
    rng, mean = np.random.default_rng(0), float(np.mean(known))
    drawn = rng.binomial(tasks, min(1.0, mean), size=DRAWS) / tasks if tasks else np.zeros(DRAWS)
    return _as_success(_combined(known, drawn - (mean if tasks else 0.0), rng, counted=True), tasks)


def difference_from_means(means: Sequence[float], deviations: Sequence[float]) -> Interval:
    """A paired difference where only each seed's mean is known, and how sure it is over tasks.

    The tasks' level is drawn from a normal distribution as wide as one seed's (root mean square of
    all): as if the tasks moved all seeds alike.

    Args:
        means: One a seed.
        deviations: The standard deviation of each over tasks: an interval's width / (2 * `Z95`).
    """
    rng = np.random.default_rng(0)
    spread = math.sqrt(float(np.mean(np.square(deviations))))
    drawn = rng.normal(0.0, spread, DRAWS)
    return _within(_combined(np.asarray(means, np.float64), drawn, rng, counted=True), -1.0, 1.0)


def _resampled(values: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """[draws] means of values drawn with replacement."""
    means = np.empty(draws)
    for start in range(0, draws, 500):
        stop = min(draws, start + 500)
        index = rng.integers(len(values), size=(stop - start, len(values)))
        means[start:stop] = values[index].mean(axis=1)
    return means


def _combined(means: Floats, tasks: Floats, rng: np.random.Generator, counted: bool) -> Interval:
    """The interval of seeds' means, with draws of how far the tasks may have moved them all."""
    mean = float(means.mean())
    if len(means) == 1:
        low, high = np.quantile(mean + tasks, [0.025, 0.975])
        return Interval(mean, float(low), float(high), "tasks", counted)
    scale = float(means.std(ddof=1)) / math.sqrt(len(means))
    drawn = rng.standard_t(len(means) - 1, size=(SEED_DRAWS, len(tasks)))
    # Each draw with both signs: the distribution is symmetric, and so are its draws.
    both = np.concatenate([mean + tasks + scale * drawn, mean + tasks - scale * drawn])
    low, high = np.quantile(both, [0.025, 0.975])
    return Interval(mean, float(low), float(high), "seeds and tasks", counted)


def _as_success(found: Interval, tasks: int) -> Interval:
    low, high = wilson(found.mean * tasks, tasks) if tasks else found.ci95
    if found.over == "seeds and tasks":
        low, high = min(low, found.low), max(high, found.high)
    return _within(replace(found, low=low, high=high), 0.0, 1.0)


def _within(found: Interval, least: float, most: float) -> Interval:
    return replace(found, low=max(least, found.low), high=min(most, found.high))


# -- outcomes as text ------------------------------------------------------------------------------


def pack(outcomes: Sequence[float] | Floats) -> str:
    """Outcomes of 0 and 1 as hexadecimal digits, four a digit, the first task highest.

    Raises:
        ValueError: One is neither 0 nor 1.
    """
    bits = np.asarray(outcomes)
    if not np.isin(bits, (0, 1)).all():
        raise ValueError("outcomes must be 0 or 1 to be packed")
    return np.packbits(bits.astype(bool)).tobytes().hex()


def unpack(text: str, count: int) -> Floats:
    """The `count` outcomes of a text of `pack`.

    Raises:
        ValueError: The text is no such text, or of another length.
    """
    found = np.frombuffer(bytes.fromhex(text), np.uint8)
    if len(found) != -(-count // 8):
        raise ValueError(f"outcomes of {8 * len(found)} tasks at most, not of {count}")
    bits = np.unpackbits(found)
    if bits[count:].any():
        raise ValueError(f"outcomes of more than {count} tasks")
    return bits[:count].astype(np.float64)
