"""Optimal Sokoban search (A*) over plain arrays.

A node is a set of boxes and where the player stands; an edge is one push. Two measures of cost:

- *pushes*: every push costs 1, walking is free, and the player counts only by the region that it
  can reach, named by that region's smallest cell;
- *moves*: a push costs itself and the walk to it, and the player's exact cell counts.

The estimate of what is left is the cheapest assignment of boxes to targets by the number of
pushes that each box would need alone in the room (found by pulling backwards from each target);
for moves, also the walk to the nearest box. Boxes that can no longer reach any target, and groups
of boxes that block each other for good, cut a branch.
"""

from __future__ import annotations

import numpy as np

from himac_envs.sokoban.kernels import I16, I32, I64, U8, U64, kernel

SOLVED = 0
UNSOLVABLE = 1
LIMIT = 2

INF = 1_000_000
MATCHING_LIMIT = 10
BUCKETS = 16_384

_ONE = np.uint64(1)
_KEY = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30 = np.uint64(30)
_S27 = np.uint64(27)
_S31 = np.uint64(31)


@kernel
def _hash(value: int) -> np.uint64:
    z = np.uint64(value + 1) * _KEY
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@kernel
def pull_distances(fixed: U8, cols: int, targets: I64, distance: I64) -> None:
    """Pushes that a box alone in the room needs from each cell to each target.

    Args:
        fixed: uint8 codes of the floor plan.
        cols: Width of the room.
        targets: int64, the targets' cells.
        distance: int64 output, shape (targets, cells); INF where there is no way.
    """
    offsets = np.array([-cols, cols, -1, 1], dtype=np.int64)
    queue = np.zeros(fixed.shape[0], dtype=np.int64)
    for t in range(targets.shape[0]):
        for cell in range(fixed.shape[0]):
            distance[t, cell] = INF
        distance[t, targets[t]] = 0
        queue[0] = targets[t]
        head, tail = 0, 1
        while head < tail:
            cell = queue[head]
            head += 1
            for d in range(4):
                before = cell - offsets[d]
                # A cell on the outer ring is a wall, so one more step back stays inside.
                if fixed[before] == 0 or fixed[before - offsets[d]] == 0:
                    continue
                if distance[t, before] == INF:
                    distance[t, before] = distance[t, cell] + 1
                    queue[tail] = before
                    tail += 1


@kernel
def frozen_off_target(fixed: U8, cols: int, dead: U8, boxes: I64, n: int, frozen: U8) -> bool:
    """Whether some box can never move again and is not on a target.

    Starts from "all boxes are stuck" and frees, again and again, each box that has a free axis:
    no wall and no stuck box on either side, and not a dead cell on both sides. What stays stuck
    supports itself: the first of these boxes to move would need a free axis now.

    Args:
        fixed: uint8 codes of the floor plan.
        cols: Width of the room.
        dead: uint8, cells from which a box reaches no target.
        boxes: Cells of the boxes, the first n count.
        n: Number of boxes.
        frozen: uint8 scratch, zero for every cell; zero again on return.
    """
    for i in range(n):
        frozen[boxes[i]] = 1
    again = True
    while again:
        again = False
        for i in range(n):
            b = boxes[i]
            if not frozen[b]:
                continue
            for axis in (1, cols):
                low, high = b - axis, b + axis
                blocked = fixed[low] == 0 or fixed[high] == 0 or frozen[low] or frozen[high]
                if not blocked and not (dead[low] and dead[high]):
                    frozen[b] = 0
                    again = True
                    break
    stuck = False
    for i in range(n):
        if frozen[boxes[i]]:
            if fixed[boxes[i]] != 2:
                stuck = True
            frozen[boxes[i]] = 0
    return stuck


