"""Step-level credit, of episodes: in numbers worked by hand, and as rollouts note what it needs."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from fruit_runs import CONFIG
from toy import FruitEnv

from himac_agents.agents.agent import Executor, HiMACAgent, Planner
from himac_agents.agents.conversation import Context, Decision
from himac_agents.agents.expert import Expert
from himac_agents.algorithms import stepwise
from himac_agents.algorithms.batching import token_batch
from himac_agents.algorithms.credit import Credit, executor_credit
from himac_agents.algorithms.methods import resolve
from himac_agents.policies.base import Completion
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.episode import lines_of
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.serial import from_json, to_json
from himac_agents.rollouts.types import Episode, EpisodeRequest, Segment, Turn
from himac_envs.blueprint import Blueprint
from himac_envs.digests import digest
from himac_envs.hierarchy import HierarchicalEnv

CRBC = resolve(CONFIG.replace(method="crbc", advantage_std=False, graph_discount=0.9))
GRAPH = resolve(CONFIG.replace(method="himac-graph", graph_discount=0.9, graph_weight=1.0))


def _turn(role: Any, state: str, action: str, observation: str = "") -> Turn:
    turn = Turn(role, 1, (5,), (-0.5,), "", action)
    turn.state, turn.anchor = state, observation or f"seen in {state}"
    return turn


def _run(
    options: list[tuple[str, bool, list[tuple[str, str]]]], success: bool, group: int = 0
) -> Episode:
    """An execution: sub-goals, whether each was achieved, and (state, command) pairs."""
    episode = Episode(EpisodeRequest("t", group), success=success, reward=float(success))
    for index, (subgoal, achieved, steps) in enumerate(options):
        segment = Segment("executor", group, subgoal, index, [1, 2, 3])
        segment.turns = [_turn("executor", state, action) for state, action in steps]
        segment.option = {"achieved": achieved, "steps": len(steps)}
        episode.segments.append(segment)
    return episode


def _flat(steps: list[tuple[str, str]], success: bool) -> Episode:
    return _run([("", success, steps)], success)


def _given(credit: Credit) -> list[list[float | None]]:
    return [[turn.advantage for turn in segment.turns] for segment in credit.segments]


def test_crbc_by_hand() -> None:
    episodes = [
        _flat([("s", "a"), ("x", "go")], True),
        _flat([("s", "a"), ("x", "go")], False),
        _flat([("s", "b"), ("y", "go")], False),
        _flat([("s", "b"), ("y", "go")], False),
    ]
    # GRPO without deviations: R - 1/4. The step part is +-1 in s, where two things were tried.
    found = stepwise.crbc(CRBC, episodes)
    assert found[0] == pytest.approx([0.75 + 5, 0.75]) and found[1] == pytest.approx(
        [-0.25 + 5, -0.25]
    )
    assert found[2] == pytest.approx([-0.25 - 5, -0.25])
    alone = CRBC.replace(episode_weight=0.0, graph_sigma=False, graph_weight=1.0)
    assert stepwise.crbc(alone, episodes)[2] == pytest.approx([-0.2025, 0.0])
    for kind in ("visits", "hindsight", "distance"):
        other = stepwise.crbc(alone.replace(graph_credit=kind), episodes)
        assert other[0][0] > 0 > other[2][0] and other[2][1] == 0


def test_keys_are_what_is_asked_for() -> None:
    apart = [_flat([("s", "a")], True), _flat([("s", "b")], False)]
    alone = CRBC.replace(episode_weight=0.0)
    apart[1].segments[0].turns[0].anchor = "another text"
    assert stepwise.crbc(alone, apart)[0] == pytest.approx([5.0])
    assert stepwise.crbc(alone.replace(graph_keys="observation"), apart)[0] == pytest.approx([0.0])
    later = [_flat([("s", "a"), ("s", "a")], True), _flat([("s", "c"), ("s", "b")], False)]
    seen = stepwise.crbc(alone.replace(graph_keys="observation"), later)
    history = stepwise.crbc(alone.replace(graph_keys="history"), later)
    assert seen[0][1] != 0.0
    assert history[0][0] == pytest.approx(5.0) and history[0][1] == 0.0  # "a" and "c" came before
    apart[0].segments[0].turns[0].state = ""
    with pytest.raises(ValueError, match="state_keys=True"):
        stepwise.crbc(alone, apart)


def test_groups_do_not_share_a_graph() -> None:
    episodes = [_flat([("s", "a")], True), _flat([("s", "b")], False)]
    episodes[1].request = EpisodeRequest("u", 1)
    assert [list(part) for part in stepwise.crbc(CRBC, episodes)] == [[0.0], [0.0]]


def test_the_executors_graph_by_hand() -> None:
    """Keys are (state, sub-goal); what has no credit of its own gets its sub-goal's gain."""
    episodes = [
        _run([("g", True, [("s", "a"), ("x", "<sub_done>")]), ("h", True, [("x", "go")])], True),
        _run([("g", False, [("s", "b"), ("y", "<sub_done>")]), ("h", False, [("y", "go")])], False),
    ]
    # V(x, h) = .9, V(x, g) = .81, V(s, g) = .9 (.81 + 0) / 2 = .3645; Q(a) = .729, Q(b) = 0.
    a, gain = 0.729 - 0.3645, 0.9 - 0.3645
    found = _given(stepwise.graph_executor_credit(GRAPH, episodes))
    assert found[0] == pytest.approx([a, gain]) and found[1] == pytest.approx([1.0 - 0.9])
    assert found[2] == pytest.approx([-a, -0.3645]) and found[3] == pytest.approx([0.0])
    bare = _given(stepwise.graph_executor_credit(GRAPH.replace(graph_fill=False), episodes))
    assert bare[0] == pytest.approx([a, 0.0]) and bare[1] == [0.0]
    weighed = GRAPH.replace(
        graph_fill=False, graph_weight=2.0, episode_weight=3.0, graph_sigma=True
    )
    assert _given(stepwise.graph_executor_credit(weighed, episodes))[0] == pytest.approx(
        [3 + 2, 3], abs=1e-4
    )
    # A state that is the same on the way to another sub-goal is another state.
    episodes[1].segments[0].subgoal = "other"
    assert _given(stepwise.graph_executor_credit(GRAPH.replace(graph_fill=False), episodes))[0] == [
        0.0,
        0.0,
    ]
    episodes[0].error = "broke"
    assert len(stepwise.graph_executor_credit(GRAPH, episodes).segments) == 2


