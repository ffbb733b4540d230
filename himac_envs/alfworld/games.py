"""Games by task id: the official ones from a data folder, or generated ones.

A task id is ``<split>/<task folder>/<trial folder>`` for official games.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

from himac_envs.alfworld.archive import OFFICIAL_SPLITS, Index, load_index
from himac_envs.alfworld.dialect import Dialect, find_dialect
from himac_envs.alfworld.errors import GameFileError, UnsolvableGameError
from himac_envs.alfworld.game import Game
from himac_envs.alfworld.kept import KeptGames
from himac_envs.alfworld.problem import parse_problem
from himac_envs.alfworld.rules import read_rules
from himac_envs.errors import UnknownSplitError, UnknownTaskError

#: Other names of the splits: the suite's, and those of the original's configuration files.
SPLIT_ALIASES: Final = {
    "valid": "valid_seen",
    "test": "valid_unseen",
    "eval_in_distribution": "valid_seen",
    "eval_out_of_distribution": "valid_unseen",
}
# A game takes some 25 kB: all official ones together stay under 110 MB.
_GAMES_KEPT: Final = 4096


class GameLibrary(Protocol):
    """Where an environment gets its games from.

    Attributes:
        name: The data set's name, for ``info["data"]``.
    """

    name: str

    def task_ids(self, split: str) -> Sequence[str]:
        """The split's ids, sorted; raises UnknownSplitError."""
        ...

    def game(self, task_id: str, dialect: str | Dialect | None = None) -> Game:
        """The game of an id, in its own dialect or the one given; raises UnknownTaskError."""
        ...

    def annotations(self, task_id: str) -> list[str]:
        """What people wrote as this task's goal, perhaps nothing."""
        ...


def load_game(
    content: bytes | str,
    task_id: str = "",
    *,
    dialect: str | Dialect | None = None,
    source: str = "",
) -> Game:
    """Build a game from the content of a ``game.tw-pddl`` file.

    Args:
        content: The file's content.
        task_id: The game's id.
        dialect: Play with these strings instead of the file's own.
        source: The file's name, for error messages.

    Raises:
        GameFileError: The content is not a game that the engine can play.
    """
    where = source or task_id or "the game file"
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise GameFileError(f"{where}: not JSON ({error}): expected a game.tw-pddl file") from None
    keys = ("pddl_domain", "grammar", "pddl_problem")
    if not isinstance(data, dict) or not all(isinstance(data.get(key), str) for key in keys):
        raise GameFileError(
            f"{where}: expected a JSON object with the texts {', '.join(keys)}, as alfworld's "
            "alfworld-generate writes it"
        )
    if data.get("solvable") is False:
        raise UnsolvableGameError(f"{where}: the game is marked unsolvable; choose another one")
    try:
        rules = read_rules(data["pddl_domain"], data["grammar"])
        problem = parse_problem(data["pddl_problem"])
        return Game.from_problem(
            problem,
            rules.goal_text,
            rules.dialect if dialect is None else find_dialect(dialect),
            task_id,
            sinks=rules.sinks,
        )
    except GameFileError as error:
        raise type(error)(f"{where}: {error}") from error
    except RecursionError:
        raise GameFileError(f"{where}: its expressions are nested too deeply") from None


class OfficialLibrary:
    """The official games of a data folder.

    Args:
        index: What :func:`himac_envs.alfworld.archive.load_index` found.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        # The release, as the archive or the tree is called: "alfworld/json_2.1.2_tw-pddl".
        place = next(iter(index.games.values()), None)
        member = place is not None and bool(place.member)
        source = Path(place.path if place is not None and member else index.source)
        self.name = f"alfworld/{source.stem if member else source.name}"
        splits: dict[str, list[str]] = {split: [] for split in OFFICIAL_SPLITS}
        for task_id in index.games:
            splits[task_id.split("/", 1)[0]].append(task_id)
        self._splits = {split: tuple(sorted(ids)) for split, ids in splits.items()}
        self._splits["all"] = tuple(sorted(index.games))
        self._kept = KeptGames(_GAMES_KEPT)

    def counts(self) -> dict[str, int]:
        """Number of tasks of each split."""
        return {split: len(ids) for split, ids in self._splits.items()}

    def task_ids(self, split: str) -> tuple[str, ...]:
        """The split's ids, sorted.

        Args:
            split: "train", "valid_seen" (or "valid", "eval_in_distribution"), "valid_unseen" (or
                "test", "eval_out_of_distribution") or "all".

        Raises:
            UnknownSplitError: No such split, or it has no games here.
        """
        ids = self._splits.get(SPLIT_ALIASES.get(split, split))
        if not ids:
            known = SPLIT_ALIASES.get(split, split)
            raise UnknownSplitError(known, self.counts(), f"the ALFWorld data at {self.source}")
        return ids

    @property
    def source(self) -> str:
        """The indexed folder or archive."""
        return self.index.source

    def game(self, task_id: str, dialect: str | Dialect | None = None) -> Game:
        """Return a task's game; the last 4,096 are kept.

        Raises:
            UnknownTaskError: The data does not hold it.
            UnsolvableGameError: The original leaves it out.
            GameFileError: Its file cannot be played.
        """

        def make() -> Game:
            content, where = self.read(task_id), self.where(task_id)
            return load_game(content, task_id, dialect=dialect, source=where)

        return self._kept.game(task_id, dialect, make)

    def where(self, task_id: str) -> str:
        """The file that holds a game, in words."""
        place = self.index.games[task_id]
        return f"{place.path} ({place.member})" if place.member else place.path

    def read(self, task_id: str) -> bytes:
        """Return the content of a task's ``game.tw-pddl``; raises as :meth:`game`."""
        place = self.index.games.get(task_id)
        if place is None:
            reason = self.index.left_out.get(task_id)
            if reason:
                raise UnsolvableGameError(
                    f"the task {task_id!r} is not played: {reason}, and the original leaves it out"
                )
            raise UnknownTaskError(task_id, self.index.games, f"the ALFWorld data at {self.source}")
        return place.read()

    def annotations(self, task_id: str) -> list[str]:
        """Return the goal sentences that people wrote for a task (traj_data's task_desc)."""
        data = self.trajectory(task_id)
        return [str(ann["task_desc"]) for ann in data.get("turk_annotations", {}).get("anns", [])]

    def trajectory(self, task_id: str) -> dict[str, Any]:
        """Return a task's traj_data.json, empty where the data has none.

        Raises:
            GameFileError: The file is damaged.
        """
        place = self.index.annotations.get(task_id)
        if place is None:
            return {}
        try:
            data = json.loads(place.read())
        except ValueError as error:
            raise GameFileError(f"{place.path} ({place.member}): not JSON ({error})") from None
        return data if isinstance(data, dict) else {}


@lru_cache(maxsize=8)
def _open(folder: str, stamp: tuple[object, ...]) -> OfficialLibrary:
    return OfficialLibrary(load_index(folder))


def open_library(data: str | os.PathLike[str]) -> OfficialLibrary:
    """Return the library of a data folder; environments of one process share it.

    Raises:
        FileNotFoundError: The folder does not exist, or holds no games.
        GameFileError: An archive is damaged.
    """
    path = Path(data).expanduser().resolve()
    stamp: tuple[object, ...] = ()
    if path.exists():
        files = [path] if path.is_file() else sorted(path.glob("*.zip"))
        stats = [(file.name, file.stat()) for file in files]
        stamp = tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
    return _open(str(path), stamp)
