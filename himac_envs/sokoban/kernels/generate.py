"""Room generation by reverse play, as gym-sokoban and verl-agent do it, over plain arrays.

One kernel makes a whole room: a random walk carves the floor, targets and the player are placed,
and a depth-first search plays backwards (pulling boxes off their targets) for the start that
scores best. Random numbers come from two buffers of raw 32-bit words, so that the caller decides
which generators they are: Mersenne Twisters for the originals' levels, a counter for our own.

Source: ``gym_sokoban/envs/room_utils.py`` (0.0.6), and verl-agent's changes to it.
"""

from __future__ import annotations

import numpy as np

from himac_envs.sokoban.kernels import I64, U8, U32, U64, kernel

OK = 0
OUT_OF_WORDS = 1
TOO_MANY_FAILURES = 2
OTHER_SPLIT = 3

# Rooms belong to a split by the fifth that a hash of their floor plan lies in: three are for
# training, one for validation, one for tests (see himac_envs.sokoban.splits).
ANY = -1
TRAIN = 0
VALID = 1
TEST = 2
_FIFTHS = np.uint64(5)
_TRAIN_FIFTHS = 3
# How often the pieces are placed anew on the same floor before another floor is carved.
_PLACINGS = 16
# Cells of a plan that fits into one number, with two bits a cell.
_MOST_DIGITS = 32

WALK_NONE = 0
WALK_VERL_AGENT = 1
WALK_ANYWHERE = 2

# room_topology_generation: what a step of the walk carves, a 3 x 3 mask around the walker.
_MASKS = np.array(
    [
        [0, 0, 0, 1, 1, 1, 0, 0, 0],
        [0, 1, 0, 0, 1, 0, 0, 1, 0],
        [0, 0, 0, 1, 1, 0, 0, 1, 0],
        [0, 0, 0, 1, 1, 0, 1, 1, 0],
        [0, 0, 0, 0, 1, 1, 0, 1, 0],
    ],
    dtype=np.uint8,
)
# ... and its directions in the order in which random.sample indexes them: down, right, up, left.
_WALK = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=np.int64)

# Slots for explored states that a search begins with: most searches are small, and clearing more
# would take as long as they do. It grows when it is half full.
_FIRST_TABLE = 512

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30 = np.uint64(30)
_S27 = np.uint64(27)
_S31 = np.uint64(31)
_S32 = np.uint64(32)
_ONE = np.uint64(1)
_DIGIT = np.uint64(3)


@kernel
def mix(value: np.uint64) -> np.uint64:
    """splitmix64's output function: a 64-bit hash of a 64-bit value."""
    z = value + _GOLDEN
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@kernel
def fill_words(key: np.uint64, first: int, words: U32) -> None:
    """Fill a buffer with the 32-bit words of the counter generator of this key (uint64).

    Args:
        key: The generator's key.
        first: The place of the buffer's first word among the generator's.
        words: uint32 output.
    """
    for i in range(words.shape[0]):
        words[i] = np.uint32(mix(key + np.uint64(first + i) * _GOLDEN) >> _S32)


@kernel
def _word(words: U32, cursor: I64) -> int:
    at = cursor[0]
    if at >= words.shape[0]:
        cursor[1] = 1
        return 0
    cursor[0] = at + 1
    return int(words[at])


@kernel
def _randbelow(words: U32, cursor: I64, n: int) -> int:
    # random.Random._randbelow: the top bits of a word, drawn again until below n.
    bits = 0
    while (1 << bits) <= n:
        bits += 1
    r = _word(words, cursor) >> (32 - bits)
    while r >= n:
        r = _word(words, cursor) >> (32 - bits)
    return r


@kernel
def _masked(words: U32, cursor: I64, n: int) -> int:
    # numpy.random.RandomState.randint: the low bits of a word, drawn again until below n.
    mask = n - 1
    mask |= mask >> 1
    mask |= mask >> 2
    mask |= mask >> 4
    mask |= mask >> 8
    mask |= mask >> 16
    r = _word(words, cursor) & mask
    while r >= n:
        r = _word(words, cursor) & mask
    return r


@kernel
def _random(words: U32, cursor: I64) -> float:
    # random.Random.random: 53 bits of two words.
    a = _word(words, cursor) >> 5
    b = _word(words, cursor) >> 6
    return (a * 67108864.0 + b) / 9007199254740992.0


