"""Where an environment's levels come from: task ids to levels, splits to task ids."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from himac_envs import data as installed_data
from himac_envs import registry
from himac_envs.errors import HiMACError, UnknownSplitError, UnknownTaskError
from himac_envs.sokoban.generate import GeneratorName, RoomGenerator
from himac_envs.sokoban.levels import LevelFolder, NumberedIds
from himac_envs.sokoban.rules import Level
from himac_envs.sokoban.splits import NUMBERS, NotHeldOutWarning

__all__ = ["FileSource", "GeneratedSource", "Source", "make_source", "preset"]

#: No small room (64 cells, 2 boxes) of the ``fast`` generator is known to need so many steps.
SURELY_ENOUGH = 100
#: Steps of an episode on levels of files, where none are given: gym-sokoban's number for Boxoban's
#: 10 x 10 cells, and as many a cell for larger ones.
FILE_STEPS = 200
STEPS_A_CELL = 2


class Source(Protocol):
    """A numbered set of levels of one size."""

    name: str
    rows: int
    cols: int
    max_steps: int | None

    def ids(self, split: str) -> Sequence[str]:
        """The ids of a split, in order."""
        ...

    def level(self, task_id: str) -> Level:
        """The level of an id."""
        ...


class GeneratedSource:
    """Generated rooms: ``<generator>:<number>``.

    Rooms of the ``fast`` generator belong to the split of their floor plan; those of the compatible
    generators are only numbered apart. See `himac_envs.sokoban.splits`.
    """

    #: The environment's own step limit: rooms are made to be solved within it.
    max_steps: int | None = None

    def __init__(self, generator: RoomGenerator) -> None:
        self.generator = generator
        self.name = "generated"
        self.rows, self.cols = generator.rows, generator.cols
        self._ids: dict[str, NumberedIds] = {}

    def ids(self, split: str) -> NumberedIds:
        """The ids of "train", "valid", "test" or "all"."""
        if split not in self._ids:
            if split == "all":
                numbers = range(NUMBERS["test"].stop)
            elif split in NUMBERS:
                numbers = NUMBERS[split]
            else:
                counts = {name: len(n) for name, n in NUMBERS.items()}
                raise UnknownSplitError(
                    split, {**counts, "all": sum(counts.values())}, "the generated rooms"
                )
            self._ids[split] = NumberedIds([(self.generator.name, numbers)])
        return self._ids[split]

    def number(self, task_id: str) -> int:
        """The number of an id; numbers beyond the splits are rooms too."""
        name, _, digits = task_id.rpartition(":")
        number = int(digits) if digits.isascii() and digits.isdecimal() else -1
        most = 2**63 if self.generator.name == "fast" else 2**32
        if name != self.generator.name or not 0 <= number < most:
            near = [f"{self.generator.name}:{max(number, 0)}"]
            raise UnknownTaskError(task_id, near, f"the rooms of generator {self.generator.name!r}")
        return number

    def level(self, task_id: str) -> Level:
        """Make the room of an id."""
        return self.generator.room(self.number(task_id))

    def arrays(self, numbers: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Make several rooms at once, as two arrays of shape (rooms, cells)."""
        return self.generator.arrays(numbers)


class FileSource:
    """Levels of files, padded with walls to one size: ``<file>:<number>``.

    Attributes:
        max_steps: Steps of an episode where none are given; they follow the size of the levels,
            as files come with no limit of their own.
    """

    def __init__(self, folder: LevelFolder, split: str, room: tuple[int, int] | None) -> None:
        self.folder = folder
        self.name = folder.name
        self._ids: dict[str, NumberedIds] = {}
        self.ids(split)  # an unknown split fails here, not at the first reset
        self.rows, self.cols = room or folder.largest(split)
        self.max_steps: int | None = max(FILE_STEPS, STEPS_A_CELL * self.rows * self.cols)

    def ids(self, split: str) -> NumberedIds:
        """The ids of a split; see :class:`~himac_envs.sokoban.levels.LevelFolder`."""
        if split not in self._ids:
            ids = self.folder.ids(split)
            if not ids:
                counts = {name: len(self.folder.ids(name)) for name in self.folder.splits()}
                raise UnknownSplitError(split, counts, str(self.folder.path))
            self._ids[split] = ids
        return self._ids[split]

    def level(self, task_id: str) -> Level:
        """Read the level of an id."""
        try:
            level = self.folder.level(task_id)
        except KeyError:
            known = self.folder.ids("all")[:2_000]
            raise UnknownTaskError(task_id, known, str(self.folder.path)) from None
        return level.padded(self.rows, self.cols)


