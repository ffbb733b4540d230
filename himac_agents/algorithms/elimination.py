"""Values of large Markov chains, exactly: states are eliminated one by one.

The paths of a group are long and meet seldom, so that most states have few neighbours, and taking
one out joins few others. Everything that is known of a state is a number that is not negative: the
weights of its successors, and that of ending in it. What its equation is divided by is their sum,
never 1 minus something (Grassmann, Taksar and Heyman), so that nothing cancels where paths take
very long to end.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from himac_agents.algorithms.advantages import Floats

#: Taking a state out costs predecessors x successors. Where the cheapest one costs more than this,
#: and than the square of this share of the states that are left, a dense solution is faster.
FEW = 100
SHARE = 0.02


def chain_values(
    successors: Sequence[dict[int, float]], leaves: Sequence[float], paid: Sequence[float]
) -> Floats:
    """[states] V, where (leave_s + sum_x w_sx) V_s = paid_s + sum_x w_sx V_x.

    Args:
        successors: [states] w, the weights of other states; a state's own does not count. They are
            used up.
        leaves: [states] the weight of ending there; from every state some end can be reached.
        paid: [states] what is paid.

    Returns:
        The values.
    """
    count = len(successors)
    ends, gains = list(leaves), list(paid)
    before: list[set[int]] = [set() for _ in range(count)]
    for state, weights in enumerate(successors):
        weights.pop(state, None)
        for after in weights:
            before[after].add(state)
    totals = [0.0] * count
    order: list[int] = []
    gone = [False] * count

    def price(state: int) -> int:
        return len(before[state]) * len(successors[state])

    queue = [(price(state), state) for state in range(count)]
    heapq.heapify(queue)
    while queue:
        asked, state = heapq.heappop(queue)
        if gone[state] or asked != price(state):
            continue  # it was put in again at its price of now
        if asked > max(FEW, (SHARE * (count - len(order))) ** 2):
            break
        out = successors[state]
        totals[state] = total = ends[state] + sum(out.values())
        gone[state] = True
        order.append(state)
        for after in out:
            before[after].discard(state)
        for source in before[state]:
            row = successors[source]
            share = row.pop(state) / total
            ends[source] += share * ends[state]
            gains[source] += share * gains[state]
            for after, weight in out.items():
                if after != source:
                    row[after] = row.get(after, 0.0) + share * weight
                    before[after].add(source)
        for near in before[state] | out.keys():
            heapq.heappush(queue, (price(near), near))
    values = np.zeros(count)
    core = [state for state in range(count) if not gone[state]]
    if core:
        values[core] = _dense(core, successors, ends, gains)
    for state in reversed(order):
        ahead = sum(weight * values[after] for after, weight in successors[state].items())
        values[state] = (gains[state] + ahead) / totals[state]
    return values


def _dense(
    core: Sequence[int],
    successors: Sequence[dict[int, float]],
    ends: Sequence[float],
    gains: Sequence[float],
) -> Floats:
    """The values of the states that are left, which have no others as successors."""
    place = {state: i for i, state in enumerate(core)}
    system = np.zeros((len(core), len(core)))
    for state, i in place.items():
        weights = successors[state]
        system[i, [place[after] for after in weights]] = [-weight for weight in weights.values()]
        system[i, i] = ends[state] + sum(weights.values())
    found = np.linalg.solve(system, np.asarray([gains[state] for state in core]))
    return np.asarray(found, np.float64)