@kernel
def _form(
    symmetry: int, cols: int, top: int, bottom: int, left: int, right: int
) -> tuple[int, int, int]:
    # How to read a bounding box (its first and last row, its first and last column) in one of the
    # eight symmetries: the first cell, and the steps to the next row and to the next column.
    to_row, to_col = cols, 1
    r, c = top, left
    if symmetry & 1:
        to_row, r = -cols, bottom
    if symmetry & 2:
        to_col, c = -1, right
    if symmetry & 4:
        return r * cols + c, to_col, to_row
    return r * cols + c, to_row, to_col


@kernel
def _bounds(fixed: U8, rows: int, cols: int) -> tuple[int, int, int, int]:
    # The first and last row and the first and last column with floor; rows, -1, cols, -1 if none.
    top, bottom, left, right = rows, -1, cols, -1
    for r in range(rows):
        for c in range(cols):
            if fixed[r * cols + c] != 0:
                top, bottom = min(top, r), r
                left, right = min(left, c), max(right, c)
    return top, bottom, left, right


@kernel
def plan_hash(fixed: U8, rows: int, cols: int) -> np.uint64:
    """A 64-bit hash of a floor plan that is the same wherever the plan lies and however it turns.

    Args:
        fixed: Codes of the floor plan (walls, floor, targets), uint8, rows * cols.
        rows: Height.
        cols: Width.

    Returns:
        A hash of the canonical form: the plan without the walls around it, no higher than wide,
        in the smallest of its eight symmetries. 0 where there is no floor.
    """
    top, bottom, left, right = _bounds(fixed, rows, cols)
    height, width = bottom - top + 1, right - left + 1
    if height <= 0:
        return np.uint64(0)
    low, high = min(height, width), max(height, width)
    best, best_row, best_col = -1, 0, 0
    for symmetry in range(8):
        if (height > width and symmetry < 4) or (height < width and symmetry >= 4):
            continue
        first, to_row, to_col = _form(symmetry, cols, top, bottom, left, right)
        smaller = best < 0
        decided = smaller
        for r in range(low):
            if decided:
                break
            ours, theirs = first + r * to_row, best + r * best_row
            for _ in range(high):
                if fixed[ours] != fixed[theirs]:
                    smaller, decided = fixed[ours] < fixed[theirs], True
                    break
                ours += to_col
                theirs += best_col
        if smaller:
            best, best_row, best_col = first, to_row, to_col
    value = mix(np.uint64(low * 65536 + high))
    for r in range(low):
        for c in range(high):
            value = mix(value ^ np.uint64(fixed[best + r * best_row + c * best_col]))
    return value


@kernel
def _put(
    forms: U64, code: int, cell: int, cols: int, top: int, bottom: int, left: int, right: int
) -> None:
    # Add a cell's code to the eight symmetries of a plan. Each is a number, its digits of two bits
    # the plan's cells, the first of them leading, so that the smallest form is the least number.
    height, width = bottom - top + 1, right - left + 1
    r, c = cell // cols, cell % cols
    for symmetry in range(8):
        down = bottom - r if symmetry & 1 else r - top
        along = right - c if symmetry & 2 else c - left
        place = along * height + down if symmetry & 4 else down * width + along
        forms[symmetry] += np.uint64(code) << np.uint64(2 * (height * width - 1 - place))


@kernel
def _hash_of_forms(forms: U64, height: int, width: int) -> np.uint64:
    # plan_hash of a plan whose symmetries are numbers.
    best = forms[0 if height <= width else 4]
    for symmetry in range(8):
        if (height < width and symmetry >= 4) or (height > width and symmetry < 4):
            continue
        best = min(best, forms[symmetry])
    value = mix(np.uint64(min(height, width) * 65536 + max(height, width)))
    for place in range(height * width - 1, -1, -1):
        value = mix(value ^ ((best >> np.uint64(2 * place)) & _DIGIT))
    return value


@kernel
def _split_of(value: np.uint64) -> int:
    # The split of a floor plan by its hash.
    fifth = int(value % _FIFTHS)
    return TRAIN if fifth < _TRAIN_FIFTHS else fifth - _TRAIN_FIFTHS + 1