def preset(name: str) -> dict[str, Any]:
    """The settings of a size of gym-sokoban's ("v0", "small-v1", "huge-v0", ...).

    Raises:
        ValueError: There is no such preset; the message lists them.
    """
    rows = registry.read("envs", "sokoban")["preset"]
    for row in rows:
        if row["name"] == name:
            return {
                "room": tuple(row["room"]),
                "boxes": row["boxes"],
                "max_steps": row["max_steps"],
                "gen_steps": row.get("gen_steps"),
            }
    raise ValueError(f"preset={name!r}: choose one of {', '.join(row['name'] for row in rows)}")


def make_source(
    *,
    data: str | None,
    split: str,
    room: tuple[int, int] | None,
    boxes: int | None,
    generator: GeneratorName,
    gen_steps: int | None,
    search_depth: int | None,
    min_solution: int | None,
    max_solution: int | None,
    max_steps: int,
    default_room: tuple[int, int],
    default_boxes: int,
) -> GeneratedSource | FileSource:
    """Choose the source that an environment's keyword arguments describe.

    Args:
        data: None or "generated": generated rooms. "boxoban": the installed Boxoban levels.
            "puzzles": the 200 levels that come with the package. Else a file or folder of levels.
        split: The split to be played.
        room: (rows, cols), or None for the default (generated) or the largest level (files).
        boxes: Number of boxes of generated rooms.
        generator: Name of the generator.
        gen_steps: See :class:`~himac_envs.sokoban.generate.RoomGenerator`, as the next three.
        search_depth: Depth of the generator's search.
        min_solution: Steps that the shortest solution has at least.
        max_solution: Steps that the shortest solution has at most.
        max_steps: The episode's length. Small ``fast`` rooms whose shortest solution is longer
            are passed over, so that every task can be won.
        default_room: Size of generated rooms where nothing is given.
        default_boxes: Number of boxes of generated rooms where nothing is given.

    Warns:
        NotHeldOutWarning: The split's rooms are not apart from those of the other splits.
    """
    if data is None or data == "generated":
        rows, cols = default_room if room is None else (int(room[0]), int(room[1]))
        count = default_boxes if boxes is None else int(boxes)
        small = generator == "fast" and rows * cols <= 64 and count <= 2
        if small and max_solution is None and max_steps < SURELY_ENOUGH:
            max_solution = max(max_steps, min_solution or 0)
        made = RoomGenerator(
            generator,
            rows,
            cols,
            count,
            gen_steps,
            search_depth,
            min_solution,
            max_solution,
        )
        if generator != "fast" and split in NUMBERS:
            _warn(
                f"generator={generator!r} copies the original's room for each number, so rooms of "
                f"{split!r} (small ones above all) are in other splits too and are not held out. "
                "generator='fast' holds out floor plans; split='all' plays all rooms without this "
                "warning"
            )
        return GeneratedSource(made)
    if boxes is not None or min_solution is not None or max_solution is not None:
        raise ValueError(
            "boxes, min_solution and max_solution are for generated rooms only, not for levels "
            f"from files (data={data!r})"
        )
    if data == "puzzles":
        folder = LevelFolder(registry.root() / "worlds" / "sokoban.xsb", "puzzles")
    elif data == "boxoban":
        found = installed_data.installed("boxoban")
        if found is None:
            raise HiMACError(
                "the Boxoban levels are not installed: run `himac data get boxoban`, or pass "
                "data=FOLDER where you have them"
            )
        folder = LevelFolder(found)
    else:
        folder = LevelFolder(data)
    if split in ("valid", "test") and not folder.has_splits:
        _warn(
            f"data={data!r} has no folders train, valid and test: every level is in every split, "
            f"so those of {split!r} are not held out. split='all' plays all levels without this "
            "warning"
        )
    return FileSource(folder, split, room)


def _warn(message: str) -> None:
    warnings.warn(message, NotHeldOutWarning, stacklevel=3)
