"""Credit from the graph of a group's transitions: pure functions on paths, each with its formula.

Episodes of one task pass through the same states. Pooled, they are a small Markov chain whose
values can be solved for, so that a step is judged by what follows from where it leads, in all
episodes that came by, and not by how its own episode happened to end.

With N(s, a, x) the count of transitions, mu = N(s, a) / N(s) and P = N(s, a, x) / N(s, a):

    Q(s, a) = r(s, a) + d sum_x P(x | s, a) V(x)        V(s) = sum_a mu(a | s) Q(s, a)

and V(end) is given: 1 for success, 0 for failure, truncation included.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from himac_agents.algorithms.advantages import Floats, group_relative, parted, to_go
from himac_agents.algorithms.elimination import chain_values

GraphCredit = Literal["system", "visits", "hindsight", "distance"]

#: Systems of at most so many states are solved as one matrix, larger ones state by state.
DIRECT = 400
#: Differences of values that are no larger are rounding, and no evidence.
ROUNDING = 1e-9
#: GraphHCA: potentials below are taken for this.
LEAST_POTENTIAL = 0.01
#: GraphGPO: what a step further from success is worth of one nearer.
NEARER = 0.1

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Path:
    """One episode as the graph sees it.

    Attributes:
        states: [T] keys of the states in which something was decided.
        actions: [T] what was done there.
        end: The value of where it ended.
        rewards: [T] what was paid on the way; empty: nothing.
    """

    states: Sequence[Hashable]
    actions: Sequence[Hashable]
    end: float
    rewards: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    """The pooled transitions of one group; every array but `ends` is [t], over all of them.

    Attributes:
        state, edge: Numbers of the state and of the (state, action).
        follows: Number of the next state; -1 - i where path i ended.
        reward: What was paid.
        ends: [paths] values of the ends.
        sizes: [paths] how many transitions each path has.
        states, edges: How many there are.
    """

    state: Ints
    edge: Ints
    follows: Ints
    reward: Floats
    ends: Floats
    sizes: Sequence[int]
    states: int
    edges: int

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Graph:
        """Pools paths.

        Raises:
            ValueError: A path has more or fewer actions or rewards than states.
        """
        states: dict[Hashable, int] = {}
        edges: dict[tuple[int, Hashable], int] = {}
        state: list[int] = []
        edge: list[int] = []
        follows: list[int] = []
        reward: list[float] = []
        for i, path in enumerate(paths):
            rewards = path.rewards or [0.0] * len(path.states)
            if not len(path.states) == len(path.actions) == len(rewards):
                raise ValueError(f"path {i}: needs as many actions and rewards as states")
            own = [states.setdefault(key, len(states)) for key in path.states]
            state += own
            edge += [
                edges.setdefault((s, a), len(edges)) for s, a in zip(own, path.actions, strict=True)
            ]
            follows += [*own[1:], -1 - i] if own else []
            reward += rewards
        return cls(
            np.asarray(state, np.int64),
            np.asarray(edge, np.int64),
            np.asarray(follows, np.int64),
            np.asarray(reward, np.float64),
            np.asarray([path.end for path in paths], np.float64),
            [len(path.states) for path in paths],
            len(states),
            len(edges),
        )

    def next_values(self, values: Floats) -> Floats:
        """[t] the value of where each transition leads."""
        ended = self.follows < 0
        inner = values[np.where(ended, 0, self.follows)] if len(values) else self.reward
        return np.where(ended, self.ends[np.where(ended, -1 - self.follows, 0)], inner)

    def by_state(self, numbers: Floats) -> Floats:
        """[states] means over each state's transitions."""
        return _means(self.state, numbers, self.states)

    def by_edge(self, numbers: Floats) -> Floats:
        """[edges] means over each (state, action)'s transitions."""
        return _means(self.edge, numbers, self.edges)

    def choices(self) -> Ints:
        """[states] how many different actions were tried."""
        owner = np.zeros(self.edges, np.int64)
        owner[self.edge] = self.state
        return np.bincount(owner, minlength=self.states)

    def split(self, numbers: Floats) -> list[Floats]:
        """Numbers of all transitions as one array a path."""
        return parted(numbers, self.sizes)


def _means(index: Ints, numbers: Floats, count: int) -> Floats:
    sums = np.bincount(index, numbers, minlength=count)
    return np.asarray(sums / np.maximum(1, np.bincount(index, minlength=count)), np.float64)


