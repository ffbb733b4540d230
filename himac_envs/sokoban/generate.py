"""Room generators: ours, gym-sokoban's and verl-agent's.

All three carve a room by a random walk, place targets and player, and search backwards for a good
start, so every room is solvable by construction. None reads or changes global random state.

================  ==========================================================================
``fast``          Our own numbering. Reverse play with a small budget of states, then the player
                  is set down anywhere it could have walked to, so that it does not always start
                  beside a box. Thousands of rooms a second. A number's room has a floor plan of
                  the number's split; see `himac_envs.sokoban.splits`.
``gym-sokoban``   Room *n* is what ``gym_sokoban`` 0.0.6 makes after ``random.seed(n)`` and
                  ``numpy.random.seed(n)``, bit for bit, its failed attempts included.
``verl-agent``    Room *n* is what verl-agent's Sokoban makes for seed *n*: pulls only, search
                  depth 30 (``search_depth``), a short walk of the player at the end. Where its
                  generation fails, verl-agent retries with ``hash(str(seed))``, which changes
                  with PYTHONHASHSEED; here the next seed is a fixed hash of the last.
================  ==========================================================================
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from himac_envs.sokoban.rules import Level
from himac_envs.sokoban.splits import NUMBERS, number_splits

__all__ = ["GENERATORS", "GenerationError", "GeneratorName", "RoomGenerator"]

GeneratorName: TypeAlias = Literal["fast", "gym-sokoban", "verl-agent"]
GENERATORS: Final[tuple[str, ...]] = ("fast", "gym-sokoban", "verl-agent")

FULL_BUDGET: Final = 300_000
FAST_BUDGET: Final = 2_000
GYM_SOKOBAN_DEPTH: Final = 300
VERL_AGENT_DEPTH: Final = 30
MAX_FAILURES: Final = 1_000
MAX_ATTEMPTS: Final = 10_000
MAX_FLOORS: Final = 2_000
_SALT: Final = 0x48694D4143  # keeps our numbering apart from anyone else's use of splitmix64


class GenerationError(RuntimeError):
    """No room could be made with these settings; the message says what to change."""


@dataclass(frozen=True, slots=True)
class RoomGenerator:
    """Makes rooms by number: the same number and settings give the same room everywhere.

    Attributes:
        name: Which generator, one of :data:`GENERATORS`.
        rows, cols: Size of the room, walls included.
        num_boxes: Number of boxes.
        gen_steps: Steps of the carving walk (None: ``int(1.7 * (rows + cols))``).
        search_depth: Depth of the backward search (None: the generator's own).
        min_solution, max_solution: Keep only rooms whose shortest solution, counted in moves,
            lies in this window (both ends included). Rooms outside are passed over, so a number's
            room depends on the window.
    """

    name: GeneratorName = "fast"
    rows: int = 6
    cols: int = 6
    num_boxes: int = 1
    gen_steps: int | None = None
    search_depth: int | None = None
    min_solution: int | None = None
    max_solution: int | None = None

    def __post_init__(self) -> None:
        if self.name not in GENERATORS:
            raise ValueError(f"generator={self.name!r}: choose one of {', '.join(GENERATORS)}")
        if not (4 <= self.rows <= 100 and 4 <= self.cols <= 100):
            raise ValueError(
                f"room=({self.rows}, {self.cols}): a generated room has 4 to 100 rows and columns"
            )
        inner = (self.rows - 2) * (self.cols - 2)
        if not 1 <= self.num_boxes <= max(1, inner - 2):
            raise ValueError(
                f"boxes={self.num_boxes}: a room of {self.rows} x {self.cols} cells holds 1 to "
                f"{max(1, inner - 2)} boxes"
            )
        low, high = self.min_solution, self.max_solution
        if (low is not None and low < 0) or (high is not None and high < max(low or 0, 1)):
            raise ValueError(
                f"min_solution={low}, max_solution={high}: the window of solution lengths is empty"
            )

    @property
    def steps(self) -> int:
        """Steps of the carving walk."""
        return int(1.7 * (self.rows + self.cols)) if self.gen_steps is None else self.gen_steps

    def room(self, number: int) -> Level:
        """Room ``number`` (0 to 2^63 - 1).

        Raises:
            GenerationError: If no room fits the settings.
        """
        return self.rooms([number])[0]

    def rooms(self, numbers: Sequence[int]) -> list[Level]:
        """Several rooms at once; faster than one by one."""
        fixed, state = self.arrays(numbers)
        return [
            Level(f"{self.name}:{n}", self.rows, self.cols, f.tobytes(), s.tobytes())
            for n, f, s in zip(numbers, fixed, state, strict=True)
        ]

    def arrays(self, numbers: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Several rooms as arrays of codes: what never moves and the start.

        Returns:
            Two uint8 arrays of shape (len(numbers), rows * cols).

        Raises:
            GenerationError: If no room fits the settings.
        """
        splits = number_splits(numbers)
        fixed, state = self._make(numbers, splits)
        if self.min_solution is None and self.max_solution is None:
            return fixed, state
        for i, number in enumerate(numbers):
            attempt = 0
            while not self._in_window(fixed[i], state[i]):
                attempt += 1
                if attempt == MAX_ATTEMPTS:
                    raise self._no_window()
                again = [_reseed(number, attempt) % self._seeds]
                other = self._make(again, splits[i : i + 1])
                fixed[i], state[i] = other[0][0], other[1][0]
        return fixed, state

    def failures(self, seed: int) -> int:
        """How many generations failed before the room of this seed (compatible generators)."""
        scratch = np.empty((2, self.rows * self.cols), np.uint8)
        return self._make_compatible(seed, scratch[0], scratch[1])

    @property
    def _seeds(self) -> int:
        """Numbers from 0 to here name rooms (NumPy's legacy generator takes 32 bits)."""
        return 2**63 if self.name == "fast" else 2**32

    def _in_window(self, fixed: NDArray[np.uint8], state: NDArray[np.uint8]) -> bool:
        from himac_envs.sokoban.solver import solve

        room = Level("", self.rows, self.cols, fixed.tobytes(), state.tobytes())
        moves = solve(room, objective="moves").moves
        if moves is None:
            return False
        return (self.min_solution or 0) <= moves <= (self.max_solution or moves)

    def _no_window(self) -> GenerationError:
        most = "any number of" if self.max_solution is None else self.max_solution
        return GenerationError(
            f"{MAX_ATTEMPTS:,} rooms of {self.rows} x {self.cols} with {self.num_boxes} boxes and "
            f"none whose shortest solution has {self.min_solution or 0} to {most} moves: widen "
            "min_solution/max_solution or change room or boxes"
        )

    def _make(
        self, seeds: Sequence[int], splits: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        n, cells = len(seeds), self.rows * self.cols
        fixed, state = np.empty((n, cells), np.uint8), np.empty((n, cells), np.uint8)
        if self.name != "fast":
            for i, seed in enumerate(seeds):
                self._make_compatible(int(seed), fixed[i], state[i])
            return fixed, state
        from himac_envs.sokoban.kernels import generate as k

        keys = np.array([(int(seed) ^ _SALT) & (2**64 - 1) for seed in seeds], np.uint64)
        status = np.zeros(n, np.int64)
        with np.errstate(over="ignore"):  # 64-bit hashes wrap on purpose
            k.make_fast_rooms(
                keys, splits, self.rows, self.cols, self.num_boxes, self.steps, FAST_BUDGET, 100,
                MAX_FLOORS, fixed, state, status,
            )  # fmt: skip
        lacking = splits[status == k.OTHER_SPLIT]
        if len(lacking):
            raise self._no_plan(list(NUMBERS)[lacking[0]])
        if status.any():
            raise self._hopeless()
        return fixed, state

    def _make_compatible(
        self, seed: int, fixed: NDArray[np.uint8], state: NDArray[np.uint8]
    ) -> int:
        from himac_envs.sokoban.kernels import generate as k

        verl = self.name == "verl-agent"
        depth = self.search_depth or (VERL_AGENT_DEPTH if verl else GYM_SOKOBAN_DEPTH)
        failed, words = 0, 32 + 24 * self.steps
        while failed < MAX_FAILURES:
            with np.errstate(over="ignore"):
                status, failures = k.make_room(
                    _python_words(seed, words), _numpy_words(seed, 64 + words // 16),
                    self.rows, self.cols, self.num_boxes, self.steps, verl, verl, depth,
                    FULL_BUDGET, k.WALK_VERL_AGENT if verl else k.WALK_NONE,
                    1 if verl else MAX_FAILURES, k.ANY, fixed, state,
                )  # fmt: skip
            if status == k.OK:
                return failed + int(failures)
            if status == k.OUT_OF_WORDS:
                words *= 8
            elif verl:
                failed, seed = failed + 1, _reseed(seed, 1) % 2**32
            else:
                break
        raise self._hopeless()

    def _hopeless(self) -> GenerationError:
        return GenerationError(
            f"no playable room of {self.rows} x {self.cols} cells with {self.num_boxes} boxes came "
            f"out of {MAX_FAILURES:,} attempts with {self.steps} carving steps: choose a larger "
            "room, fewer boxes or more gen_steps"
        )

    def _no_plan(self, split: str) -> GenerationError:
        return GenerationError(
            f"{MAX_FLOORS:,} floors of {self.rows} x {self.cols} cells and on none a room with "
            f"{self.num_boxes} boxes that belongs to {split!r}: rooms so small have too few plans "
            "to be split, choose a larger room"
        )

    def with_window(self, low: int | None, high: int | None) -> RoomGenerator:
        """The same generator with another window of solution lengths."""
        return replace(self, min_solution=low, max_solution=high)


def _reseed(seed: int, attempt: int) -> int:
    """A fixed 63-bit hash of a seed and an attempt (splitmix64)."""
    z = (seed * 0x9E3779B97F4A7C15 + attempt * 0xD1B54A32D192ED03 + _SALT) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (z ^ (z >> 31)) >> 1


def _numpy_words(seed: int, n: int) -> NDArray[np.uint32]:
    """The first n words of ``numpy.random.seed(seed)``, from a private generator."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed {seed}: NumPy's legacy generator takes 0 to 2^32 - 1")
    return np.random.RandomState(seed).randint(0, 2**32, size=n, dtype=np.uint32)


def _python_words(seed: int, n: int) -> NDArray[np.uint32]:
    """The first n words of ``random.seed(seed)``, from a private generator."""
    bits = random.Random(seed).getrandbits(32 * n)  # the first word lies lowest
    return np.frombuffer(bits.to_bytes(4 * n, "little"), "<u4").astype(np.uint32)
