"""Advantages against numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from himac_agents.algorithms import advantages


def test_group_relative_by_hand() -> None:
    # Group a: returns 1, 0, 0, 1: mean 1/2, population deviation 1/2. Group b: 3, 1: mean 2, dev 1.
    found = advantages.group_relative([1, 3, 0, 0, 1, 1], ["a", "b", "a", "a", "a", "b"])
    half = 0.5 / (0.5 + 1e-6)
    one = 1 / (1 + 1e-6)
    assert found.tolist() == pytest.approx([half, one, -half, -half, half, -one], abs=1e-12)


def test_without_std_only_the_mean_is_taken_off() -> None:
    assert advantages.group_relative([2, 4, 6], std=False).tolist() == [-2, 0, 2]


def test_equal_returns_and_single_samples_give_zero_never_nan() -> None:
    third = 1 / 3
    found = advantages.group_relative([third] * 7 + [5.0], ["a"] * 7 + ["alone"])
    assert found.tolist() == [0.0] * 8
    assert advantages.group_relative([]).tolist() == []


def test_every_group_sums_to_zero() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(5, size=60).tolist()
    found = advantages.option_level(rng.random(60), groups)
    for group in set(groups):
        assert math.isclose(
            sum(a for a, g in zip(found, groups, strict=True) if g == group), 0, abs_tol=1e-9
        )


def test_rloo_by_hand() -> None:
    # 3 against the mean of 1 and 2, 1 against that of 3 and 2, 2 against that of 3 and 1.
    assert advantages.rloo([3, 1, 2]).tolist() == pytest.approx([1.5, -1.5, 0.0])


def test_gigpo_adds_a_step_advantage_where_states_repeat() -> None:
    # Two episodes of one task. Both answer state "s" at their first step; the rest is unique.
    found = advantages.gigpo(
        [1, 0], [0, 0], [[0, 1], [0, 0]], [["s", "x"], ["s", "y"]], discount=0.5, std=False
    )
    # Rewards to go at "s": 0 + 0.5 * 1 and 0: their mean 0.25.
    assert found[0].tolist() == pytest.approx([0.5 + 0.25, 0.5])
    assert found[1].tolist() == pytest.approx([-0.5 - 0.25, -0.5])


def test_gigpo_equals_grpo_when_no_state_repeats() -> None:
    returns, groups = [1, 0, 1, 1], [0, 0, 1, 1]
    anchors = [["a", "b"], ["c"], ["d", "e"], ["f"]]
    found = advantages.gigpo(returns, groups, [[0, 1], [0], [0, 1], [1]], anchors)
    expected = advantages.group_relative(returns, groups)
    for own, one in zip(found, expected, strict=True):
        assert own.tolist() == pytest.approx([one] * len(own))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans())
def test_gigpo_equals_grpo_whenever_no_state_repeats(data: st.DataObject, std: bool) -> None:
    """Any returns, groups, lengths, rewards, discount, weight: only repeats make a difference."""
    count = data.draw(st.integers(1, 8))
    finite = st.floats(-10, 10, allow_nan=False)
    returns = data.draw(st.lists(finite, min_size=count, max_size=count))
    groups = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    lengths = data.draw(st.lists(st.integers(0, 6), min_size=count, max_size=count))
    rewards = [data.draw(st.lists(finite, min_size=n, max_size=n)) for n in lengths]
    # The same words in different tasks are different states: anchors are compared in their group.
    anchors = [[(groups[:i].count(groups[i]), t) for t in range(n)] for i, n in enumerate(lengths)]
    found = advantages.gigpo(
        returns, groups, rewards, anchors, discount=data.draw(st.floats(0, 1)),
        weight=data.draw(st.floats(0, 3)), std=std,
    )  # fmt: skip
    expected = advantages.group_relative(returns, groups, std=std)
    for own, one, n in zip(found, expected, lengths, strict=True):
        assert own.tolist() == [one] * n
    one = next((i for i, n in enumerate(lengths) if n), None)
    if one is not None and max(rewards[one]) - min(rewards[one]) > 1e-6:
        # The other way round: an episode that revisits a state is told apart step by step (by
        # more than rounding, which may swallow a smaller difference).
        anchors[one] = ["here"] * lengths[one]
        again = advantages.gigpo(returns, groups, rewards, anchors, discount=0.0, std=std)
        assert len(set(again[one].tolist())) > 1


def test_gigpo_with_deviations_by_hand() -> None:
    # Returns 1 and 0: mean 1/2, deviation 1/2. At "s" the rewards to go are 0.95 * 1 and 0: mean
    # 0.475, deviation 0.475. The step's advantage counts half.
    found = advantages.gigpo([1, 0], [0, 0], [[0, 1], [0, 0]], [["s", "x"], ["s", "y"]], weight=0.5)
    one, step = 0.5 / (0.5 + 1e-6), 0.475 / (0.475 + 1e-6)
    assert found[0].tolist() == pytest.approx([one + 0.5 * step, one], abs=1e-12)
    assert found[1].tolist() == pytest.approx([-one - 0.5 * step, -one], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans())
def test_option_level_sums_to_zero_in_each_group(data: st.DataObject, std: bool) -> None:
    count = data.draw(st.integers(1, 20))
    values = data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
    groups = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    began = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    found = advantages.option_level(values, groups, began, std=std)
    assert not found[~np.asarray(began)].any()
    for group in set(groups):
        assert abs(found[np.asarray(groups) == group].sum()) < 1e-6


def test_option_values() -> None:
    assert advantages.option_value(True, 5) == pytest.approx(0.9)
    assert advantages.option_value(True, 500) == 0.0
    # A quick failure is worth no more than a slow one.
    assert advantages.option_value(False, 0) == advantages.option_value(False, 40) == 0.0
    assert advantages.option_value(None, 3) is None


def test_option_level_leaves_out_what_could_not_succeed() -> None:
    found = advantages.option_level([1, 0, 0], ["g"] * 3, [True, True, False], std=False)
    assert found.tolist() == [0.5, -0.5, 0.0]


def test_dead_groups() -> None:
    assert advantages.dead_groups([1, 1, 0, 1], ["a", "a", "b", "b"]) == 0.5
    assert advantages.dead_groups([]) == 0.0


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="finite"):
        advantages.group_relative([1.0, math.nan])
    with pytest.raises(ValueError, match="2 returns but 1 groups"):
        advantages.group_relative([1, 2], ["a"])


ROUNDED = [-1.5, -1.5000000000000002, -1.5, -1.4999999999999998]


def test_returns_that_differ_by_rounding_are_equal() -> None:
    """In every estimator, and where dead groups are counted: the same rewards, added up twice."""
    assert len(set(ROUNDED)) == 3
    groups = [0] * 4
    assert sum([0.1] * 3) != 0.3 and advantages.group_relative([sum([0.1] * 3), 0.3]).any() == 0
    for std in (True, False):
        assert not advantages.group_relative(ROUNDED, groups, std=std).any()
        assert not advantages.option_level(ROUNDED, groups, std=std).any()
        steps = advantages.gigpo(ROUNDED, groups, [[r] for r in ROUNDED], ["x"] * 4, std=std)
        assert not np.concatenate(steps).any()
    assert not advantages.rloo(ROUNDED, groups).any()
    assert advantages.dead_groups(ROUNDED, groups) == 1.0
    assert advantages.dead_groups([*ROUNDED, 1.0, 0.0], [*groups, 1, 1]) == 0.5
    large = [1e6 * r for r in ROUNDED]
    assert not advantages.rloo(large).any() and advantages.dead_groups(large) == 1.0


def test_small_differences_that_are_real_stay() -> None:
    assert advantages.group_relative([0.0, 1e-6]).tolist() == pytest.approx([-1 / 3, 1 / 3])
    assert advantages.rloo([0.0, 1e-6]).tolist() == pytest.approx([-1e-6, 1e-6])
    assert advantages.dead_groups([0.0, 1e-6]) == 0.0


def test_an_advantage_that_is_nothing_but_rounding_is_none() -> None:
    """The middle one of 0.1, 0.2, 0.3 is at the mean: it is no evidence."""
    values = [0.1, 0.2, 0.3]
    assert np.asarray(values)[1] - np.mean(values) != 0
    for found in (advantages.group_relative(values), advantages.rloo(values)):
        assert found[1] == 0.0 and found[0] < 0 < found[2]


def test_of_equal_returns_the_first_is_the_best() -> None:
    assert advantages.best(ROUNDED) == 0 and advantages.best([0.0, 2.0, 2.0]) == 1
