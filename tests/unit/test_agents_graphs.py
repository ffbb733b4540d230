"""Credit from graphs of transitions, in numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from himac_agents.algorithms import elimination, graphs
from himac_agents.algorithms.graphs import Graph, Path, nested, state_values, step_credit

#: From s: "a" leads to x, once to success and once to failure; "b" leads to y, which fails.
FORK = [
    Path(["s", "x"], ["a", "go"], 1.0),
    Path(["s", "x"], ["a", "go"], 0.0),
    Path(["s", "y"], ["b", "go"], 0.0),
    Path(["s", "y"], ["b", "go"], 0.0),
]


def test_the_system_by_hand() -> None:
    graph = Graph.of(FORK)
    # V(x) = d / 2, V(y) = 0, V(s) = d (V(x) + V(y)) / 2.
    assert state_values(graph, 0.9) == pytest.approx([0.9 * 0.225, 0.45, 0.0])
    plain = step_credit(FORK, discount=0.9, sigma=False)
    # Q(s, a) = .405, Q(s, b) = 0: .2025 above and below; "go" is the only action in x and in y.
    for path, first in zip(plain, [0.2025, 0.2025, -0.2025, -0.2025], strict=True):
        assert path == pytest.approx([first, 0.0])
    scaled = step_credit(FORK, discount=0.9)
    assert [path[0] for path in scaled] == pytest.approx([1, 1, -1, -1])
    least = step_credit(FORK, discount=0.9, least_sigma=0.405)
    assert [path[0] for path in least] == pytest.approx([0.5, 0.5, -0.5, -0.5])


def test_values_pass_from_one_episode_to_another_which_visit_averages_do_not() -> None:
    """The failed episode came through x, from where another one succeeded."""
    paths = [
        Path(["s", "x"], ["a", "left"], 0.0),
        Path(["t", "x"], ["c", "right"], 1.0),
        Path(["s", "z"], ["b", "go"], 0.0),
    ]
    solved = step_credit(paths, discount=1.0, sigma=False)
    # V(x) = 1/2, so Q(s, a) = 1/2 and Q(s, b) = 0; in x "right" is 1 and "left" 0.
    assert solved[0] == pytest.approx([0.25, -0.5])
    assert solved[1] == pytest.approx([0.0, 0.5]) and solved[2] == pytest.approx([-0.25, 0.0])
    visits = step_credit(paths, kind="visits", discount=1.0, sigma=False)
    assert visits[0] == pytest.approx([0.0, -0.5]) and visits[2] == pytest.approx([0.0, 0.0])


def test_visit_averages_by_hand() -> None:
    found = step_credit(FORK, kind="visits", discount=0.9, sigma=False)
    # Returns to go at s: .81, 0, 0, 0. Q(s, a) = .405, V(s) = .2025.
    assert [path[0] for path in found] == pytest.approx([0.2025, 0.2025, -0.2025, -0.2025])


def test_hindsight_by_hand() -> None:
    found = step_credit(FORK, kind="hindsight", discount=1.0)
    # Potentials: s 1/4, x 1/2, y 0 -> .01. Edges of s: log 2 and log .04; two: z-scores +-1.
    assert [path[0] for path in found] == pytest.approx([1, 1, -1, -1], abs=1e-5)
    # Edges of x: to success log 2, to failure log .02, each once.
    assert found[0][1] == pytest.approx(1, abs=1e-5) and found[1][1] == pytest.approx(-1, abs=1e-5)
    # y has one edge only, however often it was taken.
    assert found[2][1] == 0.0
    uneven = [FORK[0], FORK[1], FORK[2], FORK[2], FORK[2], Path(["s", "w"], ["c", "go"], 1.0)]
    s = [math.log(v) for v in (0.5, 0.01, 1.0)]  # x, y, w; log V(s) is common to all
    z = (np.asarray(s) - np.mean(s)) / np.std(s)
    got = step_credit(uneven, kind="hindsight", discount=1.0)
    assert [got[0][0], got[2][0], got[5][0]] == pytest.approx(z, abs=1e-4)


def test_distance_by_hand() -> None:
    paths = [
        Path(["s", "x"], ["a", "go"], 1.0),
        Path(["s", "s", "x"], ["wait", "a", "go"], 1.0),
        Path(["s", "y"], ["b", "go"], 0.0),
    ]
    found = step_credit(paths, kind="distance")
    # From s: to x .1 (one step from success) twice, to s .01, to y 0 (none ever succeeded there).
    worth = np.asarray([0.1, 0.01, 0.1, 0.0])
    z = (worth - worth.mean()) / worth.std()
    assert [found[0][0], found[1][0], found[1][1], found[2][0]] == pytest.approx(z, abs=1e-4)
    assert found[0][1] == 0.0 and found[2][1] == 0.0


@pytest.mark.parametrize("kind", ["system", "visits", "hindsight"])
def test_a_win_that_is_paid_counts_as_a_win(kind: graphs.GraphCredit) -> None:
    """From s1: to the win, around a loop and then to the win, to nothing."""
    walks = ["ab", "alb", "ac", "ab"]
    won = [Path([f"s{min(t, 1)}" for t in range(len(w))], list(w), float("b" in w)) for w in walks]
    paid = [Path(p.states, p.actions, 0.0, [0.0] * (len(p.states) - 1) + [p.end]) for p in won]
    found = step_credit(paid, kind=kind)
    assert found[1][2] == found[0][1] > found[1][1] > found[2][1]
    for one, other in zip(found, step_credit(won, kind=kind), strict=True):
        assert one == pytest.approx(other)


def test_ends_that_are_paid_else_are_other_ends() -> None:
    ends = [("buy", 5.0), ("buy", 1.0), ("leave", 2.0), ("buy", 5.0)]
    paths = [Path(["s"], [action], 0.0, [paid]) for action, paid in ends]
    found = [float(part[0]) for part in step_credit(paths, kind="hindsight")]
    z = np.log([5.0, 1.0, 2.0])
    assert found[:3] == pytest.approx((z - z.mean()) / z.std(), abs=1e-5) and found[3] == found[0]


def test_distances_are_of_solved_ends_only() -> None:
    with pytest.raises(ValueError, match="reads no rewards"):
        step_credit([Path(["s"], ["a"], 0.0, [1.0])], kind="distance")


def test_rewards_count_where_they_are_given() -> None:
    paths = [Path(["s", "x"], ["a", "go"], 0.0, [0.5, 0.0]), Path(["s"], ["b"], 0.0, [0.0])]
    found = step_credit(paths, discount=0.9, sigma=False)
    assert found[0] == pytest.approx([0.25, 0.0]) and found[1] == pytest.approx([-0.25])
    with pytest.raises(ValueError, match="as many"):
        step_credit([Path(["s"], ["a", "b"], 0.0)])
    with pytest.raises(ValueError, match="discount"):
        step_credit(FORK, discount=1.1)
    assert [len(p) for p in step_credit([Path([], [], 1.0)])] == [0]


_PATHS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=12),
        st.sampled_from([0.0, 1.0]),
    ).map(lambda x: Path([s for s, _ in x[0]], [a for _, a in x[0]], x[1])),
    min_size=1,
    max_size=8,
)


@given(_PATHS, st.sampled_from([0.5, 0.98, 1.0]))
def test_one_matrix_and_state_by_state_agree(paths: list[Path], discount: float) -> None:
    graph = Graph.of(paths)
    direct = state_values(graph, discount)
    for few in (elimination.FEW, -1):  # with and without a part that is solved as a matrix
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(graphs, "DIRECT", 0)
            patch.setattr(elimination, "FEW", few)
            patch.setattr(elimination, "SHARE", elimination.SHARE if few >= 0 else 0.0)
            assert state_values(graph, discount) == pytest.approx(direct, abs=1e-11)
    # What it solves: V(s) is the mean of r + d V(next) over the visits to s.
    moved = graph.by_state(graph.reward + discount * graph.next_values(direct))
    assert moved == pytest.approx(direct, abs=1e-9)


@pytest.mark.parametrize("rooms", [600, 3000])
def test_values_of_large_graphs_are_exact(rooms: int) -> None:
    """Rooms in a row, each left as often to either side, take very long to leave."""
    up, down = list(range(rooms)), list(range(rooms - 1, -1, -1))
    rows = [Path(up, ["east"] * rooms, 1.0), Path(down, ["west"] * rooms, 0.0)]
    exact = np.arange(1, rooms + 1) / (rooms + 1)
    assert np.abs(state_values(Graph.of(rows), 1.0) - exact).max() < 1e-11
    # Every room with a few random others, and a discount: V solves the equations.
    rng = np.random.default_rng(0)
    walks = [rng.integers(rooms, size=rooms).tolist() for _ in range(3)]
    graph = Graph.of([Path(walk, walk, float(i % 2), [0.25] * rooms) for i, walk in
                      enumerate(walks)])  # fmt: skip
    for discount in (0.98, 1.0):
        values = state_values(graph, discount)
        moved = graph.by_state(graph.reward + discount * graph.next_values(values))
        assert np.abs(moved - values).max() <= 1e-13 * np.abs(values).max()


@given(_PATHS)
def test_the_credit_of_each_state_sums_to_nothing(paths: list[Path]) -> None:
    for kind in ("system", "visits", "distance"):
        found = step_credit(paths, kind=kind, sigma=False)  # type: ignore[arg-type]
        sums: dict[object, float] = {}
        for path, credit in zip(paths, found, strict=True):
            for state, value in zip(path.states, credit, strict=True):
                sums[state] = sums.get(state, 0.0) + float(value)
        assert max(map(abs, sums.values())) < 1e-6


def test_nested_groups_by_hand() -> None:
    to_go = [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]
    seen = [["s", "x"], ["s", "x"], ["t", "x"]]
    found = nested(to_go, seen, [0, 0, 0], depth=1, alpha=1.0, std=False)
    # k = 0: s 1, 0 -> +-.5; x 1, 0, 1 -> 1/3, -2/3, 1/3. k = 1 (weight 2): the first step has no
    # step before it, and is compared as it was; (s, x) 1, 0 -> +-.5; (t, x) alone.
    assert found[0] == pytest.approx([0.5, (1 / 3 + 2 * 0.5) / 3])
    assert found[1] == pytest.approx([-0.5, (-2 / 3 - 2 * 0.5) / 3])
    assert found[2] == pytest.approx([0.0, 1 / 3])  # of non-zero parts only
    apart = nested(to_go, seen, [0, 1, 2], depth=1)
    assert all((part == 0).all() for part in apart)


def test_milestones_by_hand() -> None:
    reached, missed = graphs.milestone_rewards([3, 2], [True, False], discount=0.5)
    assert reached == pytest.approx([2.5, 5.0, 10.0]) and missed == pytest.approx([0.0, 0.0])