def returns_to_go(graph: Graph, discount: float) -> Floats:
    """[t] sum_k d^k r_{t+k} + d^{T-t} V(end), of each transition in its own path."""
    own = zip(graph.split(graph.reward), graph.ends.tolist(), strict=True)
    found = [value for paid, end in own for value in to_go(paid.tolist(), discount, end)]
    return np.asarray(found, np.float64)


def state_values(graph: Graph, discount: float) -> Floats:
    """[states] V, the solution of (I - d M) V = b, M(s, s') = sum_a mu(a | s) P(s' | s, a).

    The solution is exact but for rounding, of small systems and of large ones.

    Raises:
        ValueError: The discount is not between 0 and 1.
    """
    if not 0.0 <= discount <= 1.0:
        raise ValueError(f"discount={discount}: must be between 0 and 1")
    inner = graph.follows >= 0
    visits = np.bincount(graph.state, minlength=graph.states)
    ended = graph.next_values(np.zeros(graph.states))  # 0 but where a path ends
    paid = graph.by_state(graph.reward + discount * ended)
    if graph.states <= DIRECT:
        system = np.eye(graph.states)
        share = discount / visits[graph.state[inner]]
        np.subtract.at(system, (graph.state[inner], graph.follows[inner]), share)
        return np.asarray(np.linalg.solve(system, paid), np.float64)
    weights: list[dict[int, float]] = [{} for _ in range(graph.states)]
    steps = graph.state[inner] * graph.states + graph.follows[inner]
    for step, times in zip(*np.unique(steps, return_counts=True), strict=True):
        state, follows = divmod(int(step), graph.states)
        weights[state][follows] = float(discount * times / visits[state])
    over = np.bincount(graph.state[~inner], minlength=graph.states)
    leaves = (1.0 - discount) + discount * over / visits
    return chain_values(weights, leaves.tolist(), paid.tolist())


def step_credit(
    paths: Sequence[Path],
    *,
    kind: GraphCredit = "system",
    discount: float = 0.98,
    sigma: bool = True,
    least_sigma: float = 1e-6,
) -> list[Floats]:
    """What each step was worth beside the others that were tried in its state.

    - "system" (CRBC, arXiv 2609.35082): A = 1[two actions or more] (Q - V) / max(sigma, least),
      sigma^2(s) = sum_a mu (Q - V)^2, with V solved for.
    - "visits": the same with K = 0 backups: Q and V are means of the returns to go of the visits
      to (s, a) and to s. Close to GiGPO's step part.
    - "hindsight" (GraphHCA, arXiv 2609.35084): with the potential V(s) = d E[r + V(x)], the credit
      of an edge is log max(r + V(x), e) - log max(V(s), e), e = .01, z-scored over the different
      edges that leave s. The paper pays nothing on the way; a reward of 1 for a solved end is here
      the same as an end that is worth 1.
    - "distance" (GraphGPO, arXiv 2605.26684): w^{n(x)}, w = .1, n(x) the fewest steps that led from
      x to a success; z-scored over the transitions from s. 0 where none ever did. It counts steps
      to solved ends, and has no place for rewards.

    Args:
        paths: The episodes of one group.
        kind: Which.
        discount: d; "distance" has none.
        sigma: Divide by the deviation; otherwise credits stay in units of the value. The last two
            are z-scores by definition.
        least_sigma: Deviations below count as this. (The paper's figure was not at hand.)

    Returns:
        For each path an array [T].

    Raises:
        ValueError: "distance" of paths with rewards.
    """
    graph = Graph.of(paths)
    if not len(graph.state):
        return [np.zeros(0) for _ in paths]
    if kind == "distance":
        if graph.reward.any():
            raise ValueError("kind='distance' counts steps to solved ends: it reads no rewards")
        steps = np.r_[_distances(graph), np.inf]  # the last one: where a path ended
        won = (graph.follows < 0) & (graph.next_values(np.zeros(graph.states)) > 0)
        far = np.where(won, 0.0, steps[np.maximum(graph.follows, -1)])
        near = np.power(NEARER, far)
        return graph.split(group_relative(near, [int(s) for s in graph.state]))
    if kind == "hindsight":
        return graph.split(_hindsight(graph, discount))
    if kind == "visits":
        gained = returns_to_go(graph, discount)
        values = graph.by_state(gained)
    else:
        values = state_values(graph, discount)
        gained = graph.reward + discount * graph.next_values(values)
    gap = graph.by_edge(gained)[graph.edge] - values[graph.state]
    gap = np.where(np.abs(gap) <= ROUNDING, 0.0, gap)
    gap = np.where(graph.choices()[graph.state] >= 2, gap, 0.0)
    if sigma:
        spread = np.sqrt(graph.by_state(gap**2))
        gap = gap / np.maximum(spread, least_sigma)[graph.state]
    return graph.split(gap)


