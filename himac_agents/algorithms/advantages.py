"""Relative advantages: pure functions on arrays, each with its formula.

None of them needs a critic: a sample is compared with the other samples of its group. Every
function takes a flat array of returns and, where there are several groups, an array of group
numbers of the same length; a group whose returns are all equal ("dead") gets 0 throughout, never a
NaN. Returns are equal that differ by rounding only (`TOLERANCE`): added up in another order, the
same rewards give -1.5 and -1.5000000000000002.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Added to the standard deviation; the value is this project's choice.
EPSILON = 1e-6

#: Numbers that are no further apart than this, for numbers above 1 as a share of them, are equal:
#: far more than what sums of rewards err by, and far less than any reward.
TOLERANCE = 1e-9

Floats = NDArray[np.float64]


def group_relative(
    returns: ArrayLike, groups: Sequence[Hashable] | None = None, *, std: bool = True
) -> Floats:
    """A_i = (R_i - mean_g R) / (std_g R + eps), g the group of i.

    HiMAC's planner compares the blueprints z_1..z_M of one task by one execution each, and all
    tokens of z_j carry A_j; its executor compares N executions of the one blueprint z*, and all
    action tokens of one, `<sub_done>` included, carry its A_i; GRPO compares N episodes of a task.

    Args:
        returns: [n] returns.
        groups: [n] group keys; None puts all into one group.
        std: Divide by the group's (population) standard deviation; without it the form of
            Dr. GRPO remains: A_i = R_i - mean_g R.

    Returns:
        [n] advantages; 0 in groups of one and in groups of equal returns.

    Raises:
        ValueError: The lengths differ, or a return is not finite.
    """
    values = _values(returns, groups)
    advantages = np.zeros_like(values)
    for members in _members(groups, len(values)):
        own = values[members]
        # Comparing instead of testing std == 0: the mean of equal floats may be off by one ulp.
        if _alike(own):
            continue
        centred = _settled(own - own.mean(), own)
        advantages[members] = centred / (own.std() + EPSILON) if std else centred
    return advantages


def rloo(returns: ArrayLike, groups: Sequence[Hashable] | None = None) -> Floats:
    """Leave-one-out: A_i = R_i - mean of the other returns of its group.

    Raises:
        ValueError: The lengths differ, or a return is not finite.
    """
    values = _values(returns, groups)
    advantages = np.zeros_like(values)
    for members in _members(groups, len(values)):
        own = values[members]
        if not _alike(own):
            advantages[members] = _settled(own - (own.sum() - own) / (len(own) - 1), own)
    return advantages


def gigpo(
    returns: ArrayLike,
    groups: Sequence[Hashable],
    rewards: Sequence[ArrayLike],
    anchors: Sequence[Sequence[Hashable]],
    *,
    discount: float = 0.95,
    weight: float = 1.0,
    std: bool = True,
) -> list[Floats]:
    """GiGPO: an episode's advantage plus one for each step among steps from the same state.

    A_{i,t} = A^E_i + w A^S_{i,t}, where A^E is `group_relative`'s and A^S compares the discounted
    rewards to go sum_k d^k r_{i,t+k} of all steps of the group whose anchor observation is equal.

    Args:
        returns: [n] episode returns.
        groups: [n] task groups.
        rewards: For each episode its [T_i] step rewards.
        anchors: For each episode the [T_i] observations its actions answered.
        discount: d.
        weight: w.
        std: Divide by standard deviations, at both levels.

    Returns:
        For each episode an array [T_i].

    Raises:
        ValueError: Lengths differ, or a number is not finite.
    """
    episode = group_relative(returns, groups, std=std)
    if not len(rewards) == len(anchors) == len(episode):
        raise ValueError("returns, rewards and anchors must be of the same number of episodes")
    ahead: list[float] = []
    keys: list[Hashable] = []
    for i, own in enumerate(rewards):
        steps = np.asarray(own, dtype=np.float64)
        if len(steps) != len(anchors[i]):
            raise ValueError(f"episode {i}: {len(steps)} rewards, {len(anchors[i])} anchors")
        ahead += to_go(steps.tolist(), discount)
        keys.extend((groups[i], anchor) for anchor in anchors[i])
    step = group_relative(ahead, keys, std=std)
    parts = parted(step, [len(seen) for seen in anchors])
    return [whole + weight * part for whole, part in zip(episode, parts, strict=True)]


def parted(numbers: Floats, sizes: Sequence[int]) -> list[Floats]:
    """Numbers that lie one after the other as one array for each size; no sizes, no arrays.

    Raises:
        ValueError: There are more or fewer numbers than the sizes say.
    """
    if len(numbers) != sum(sizes):
        raise ValueError(f"{len(numbers)} numbers for parts of {sum(sizes)}")
    # The last part is what lies behind the sizes.
    return np.split(numbers, np.cumsum(sizes, dtype=np.int64))[:-1]


def to_go(rewards: Sequence[float], discount: float, end: float = 0.0) -> list[float]:
    """[T] sum_k d^k r_{t+k} + d^{T-t} end: what was still paid at each step of one episode."""
    found: list[float] = []
    for reward in reversed(rewards):
        end = reward + discount * end
        found.append(end)
    return found[::-1]


def option_value(achieved: bool | None, steps: int, *, step_cost: float = 0.02) -> float | None:
    """What one execution of a sub-goal was worth: achieved * max(0, 1 - cost * steps).

    A failure is worth 0 however long it took. If it cost its steps too, ending a sub-goal early and
    falsely would look better than trying, and executors learn that quickly.

    Returns:
        The value, or None where the environment does not understand the sub-goal.
    """
    if achieved is None:
        return None
    return max(0.0, 1.0 - step_cost * steps) if achieved else 0.0


def option_level(
    values: ArrayLike,
    groups: Sequence[Hashable],
    comparable: Sequence[bool] | None = None,
    *,
    std: bool = True,
) -> Floats:
    """This project's own: executions of the same sub-goal of the same blueprint compared.

    A_o = (V_o - mean_g V) / (std_g V + eps), g = (task, place in the blueprint, sub-goal), V from
    `option_value`. The advantages of each group sum to 0. Credit stays inside the sub-goal: a good
    search is not punished for a later mistake.

    Args:
        values: [n] values of executed options.
        groups: [n] their groups.
        comparable: [n] whether the option began where the blueprint meant it to begin, that is
            with every sub-goal before it achieved. Others get 0 and do not enter the mean: what
            could no longer succeed says nothing about how it was played.
        std: See `group_relative`.
    """
    worth = np.asarray(values, dtype=np.float64)
    chosen = np.ones(len(worth), dtype=bool) if comparable is None else np.asarray(comparable)
    advantages = np.zeros_like(worth)
    index = np.flatnonzero(chosen)
    advantages[index] = group_relative(worth[index], [groups[int(i)] for i in index], std=std)
    return advantages


def dead_groups(returns: ArrayLike, groups: Sequence[Hashable] | None = None) -> float:
    """The share of groups whose returns are all equal: they move nothing."""
    values = np.asarray(returns, dtype=np.float64)
    found = _members(groups, len(values))
    if not found:
        return 0.0
    return float(np.mean([_alike(values[m]) for m in found]))


def best(returns: ArrayLike) -> int:
    """The place of the highest return; of equal ones the first."""
    values = np.asarray(returns, dtype=np.float64)
    top = values.max()
    return int(np.flatnonzero(values >= top - _rounding(values))[0])


def _rounding(values: Floats) -> float:
    """How far apart equal numbers among these may be."""
    return TOLERANCE * max(1.0, float(np.abs(values).max()))


def _alike(values: Floats) -> bool:
    """Whether numbers are equal but for rounding."""
    return bool(np.ptp(values) <= _rounding(values))


def _settled(advantages: Floats, returns: Floats) -> Floats:
    """Advantages that are nothing but rounding set to 0: they would pass for evidence."""
    return np.where(np.abs(advantages) <= _rounding(returns), 0.0, advantages)


def _values(returns: ArrayLike, groups: Sequence[Hashable] | None) -> Floats:
    """Returns as numbers, if they are what a group can be compared by."""
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"returns must be one-dimensional, not of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("returns must be finite")
    if groups is not None and len(groups) != len(values):
        raise ValueError(f"{len(values)} returns but {len(groups)} groups")
    return values


def _members(groups: Sequence[Hashable] | None, count: int) -> list[NDArray[np.int64]]:
    if groups is None:
        return [np.arange(count)] if count else []
    index: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        index.setdefault(group, []).append(i)
    return [np.asarray(members) for members in index.values()]
