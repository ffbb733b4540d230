"""Intervals: what they cover, against simulated studies and published values."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from himac_agents.evaluation.intervals import (
    Z95,
    difference_from_means,
    difference_over_seeds,
    over_seeds,
    pack,
    paired_difference,
    success_from_means,
    success_over_seeds,
    unpack,
    wilson,
)

PHI = NormalDist().cdf


def test_wilson_against_published_values() -> None:
    # Newcombe (1998), table I, method 3: 81/263 gives 0.2553 to 0.3662; 0/20 gives 0 to 0.1611.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(20, 20)[1] == pytest.approx(1.0)
    assert wilson(0, 0) == (0.0, 1.0)


def test_paired_difference_sees_through_shared_difficulty() -> None:
    rng = np.random.default_rng(0)
    before = (rng.random(400) < 0.5).astype(float)
    after = before.copy()
    after[np.flatnonzero(before == 0)[:40]] = 1.0
    mean, low, high = paired_difference(before, after)
    assert mean == pytest.approx(0.1) and 0.06 < low < 0.1 < high < 0.14
    assert paired_difference(before, after) == (mean, low, high), "the same draws every time"
    assert paired_difference(before, before) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="not the same tasks"):
        paired_difference(before, after[:-1])


class Study:
    """A study whose truth is known: seeds of a method that differ, on tasks that differ.

    An episode succeeds where `level + seed + task + noise > 0`, all of them normal.
    """

    def __init__(self, seeds: int, tasks: int, of_seeds: float, of_tasks: float = 0.8) -> None:
        self.shape, self.of_seeds, self.of_tasks = (seeds, tasks), of_seeds, of_tasks

    def truth(self, level: float) -> float:
        """Success over all seeds and tasks."""
        return PHI(level / math.sqrt(1 + self.of_seeds**2 + self.of_tasks**2))

    def play(
        self, rng: np.random.Generator, level: float, tasks: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """[seeds, tasks] outcomes."""
        seeds = self.of_seeds * rng.normal(size=(self.shape[0], 1))
        lean = level + seeds + self.of_tasks * tasks
        return (lean + rng.normal(size=self.shape) > 0).astype(float)


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_over_seeds_and_tasks_cover_what_they_say(seeds: int) -> None:
    rng, study, times = np.random.default_rng(seeds), Study(seeds, 300, 0.35), 300
    truth, other = study.truth(-0.2), study.truth(0.3)
    hits = dict.fromkeys(("outcomes", "means", "wilson", "differences", "one seed"), 0)
    for _ in range(times):
        tasks = rng.normal(size=(1, 300))
        table, rival = study.play(rng, -0.2, tasks), study.play(rng, 0.3, tasks)
        mean, delta = float(table.mean()), rival - table
        _, *alone = paired_difference(table[0], rival[0], draws=1_000)
        for name, (low, high), true in (
            ("outcomes", over_seeds(table, draws=1_000).ci95, truth),
            ("means", success_from_means(table.mean(axis=1).tolist(), 300).ci95, truth),
            ("wilson", wilson(mean * 300, 300), truth),
            ("differences", over_seeds(delta, draws=1_000).ci95, other - truth),
            ("one seed", (alone[0], alone[1]), other - truth),
        ):
            hits[name] += low <= true <= high
    covered = {name: count / times for name, count in hits.items()}
    print(f"{seeds} seeds:", covered)
    assert 0.92 <= covered["outcomes"] <= 0.99 and 0.92 <= covered["differences"] <= 0.99
    assert covered["means"] >= 0.93, "without outcomes: wider, never narrower"
    # Over tasks alone: what it says of a method is wrong every third or fourth time.
    assert covered["wilson"] < 0.8 and covered["one seed"] < 0.7


def test_few_seeds_are_not_resampled_into_certainty() -> None:
    # The seeds of one recorded run of the study, 500 tasks each.
    found = success_from_means([0.378, 0.58, 0.526], 500)
    assert found.mean == pytest.approx(0.494667, abs=1e-6) and found.over == "seeds and tasks"
    # By hand: 4.30 times .1048 / sqrt(3), and the tasks' share.
    assert found.low == pytest.approx(0.23, abs=0.02) and found.high == pytest.approx(
        0.76, abs=0.02
    )
    assert success_from_means([0.378, 0.58, 0.526], 500) == found, "the same draws every time"
    more = success_from_means([0.378, 0.58, 0.526] * 4, 500)
    assert 0.4 < more.low < more.high < 0.6
    difference = difference_from_means([0.076, 0.204, 0.188], [0.03, 0.03, 0.03])
    assert difference.mean == pytest.approx(0.156) and difference.low < 0 < difference.high
    assert difference.counted and difference.over == "seeds and tasks"


def test_one_seed_tells_of_tasks_only() -> None:
    rng = np.random.default_rng(1)
    table = (rng.random((1, 200)) < 0.3).astype(float)
    alone = success_over_seeds(table)
    assert alone.over == "tasks" and alone.ci95 == wilson(table.sum(), 200)
    before = (rng.random(200) < 0.5).astype(float)
    found = over_seeds(table - before)
    assert (found.mean, *found.ci95) == pytest.approx(paired_difference(before, table[0]))
    assert success_from_means([0.25], 100).ci95 == wilson(25, 100)
    assert success_from_means([0.25], 100).over == "tasks"


def test_intervals_at_the_ends() -> None:
    none = success_over_seeds(np.zeros((3, 50)))
    assert none.mean == 0 and none.ci95 == wilson(0, 50), "nothing solved is no proof of never"
    every = success_from_means([1.0, 1.0, 1.0], 50)
    assert every.ci95 == wilson(50, 50)
    wide = success_from_means([0.0, 0.02, 0.5], 50)
    assert wide.low == 0.0 and wide.high <= 1.0
    unknown = success_from_means([0.4, 0.5], 0)
    assert unknown.low < 0.4 < 0.5 < unknown.high
    far = difference_from_means([1.0, -0.2, 0.0], [0.1] * 3)
    assert -1.0 == far.low < far.high == 1.0, "no difference of shares is beyond them"
    table = np.array([[0.0, 1.0], [1.0, 1.0]])
    assert difference_over_seeds(table, table).ci95 == (0.0, 0.0)
    with pytest.raises(ValueError, match="not the same seeds and tasks"):
        difference_over_seeds(table, table[:1])
    for shape in ((0, 5), (3, 0), (4,)):
        with pytest.raises(ValueError, match="at least one each"):
            over_seeds(np.zeros(shape))


def test_deviations_of_a_recorded_interval() -> None:
    # An interval over tasks comes back as what it was made of, where it is all there is.
    found = difference_from_means([0.2], [0.05])
    assert found.over == "tasks"
    assert found.ci95 == pytest.approx((0.2 - Z95 * 0.05, 0.2 + Z95 * 0.05), abs=5e-3)


@pytest.mark.parametrize("count", [1, 7, 8, 140, 500])
def test_outcomes_survive_the_way_to_text_and_back(count: int) -> None:
    outcomes = (np.random.default_rng(count).random(count) < 0.4).astype(int).tolist()
    text = pack(outcomes)
    assert len(text) <= count // 4 + 2 and unpack(text, count).tolist() == outcomes
    with pytest.raises(ValueError, match="outcomes of"):
        unpack(text, count + 8)
    with pytest.raises(ValueError, match="0 or 1"):
        pack([0.5])