@kernel
def _matching(distance: I64, boxes: I64, n: int, dp: I64) -> int:
    # Cheapest assignment of boxes to targets; the sum of minima (still a lower bound) beyond
    # MATCHING_LIMIT boxes.
    if n == 1:
        return int(distance[0, boxes[0]])
    if n > MATCHING_LIMIT:
        total = 0
        for i in range(n):
            best = INF
            for t in range(n):
                best = min(best, distance[t, boxes[i]])
            total += best
        return min(total, INF)
    full = (1 << n) - 1
    for m in range(1, full + 1):
        dp[m] = INF
    dp[0] = 0
    for m in range(full):
        base = dp[m]
        if base >= INF:
            continue
        i = 0
        rest = m
        while rest:
            rest &= rest - 1
            i += 1
        b = boxes[i]
        for t in range(n):
            if not m >> t & 1:
                cost = base + distance[t, b]
                if cost < dp[m | 1 << t]:
                    dp[m | 1 << t] = cost
    return int(dp[full])


@kernel
def _flood(
    fixed: U8, cols: int, occupied: U8, start: int, seen: I64, stamp: int, walk: I64, queue: I64
) -> int:
    # Cells that the player reaches, with the length of the walk; returns the smallest.
    smallest = start
    queue[0] = start
    seen[start] = stamp
    walk[start] = 0
    head, tail = 0, 1
    while head < tail:
        cell = queue[head]
        head += 1
        if cell < smallest:
            smallest = cell
        step = walk[cell] + 1
        for d in range(4):
            if d == 0:
                near = cell - cols
            elif d == 1:
                near = cell + cols
            elif d == 2:
                near = cell - 1
            else:
                near = cell + 1
            if seen[near] != stamp and fixed[near] != 0 and occupied[near] == 0:
                seen[near] = stamp
                walk[near] = step
                queue[tail] = near
                tail += 1
    return smallest