def test_centred_gains_are_nothing_where_all_do_equally_well() -> None:
    alike = [
        _run([("g", True, [("s", "a"), (f"x{k}", "<sub_done>")]), ("h", True, [("z", "go")])], True)
        for k in range(2)
    ]
    left = _given(stepwise.graph_executor_credit(GRAPH, alike))
    assert left[0] == pytest.approx([0.9 - 0.729] * 2)  # V(z, h) = .9, V(s, g) = .9^3
    centred = GRAPH.replace(graph_centred=True)
    found = _given(stepwise.graph_executor_credit(centred, alike))
    assert found == [[0.0, 0.0], [0.0]] * 2
    # One fails behind "z", where the other tried something else: that is where it is told.
    alike[1].success, alike[1].segments[1].turns[0].action = False, "stay"
    found = _given(stepwise.graph_executor_credit(centred, alike))
    assert found[0] == found[2] == [0.0, 0.0]
    assert found[1] == pytest.approx([0.45]) and found[3] == pytest.approx([-0.45])
    paid = centred.replace(graph_pays="reward")
    for episode, reward in zip(alike, (2.0, 1.0), strict=True):
        episode.segments[0].turns[1].reward = reward  # the second decision: .9 of it
    # V(s) = .9 * 1.5 (z pays nothing), and each gains .9 r - V(s).
    found = _given(stepwise.graph_executor_credit(paid, alike))
    assert found[0] == pytest.approx([0.45, 0.45]) and found[2] == pytest.approx([-0.45, -0.45])


