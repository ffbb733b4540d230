"""Generated ALFWorld games: an endless supply of households that look like the official ones.

Rooms, receptacles, objects, what lies where and what is asked for are drawn from counts of the
official training games (``registry/worlds/alfworld.toml``). A world is a planning problem of the
official form, so the engine plays it like any game file, and so does the original
(`export_game`).

Example:
    >>> from himac_envs.alfworld.engine import State
    >>> game = generate_game("train", 7)
    >>> state = State(game)
    >>> state.won
    False
"""

from himac_envs.alfworld.archive import TASK_TYPES
from himac_envs.alfworld.generate.controls import DEFAULT, REAL, Controls, long_horizon
from himac_envs.alfworld.generate.draw import GenerationError
from himac_envs.alfworld.generate.games import (
    SPLIT_SIZES,
    TaskIds,
    game_from_id,
    generate_game,
    generate_world,
    make_game,
    parse_id,
    solution,
)
from himac_envs.alfworld.generate.goals import Goal
from himac_envs.alfworld.generate.layout import SPLITS
from himac_envs.alfworld.generate.library import GeneratedLibrary
from himac_envs.alfworld.generate.tables import household
from himac_envs.alfworld.generate.world import GeneratedWorld

__all__ = [
    "DEFAULT",
    "REAL",
    "SPLITS",
    "SPLIT_SIZES",
    "TASK_TYPES",
    "Controls",
    "GeneratedLibrary",
    "GeneratedWorld",
    "GenerationError",
    "Goal",
    "TaskIds",
    "game_from_id",
    "generate_game",
    "generate_world",
    "household",
    "long_horizon",
    "make_game",
    "parse_id",
    "solution",
]
