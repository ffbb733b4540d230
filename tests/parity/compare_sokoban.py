"""Play gym-sokoban 0.0.6 and our Sokoban side by side and compare everything.

    python tests/parity/compare_sokoban.py [--short]

Needs gym-sokoban (with gym and a setuptools below 81) beside this package with its ``sokoban``
extra. Exits with 1 on any difference.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

warnings.filterwarnings("ignore")

import gymnasium as gym  # noqa: E402
from gym_sokoban.envs import room_utils  # noqa: E402
from gym_sokoban.envs.sokoban_env import SokobanEnv as Original  # noqa: E402
from gym_sokoban.envs.sokoban_env_pull import PushAndPullSokobanEnv  # noqa: E402

import himac_envs  # noqa: E402, F401
from himac_envs.sokoban.generate import RoomGenerator  # noqa: E402
from himac_envs.sokoban.pixels import SokobanPixelsEnv  # noqa: E402
from himac_envs.sokoban.rules import Level  # noqa: E402

SETTINGS = [(6, 6, 1), (6, 6, 2), (7, 7, 2), (10, 10, 3), (13, 11, 3), (13, 13, 5)]
COMPATIBLE = [(6, 6, 1, 300), (6, 6, 2, 200), (7, 7, 2, 90), (10, 10, 3, 10)]


class Counter:
    """Comparisons made and differences found."""

    def __init__(self) -> None:
        self.made = 0
        self.different: list[str] = []

    def same(self, what: str, left: Any, right: Any) -> None:
        self.made += 1
        if not np.array_equal(left, right):
            self.different.append(f"{what}: original {left!r}, ours {right!r}"[:600])


def put(original: Any, level: Level) -> None:
    """Place one of our rooms into gym-sokoban's environment, at its start."""
    original.room_fixed, original.room_state = level.room_fixed, level.room_state
    original.player_position = np.argwhere(original.room_state == 5)[0]
    original.box_mapping = {}
    original.num_env_steps = original.reward_last = original.boxes_on_target = 0


def play(
    original: Any, ours: SokobanPixelsEnv, level: Level, actions: NDArray[np.int64],
    mode: str, counter: Counter,
) -> None:  # fmt: skip
    """Play the same actions on both, past the end of the episode too."""
    put(original, level)
    frame, _ = ours.reset(options={"level": level})
    counter.same(f"{level.name} first frame", original.render(mode), frame)
    for t, action in enumerate(actions.tolist()):
        where = f"{level.name} step {t} action {action}"
        frame, reward, done, info = original.step(action, observation_mode=mode)
        our_frame, our_reward, terminated, truncated, our_info = ours.step(action)
        counter.same(f"{where} state", original.room_state, ours.room_state)
        counter.same(f"{where} reward", reward, our_reward)
        counter.same(f"{where} done", bool(done), terminated or truncated)
        counter.same(f"{where} frame", frame, our_frame)
        for key, value in info.items():
            counter.same(f"{where} {key}", value, our_info[key])
        counter.same(f"{where} keys", done, "maxsteps_used" in our_info)
    counter.same(f"{level.name} player", original.player_position, ours.player_position)


def rules(counter: Counter, short: bool) -> Iterator[str]:
    """Rules, rewards, info and tiny frames on rooms of ours, six settings."""
    rooms, rng = (20 if short else 334), np.random.default_rng(1)
    for rows, cols, boxes in SETTINGS:
        original = Original(dim_room=(rows, cols), max_steps=80, num_boxes=boxes, reset=False)
        ours = SokobanPixelsEnv(room=(rows, cols), boxes=boxes, max_steps=80, observation="tiny")
        for level in RoomGenerator("fast", rows, cols, boxes).rooms(range(rooms)):
            play(original, ours, level, rng.integers(0, 9, 100), "tiny_rgb_array", counter)
        yield f"{rows}x{cols}/{boxes}: {rooms} rooms x 100 random actions"


