"""Credit at its edges: nothing to learn from, and blueprints that are written again on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fruit_runs import CONFIG
from toy import FruitEnv

from himac_agents.agents.agent import Executor, HiMACAgent, Planner
from himac_agents.agents.expert import Expert
from himac_agents.algorithms import hiper, stepwise
from himac_agents.algorithms.advantages import parted
from himac_agents.algorithms.batching import places_of
from himac_agents.algorithms.credit import Credit, flat_credit
from himac_agents.algorithms.flat import Flat
from himac_agents.algorithms.himac import CoEvolution, Joint
from himac_agents.algorithms.iteration import Setting
from himac_agents.algorithms.methods import METHODS, check, resolve
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Completion, Prompt, Sampling
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest, Segment, Turn
from himac_envs.blueprint import Blueprint
from himac_envs.hierarchy import HierarchicalEnv

GRAPH = resolve(CONFIG.replace(method="himac-graph", graph_weight=1.0))


def _turn(role: Any, state: str, action: str, lines: tuple[int, ...] = ()) -> Turn:
    turn = Turn(role, 1, tuple(range(5, 5 + max(1, len(lines)))), (), "", action, lines=lines)
    turn.state = turn.anchor = state
    turn.value = 0.5
    return turn


def _written(lines: tuple[int, ...] = (0, 1)) -> Segment:
    turn = _turn("planner", "", "", lines)
    return Segment("planner", 0, token_ids=[0] * 9, turns=[turn])


def _acted(index: int, subgoal: str, state: str, action: str, achieved: bool = False) -> Segment:
    segment = Segment("executor", 0, subgoal, index, [1, 2, 3])
    segment.turns = [_turn("executor", state, action)]
    segment.option = {"achieved": achieved, "steps": 1, "reason": "done"}
    return segment


def _episode(segments: list[Segment], success: bool = False, error: str | None = None) -> Episode:
    return Episode(EpisodeRequest("t"), segments, success=success, reward=float(success),
                   error=error)  # fmt: skip


def _tokens(credit: Credit) -> list[tuple[float, ...]]:
    return [turn.token_advantages for segment in credit.segments for turn in segment.turns]


# -- nothing ---------------------------------------------------------------------------------------


def _named(method: str) -> TrainConfig:
    return check(CONFIG.replace(method=method, subgoal_budget=3, tasks=1, resample_dead=1))


def _credits(config: TrainConfig, runs: list[Episode], plans: list[Episode]) -> list[Credit]:
    iterate = METHODS[config.method].iterate
    if isinstance(iterate, Flat):
        return [flat_credit(config, runs, iterate.advantage)]
    assert isinstance(iterate, CoEvolution | Joint)
    planner, returns = iterate.planner_credit(config, plans, runs)
    assert len(returns) == len(runs)
    return [planner, iterate.executor_credit(config, runs)]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_gives_nothing_where_there_is_nothing(method: str) -> None:
    config = _named(method)
    assert not any(credit.segments for credit in _credits(config, [], []))
    crashed = [_episode([_acted(0, "g", "s", "a")], error="broke") for _ in range(3)]
    for credit in _credits(config, crashed, [_episode([_written()]) for _ in crashed]):
        assert credit.segments == [] and credit.dead() == set()
        assert all(np.isfinite(list(credit.summary().values())))
    idle = [_episode([]), _episode([])]
    credits = _credits(config, idle, [_episode([_written()]) for _ in idle])
    assert [len(c.segments) for c in credits] in ([0], [2, 0])
    assert not any(turn.teaches for c in credits for s in c.segments for turn in s.turns)


class _Broken(FruitEnv):
    def _act(self, command: str) -> Any:
        raise RuntimeError("the environment broke")


class _Lost:
    """Plans something that is nowhere, again and again."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        return [Completion("- get the moon\n- get the sun")] * len(prompts)


class _Learner:
    def reinforce(self, segments: Sequence[Segment], rng: Any, phase: str) -> dict[str, float]:
        assert not any(turn.teaches for segment in segments for turn in segment.turns)
        return {}

    def values(self, segments: Sequence[Segment]) -> list[list[float]]:
        return [[0.0] * len(segment.turns) for segment in segments]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_goes_on_where_all_episodes_crashed(method: str) -> None:
    config = _named(method)
    flat = not METHODS[method].hierarchical
    agent = HiMACAgent(None if flat else Planner(_Lost()), Executor(Expert("explorer")))
    pool = EnvPool(_Broken if flat else lambda: HierarchicalEnv(_Broken()), 2)
    ids = pool.task_ids("train")
    rng, learner = np.random.default_rng(0), _Learner()
    setting = Setting(config, agent, pool, learner, learner, lambda rng: ids[0], 0, 0, rng)
    done = METHODS[method].iterate(setting, ids[:1], 0)
    assert done.episodes and all(episode.error for episode in done.episodes)


def test_parts_are_as_many_as_sizes() -> None:
    numbers = np.arange(3.0)
    assert [part.tolist() for part in parted(numbers, [0, 2, 0, 1, 0])] == [[], [0, 1], [], [2], []]
    assert parted(np.zeros(0), []) == [] and len(parted(np.zeros(0), [0])) == 1
    with pytest.raises(ValueError, match="3 numbers for parts of 2"):
        parted(numbers, [2])


