"""gym-sokoban under Gymnasium: the environment behind ``HiMAC-Sokoban-Pixels-v0``."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, SupportsIndex

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from himac_envs.sokoban.env import sizes
from himac_envs.sokoban.generate import GeneratorName
from himac_envs.sokoban.render import Frame, picture
from himac_envs.sokoban.room import RoomView
from himac_envs.sokoban.rules import (
    ACTION_NAMES,
    NUM_ACTIONS,
    NUM_ACTIONS_PULL,
    Board,
    Level,
)
from himac_envs.sokoban.source import FileSource, GeneratedSource, make_source
from himac_envs.sokoban.text import describe
from himac_envs.sokoban.tiles import tile_set
from himac_envs.task import StepLimited

__all__ = ["OBSERVATIONS", "PixelSettings", "SokobanPixelsEnv"]

OBSERVATIONS: Final = ("rgb", "tiny", "grid")
DEFAULT_ROOM: Final = (10, 10)
DEFAULT_BOXES: Final = 3
DEFAULT_MAX_STEPS: Final = 200


class PixelSettings:
    """What the single environment and the batch engine share: levels, spaces and tiles."""

    def __init__(
        self,
        *,
        split: str = "train",
        data: str | None = None,
        max_steps: int | None = None,
        reward: Literal["original", "sparse"] = "original",
        room: Sequence[int] | None = None,
        boxes: int | None = None,
        generator: GeneratorName = "fast",
        gen_steps: int | None = None,
        search_depth: int | None = None,
        min_solution: int | None = None,
        max_solution: int | None = None,
        preset: str | None = None,
        observation: Literal["rgb", "tiny", "grid"] = "rgb",
        tiles: str = "drawn",
        tile_size: int | None = None,
        pull: bool = False,
    ) -> None:
        if observation not in OBSERVATIONS:
            raise ValueError(
                f"observation={observation!r}: choose one of {', '.join(OBSERVATIONS)}"
            )
        if reward not in ("original", "sparse"):
            raise ValueError(f"reward={reward!r}: choose 'original' or 'sparse'")
        size = sizes(preset, room, boxes, max_steps, gen_steps)
        self.split, self.reward_mode = split, reward
        given = size["max_steps"]
        self.max_steps = DEFAULT_MAX_STEPS if given is None else int(given)
        if self.max_steps < 1:
            raise ValueError(f"max_steps={self.max_steps}: an episode needs at least one step")
        self.source: GeneratedSource | FileSource = make_source(
            data=None if data is None else str(data), split=split, room=size["room"],
            boxes=size["boxes"], generator=generator, gen_steps=size["gen_steps"],
            search_depth=search_depth, min_solution=min_solution, max_solution=max_solution,
            max_steps=self.max_steps, default_room=DEFAULT_ROOM, default_boxes=DEFAULT_BOXES,
        )  # fmt: skip
        if given is None and self.source.max_steps is not None:
            self.max_steps = self.source.max_steps
        self.ids = self.source.ids(split)
        self.observation, self.pull = observation, bool(pull)
        self.tiles = (
            tile_set("tiny", tile_size or 1)
            if observation == "tiny"
            else tile_set(tiles, tile_size or (1 if tiles == "tiny" else 16))
        )
        rows, cols = self.source.rows, self.source.cols
        if observation == "grid":
            self.space = spaces.Box(0, 6, (rows, cols), np.uint8)
        else:
            pixels = self.tiles.shape[1]
            self.space = spaces.Box(0, 255, (rows * pixels, cols * pixels, 3), np.uint8)
        self.num_actions = NUM_ACTIONS_PULL if pull else NUM_ACTIONS
        self.action_names = ACTION_NAMES[: self.num_actions]


class SokobanPixelsEnv(RoomView, StepLimited, gym.Env[NDArray[np.uint8], int]):
    """gym-sokoban's Sokoban as a Gymnasium environment, a few hundred times faster.

    ## Description
    Push every box onto a target. Rules, rewards, room codes and info keys are gym-sokoban 0.0.6's,
    proven step for step; what its interface lacked is mended: seeds work, ``terminated`` and
    ``truncated`` are apart, nothing is printed, and no global random state is touched.

    ## Action Space
    ``Discrete(9)``: 0 no operation; 1-4 push up, down, left, right (walks where there is nothing to
    push); 5-8 move (never pushes). With ``pull=True`` (gym-sokoban's PushAndPull) ``Discrete(13)``:
    9-12 pull. There "no operation" pushed to the right in gym-sokoban; here it does nothing.

    ## Observation Space
    ``observation="rgb"``: ``Box(0, 255, (16 * rows, 16 * cols, 3), uint8)`` (``tile_size`` other
    than 16 with our own tiles); "tiny": one pixel a cell; "grid": ``Box(0, 6, (rows, cols),
    uint8)`` with gym-sokoban's codes and 6 for a player on a target.

    ## Starting State
    A room drawn from the split with the environment's generator; no box or player on a target in
    generated rooms. ``reset(options={"task_id": id})`` or ``options={"level": Level}`` plays that
    room.

    ## Rewards
    -0.1 a step, +1 / -1 when more / fewer boxes stand on targets than before, +10 when all do.
    ``reward="sparse"``: 1 on success, else 0.

    ## Episode End
    Terminated when every target holds a box; truncated when the step count equals ``max_steps``.

    ## Information
    gym-sokoban's ``action.name``, ``action.moved_player``, ``action.moved_box`` and, at the end,
    ``maxsteps_used`` and ``all_boxes_on_target``; and the suite's ``task_id, goal, admissible, won,
    score, invalid, step`` (``data`` at reset).

    ## Arguments
    ``split, data, max_steps, room, boxes, generator, gen_steps, search_depth, min_solution,
    max_solution, preset, tiles`` as for `himac_envs.sokoban.env.SokobanEnv`; defaults are
    gym-sokoban v0's (10 x 10, 3 boxes, 200 steps; two a cell for larger levels of files).
    ``observation``, ``tile_size``, ``pull``, ``reward``: see above. ``render_mode``: "rgb_array",
    "tiny_rgb_array" or "ansi".

    ## Version History
    - v0: first release.
    - v0, splits mended: rooms of ``generator="fast"`` belong to the split of their floor plan, and
      `valid` and `test` have 5,000 rooms each (they had 1,000). Before, rooms were only numbered
      apart: of 6 x 6 rooms with one box, 97% of those of `test` were among those of `train`. About
      half of the training ids name the same room as before and few of the others, so that figures
      from before are of other rooms.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array", "tiny_rgb_array", "ansi"],
        "render_fps": 8,
    }

    def __init__(self, *, render_mode: str | None = None, **settings: Any) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            modes = ", ".join(map(repr, self.metadata["render_modes"]))
            raise ValueError(f"render_mode={render_mode!r}: choose one of {modes}")
        self.render_mode = render_mode
        self.settings = PixelSettings(**settings)
        self.max_steps = self.settings.max_steps
        self.observation_space = self.settings.space
        self.action_space = spaces.Discrete(self.settings.num_actions)
        self._grid = self.settings.observation == "grid"
        self._sparse = self.settings.reward_mode == "sparse"
        self._names = self.settings.action_names
        self._task_id = ""
        self._frame: Frame | None = None

    # ---- Gymnasium -------------------------------------------------------------------------
    def _longest_episode(self) -> int:
        return self.max_steps

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin an episode; ``options`` may hold ``task_id`` or ``level``."""
        super().reset(seed=seed)
        options = dict(options or {})
        level: Level | None = options.pop("level", None)
        task_id = options.pop("task_id", None)
        if options:
            raise ValueError(f"unknown reset options {sorted(options)}: 'task_id' or 'level'")
        if level is None:
            if task_id is None:
                ids = self.settings.ids
                task_id = ids[int(self.np_random.integers(len(ids)))]
            level = self.settings.source.level(str(task_id))
        else:
            level = level.padded(self.settings.source.rows, self.settings.source.cols)
            task_id = level.name
        self._task_id = str(task_id)
        self.load(level)
        info = self._info(0, False, False)
        info["data"] = self.settings.source.name
        return self._observe(), info

    def load(self, level: Level) -> None:
        """Put a room on the board, at its start."""
        board = Board(level)
        self.board = board
        if self._grid:
            return
        if self._frame is None:
            self._frame = Frame(board, self.settings.tiles)
        else:
            self._frame.redraw(board)

    def step(
        self, action: int | np.integer[Any]
    ) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Play one action.

        Raises:
            ValueError: The action is not in the action space.
            gymnasium.error.ResetNeeded: No episode has begun.
        """
        board = self._playing()
        number = action.__index__() if isinstance(action, SupportsIndex) else -1
        if not 0 <= number < len(self._names):
            raise ValueError(
                f"action {action!r}: give an integer from 0 to {len(self._names) - 1} "
                f"({', '.join(self._names)})"
            )
        reward, moved, pushed = board.step(number)
        if self._frame is not None:
            self._frame.update()
        won = board.empty_targets == 0
        # The original compares with ==: a step after the limit does not end the episode again.
        truncated = not won and board.steps == self.max_steps
        info = self._info(number, moved, pushed)
        if won or truncated:
            info["maxsteps_used"] = board.steps == self.max_steps
            info["all_boxes_on_target"] = won
        if self._sparse:
            reward = float(won)
        return self._observe(), reward, won, truncated, info

    def render(self) -> Any:
        """Return the board as RGB array, one pixel a cell, or text, by ``render_mode``."""
        if self.render_mode is None:
            return None
        board = self._playing()
        if self.render_mode == "ansi":
            return describe(board, "grid", "ragen")
        if self.render_mode == "tiny_rgb_array":
            return picture(board.grid(), tile_set("tiny", 1))
        if self.settings.observation == "rgb" and self._frame is not None:
            return self._frame.pixels.copy()
        return picture(board.grid(), tile_set("drawn", 16))

    def _observe(self) -> NDArray[np.uint8]:
        if self._frame is None:
            return self._playing().grid()
        return self._frame.pixels.copy()

    def _info(self, action: int, moved: bool, pushed: bool) -> dict[str, Any]:
        board = self._playing()
        return {
            "action.name": self._names[action],
            "action.moved_player": moved,
            "action.moved_box": pushed,
            "task_id": self._task_id,
            "goal": "Push every box onto a target.",
            "admissible": list(self._names),
            "won": board.empty_targets == 0,
            "score": board.score,
            "invalid": False,
            "step": board.steps,
        }

    # ---- the room --------------------------------------------------------------------------
    @property
    def dim_room(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.settings.source.rows, self.settings.source.cols

    def get_action_lookup(self) -> dict[int, str]:
        """Action names by number, as in gym-sokoban."""
        return dict(enumerate(self._names))

    get_action_meanings = get_action_lookup

    # ---- the suite's interface -------------------------------------------------------------
    @property
    def task_id(self) -> str:
        """The id of the room being played."""
        return self._task_id

    def task_ids(self, split: str | None = None) -> Sequence[str]:
        """Return ``<generator or file>:<number>`` for every level of a split, in order."""
        return self.settings.source.ids(self.settings.split if split is None else split)

    def oracle(self) -> Iterator[int]:
        """Yield the actions (1 to 4) of a solution from here.

        Raises:
            ValueError: The puzzle cannot be solved from here by pushing.
        """
        from himac_envs.sokoban.subgoals import best_solution

        solution = best_solution(self._playing())
        if not solution.solved:
            raise ValueError(f"{self._task_id}: no solution from here ({solution.status})")
        return iter(solution.actions)

    def snapshot(self) -> Any:
        """Return the whole state of the episode; `restore` takes it back."""
        rng = copy.deepcopy(self.np_random.bit_generator.state)
        return self._task_id, self._playing().snapshot(), rng

    def restore(self, snapshot: Any) -> None:
        """Continue from a `snapshot`."""
        self._task_id, board, rng = snapshot
        self.board = Board.from_snapshot(board)
        self.np_random.bit_generator.state = copy.deepcopy(rng)
        if not self._grid:
            self._frame = Frame(self.board, self.settings.tiles)