@kernel
def plan_split(fixed: U8, rows: int, cols: int) -> int:
    """The split that a floor plan belongs to: TRAIN, VALID or TEST."""
    return _split_of(plan_hash(fixed, rows, cols))


@kernel
def _topology(
    words: U32, cursor: I64, rows: int, cols: int, steps: int, change: float, fixed: U8
) -> None:
    fixed[:] = 0
    heading = _randbelow(words, cursor, 4)
    r = 1 + _randbelow(words, cursor, rows - 1)
    c = 1 + _randbelow(words, cursor, cols - 1)
    for _ in range(steps):
        if _random(words, cursor) < change:
            heading = _randbelow(words, cursor, 4)
        r = max(min(r + _WALK[heading, 0], rows - 2), 1)
        c = max(min(c + _WALK[heading, 1], cols - 2), 1)
        m = _randbelow(words, cursor, 5)
        for k in range(9):
            if _MASKS[m, k]:
                fixed[(r - 1 + k // 3) * cols + c - 1 + k % 3] = 1
    for i in range(rows):
        fixed[i * cols] = 0
        fixed[i * cols + cols - 1] = 0
    for i in range(cols):
        fixed[i] = 0
        fixed[(rows - 1) * cols + i] = 0


@kernel
def _nth_free(fixed: U8, player: int, n: int) -> int:
    # The n-th floor cell in reading order, the player's not counted.
    for cell in range(fixed.shape[0]):
        if fixed[cell] == 1 and cell != player:
            if n == 0:
                return cell
            n -= 1
    return -1


@kernel
def _insert(table: U64, key: np.uint64) -> bool:
    # Open addressing; 0 marks an empty slot. True if the key is new.
    mask = np.uint64(table.shape[0] - 1)
    slot = key & mask
    while table[slot] != 0:
        if table[slot] == key:
            return False
        slot = (slot + _ONE) & mask
    table[slot] = key
    return True


@kernel
def _piece_keys(cells: int) -> U64:
    # Zobrist keys of the pieces on each cell: of the player, of a box not yet pulled, of a pulled
    # box. The original tells the last two apart (codes 4 and 3), so its set of explored states
    # does too.
    keys = np.empty((cells, 3), dtype=np.uint64)
    for cell in range(cells):
        for kind in range(3):
            keys[cell, kind] = mix(np.uint64(cell * 3 + kind) * _MIX_1) | _ONE
    return keys


@kernel
def reverse_play(
    fixed: U8,
    rows: int,
    cols: int,
    player: int,
    boxes: I64,
    pulls_only: bool,
    carry: bool,
    depth_limit: int,
    budget: int,
) -> tuple[int, int, int]:
    """Search backwards for the best start (``reverse_playing``, ``depth_first_search``).

    The set of explored states holds 64-bit hashes where the original holds whole boards: with at
    most 300,000 states the odds of a clash that changes a room are below one in 10^8.

    Args:
        fixed: Codes of the floor plan, uint8, rows * cols.
        rows: Height.
        cols: Width.
        player: The player's cell; on return unchanged.
        boxes: The boxes' cells (their targets), int64; replaced by the best start's.
        pulls_only: Leave out the four moves that never pull (verl-agent).
        carry: Count a "swap" when another box is pulled than before (verl-agent). gym-sokoban
            meant this but passes the wrong variable on: it counts every pull.
        depth_limit: The original's ``ttl``.
        budget: Most states to explore.

    Returns:
        The best score, the player's cell in that state, the boxes' displacement in it.
    """
    n = boxes.shape[0]
    offsets = np.array([-cols, cols, -1, 1], dtype=np.int64)
    actions = 4 if pulls_only else 8
    box_at = np.zeros(fixed.shape[0], dtype=np.int64)
    home = boxes.copy()
    pulled = np.zeros(n, dtype=np.int64)
    best_boxes = boxes.copy()
    pieces = _piece_keys(fixed.shape[0])
    key = pieces[player, 0]
    for b in range(n):
        box_at[boxes[b]] = b + 1
        key ^= pieces[boxes[b], 1]
    table = np.zeros(_FIRST_TABLE, dtype=np.uint64)
    depth_limit -= 1  # the call itself
    if depth_limit <= 0:
        return -1, player, 0
    _insert(table, key)
    count = 1
    best_score = 0
    best_player = player
    best_displacement = 0
    covered = n  # targets under a box or the player
    displacement = 0
    swaps = 0
    last = -1
    # One row a level of the search: next action, undo information. Written when it is reached.
    act = np.empty(depth_limit + 1, dtype=np.int64)
    came = np.empty(depth_limit + 1, dtype=np.int64)
    moved = np.empty(depth_limit + 1, dtype=np.int64)
    was_pulled = np.empty(depth_limit + 1, dtype=np.int64)
    keys = np.empty(depth_limit + 1, dtype=np.uint64)
    scores = np.empty((depth_limit + 1, 4), dtype=np.int64)
    act[0], moved[0] = 0, -1
    depth = 0
    while depth >= 0:
        a = act[depth]
        if a == actions:
            # Undo the step that led here.
            b = moved[depth]
            if b >= 0:
                box_at[boxes[b]] = 0
                origin = boxes[b] - (player - came[depth])
                boxes[b] = origin
                box_at[origin] = b + 1
                pulled[b] = was_pulled[depth]
            if depth > 0:
                player = came[depth]
                key = keys[depth]
                swaps, displacement, covered, last = (
                    scores[depth, 0],
                    scores[depth, 1],
                    scores[depth, 2],
                    scores[depth, 3],
                )
            depth -= 1
            continue
        if a == 4 and (
            box_at[player - cols] == 0
            and box_at[player + cols] == 0
            and box_at[player - 1] == 0
            and box_at[player + 1] == 0
        ):
            act[depth] = actions  # no box to leave behind: the other four are the same steps
            continue
        act[depth] = a + 1
        delta = offsets[a % 4]
        ahead = player + delta
        if fixed[ahead] == 0 or box_at[ahead] != 0:
            continue  # nothing moves: the same state again
        b = box_at[player - delta] - 1
        if a >= 4:
            if b < 0:
                continue  # the same step as pull action a - 4, explored already
            b = -1
        if depth + 1 >= depth_limit or count >= budget:
            continue
        new_key = key ^ pieces[player, 0] ^ pieces[ahead, 0]
        if b >= 0:
            new_key ^= pieces[player - delta, 1 + pulled[b]] ^ pieces[player, 2]
        if not _insert(table, new_key):
            continue
        count += 1
        if 2 * count > table.shape[0]:
            larger = np.zeros(4 * table.shape[0], dtype=np.uint64)
            for old in table:
                if old != 0:
                    _insert(larger, old)
            table = larger
        depth += 1
        act[depth] = 0
        came[depth] = player
        keys[depth] = key
        scores[depth, 0] = swaps
        scores[depth, 1] = displacement
        scores[depth, 2] = covered
        scores[depth, 3] = last
        moved[depth] = b
        key = new_key
        if fixed[player] == 2 and box_at[player] == 0:
            covered -= 1
        if b >= 0:
            origin = player - delta
            was_pulled[depth] = pulled[b]
            pulled[b] = 1
            box_at[origin] = 0
            box_at[player] = b + 1
            boxes[b] = player
            if fixed[origin] == 2:
                covered -= 1
            if fixed[player] == 2:
                covered += 1
            hr, hc = home[b] // cols, home[b] % cols
            displacement += abs(player // cols - hr) + abs(player % cols - hc)
            displacement -= abs(origin // cols - hr) + abs(origin % cols - hc)
            if not carry or b != last:
                swaps += 1
            if carry:
                last = b
        player = ahead
        if fixed[player] == 2:
            covered += 1
        if covered == 0 and swaps * displacement > best_score:
            best_score = swaps * displacement
            best_player = player
            best_displacement = displacement
            best_boxes[:] = boxes
    boxes[:] = best_boxes
    return best_score, best_player, best_displacement


@kernel
def _walk_verl_agent(
    words: U32, cursor: I64, fixed: U8, cols: int, player: int, state: U8, displacement: int
) -> int:
    # add_random_player_movement: up to three steps that never return to a visited cell.
    offsets = np.array([-cols, cols, -1, 1], dtype=np.int64)
    probability = 0.8 if displacement == 1 else 0.5
    if _random(words, cursor) > probability:
        return player
    visited = np.full(4, -1, dtype=np.int64)
    visited[0] = player
    valid = np.zeros(4, dtype=np.int64)
    for taken in range(1, 4):
        n = 0
        for d in range(4):
            cell = player + offsets[d]
            fresh = True
            for v in range(taken):
                if visited[v] == cell:
                    fresh = False
            if (state[cell] == 1 or state[cell] == 2) and fresh:
                valid[n] = cell
                n += 1
        if n == 0:
            break
        cell = valid[_randbelow(words, cursor, n)]
        state[player] = fixed[player]
        state[cell] = 5
        player = cell
        visited[taken] = cell
        if taken == 3 or _random(words, cursor) > 0.5:
            break
    return player


@kernel
def _walk_anywhere(words: U32, cursor: I64, fixed: U8, cols: int, player: int, state: U8) -> int:
    # A cell drawn evenly among the empty floor that the player can walk to (targets left out).
    offsets = np.array([-cols, cols, -1, 1], dtype=np.int64)
    seen = np.zeros(state.shape[0], dtype=np.uint8)
    queue = np.zeros(state.shape[0], dtype=np.int64)
    queue[0] = player
    seen[player] = 1
    head, tail = 0, 1
    while head < tail:
        cell = queue[head]
        head += 1
        for d in range(4):
            near = cell + offsets[d]
            if not seen[near] and (state[near] == 1 or state[near] == 2):
                seen[near] = 1
                queue[tail] = near
                tail += 1
    n = 0
    for i in range(tail):
        if fixed[queue[i]] == 1:
            queue[n] = queue[i]
            n += 1
    cell = int(queue[_randbelow(words, cursor, n)])
    state[player] = fixed[player]
    state[cell] = 5
    return cell


@kernel
def make_room(
    topology_words: U32,
    place_words: U32,
    rows: int,
    cols: int,
    num_boxes: int,
    gen_steps: int,
    pulls_only: bool,
    carry: bool,
    depth_limit: int,
    budget: int,
    walk: int,
    max_failures: int,
    split: int,
    fixed: U8,
    state: U8,
) -> tuple[int, int]:
    """Make one room (``generate_room`` with ``SokobanEnv.reset``'s retries).

    Args:
        topology_words: uint32 words for the walk that carves the room (and the player's walk).
        place_words: uint32 words for placing the player and the boxes.
        rows: Height.
        cols: Width.
        num_boxes: Number of boxes.
        gen_steps: Steps of the carving walk.
        pulls_only: See :func:`reverse_play`.
        carry: See :func:`reverse_play`.
        depth_limit: See :func:`reverse_play`.
        budget: See :func:`reverse_play`.
        walk: One of the WALK_ constants: where the player stands in the end.
        max_failures: Give up after so many failed generations.
        split: Place the pieces so that the floor plan is of this split, and give up where that does
            not succeed (ANY: take every plan).
        fixed: uint8 output, rows * cols: what never moves.
        state: uint8 output, rows * cols: the start.

    Returns:
        A status (OK, OUT_OF_WORDS, TOO_MANY_FAILURES, OTHER_SPLIT) and the number of failed
        generations. A failed generation found no room with a score in four tries, or no space for
        the pieces.
    """
    cursor = np.zeros(2, dtype=np.int64)
    placing = np.zeros(2, dtype=np.int64)
    boxes = np.zeros(num_boxes, dtype=np.int64)
    floor, forms = np.empty(8, dtype=np.uint64), np.empty(8, dtype=np.uint64)
    failures = 0
    while failures < max_failures:
        score = 0
        player = 0
        displacement = 0
        for _ in range(4):
            _topology(topology_words, cursor, rows, cols, gen_steps, 0.35, fixed)
            free = 0
            for cell in range(fixed.shape[0]):
                free += 1 if fixed[cell] else 0
            if free <= num_boxes + 1:
                break
            fits = False
            top, bottom, left, right = _bounds(fixed, rows, cols)
            height, width = bottom - top + 1, right - left + 1
            small = split != ANY and height * width <= _MOST_DIGITS
            if small:
                floor[:] = 0
                for cell in range(fixed.shape[0]):
                    if fixed[cell]:
                        _put(floor, 1, cell, cols, top, bottom, left, right)
            refused = np.uint64(0)  # cells where a single target makes a plan of another split
            for _ in range(_PLACINGS):
                player = _nth_free(fixed, -1, _masked(place_words, placing, free))
                for b in range(num_boxes):
                    cell = _nth_free(fixed, player, _masked(place_words, placing, free - 1 - b))
                    fixed[cell] = 2
                    boxes[b] = cell
                if cursor[1] or placing[1]:
                    return OUT_OF_WORDS, failures
                # Places are few on a small floor, and drawn again and again.
                spot = np.uint64(0)
                if num_boxes == 1 and fixed.shape[0] <= 64:
                    spot = _ONE << np.uint64(cell)
                fits = split == ANY
                if refused & spot == 0 and small:
                    forms[:] = floor
                    for b in range(num_boxes):
                        _put(forms, 1, boxes[b], cols, top, bottom, left, right)
                    fits = split == _split_of(_hash_of_forms(forms, height, width))
                elif refused & spot == 0 and not fits:
                    fits = split == plan_split(fixed, rows, cols)
                refused |= spot
                if fits:
                    break
                for b in range(num_boxes):
                    fixed[boxes[b]] = 1
            if not fits:
                return OTHER_SPLIT, failures
            b = 0
            for cell in range(fixed.shape[0]):
                if fixed[cell] == 2:
                    boxes[b] = cell
                    b += 1
            score, player, displacement = reverse_play(
                fixed, rows, cols, player, boxes, pulls_only, carry, depth_limit, budget
            )
            if score > 0:
                break
        if cursor[1] or placing[1]:
            return OUT_OF_WORDS, failures
        if score == 0:
            failures += 1
            continue
        state[:] = fixed
        for b in range(num_boxes):
            state[boxes[b]] = 4
        state[player] = 5
        if walk == WALK_VERL_AGENT:
            _walk_verl_agent(topology_words, cursor, fixed, cols, player, state, displacement)
        elif walk == WALK_ANYWHERE:
            _walk_anywhere(topology_words, cursor, fixed, cols, player, state)
        if cursor[1]:
            return OUT_OF_WORDS, failures
        return OK, failures
    return TOO_MANY_FAILURES, failures


@kernel
def make_fast_rooms(
    keys: U64,
    splits: I64,
    rows: int,
    cols: int,
    num_boxes: int,
    gen_steps: int,
    budget: int,
    max_failures: int,
    max_floors: int,
    fixed: U8,
    state: U8,
    status: I64,
) -> None:
    """Make a batch of rooms of the ``fast`` generator, one for each uint64 key.

    Where a key's floor holds no plan of the room's split, the next key is a hash of it.

    Args:
        keys: uint64, shape (n,); a room depends on its key and its split alone.
        splits: int64, shape (n,): ANY, TRAIN, VALID or TEST.
        rows: Height.
        cols: Width.
        num_boxes: Number of boxes.
        gen_steps: Steps of the carving walk.
        budget: See :func:`reverse_play`.
        max_failures: See :func:`make_room`.
        max_floors: Give up after so many floors without a plan of the split.
        fixed: uint8 output, shape (n, rows * cols): what never moves.
        state: uint8 output, shape (n, rows * cols): the starts.
        status: int64 output, shape (n,).
    """
    topology_words = np.zeros(8192, dtype=np.uint32)
    place_words = np.zeros(1024, dtype=np.uint32)
    for i in range(keys.shape[0]):
        # Few rooms need more than the first words; only those pay for more of them.
        few = min(8192, 32 + 16 * gen_steps), min(1024, 32 + 32 * num_boxes)
        walking, placing = few
        key = keys[i]
        floors = 0
        fill_words(key, 0, topology_words[:walking])
        fill_words(mix(key), 0, place_words[:placing])
        while floors < max_floors:
            status[i], _failures = make_room(
                topology_words[:walking], place_words[:placing], rows, cols, num_boxes, gen_steps,
                False, False, 300, budget, WALK_ANYWHERE, max_failures, splits[i], fixed[i],
                state[i],
            )  # fmt: skip
            if status[i] == OTHER_SPLIT:
                key = mix(key ^ _MIX_2)
                floors += 1
                walking, placing = few
                fill_words(key, 0, topology_words[:walking])
                fill_words(mix(key), 0, place_words[:placing])
            elif status[i] == OUT_OF_WORDS and (walking < 8192 or placing < 1024):
                more = min(8192, 4 * walking), min(1024, 4 * placing)
                fill_words(key, walking, topology_words[walking : more[0]])
                fill_words(mix(key), placing, place_words[placing : more[1]])
                walking, placing = more
            else:
                break
