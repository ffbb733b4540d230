"""The public functions: worlds and games by split and number, and the ids of a split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import overload

from himac_envs.alfworld.archive import TASK_TYPES
from himac_envs.alfworld.dialect import Dialect, find_dialect
from himac_envs.alfworld.engine import Game, State
from himac_envs.alfworld.generate.controls import DEFAULT, Controls
from himac_envs.alfworld.generate.draw import GenerationError, draw_world
from himac_envs.alfworld.generate.layout import SPLITS
from himac_envs.alfworld.generate.plan import solve
from himac_envs.alfworld.generate.tables import household
from himac_envs.alfworld.generate.world import GeneratedWorld

SPLIT_SIZES = {"train": 10_000, "valid": 1_000, "test": 1_000}
"""How many tasks a split lists. There are more: any number up to `MAX_INDEX` is a world."""

MAX_INDEX = 999_999
_ID = re.compile(r"generated/(train|valid|test)/(\d{6})")


def generate_world(
    split: str, index: int, *, task_type: str | None = None, controls: Controls = DEFAULT
) -> GeneratedWorld:
    """Draw one world: the same for the same arguments, on every machine and in every process.

    Args:
        split: "train", "valid" or "test". Rooms of different splits are never the same.
        index: Its number, 0 to `MAX_INDEX`.
        task_type: One of the six; None: drawn.
        controls: The difficulty.

    Raises:
        ValueError: An unknown split or task type, or an index out of range.
        GenerationError: No world fits the controls.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if not 0 <= index <= MAX_INDEX:
        raise ValueError(f"index={index}: expected 0 to {MAX_INDEX}")
    if task_type is not None and task_type not in TASK_TYPES:
        raise ValueError(f"unknown task type {task_type!r}: choose one of {', '.join(TASK_TYPES)}")
    return draw_world(split, index, controls, task_type)


def solution(world: GeneratedWorld) -> list[str]:
    """Return commands that solve a world, near the fewest (dialect 2.1.2).

    Raises:
        GenerationError: The world cannot be solved, which no generated one is.
    """
    commands = solve(world, household())
    if commands is None:
        raise GenerationError(f"{world.task_id} cannot be solved")
    return commands


def make_game(world: GeneratedWorld, dialect: str | Dialect = "2.1.2") -> Game:
    """Make a world playable, and prove that it can be won: its solution is played in the engine.

    Args:
        world: The world.
        dialect: The strings that the game speaks.

    Raises:
        GenerationError: The solution does not win, or the game is won before it begins.
    """
    game = Game.from_problem(world.problem(), world.goal_text, find_dialect(dialect), world.task_id)
    state = State(game)
    if state.won:
        raise GenerationError(f"{world.task_id} is won before it begins")
    for command in solution(world):
        spoken = command
        if game.dialect.put_command and command.startswith("move "):
            spoken = command.replace("move ", "put ", 1).replace(" to ", " in/on ", 1)
        if state.act(spoken) is None:
            raise GenerationError(f"{world.task_id}: {spoken!r} of its solution is not admissible")
    if not state.won:
        raise GenerationError(f"{world.task_id} is not won by its solution")
    return game


def generate_game(
    split: str,
    index: int,
    *,
    task_type: str | None = None,
    controls: Controls = DEFAULT,
    dialect: str | Dialect = "2.1.2",
) -> Game:
    """Generate one game, proven solvable. See `generate_world` for the arguments.

    Example:
        >>> game = generate_game("train", 0)
        >>> game.task_id
        'generated/train/000000'
    """
    world = generate_world(split, index, task_type=task_type, controls=controls)
    return make_game(world, dialect)


def game_from_id(
    task_id: str, *, controls: Controls = DEFAULT, dialect: str | Dialect = "2.1.2"
) -> Game:
    """Generate the game of an id such as ``generated/train/000123``.

    Raises:
        ValueError: The id is not of this form.
    """
    split, index = parse_id(task_id)
    return generate_game(split, index, controls=controls, dialect=dialect)


def parse_id(task_id: str) -> tuple[str, int]:
    """Return the split and the number of ``generated/<split>/<six digits>``.

    Raises:
        ValueError: The id is not of this form.
    """
    match = _ID.fullmatch(task_id)
    if match is None:
        raise ValueError(
            f"{task_id!r} is no generated task: expected generated/<{'|'.join(SPLITS)}>/<6 digits>"
        )
    return match.group(1), int(match.group(2))


class TaskIds(Sequence[str]):
    """The ids of generated splits, in order, without making a list of them.

    Args:
        split: "train", "valid", "test" or "all".
        sizes: Number of tasks in each split.
    """

    def __init__(self, split: str = "train", sizes: dict[str, int] | None = None) -> None:
        counts = dict(SPLIT_SIZES if sizes is None else sizes)
        if split != "all" and split not in counts:
            raise ValueError(f"unknown split {split!r}: choose one of all, {', '.join(counts)}")
        if max(counts.values()) > MAX_INDEX + 1:
            raise ValueError(f"sizes={counts}: a split has at most {MAX_INDEX + 1} tasks")
        # Sorted, as every environment lists its ids: "test" < "train" < "valid".
        names = sorted(counts) if split == "all" else [split]
        self._parts = [(name, counts[name]) for name in names]

    def __len__(self) -> int:
        return sum(size for _, size in self._parts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = index + len(self) if index < 0 else index
        if i >= 0:
            for name, size in self._parts:
                if i < size:
                    return f"generated/{name}/{i:06d}"
                i -= size
        raise IndexError(f"task number {index} of {len(self)}")

    def __iter__(self) -> Iterator[str]:
        for name, size in self._parts:
            for i in range(size):
                yield f"generated/{name}/{i:06d}"

    def __contains__(self, task_id: object) -> bool:
        if not isinstance(task_id, str) or _ID.fullmatch(task_id) is None:
            return False
        split, index = parse_id(task_id)
        return index < dict(self._parts).get(split, 0)