def test_a_sub_goals_own_graph_by_hand() -> None:
    """Ends are what `achieved` says: what came later, and the episode's end, do not matter."""
    config = GRAPH.replace(graph_ends="subgoal")
    episodes = [
        _run([("g", True, [("s", "a"), ("x", "<sub_done>")]), ("h", True, [("x", "go")])], True),
        _run([("g", False, [("s", "b"), ("y", "<sub_done>")]), ("h", False, [("y", "go")])], False),
    ]
    # V(x, g) = .9 = V(x, h), V(y, g) = 0, V(s, g) = .9 (.9 + 0) / 2 = .405; Q(a) = .81, Q(b) = 0.
    expected = [[0.405, 0.595], [0.1], [-0.405, -0.405], [0.0]]
    found = _given(stepwise.graph_executor_credit(config, episodes))
    for own, worth in zip(found, expected, strict=True):
        assert own == pytest.approx(worth)
    episodes[0].segments[1].option = {"achieved": False, "steps": 1}
    episodes[0].success, episodes[0].reward = False, 0.0
    later = _given(stepwise.graph_executor_credit(config, episodes))
    assert later[0] == found[0] and later[2] == found[2]
    assert later[1] == [0.0]
    # Nobody can say whether it was achieved: the episode's end is what there is.
    for episode in episodes:
        episode.segments[0].option = {"achieved": None, "steps": 2}
    assert _given(stepwise.graph_executor_credit(config, episodes))[0] == [0.0, 0.0]
    episodes[0].success = True
    assert _given(stepwise.graph_executor_credit(config, episodes))[0] == pytest.approx(expected[0])


def test_option_credit_beside_the_graph_by_hand() -> None:
    config = resolve(CONFIG.replace(
        method="graph-beside-options", graph_discount=0.9, episode_weight=2.0, graph_sigma=False,
        advantage_std=False,
    ))  # fmt: skip
    episodes = [
        _run([("g", True, [("s", "a"), ("x", "<sub_done>")]), ("h", True, [("x", "go")])], True),
        _run([("g", False, [("s", "b"), ("y", "<sub_done>")])], False),
        _run([("g", True, [("s", "a"), ("x", "<sub_done>")]), ("h", False, [("x", "no")])], False),
    ]
    # "g" was achieved by two of three: 1/3, -2/3, 1/3; "h" by one of two: +-1/2.
    # V(s, g) = .9 * .9 * 2/3 = .54, Q(a) = .81; V(x, h) = .45, Q(go) = .9.
    credit = stepwise.graph_executor_credit(config, episodes)
    found = _given(credit)
    assert found[0] == pytest.approx([2 / 3 + 0.27, 2 / 3]) == found[3]
    assert found[1] == pytest.approx([1.0 + 0.45])
    assert found[2] == pytest.approx([-4 / 3 - 0.54, -4 / 3])
    assert found[4] == pytest.approx([-1.0 - 0.45])
    assert credit.metrics["dead_options"] == 0.0


@pytest.mark.parametrize("reason", ["truncated", "budget"])
def test_a_sub_goal_that_nobody_ended_earns_nothing(reason: str) -> None:
    """Or executors would learn to go on, which costs nothing, and never to say `<sub_done>`."""
    episodes = [
        _run([("g", True, [("s", "a"), ("x", "<sub_done>")])], False),
        _run([("g", True, [("s", "a"), ("x", "wait")])], False),
    ]
    for episode, said in zip(episodes, ("done", reason), strict=True):
        option = episode.segments[0].option
        assert option is not None
        option["reason"] = said
    both = {"episode_weight": 1.0, "advantage_std": False, "executor_advantage": "option"}
    own = resolve(CONFIG.replace(method="himac-option", **both))
    graph = GRAPH.replace(**both, graph_ends="subgoal", graph_fill=False)
    beacon = resolve(CONFIG.replace(method="beacon", **both))
    for config, credit in (
        (own, executor_credit),
        (graph, stepwise.graph_executor_credit),
        (beacon, stepwise.beacon_credit),
    ):
        ended, cut = _given(credit(config, episodes))
        assert ended[1] > 0 > cut[1], config.method
        alike = _given(credit(config.replace(credit_cut_subgoals=True), episodes))
        assert alike[0] == alike[1], config.method
    # Where a fixed number of steps ends all sub-goals, nobody can say it.
    steps = resolve(CONFIG.replace(method="himac-no-subdone", subgoal_budget=2))
    assert steps.credit_cut_subgoals
    # The task's own end says it, too.
    option = episodes[1].segments[0].option
    assert option is not None
    option["reason"] = "terminated"
    assert _given(executor_credit(own, episodes)) == [[0.0, 0.0]] * 2


