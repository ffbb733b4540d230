"""HiPER's two levels in numbers worked by hand, and as credit of episodes."""

from __future__ import annotations

import numpy as np
import pytest
from fruit_runs import CONFIG

from himac_agents.algorithms import hiper
from himac_agents.algorithms.credit import Credit
from himac_agents.algorithms.methods import METHODS, resolve
from himac_agents.rollouts.types import Episode, EpisodeRequest, Segment, Turn

HALVES = resolve(CONFIG.replace(method="hiper", gae_discount=0.5, gae_lambda=0.5))


def test_the_low_level_by_hand() -> None:
    # d_1 = 1 - .6 = .4; d_0 = .5 (.6) - .5 = -.2; A_0 = -.2 + .25 (.4).
    assert hiper.low_level([0, 1], [0.5, 0.6], 0.0, 0.5, 0.5) == pytest.approx([-0.1, 0.4])
    # The next sub-goal begins at .8: d_1 = 1 + .4 - .6.
    assert hiper.low_level([0, 1], [0.5, 0.6], 0.8, 0.5, 0.5) == pytest.approx([0.0, 0.8])
    # With l = 1 and no value it is the return to go, with l = 0 one step.
    assert hiper.low_level([1, 0, 2], [0, 0, 0], 4.0, 0.5, 1.0) == pytest.approx([2.0, 2.0, 4.0])
    assert hiper.low_level([1, 0], [3, 2], 4.0, 0.5, 0.0) == pytest.approx([-1.0, 0.0])


def test_the_high_level_by_hand() -> None:
    # A_1 = 1 - .5; A_0 = .5^2 (.5) - .4 + .5^2 (.5) (.5): the first sub-goal took two decisions.
    found = hiper.high_level([0, 1], [2, 1], [0.4, 0.5], 0.5, 0.5)
    assert found == pytest.approx([0.125 - 0.4 + 0.0625, 0.5])
    assert hiper.high_level([], [], [], 0.5, 0.5).tolist() == []


def _turn(role: str, value: float | None, reward: float = 0.0, ids: int = 1) -> Turn:
    turn = Turn(role, 1, tuple(range(5, 5 + ids)), (-0.5,) * ids, "", "go", reward)  # type: ignore[arg-type]
    turn.value = value
    return turn


def _run(options: list[list[tuple[float, float]]], group: int = 0) -> Episode:
    """An execution from (value, reward) pairs by sub-goal."""
    episode = Episode(EpisodeRequest("t", group))
    for index, steps in enumerate(options):
        segment = Segment("executor", group, f"g{index}", index, [1, 2, 3])
        segment.turns = [_turn("executor", value, reward) for value, reward in steps]
        episode.segments.append(segment)
    episode.reward = sum(reward for steps in options for _, reward in steps)
    return episode


def _given(credit: Credit) -> list[float]:
    return [turn.advantage or 0.0 for segment in credit.segments for turn in segment.turns]


def test_commands_are_judged_inside_their_sub_goal() -> None:
    run, broken = _run([[(0.5, 0.0), (0.6, 1.0)], [(0.8, 0.5)]]), _run([[(0.0, 9.0)]])
    broken.error = "broke"
    credit = hiper.executor_credit(HALVES, [run, broken])
    raw = np.asarray([0.0, 0.8, 0.5 - 0.8])
    assert _given(credit) == pytest.approx((raw - raw.mean()) / raw.std(), abs=1e-5)
    targets = [turn.target for segment in credit.segments for turn in segment.turns]
    assert targets == pytest.approx([0.5, 1.4, 0.5])  # A + V, as it was before it was whitened
    run.segments[0].turns[0].value = None
    with pytest.raises(ValueError, match="needs critics"):
        hiper.executor_credit(HALVES, [run])


def _plan(value: float, lines: tuple[int, ...], valid: bool = True) -> Episode:
    plan = Episode(EpisodeRequest("t"), blueprint_valid=valid)
    turn = _turn("planner", value, ids=max(1, len(lines)))
    turn.lines = lines
    plan.segments = [Segment("planner", 0, token_ids=[0] * 9, turns=[turn])]
    return plan


def test_each_line_is_judged_by_what_its_sub_goal_came_to() -> None:
    # The planner's own .4 stands at the beginning, the executor's .5 at the second sub-goal.
    runs = [_run([[(0.9, 0.0), (0.9, 0.0)], [(0.5, 1.0)]]), _run([[(0.9, 0.0)]])]
    plans = [_plan(0.4, (0, 0, 1, -1)), _plan(0.4, (), valid=False)]
    credit, returns = hiper.planner_credit(HALVES, plans, runs)
    assert returns == [1.0, -HALVES.format_penalty]
    raw = np.asarray([-0.2125, 0.5, -0.4])
    white = (raw - raw.mean()) / raw.std()
    first, second = (segment.turns[0] for segment in credit.segments)
    assert first.token_advantages == pytest.approx([white[0], white[0], white[1], 0.0], abs=1e-5)
    assert first.advantage == pytest.approx(white[0], abs=1e-5)
    assert second.token_advantages == ()
    assert second.advantage == pytest.approx(white[2] - HALVES.format_penalty, abs=1e-5)
    assert [first.target, second.target] == pytest.approx([0.4 - 0.2125, 0.0])
    runs[0].error = "broke"
    credit, returns = hiper.planner_credit(HALVES, plans, runs)
    assert len(credit.segments) == 1 and len(returns) == 2
    assert METHODS["hiper"].critic is hiper.critic