@pytest.mark.parametrize("method", ["crbc", "himac-graph", "graph-beside-options"])
def test_distances_and_rewards_do_not_go_together(method: str) -> None:
    """But where each sub-goal is a graph of its own, whose ends are achieved or not."""
    both = {"graph_credit": "distance", "graph_pays": "reward"}
    for ends in ("episode", "subgoal"):
        config = CONFIG.replace(method=method, graph_ends=ends, **both)
        if method != "crbc" and ends == "subgoal":
            check(config)
            continue
        with pytest.raises(ValueError, match="'system', 'visits' or 'hindsight'"):
            check(config)
    check(CONFIG.replace(method=method, graph_credit="hindsight", graph_pays="reward"))


# -- further blueprints ----------------------------------------------------------------------------


def _again(success: bool, second: str = "h") -> Episode:
    """A blueprint g, h that fails, and a further one x, y that decides; then it waits in y."""
    return _episode([
        _acted(0, "g", "s0", "a"), _acted(1, second, "s1", "b"), _written(),
        _acted(0, "x", "s2", "c"), _acted(1, "y", "s3" if success else "s4", "d", success),
        _acted(1, "y", "s5" if success else "s6", "e", success),
    ], success)  # fmt: skip


@pytest.mark.parametrize("given", [True, False])
def test_sub_goals_are_numbered_by_blueprint_and_line(given: bool) -> None:
    pool = EnvPool(lambda: HierarchicalEnv(FruitEnv(max_steps=3), replans=2), 1)
    agent = HiMACAgent(Planner(_Lost()), Executor(Expert("oracle")))
    blueprint = Blueprint.of(["get the moon", "get the sun"]) if given else None
    (episode,) = collect(agent, pool, [EpisodeRequest("train:00", blueprint=blueprint)])
    asked = [segment.role for segment in episode.segments].count("planner")
    assert asked == (2 if given else 3)
    # Behind the last line it goes on under its number.
    places = [*((b, k) for b in range(3) for k in range(2)), (2, 1)]
    assert places_of(episode) == places
    episode.segments = [segment for segment in episode.segments if segment.role == "executor"]
    assert places_of(episode) == places, "what was asked in between need not have been kept"


def test_a_line_carries_nothing_of_what_a_further_blueprint_did() -> None:
    plans, runs = [_episode([_written()]) for _ in range(2)], [_again(True), _again(False)]
    credit, returns = stepwise.graph_planner_credit(GRAPH, plans, runs)
    assert returns == [1.0, 0.0] and _tokens(credit) == [(0.0, 0.0)] * 2
    # A last line that leads elsewhere is worth what that place is worth: V(s2) = 1/2, V(s7) = 0.
    runs += [_episode([_acted(0, "g", "s0", "a"), _acted(1, "i", "s1", "b"), _written(),
                       _acted(0, "x", "s7", "c")])]  # fmt: skip
    credit, _ = stepwise.graph_planner_credit(GRAPH, [*plans, _episode([_written()])], runs)
    for got, h in zip(_tokens(credit), (1 / 6, 1 / 6, -1 / 3), strict=True):
        assert got == pytest.approx((0.0, h))


def test_blueprints_that_are_learned_from_carry_their_own_lines() -> None:
    """The planner that wrote both in one episode: V(s2) = 1/2, V(s3) = 1, V(s4) = 0."""
    runs = [_again(True), _again(False)]
    for run in runs:
        run.segments.insert(0, _written())
    credit, _ = stepwise.graph_planner_credit(GRAPH, runs, runs)
    for got, worth in zip(_tokens(credit), [(0, 0), (0.5, 0), (0, 0), (-0.5, 0)], strict=True):
        assert got == pytest.approx(worth)


def test_milestones_are_compared_at_the_same_place_of_the_same_blueprint() -> None:
    config = resolve(CONFIG.replace(method="beacon", episode_weight=0.0))
    runs = [_episode([_acted(0, "g", "s0", "a"), _written((0,)), _acted(0, "x", "s2", "c", True)])
            for _ in range(2)]  # fmt: skip
    credit = stepwise.beacon_credit(config, runs)
    assert [turn.advantage for s in credit.segments for turn in s.turns] == [0.0] * 4


def test_critics_look_ahead_into_further_blueprints_and_whiten_their_own() -> None:
    config = resolve(CONFIG.replace(method="hiper", gae_discount=0.5, gae_lambda=0.5))
    runs = [_episode([_acted(0, "g", "s0", "a"), _written((0,)), _acted(0, "x", "s2", "c")])
            for _ in range(2)]  # fmt: skip
    runs[0].segments[-1].turns[0].reward = 1.0
    plans = [_episode([_written((0,))]) for _ in runs]
    credit, _ = hiper.planner_credit(config, plans, runs)
    # A_1 = r - .5, A_0 = .5 (.5) - .5 + .25 A_1: the two A_0 are told apart, and the A_1 not told.
    assert [tokens[0] for tokens in _tokens(credit)] == pytest.approx([1.0, -1.0], abs=1e-4)
    own = [_episode([_written((0,)), *run.segments]) for run in runs]
    both, _ = hiper.planner_credit(config, own, own)
    raw = np.asarray([-0.125, 0.5, -0.375, -0.5])
    white = (raw - raw.mean()) / raw.std()
    assert [tokens[0] for tokens in _tokens(both)] == pytest.approx(white, abs=1e-4)