def pulls(counter: Counter, short: bool) -> Iterator[str]:
    """The push-and-pull variant, without its action 0 (which pushes right there)."""
    rooms, rng = (10 if short else 60), np.random.default_rng(2)
    for rows, cols, boxes in SETTINGS[1:4]:
        with contextlib.redirect_stdout(io.StringIO()):
            original = PushAndPullSokobanEnv.__new__(PushAndPullSokobanEnv)
            Original.__init__(original, (rows, cols), 80, boxes, None, False)
        ours = SokobanPixelsEnv(
            room=(rows, cols), boxes=boxes, max_steps=80, observation="tiny", pull=True
        )
        for level in RoomGenerator("fast", rows, cols, boxes).rooms(range(rooms)):
            play(original, ours, level, rng.integers(1, 13, 100), "tiny_rgb_array", counter)
        yield f"{rows}x{cols}/{boxes}: {rooms} rooms x 100 push, move and pull actions"


def frames(counter: Counter, short: bool) -> Iterator[str]:
    """RGB frames, byte for byte."""
    rooms, rng = (4 if short else 40), np.random.default_rng(3)
    for rows, cols, boxes in ((6, 6, 2), (10, 10, 4)):
        original = Original(dim_room=(rows, cols), max_steps=500, num_boxes=boxes, reset=False)
        ours = SokobanPixelsEnv(room=(rows, cols), boxes=boxes, max_steps=500, tiles="gym-sokoban")
        for level in RoomGenerator("fast", rows, cols, boxes).rooms(range(rooms)):
            play(original, ours, level, rng.integers(0, 9, 13), "rgb_array", counter)
        yield f"{rows}x{cols}/{boxes}: {rooms * 14} RGB frames"