def test_the_clock_tells_early_from_late() -> None:
    late = [_flat([("z", "w"), ("s", "a")], True), _flat([("s", "b"), ("q", "w")], False)]
    alone = CRBC.replace(episode_weight=0.0, graph_weight=1.0)
    assert stepwise.crbc(alone, late)[0] == pytest.approx([0.0, 1.0])
    assert stepwise.crbc(alone.replace(graph_clock=2), late)[0] == pytest.approx([0.0, 1.0])
    assert stepwise.crbc(alone.replace(graph_clock=1), late)[0] == pytest.approx([0.0, 0.0])


def test_a_blueprint_may_have_one_number_beside_the_graph() -> None:
    plans = [_plan((0, 1)), _plan((0, 1)), _plan((), valid=False)]
    runs = [_run([("g", True, [("s", "a")])], won) for won in (True, False, False)]
    one = GRAPH.replace(blueprint_credit="whole", advantage_std=False)
    credit, returns = stepwise.graph_planner_credit(one, plans, runs)
    assert returns == [1.0, 0.0, -one.format_penalty]
    turns = [segment.turns[0] for segment in credit.segments]
    mean = sum(returns) / 3
    assert [turn.advantage for turn in turns] == pytest.approx([r - mean for r in returns])
    assert not any(turn.token_advantages for turn in turns)


def test_lines_by_prefixes_by_hand() -> None:
    """What blueprints have in common carries nothing; what differs, from where it differs on."""
    written = ["gh", "gh", "gi", "g", "jh"]
    plans = [_plan((*range(len(text)), -1), texts=text) for text in written]
    plans += [_plan((), texts="gh"), _plan((), valid=False)]
    won = (True, False, False, True, False, True, False)
    runs = [_run([("g", True, [("s", "a")])], success) for success in won]
    config = GRAPH.replace(
        blueprint_credit="prefixes", advantage_std=False, format_penalty=0.5, graph_weight=9.0
    )
    credit, returns = stepwise.graph_planner_credit(config, plans, runs)
    assert returns == [1, 0, 0, 1, 0, 1, -0.5]
    # A: the returns minus 2.5 / 7. Beginning with "g": 3 of 5 won; "gh": 2 of 3; "gi": 0; "g.": 1.
    mean = 2.5 / 7
    g, gh = 3 / 5 - mean, 2 / 3 - 3 / 5
    turns = [segment.turns[0] for segment in credit.segments]
    assert turns[0].token_advantages == pytest.approx([g, gh, 0.0]) == turns[1].token_advantages
    assert turns[2].token_advantages == pytest.approx([g, -3 / 5, 0.0])
    assert turns[3].token_advantages == pytest.approx([g + 2 / 5, 0.0])
    assert turns[4].token_advantages == pytest.approx([-mean, 0.0, 0.0])
    assert [turn.advantage for turn in turns[:5]] == pytest.approx(
        [2 / 3 - mean, 2 / 3 - mean, -mean, 1 - mean, -mean]
    )
    # Not read line by line: the sum on all tokens. Not parsed: its own number.
    assert turns[5].token_advantages == () and turns[5].advantage == pytest.approx(2 / 3 - mean)
    assert turns[6].token_advantages == () and turns[6].advantage == pytest.approx(-0.5 - mean)
    # Of an episode whose planner was asked again both blueprints carry its number, and what its
    # last one reads like is not compared with how others begin.
    again = _plan((0, 1, -1), texts="gh")
    again.segments += _plan((0, 1, -1), texts="gh").segments
    plans, runs = [_plan((0, 1, -1), texts="gh"), again], [runs[0], runs[1]]
    credit, _ = stepwise.graph_planner_credit(config, plans, runs)
    turns = [segment.turns[0] for segment in credit.segments]
    assert turns[0].token_advantages == pytest.approx([0.5, 0.0, 0.0])
    assert [turn.token_advantages for turn in turns[1:]] == [(), ()]
    assert [turn.advantage for turn in turns] == pytest.approx([0.5, -0.5, -0.5])
    alike = [_plan((0, 1), texts="gh"), _plan((0, 1), texts="gi")]
    runs = [_run([("g", True, [("s", "a")])], False) for _ in alike]
    none, _ = stepwise.graph_planner_credit(config, alike, runs)
    assert none.dead() == {0}


