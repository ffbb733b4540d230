"""Generated games by task id, for environments: the counterpart of a folder of official games."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from himac_envs.alfworld.dialect import Dialect
from himac_envs.alfworld.engine import Game
from himac_envs.alfworld.generate.controls import DEFAULT, Controls
from himac_envs.alfworld.generate.games import (
    SPLIT_SIZES,
    TaskIds,
    generate_world,
    make_game,
    parse_id,
)
from himac_envs.alfworld.generate.world import GeneratedWorld
from himac_envs.alfworld.kept import KeptGames
from himac_envs.errors import UnknownSplitError, UnknownTaskError

# A game's tables take some 60 kB and a new one some 2 ms.
_GAMES_KEPT = 512
#: What the official splits are called that these stand for; see `games.SPLIT_ALIASES`.
_ALIASES = {
    "valid_seen": "valid",
    "valid_unseen": "test",
    "eval_in_distribution": "valid",
    "eval_out_of_distribution": "test",
}


class GeneratedLibrary:
    """Generated games of one difficulty.

    Args:
        controls: The difficulty.
        sizes: Number of tasks in each split.

    Attributes:
        name: "generated", the data set's name for ``info["data"]``.
    """

    def __init__(
        self, controls: Controls = DEFAULT, sizes: Mapping[str, int] | None = None
    ) -> None:
        self.name = "generated"
        self.controls = controls
        self.sizes = dict(SPLIT_SIZES if sizes is None else sizes)
        self._ids = {split: TaskIds(split, self.sizes) for split in (*self.sizes, "all")}
        self._kept = KeptGames(_GAMES_KEPT)

    def counts(self) -> dict[str, int]:
        """Number of tasks of each split."""
        return {split: len(ids) for split, ids in self._ids.items()}

    def task_ids(self, split: str) -> Sequence[str]:
        """Return a split's ids, sorted, without making a list of them.

        Args:
            split: "train", "valid" (or "valid_seen", "eval_in_distribution"), "test" (or
                "valid_unseen", "eval_out_of_distribution") or "all".

        Raises:
            UnknownSplitError: No such split.
        """
        ids = self._ids.get(_ALIASES.get(split, split))
        if not ids:
            raise UnknownSplitError(split, self.counts(), "the generated ALFWorld games")
        return ids

    def world(self, task_id: str) -> GeneratedWorld:
        """Return a task's world.

        Raises:
            UnknownTaskError: No split has this task.
        """
        if task_id not in self._ids["all"]:
            raise UnknownTaskError(task_id, self._ids["all"], "the generated ALFWorld games")
        split, index = parse_id(task_id)
        return generate_world(split, index, controls=self.controls)

    def game(self, task_id: str, dialect: str | Dialect | None = None) -> Game:
        """Return a task's game; the last 512 are kept. Raises as `world`."""
        spoken = "2.1.2" if dialect is None else dialect
        return self._kept.game(task_id, spoken, lambda: make_game(self.world(task_id), spoken))

    def read(self, task_id: str) -> bytes:
        """Return a task's ``game.tw-pddl``, for the original (``backend="textworld"``).

        Raises:
            MissingDependencyError: The package alfworld, whose rules the file holds, is missing.
        """
        from himac_envs.alfworld.generate.export import game_file

        return json.dumps(game_file(self.world(task_id))).encode()

    def annotations(self, task_id: str) -> list[str]:
        """Return what people wrote as this task's goal: nothing, for generated tasks."""
        return []