def levels(counter: Counter, short: bool) -> Iterator[str]:
    """Generated levels for the same seeds, failed generations included."""
    for rows, cols, boxes, seeds in COMPATIBLE:
        seeds = max(1, seeds // 8) if short else seeds
        if short and rows == 10:
            continue  # half a second to three seconds each there
        original = Original(dim_room=(rows, cols), num_boxes=boxes, reset=False)
        ours = RoomGenerator("gym-sokoban", rows, cols, boxes)
        failures = 0
        for seed in range(seeds):
            state = random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[index]
            level = ours.room(seed)
            now = random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[index]
            counter.same("global random state", state == now, True)
            random.seed(seed)
            np.random.seed(seed)
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                original.reset(render_mode="tiny_rgb_array")
            retries = printed.getvalue().count("Retry")
            counter.same(f"{level.name} fixed", original.room_fixed, level.room_fixed)
            counter.same(f"{level.name} state", original.room_state, level.room_state)
            counter.same(f"{level.name} failures", retries, ours.failures(seed))
            failures += retries
        yield f"{rows}x{cols}/{boxes}: {seeds} seeds, {failures} failed generations among them"


def verl_room(seed: int, rows: int, cols: int, boxes: int, depth: int) -> tuple[Any, Any] | None:
    """A room by verl-agent's rules from gym-sokoban's own parts; None where generation fails."""
    random.seed(seed)
    np.random.seed(seed)
    steps = int(1.7 * (rows + cols))
    for _ in range(4):
        try:
            topology = room_utils.room_topology_generation((rows, cols), 0.35, steps)
            room = room_utils.place_boxes_and_player(topology, boxes, False)
        except RuntimeError:
            return None
        fixed = np.where(room == 5, 1, room)
        state = np.where(room == 2, 4, room)
        home = {(int(r), int(c)): (int(r), int(c)) for r, c in np.argwhere(fixed == 2)}
        best: list[Any] = [-1, None, home]
        seen: set[bytes] = set()

        def visit(
            state: Any, mapping: Any, swaps: int, last: Any, left: int,
            fixed: Any = fixed, best: list[Any] = best, seen: set[bytes] = seen,
        ) -> None:  # fmt: skip
            if left <= 1 or state.tobytes() in seen:
                return
            seen.add(state.tobytes())
            shown = int((state == 2).sum()) == boxes
            score = swaps * room_utils.box_displacement_score(mapping) if shown else 0
            if score > best[0]:
                best[:] = score, state, mapping
            for action in range(4):
                state_2, mapping_2, last_2 = room_utils.reverse_move(
                    state.copy(), fixed, mapping.copy(), last, action
                )
                visit(state_2, mapping_2, swaps + (last_2 != last), last_2, left - 1)

        visit(state, dict(home), 0, (-1, -1), depth)
        moved = room_utils.box_displacement_score(best[2])
        if moved > 0:
            state = np.where(best[1] == 3, 4, best[1])
            return fixed, verl_walk(state, fixed, 0.8 if moved == 1 else 0.5)
    return None


def verl_walk(state: Any, fixed: Any, probability: float) -> Any:
    """The short walk that verl-agent's player takes at the end."""
    if random.random() > probability:
        return state
    here = tuple(int(x) for x in np.argwhere(state == 5)[0])
    visited = [here]
    for taken in range(1, 4):
        near = [(here[0] + d[0], here[1] + d[1]) for d in ((-1, 0), (1, 0), (0, -1), (0, 1))]
        valid = [cell for cell in near if state[cell] in (1, 2) and cell not in visited]
        if not valid:
            break
        state[here] = fixed[here]
        here = random.choice(valid)
        state[here] = 5
        visited.append(here)
        if taken == 3 or random.random() > 0.5:
            break
    return state


def verl_levels(counter: Counter, short: bool) -> Iterator[str]:
    """verl-agent's generator, rebuilt from gym-sokoban's parts."""
    for rows, cols, boxes, seeds in ((6, 6, 1, 300), (6, 6, 2, 150)):
        seeds = seeds // 10 if short else seeds
        ours = RoomGenerator("verl-agent", rows, cols, boxes)
        failed = 0
        for seed in range(seeds):
            made = verl_room(seed, rows, cols, boxes, 30)
            counter.same(f"verl-agent:{seed} fails", made is None, ours.failures(seed) > 0)
            if made is None:
                failed += 1
                continue
            level = ours.room(seed)
            counter.same(f"{level.name} fixed", made[0], level.room_fixed)
            counter.same(f"{level.name} state", made[1], level.room_state)
        yield f"{rows}x{cols}/{boxes}: {seeds} seeds, {failed} failed generations among them"


def batch(counter: Counter, short: bool) -> Iterator[str]:
    """The batch engine against single environments, pixels included."""
    num, steps = (16, 100) if short else (64, 500)
    settings: dict[str, Any] = {"room": (6, 6), "boxes": 2, "max_steps": 50}
    env_id = "HiMAC-Sokoban-Pixels-v0"
    singles = gym.make_vec(env_id, num_envs=num, vectorization_mode="sync", **settings)
    ours = gym.make_vec(env_id, num_envs=num, **settings)
    counter.same("batch first frames", singles.reset(seed=11)[0], ours.reset(seed=11)[0])
    rng = np.random.default_rng(4)
    for t in range(steps):
        actions = rng.integers(0, 9, num)
        for what, left, right in zip(
            ("frames", "rewards", "terminations", "truncations"),
            singles.step(actions)[:4],
            ours.step(actions)[:4],
            strict=True,
        ):
            counter.same(f"batch step {t} {what}", left, right)
    yield f"{num} environments x {steps} steps, frames included"


PARTS: list[Callable[[Counter, bool], Iterator[str]]] = [
    rules, pulls, frames, levels, verl_levels, batch,
]  # fmt: skip


def main() -> int:
    """Run every part; return the number of parts with differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a small sample, for CI")
    short = parser.parse_args().short
    bad = 0
    for part in PARTS:
        counter, began = Counter(), time.perf_counter()
        print(f"{part.__name__}: {(part.__doc__ or '').strip()}")
        for line in part(counter, short):
            print(f"  {line}")
        print(
            f"  {counter.made:,} comparisons, {len(counter.different)} differences, "
            f"{time.perf_counter() - began:.1f} s"
        )
        for difference in counter.different[:10]:
            print(f"  DIFFERENT {difference}")
        bad += bool(counter.different)
    return bad


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