def _hindsight(graph: Graph, discount: float) -> Floats:
    # Paid on arrival, as an end's value is: V(s) = d E[r + V(x)].
    values = state_values(replace(graph, reward=discount * graph.reward), discount)
    after, before = graph.reward + graph.next_values(values), values[graph.state]
    credit = np.log(np.maximum(after, LEAST_POTENTIAL)) - np.log(
        np.maximum(before, LEAST_POTENTIAL)
    )
    # Each different edge counts once, however often it was taken: to another place, or paid else.
    places = np.where(graph.follows < 0, -1.0 - graph.next_values(values), graph.follows)
    keys = list(zip(graph.edge.tolist(), places.tolist(), graph.reward.tolist(), strict=True))
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    chosen = list(first.values())
    scores = group_relative(credit[chosen], [int(graph.state[i]) for i in chosen])
    score_of = dict(zip(first, scores, strict=True))
    return np.asarray([score_of[key] for key in keys], np.float64)


def _distances(graph: Graph) -> Floats:
    """[states] the fewest steps that led from each to a success; infinite where none did."""
    before: defaultdict[int, set[int]] = defaultdict(set)
    found = np.full(graph.states, np.inf)
    queue: deque[int] = deque()
    for state, follows in zip(graph.state.tolist(), graph.follows.tolist(), strict=True):
        if follows >= 0:
            before[follows].add(state)
        elif graph.ends[-1 - follows] > 0 and found[state] != 1:
            found[state] = 1.0
            queue.append(state)
    while queue:
        state = queue.popleft()
        for source in before[state]:
            if not np.isfinite(found[source]):
                found[source] = found[state] + 1
                queue.append(source)
    return found


def nested(
    to_go: Sequence[Sequence[float]],
    histories: Sequence[Sequence[Hashable]],
    groups: Sequence[Hashable],
    *,
    depth: int = 2,
    alpha: float = 1.0,
    std: bool = True,
) -> list[Floats]:
    """HGPO: a step beside steps that saw the same, and the same before that, and before that.

    A_t = sum_k w_k A_t^(k) / sum_k w_k over the k = 0..depth whose A^(k) is not 0, w_k =
    (k + 1)^alpha; A^(k) is the z-score of the return to go among the steps of the group whose last
    k + 1 observations are the same.

    Args:
        to_go: [n][T] returns to go.
        histories: [n][T] the observation at each step.
        groups: [n] task groups.
        depth: Steps looked back.
        alpha: How much more a longer common history weighs.
        std: Divide by deviations.

    Returns:
        For each episode an array [T].
    """
    values = [value for own in to_go for value in own]
    total, weights = np.zeros(len(values)), np.zeros(len(values))
    for k in range(depth + 1):
        keys: list[Hashable] = []
        for group, seen in zip(groups, histories, strict=True):
            # Fewer than k + 1 observations are a history of their own.
            keys += [(group, *seen[max(0, t - k) : t + 1]) for t in range(len(seen))]
        part = group_relative(values, keys, std=std)
        weight = float((k + 1) ** alpha) * (part != 0)
        total, weights = total + weight * part, weights + weight
    merged = np.where(weights > 0, total / np.maximum(weights, 1e-12), 0.0)
    return parted(merged, [len(own) for own in to_go])


def milestone_rewards(
    steps: Sequence[int], achieved: Sequence[bool], *, discount: float = 0.95, prize: float = 10.0
) -> list[Floats]:
    """BEACON: r_t = prize * d^{t_k - t} where the segment's milestone was reached at t_k, else 0.

    Args:
        steps: [segments] decisions in each segment; the last one reaches the milestone.
        achieved: [segments] whether it was reached.
        discount: d.
        prize: What the last step is paid.

    Returns:
        For each segment an array [T].
    """
    return [
        prize * discount ** np.arange(count - 1, -1, -1.0) if reached else np.zeros(count)
        for count, reached in zip(steps, achieved, strict=True)
    ]