def _plan(lines: tuple[int, ...], valid: bool = True, texts: str = "") -> Episode:
    plan = Episode(EpisodeRequest("t"), blueprint_valid=valid)
    plan.blueprint = Blueprint.of(texts) if texts else None
    turn = Turn("planner", 1, tuple(range(5, 5 + max(1, len(lines)))), (), "", "", lines=lines)
    plan.segments = [Segment("planner", 0, token_ids=[0] * 9, turns=[turn])]
    return plan


def test_the_planners_lines_by_hand() -> None:
    config = GRAPH.replace(graph_weight=2.0)
    runs = [
        _run([("g", True, [("s", "a")]), ("h", True, [("x", "go")])], True),
        _run([("g", True, [("s", "a")]), ("i", False, [("x", "go")])], False),
        _run([("j", False, [("s", "b")]), ("h", False, [("y", "go")])], False),
    ]
    plans = [_plan((0, 0, 1, -1)), _plan((0, 1, 1)), _plan((), valid=False)]
    credit, returns = stepwise.graph_planner_credit(config, plans, runs)
    assert returns == [1.0, 0.0, -config.format_penalty]
    # V(s) = 1/3, V(x) = 1/2 ("h" won there, "i" did not), V(y, a failure before) = 0.
    first, second, third = (segment.turns[0] for segment in credit.segments)
    assert first.token_advantages == pytest.approx([1 / 3, 1 / 3, 1.0, 0.0])
    assert second.token_advantages == pytest.approx([1 / 3, -1.0, -1.0])
    assert first.advantage == pytest.approx(2 * (1 - 1 / 3))  # the lines' sum: R - V(s)
    assert third.token_advantages == () and third.advantage == pytest.approx(
        2 * (-1 / 3 - config.format_penalty)
    )
    batch = token_batch([credit.segments[0]])
    assert batch.advantages[0, 1:5] == pytest.approx([1 / 3, 1 / 3, 1.0, 0.0])
    assert credit.dead() == set()
    with pytest.raises(ValueError, match="2 advantages for 4 tokens"):
        credit.give_tokens(credit.segments[0], 0.0, [1.0, 2.0])


def test_milestones_are_the_sub_goals_that_were_achieved() -> None:
    config = resolve(
        CONFIG.replace(
            method="beacon", advantage_std=False, milestone_discount=0.5, milestone_weight=0.1
        )
    )
    episodes = [
        _run([("g", True, [("s", "a"), ("x", "<sub_done>")]), ("h", True, [("x", "go")])], True),
        _run([("g", False, [("s", "b"), ("y", "<sub_done>")]), ("h", False, [("y", "go")])], False),
    ]
    found = _given(stepwise.beacon_credit(config, episodes))
    # First place: r = 5, 10, 0, 0, their mean 3.75; second: 10 and 0. GRPO's part: +-.5.
    assert found[0] == pytest.approx([0.5 + 0.125, 0.5 + 0.625])
    assert found[1] == pytest.approx([0.5 + 0.5]) and found[3] == pytest.approx([-0.5 - 0.5])
    assert found[2] == pytest.approx([-0.5 - 0.375, -0.5 - 0.375])