@kernel
def _nearest_box(cols: int, boxes: I64, n: int, player: int) -> int:
    # Steps to the side of the nearest box, walls ignored.
    best = INF
    row, col = player // cols, player % cols
    for i in range(n):
        away = abs(boxes[i] // cols - row) + abs(boxes[i] % cols - col) - 1
        best = min(best, away)
    return best


@kernel
def _find(
    table: I32,
    mask: np.uint64,
    hashes: U64,
    node_boxes: I16,
    node_player: I32,
    n: int,
    key: np.uint64,
    boxes: I64,
    player: int,
) -> np.uint64:
    # The slot of this state, or the empty slot where it belongs.
    slot = key & mask
    while table[slot] != 0:
        node = table[slot] - 1
        if hashes[node] == key and node_player[node] == player:
            same = True
            for i in range(n):
                if node_boxes[node, i] != boxes[i]:
                    same = False
                    break
            if same:
                return slot
        slot = (slot + _ONE) & mask
    return slot


@kernel
def search(
    fixed: U8,
    cols: int,
    start_boxes: I64,
    start_player: int,
    distance: I64,
    dead: U8,
    by_moves: bool,
    max_nodes: int,
    table: I32,
    hashes: U64,
    node_boxes: I16,
    node_player: I32,
    cost: I32,
    left: I32,
    parent: I32,
    push: I32,
    following: I32,
    pushes: I64,
) -> tuple[int, int, int, int]:
    """Find a cheapest solution.

    Args:
        fixed: uint8 codes of the floor plan.
        cols: Width of the room.
        start_boxes: int64, the boxes' cells in ascending order.
        start_player: The player's cell.
        distance: What :func:`pull_distances` found.
        dead: uint8, cells from which a box reaches no target.
        by_moves: Count moves instead of pushes.
        max_nodes: Most nodes to make; also the length of the node arrays.
        table: int32 scratch, a power of two long, all zero; all zero again on return.
        hashes: Node array: hash of the state.
        node_boxes: Node array: the boxes' cells, ascending.
        node_player: Node array: the player's cell, or its region's smallest.
        cost: Node array: cost of the way here.
        left: Node array: estimate of what is left; -1 for a node that a cheaper one replaced.
        parent: Node array: the node before.
        push: Node array: the push that led here, as in ``pushes``.
        following: Node array: the next node in the same bucket of the queue.
        pushes: int64 output: ``4 * cell of the box + direction`` for each push.

    Returns:
        Status (SOLVED, UNSOLVABLE, LIMIT), number of pushes, cost, nodes made.
    """
    n = start_boxes.shape[0]
    cells = fixed.shape[0]
    offsets = np.array([-cols, cols, -1, 1], dtype=np.int64)
    occupied = np.zeros(cells, dtype=np.uint8)
    frozen = np.zeros(cells, dtype=np.uint8)
    seen = np.zeros(cells, dtype=np.int64)
    seen_child = np.zeros(cells, dtype=np.int64)
    walk = np.zeros(cells, dtype=np.int64)
    walk_child = np.zeros(cells, dtype=np.int64)
    queue = np.zeros(cells, dtype=np.int64)
    boxes = start_boxes.copy()
    child = start_boxes.copy()
    dp = np.zeros(1 << min(n, MATCHING_LIMIT), dtype=np.int64)
    heads = np.full(BUCKETS, -1, dtype=np.int32)
    size = min(1024, table.shape[0])
    mask = np.uint64(size - 1)
    stamp = 1
    made = 0
    status = UNSOLVABLE
    goal = -1
    limited = False

    estimate = _matching(distance, boxes, n, dp)
    if estimate < INF and not frozen_off_target(fixed, cols, dead, boxes, n, frozen):
        for i in range(n):
            occupied[boxes[i]] = 1
        player = start_player
        if by_moves:
            if estimate > 0:
                estimate += _nearest_box(cols, boxes, n, player)
        else:
            player = _flood(fixed, cols, occupied, player, seen, stamp, walk, queue)
        key = _hash(player)
        for i in range(n):
            occupied[boxes[i]] = 0
            key ^= _hash(cells + boxes[i])
            node_boxes[0, i] = boxes[i]
        hashes[0] = key
        node_player[0] = player
        cost[0] = 0
        left[0] = estimate
        parent[0] = -1
        push[0] = -1
        following[0] = -1
        table[key & mask] = 1
        heads[min(estimate, BUCKETS - 1)] = 0
        made = 1
        current = min(estimate, BUCKETS - 1)
        while current < BUCKETS and goal < 0:
            node = heads[current]
            if node < 0:
                current += 1
                continue
            heads[current] = following[node]
            if left[node] < 0:
                continue  # a cheaper way to the same state was found meanwhile
            if left[node] == 0:
                goal = node
                break
            for i in range(n):
                boxes[i] = node_boxes[node, i]
                occupied[boxes[i]] = 1
            base = hashes[node] ^ _hash(node_player[node])
            stamp += 1
            reach = stamp
            _flood(fixed, cols, occupied, node_player[node], seen, reach, walk, queue)
            for i in range(n):
                box = boxes[i]
                for d in range(4):
                    beyond = box + offsets[d]
                    stand = box - offsets[d]
                    if seen[stand] != reach or fixed[beyond] == 0 or occupied[beyond]:
                        continue
                    if dead[beyond]:
                        continue
                    # The child's boxes stay sorted: only one of them moved.
                    at = i
                    for j in range(n):
                        child[j] = boxes[j]
                    child[at] = beyond
                    while at > 0 and child[at - 1] > child[at]:
                        child[at - 1], child[at] = child[at], child[at - 1]
                        at -= 1
                    while at < n - 1 and child[at + 1] < child[at]:
                        child[at + 1], child[at] = child[at], child[at + 1]
                        at += 1
                    step = walk[stand] + 1 if by_moves else 1
                    new_cost = cost[node] + step
                    player = box
                    if not by_moves:
                        occupied[box] = 0
                        occupied[beyond] = 1
                        stamp += 1
                        player = _flood(
                            fixed, cols, occupied, box, seen_child, stamp, walk_child, queue
                        )
                        occupied[box] = 1
                        occupied[beyond] = 0
                    key = base ^ _hash(player) ^ _hash(cells + box) ^ _hash(cells + beyond)
                    slot = _find(
                        table, mask, hashes, node_boxes, node_player, n, key, child, player
                    )
                    old = table[slot] - 1
                    if old >= 0:
                        if left[old] < 0 or cost[old] <= new_cost:
                            continue
                        estimate = left[old]
                        left[old] = -1
                    else:
                        estimate = _matching(distance, child, n, dp)
                        if estimate >= INF:
                            continue
                        if frozen_off_target(fixed, cols, dead, child, n, frozen):
                            continue
                        if by_moves and estimate > 0:
                            estimate += _nearest_box(cols, child, n, player)
                    if made >= max_nodes or new_cost + estimate >= BUCKETS:
                        limited = True
                        continue
                    hashes[made] = key
                    for j in range(n):
                        node_boxes[made, j] = child[j]
                    node_player[made] = player
                    cost[made] = new_cost
                    left[made] = estimate
                    parent[made] = node
                    push[made] = 4 * box + d
                    total = new_cost + estimate
                    if total < current:
                        total = current  # never with a consistent estimate; kept for safety
                    following[made] = heads[total]
                    heads[total] = made
                    made += 1
                    table[slot] = made
                    if 2 * made > size and size < table.shape[0]:
                        for j in range(size):
                            table[j] = 0
                        size *= 4
                        mask = np.uint64(size - 1)
                        for j in range(made):
                            if left[j] >= 0:
                                spot = hashes[j] & mask
                                while table[spot] != 0:
                                    spot = (spot + _ONE) & mask
                                table[spot] = j + 1
            for i in range(n):
                occupied[boxes[i]] = 0
            if limited:
                break
    for j in range(size):
        table[j] = 0
    count = 0
    total_cost = 0
    if goal >= 0:
        status = SOLVED
        total_cost = cost[goal]
        node = goal
        while parent[node] >= 0:
            count += 1
            node = parent[node]
        node = goal
        for k in range(count - 1, -1, -1):
            pushes[k] = push[node]
            node = parent[node]
    elif limited:
        status = LIMIT
    return status, count, total_cost, made


@kernel
def expand(
    fixed: U8, cols: int, boxes: I64, player: int, pushes: I64, count: int, actions: U8
) -> int:
    """Turn pushes into actions 1 to 4, the shortest walk before each push included.

    Args:
        fixed: uint8 codes of the floor plan.
        cols: Width of the room.
        boxes: int64, the boxes' cells at the start.
        player: The player's cell at the start.
        pushes: What :func:`search` found.
        count: Number of pushes.
        actions: uint8 output.

    Returns:
        The number of actions, or -1 where ``actions`` is too short.
    """
    offsets = np.array([-cols, cols, -1, 1], dtype=np.int64)
    cells = fixed.shape[0]
    occupied = np.zeros(cells, dtype=np.uint8)
    for i in range(boxes.shape[0]):
        occupied[boxes[i]] = 1
    seen = np.zeros(cells, dtype=np.int64)
    walk = np.zeros(cells, dtype=np.int64)
    queue = np.zeros(cells, dtype=np.int64)
    filled = 0
    for k in range(count):
        box = pushes[k] // 4
        d = pushes[k] % 4
        stand = box - offsets[d]
        # Flood from the goal of the walk, so that descending distances lead there.
        _flood(fixed, cols, occupied, stand, seen, k + 1, walk, queue)
        if filled + walk[player] + 1 > actions.shape[0]:
            return -1
        while player != stand:
            for e in range(4):
                near = player + offsets[e]
                if seen[near] == k + 1 and walk[near] == walk[player] - 1:
                    actions[filled] = e + 1
                    filled += 1
                    player = near
                    break
        actions[filled] = d + 1
        filled += 1
        occupied[box] = 0
        occupied[box + offsets[d]] = 1
        player = box
    return filled
