"""HiPER (arXiv 2602.16165): temporal differences on two levels, with critics.

With g the discount, l the trace's decay, and V what the critics say:

    low    d_t = r_t + g V_{t+1} - V_t        A_t = d_t + g l A_{t+1}       inside a sub-goal
    high   d_k = sum_i g^i r_i + g^{n_k} V(s_{k+1}) - V(s_k)
           A_k = d_k + g^{n_k} l A_{k+1}

The last step of a sub-goal is bootstrapped by the value of the state in which the next one begins
(0 behind the end); n_k counts the decisions of sub-goal k. Each level is whitened by itself.

What is made of it here: V inside sub-goals and where the second and later ones begin is the
executor's critic's, which reads the state and the sub-goal; V(s_0) is the planner's critic's, which
reads the task before the blueprint is written. The paper's high level is asked at each boundary;
here a blueprint is written at once, so that A_k goes to its k-th line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from himac_agents.algorithms.advantages import EPSILON, Floats
from himac_agents.algorithms.batching import places_of, segments_of
from himac_agents.algorithms.credit import Credit, blueprint_returns, give_lines
from himac_agents.config import TrainConfig
from himac_agents.rollouts.types import Episode, Segment


def low_level(
    rewards: Sequence[float], values: Sequence[float], after: float, discount: float, decay: float
) -> Floats:
    """[T] advantages of the decisions inside one sub-goal.

    Args:
        rewards: [T] what each was paid.
        values: [T] of the states in which they were made.
        after: The value of the state in which the next sub-goal begins; 0 behind the end.
        discount: g.
        decay: l.
    """
    found, ahead, following = np.zeros(len(rewards)), 0.0, after
    for t in range(len(rewards) - 1, -1, -1):
        delta = rewards[t] + discount * following - values[t]
        found[t] = ahead = delta + discount * decay * ahead
        following = values[t]
    return found


def high_level(
    paid: Sequence[float], lengths: Sequence[int], values: Sequence[float], discount: float,
    decay: float,
) -> Floats:  # fmt: skip
    """[K] advantages of sub-goals.

    Args:
        paid: [K] sum_i g^i r_i of each.
        lengths: [K] decisions in each.
        values: [K] of the states in which they begin.
        discount: g.
        decay: l.
    """
    found, ahead, following = np.zeros(len(paid)), 0.0, 0.0
    for k in range(len(paid) - 1, -1, -1):
        reach = discount ** lengths[k]
        found[k] = ahead = paid[k] + reach * following - values[k] + reach * decay * ahead
        following = values[k]
    return found


def whitened(parts: Sequence[Floats]) -> list[Floats]:
    """(A - mean A) / (std A + eps), mean and deviation over all parts."""
    whole = np.concatenate([np.zeros(0), *parts])
    if not len(whole):
        return list(parts)
    return [(part - whole.mean()) / (whole.std() + EPSILON) for part in parts]


def executor_credit(config: TrainConfig, episodes: Sequence[Episode]) -> Credit:
    """The low level: each decision's whitened advantage, and what the critic is to learn.

    Raises:
        ValueError: A turn has no value: see `CoEvolution.critics`.
    """
    segments: list[Segment] = []
    found: list[Floats] = []
    for episode in (e for e in episodes if e.error is None):
        own = segments_of([episode], "executor")
        begins = [*(_value(segment) for segment in own), 0.0]
        for segment, after in zip(own, begins[1:], strict=True):
            rewards = [turn.reward for turn in segment.turns]
            values = [_said(turn.value) for turn in segment.turns]
            found.append(low_level(rewards, values, after, config.gae_discount, config.gae_lambda))
            segments.append(segment)
            for turn, advantage, value in zip(segment.turns, found[-1], values, strict=True):
                turn.target = float(advantage) + value
    credit = Credit(metrics={"values": _mean_value(segments)})
    for segment, part in zip(segments, whitened(found), strict=True):
        credit.give(segment, list(part))
    return credit


def planner_credit(
    config: TrainConfig, plans: Sequence[Episode], runs: Sequence[Episode]
) -> tuple[Credit, list[float]]:
    """The high level: each line of a blueprint carries its sub-goal's whitened advantage.

    A blueprint that could not be parsed, or not be read line by line, carries that of its first
    sub-goal on all tokens, less the format penalty. Lines that were not reached get 0. Sub-goals of
    further blueprints (`replans`) are ahead of the last line, as the lines ahead are of any other.

    Raises:
        ValueError: A turn has no value.
    """
    returns = blueprint_returns(config, plans, runs)
    found: list[Floats] = []
    lines_of: list[tuple[Episode, Segment, list[int]]] = []
    for plan, run in zip(plans, runs, strict=True):
        if plan.error or run.error:
            continue
        acted = list(zip(places_of(run), segments_of([run], "executor"), strict=True))
        for number, segment in enumerate(segments_of([plan], "planner")):
            own = [each for place, each in acted if place.blueprint >= number]
            lines = [place.line for place, _ in acted if place.blueprint == number]
            values = [_value(segment), *(_value(each) for each in own[1:])]
            paid = [
                float(sum(config.gae_discount**i * t.reward for i, t in enumerate(each.turns)))
                for each in own
            ]
            lengths = [len(each.turns) for each in own]
            worth = high_level(paid, lengths, values[: len(own)], config.gae_discount,
                               config.gae_lambda)  # fmt: skip
            segment.turns[0].target = values[0] + (float(worth[0]) if len(worth) else 0.0)
            found.append(worth[: len(lines)])
            lines_of.append((plan, segment, lines))
    credit = Credit(metrics={"values": _mean_value(segments_of(plans, "planner"))})
    for (plan, segment, lines), part in zip(lines_of, whitened(found), strict=True):
        worths: dict[int, float] = {}
        for line, value in zip(lines, part, strict=True):
            # Behind the last sub-goal the episode may go on under its number.
            worths.setdefault(line, float(value))
        penalty = 0.0 if plan.blueprint_valid else config.format_penalty
        give_lines(credit, plan, segment, worths, (float(part[0]) if len(part) else 0.0) - penalty)
    return credit, returns


def critic(policy: Any) -> Any:
    """Makes the critic; nothing here loads torch before."""
    from himac_agents.algorithms.critic import ValueHead

    return ValueHead(policy)


def _value(segment: Segment) -> float:
    return _said(segment.turns[0].value)


def _said(value: float | None) -> float:
    if value is None:
        raise ValueError(
            "a turn has no value: this credit needs critics, and an iteration that uses them "
            "(CoEvolution(..., critics=True))"
        )
    return value


def _mean_value(segments: Sequence[Segment]) -> float:
    said = [turn.value for segment in segments for turn in segment.turns if turn.value is not None]
    return float(np.mean(said)) if said else 0.0