def test_hgpo_is_of_returns_to_go() -> None:
    episodes = [_flat([("s", "a"), ("x", "go")], True), _flat([("s", "b"), ("x", "go")], False)]
    episodes[0].segments[0].turns[1].reward = 1.0
    config = CONFIG.replace(advantage_std=False, gigpo_discount=0.5, hgpo_depth=0)
    found = stepwise.hgpo(config, episodes)
    assert found[0] == pytest.approx([0.25, 0.5]) and found[1] == pytest.approx([-0.25, -0.5])


@pytest.mark.parametrize("hierarchical", [True, False])
def test_rollouts_note_states_where_they_are_asked_to(hierarchical: bool) -> None:
    expert = Expert("oracle")
    planner = Planner(expert) if hierarchical else None
    agent = HiMACAgent(planner, Executor(expert))
    env = FruitEnv()
    pool = EnvPool(lambda: HierarchicalEnv(FruitEnv()) if hierarchical else FruitEnv(), 2)
    ask = [EpisodeRequest(i, g) for g, i in enumerate(env.task_ids()[:3])]
    for episode in collect(agent, pool, ask, state_keys=True):
        env.reset(options={"task_id": episode.request.task_id})
        for turn in episode.turns():
            assert turn.state == env.state_key()
            if turn.role == "executor" and turn.action != "<sub_done>":
                env.step(turn.action)
        assert from_json(json.loads(json.dumps(to_json(episode)))) == episode
        assert pickle.loads(pickle.dumps(episode)) == episode
    assert not any(turn.state for e in collect(agent, pool, ask) for turn in e.turns())


def test_with_a_budget_states_tell_how_many_steps_are_left_in_the_sub_goal() -> None:
    agent = HiMACAgent(Planner(Expert("oracle")), Executor(Expert("oracle")))
    env = HierarchicalEnv(FruitEnv(), subgoal_budget=1)
    pool = EnvPool(lambda: HierarchicalEnv(FruitEnv(), subgoal_budget=1), 1)
    budget = 0
    for episode in collect(agent, pool, [EpisodeRequest("train:01")], state_keys=True):
        env.reset(options={"task_id": "train:01"})
        for turn in episode.turns():
            key = env.task.state_key()
            # In phase plan, and where the last sub-goal stays, none are counted.
            assert turn.state == (key if env.steps_left is None else digest((key, 1)))
            budget += env.steps_left is not None
            env.step(turn.action)
    assert budget > 0


class _Foreign(FruitEnv):
    state_key = property()  # type: ignore[assignment]


def test_environments_without_keys_are_told_what_helps() -> None:
    pool = EnvPool(_Foreign, 1)
    agent = HiMACAgent(None, Executor(Expert("oracle")))
    with pytest.raises(ValueError, match="graph_keys='observation'"):
        collect(agent, pool, [EpisodeRequest("train:00")], state_keys=True)


class _Pieces:
    """A codec whose ids are the places of pieces of text."""

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces

    def encode(self, messages: Any, *, continues: bool = False) -> list[int]:
        return []

    def encode_reply(self, text: str) -> tuple[int, ...]:
        return ()

    def decode(self, ids: Any) -> str:
        return "".join(self.pieces[i] for i in ids)


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        (["1.", " get", " x", "\n", "2.", " go\n", "3. see", ""], (0, 0, 0, 0, 1, 1, 2, 2)),
        (["<blueprint>\n", "- get x", "\n", "- go", "\n</blueprint>"], (-1, 0, 0, 1, -1)),
        (['["get x",', ' "go"]'], ()),
        (["no", " list"], ()),
    ],
)
def test_which_token_writes_which_sub_goal(pieces: list[str], lines: tuple[int, ...]) -> None:
    planner = Planner(Expert("oracle"))
    ids, text = tuple(range(len(pieces))), "".join(pieces)
    context = Context("planner", (), _Pieces(pieces))
    blueprint = planner.prompts.read_plan(text, "", "the goal")
    decision = Decision(context, True, 0, ids, Completion(text), text, blueprint=blueprint)
    assert lines_of(decision, planner, "", "the goal") == lines
