"""Sokoban as text: the environment below ``HiMAC-Sokoban-Flat-v0`` and ``HiMAC-Sokoban-v0``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from himac_envs._version import __version__
from himac_envs.blueprint import MAX_SUBGOALS, Blueprint
from himac_envs.sokoban import subgoals
from himac_envs.sokoban.generate import GeneratorName
from himac_envs.sokoban.render import Frame
from himac_envs.sokoban.room import RoomView
from himac_envs.sokoban.rules import DIRECTIONS, NUM_ACTIONS, Board, Level
from himac_envs.sokoban.source import make_source, preset
from himac_envs.sokoban.text import SYMBOLS, TEXT_FORMS, describe, goal_text, parse_actions
from himac_envs.sokoban.tiles import tile_set
from himac_envs.spaces import FreeText
from himac_envs.task import Outcome, RewardMode, TaskEnv

__all__ = ["SokobanEnv"]

_WORDS: Final = ("still", *DIRECTIONS)


class SokobanEnv(RoomView, TaskEnv):
    """Sokoban with text actions: push every box onto a target.

    ## Description
    The player walks up, down, left and right in a walled room and pushes boxes, one at a time;
    boxes cannot be pulled. The rules, rewards and room codes are gym-sokoban's, step for step. The
    settings are those of the literature on language agents by default: 6 x 6 cells, one box, 15
    steps.

    ## Action Space
    `FreeText`: ``up``, ``down``, ``left`` or ``right`` (push, or walk where nothing stands in the
    way), in any case. gym-sokoban's names ("push up", "move left": walk but never push, "no
    operation") are understood too. With ``actions_per_step=n`` an answer may hold up to n actions,
    separated by commas, ``||`` or line ends ("Right || Right || Up"); each costs a step and the
    rewards are summed. Anything else is invalid: a no-op that costs a step and -0.1.

    ## Observation Space
    ``Dict(text=FreeText)``, plus ``image=Box(0, 255, (rows * tile_size, cols * tile_size, 3),
    uint8)`` with ``image=True``. The text is a grid (``symbols``: "verl-agent", "ragen",
    "ragen-letters" or "xsb"), a list of coordinates, or sentences (``text``). Coordinates are (row,
    column), counted from 0 at the top left.

    ## Starting State
    A room drawn from the split. Generated rooms start with no box on a target. Rooms of different
    splits differ in their floor plan, however they are turned or mirrored; see
    `himac_envs.sokoban.splits`. Rooms of the compatible generators and levels of files without
    split folders do not, and a `NotHeldOutWarning` says so.

    ## Rewards
    -0.1 a step, +1 when one more box stands on a target than before and -1 when fewer do, +10 when
    all do: 10.9 for the last push. ``reward="sparse"``: 1 on success. ``reward="verl-agent"``: 10
    on success and -0.1 for an invalid action.

    ## Episode End
    Terminated when every target holds a box; truncated after ``max_steps`` steps: 15 for generated
    rooms; for levels of files two a cell of the largest, and at least 200.

    ## Information
    The suite's keys (``admissible`` is always the four directions; ``score`` is the share of
    targets that hold a box) and ``effective`` (whether the player moved). With ``deadlock=True``
    also ``deadlock``: True is a proof that the room can no longer be solved.

    ## Sub-goals
    "push the box at (2, 3) to (4, 3)", "push the box at (2, 3) down 2", "push a box to (4, 3)",
    "go to (1, 1)", "push every box onto a target"; see `himac_envs.sokoban.subgoals`.

    ## Arguments
    Beside the suite's ``split, max_steps, render_mode, reward``:

    - ``data``: None or "generated" makes rooms; "puzzles": 200 levels of growing size that come
      with the package; "boxoban": the installed Boxoban levels; else a file or folder of ``.txt``,
      ``.xsb`` or ``.sok`` levels (Boxoban's layout, or any).
    - ``room=(rows, cols)``, ``boxes``: size of generated rooms; for files, ``room`` is what smaller
      levels are padded to with walls.
    - ``generator``: "fast", "gym-sokoban" or "verl-agent"; see `himac_envs.sokoban.generate`.
    - ``gen_steps``, ``search_depth``: the generator's own settings.
    - ``min_solution``, ``max_solution``: window for the length in steps of the shortest solution.
      By default small ``fast`` rooms are solvable within ``max_steps``.
    - ``preset``: a size of gym-sokoban's ("v0", "v1", "v2", "small-v0", "small-v1", "large-v0",
      "large-v1", "huge-v0") for what is not given otherwise.
    - ``text``, ``symbols``, ``image``, ``tiles``, ``tile_size``, ``actions_per_step``,
      ``deadlock``: see above; ``tiles`` is "drawn", "gym-sokoban" (that package's pictures, 16
      pixels), "tiny" or a folder of pictures.
    - ``straight``: the sub-goals of ``oracle_blueprint`` end where a box's way turns.

    ## Version History
    - v0: first release.
    - v0, splits mended: rooms of ``generator="fast"`` belong to the split of their floor plan, and
      `valid` and `test` have 5,000 rooms each (they had 1,000). Before, rooms were only numbered
      apart: of 6 x 6 rooms with one box, 97% of those of `test` were among those of `train`. About
      half of the training ids name the same room as before and few of the others, so that figures
      from before are of other rooms.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 8}  # noqa: RUF012
    default_max_steps: ClassVar[int] = 15
    default_room: ClassVar[tuple[int, int]] = (6, 6)
    default_boxes: ClassVar[int] = 1

    def __init__(
        self,
        *,
        split: str = "train",
        data: str | None = None,
        max_steps: int | None = None,
        render_mode: str | None = None,
        reward: RewardMode = "original",
        room: Sequence[int] | None = None,
        boxes: int | None = None,
        generator: GeneratorName = "fast",
        gen_steps: int | None = None,
        search_depth: int | None = None,
        min_solution: int | None = None,
        max_solution: int | None = None,
        preset: str | None = None,
        text: Literal["grid", "coordinates", "sentences"] = "grid",
        symbols: str = "verl-agent",
        image: bool = False,
        tiles: str = "drawn",
        tile_size: int | None = None,
        actions_per_step: int = 1,
        deadlock: bool = False,
        straight: bool = False,
    ) -> None:
        size = sizes(preset, room, boxes, max_steps, gen_steps)
        super().__init__(
            split=split, data=data, max_steps=size["max_steps"], render_mode=render_mode,
            reward=reward,
        )  # fmt: skip
        if text not in TEXT_FORMS:
            raise ValueError(f"text={text!r}: choose one of {', '.join(TEXT_FORMS)}")
        if symbols not in SYMBOLS:
            raise ValueError(f"symbols={symbols!r}: choose one of {', '.join(SYMBOLS)}")
        if actions_per_step < 1:
            raise ValueError(f"actions_per_step={actions_per_step}: an answer holds at least one")
        self.source = make_source(
            data=self.data, split=split, room=size["room"], boxes=size["boxes"],
            generator=generator, gen_steps=size["gen_steps"], search_depth=search_depth,
            min_solution=min_solution, max_solution=max_solution, max_steps=self.max_steps,
            default_room=self.default_room, default_boxes=self.default_boxes,
        )  # fmt: skip
        self.data_name = self.source.name
        if size["max_steps"] is None and self.source.max_steps is not None:
            self.max_steps = self.source.max_steps
        self.text_form, self.symbols = text, symbols
        self.actions_per_step, self.deadlock = int(actions_per_step), bool(deadlock)
        self.tile_names, self.tile_size = tiles, tile_size
        self._tiles: NDArray[np.uint8] | None = None
        self._shown: Frame | None = None
        if image:
            pixels = self._tile_set().shape[1]
            shape = (self.source.rows * pixels, self.source.cols * pixels, 3)
            self.observation_space = spaces.Dict(
                {"text": FreeText(), "image": spaces.Box(0, 255, shape, np.uint8)}
            )
        self.straight = bool(straight)
        # The last blueprint's way, by the states in which its sub-goals begin.
        self._line: dict[tuple[bytes, bytes], subgoals.Stretch] = {}

    # ---- the contract ----------------------------------------------------------------------
    def task_ids(self, split: str | None = None) -> Sequence[str]:
        """Return ``<generator or file>:<number>`` for every level of a split, in order."""
        return self.source.ids(self.split if split is None else split)

    @property
    def data_version(self) -> str:
        """The version of the rooms: the package's for generated rooms and puzzles, else ""."""
        return __version__ if self.data_name in ("generated", "puzzles") else ""

    def _start(self, task_id: str) -> Outcome:
        return self._begin(self.source.level(task_id))

    def _begin(self, level: Level) -> Outcome:
        self.board = Board(level)
        if self._shown is not None:
            self._shown.redraw(self.board)
        return self._outcome(0.0, moved=False, invalid=False)

    def _act(self, command: str) -> Outcome:
        board = self._playing()
        actions = parse_actions(command, self.actions_per_step)
        invalid = actions is None
        reward, moved = 0.0, False
        taken = 0
        for action in actions or [0]:
            gain, went, _ = board.step(action)
            if self._shown is not None:
                self._shown.update()
            reward, moved, taken = reward + gain, moved or went, taken + 1
            if board.won or self._steps + taken >= self.max_steps:
                break
        self._steps += taken - 1  # the base class counts one step a command
        return self._outcome(reward, moved, invalid)

    def _outcome(self, reward: float, moved: bool, invalid: bool) -> Outcome:
        board = self._playing()
        extra: dict[str, Any] = {"effective": moved}
        if self.deadlock:
            from himac_envs.sokoban.solver import is_deadlocked

            extra["deadlock"] = is_deadlocked(board)
        return Outcome(
            text=describe(board, self.text_form, self.symbols),
            reward=reward,
            terminated=board.won and board.steps > 0,
            won=board.won,
            score=board.score,
            invalid=invalid,
            extra=extra,
        )

    def _admissible(self) -> list[str]:
        return list(DIRECTIONS)

    def _goal(self) -> str:
        return goal_text(self._playing(), self.text_form, self.symbols)

    def _save(self) -> Any:
        return self._playing().snapshot()

    def _essence(self) -> Any:
        # The counter differs from the board's own count before the first step only; only then is a
        # finished room no end.
        board = self._playing()
        ends = board.won and board.steps > 0
        return board.cols, board.fixed, bytes(board.state), board.boxes_on_target, ends

    def _load(self, state: Any) -> None:
        self.board = Board.from_snapshot(state)
        if self._shown is not None:
            self._shown.redraw(self.board)

    # ---- pictures --------------------------------------------------------------------------
    def _tile_set(self) -> NDArray[np.uint8]:
        if self._tiles is None:
            size = self.tile_size or (1 if self.tile_names == "tiny" else 16)
            self._tiles = tile_set(self.tile_names, size)
        return self._tiles

    def _frame(self) -> NDArray[np.uint8]:
        if self._shown is None:
            self._shown = Frame(self._playing(), self._tile_set())
        return self._shown.pixels.copy()

    # ---- the expert ------------------------------------------------------------------------
    def achieved(self, subgoal: str) -> bool | None:
        """Return whether a sub-goal holds now; None where its text is not understood."""
        board = self._playing()
        target = subgoals.read_subgoal(subgoal, board)
        return None if target is None else subgoals.holds(target, board)

    def oracle(self, subgoal: str | None = None) -> Iterator[str]:
        """Yield the solver's commands for a sub-goal (None: the whole puzzle) from here on.

        Raises:
            ValueError: The sub-goal is not understood, or cannot be reached from here.
        """
        board = self._playing()
        target = (
            subgoals.Target("solve") if subgoal is None else subgoals.read_subgoal(subgoal, board)
        )
        if target is None:
            raise ValueError(
                f"the sub-goal {subgoal!r} is not understood, or names no cell of this room: "
                "write 'push the box at (row, column) to (row, column)', 'go to (row, column)' or "
                f"'{subgoals.ALL_BOXES}'"
            )
        return self._commands(target, self._plan(target))

    def _plan(self, target: subgoals.Target) -> list[int]:
        board = self._playing()
        # On the way of the last blueprint its own steps are played, so that each sub-goal ends
        # where the next one was thought to begin.
        known = self._line.get((board.fixed, bytes(board.state)))
        if known is not None and known.target == target:
            return list(known.actions)
        actions = subgoals.plan(target, board)
        if actions is None:
            raise ValueError(f"the sub-goal {target} cannot be reached from here")
        return actions

    def _commands(self, target: subgoals.Target, actions: list[int]) -> Iterator[str]:
        """Yield a plan, and plan anew whenever the board is not where the plan led it.

        A caller that only lists the commands leaves the board alone (its step count stands still)
        and gets the plan as it was made.
        """
        board = self._playing()
        origin = (board.level, board.steps)
        expected = board.after([])
        while actions:
            action = actions.pop(0)
            yield _WORDS[action]
            expected.step(action)
            now = self._playing()
            if (now.level, now.steps) == origin:
                continue
            if now.state != expected.state:
                actions = self._plan(target)
                expected = now.after([])

    def oracle_blueprint(self) -> Blueprint:
        """Return the solver's solution from here as sub-goals, one for each stretch of pushes.

        Raises:
            ValueError: The puzzle cannot be solved from here (or not within the solver's limit).
        """
        board = self._playing()
        solution = subgoals.best_solution(board)
        if not solution.solved:
            why = (
                "cannot be solved" if solution.status == "unsolvable" else "was not solved in time"
            )
            raise ValueError(f"{self.task_id or 'the puzzle'} {why} from here")
        parts = subgoals.stretches(board, solution, MAX_SUBGOALS, self.straight)
        self._line = {(board.fixed, part.before): part for part in parts}
        texts = [subgoals.phrase(part.target, board) for part in parts]
        return Blueprint.of(texts or [subgoals.ALL_BOXES])


def sizes(
    name: str | None,
    room: Sequence[int] | None,
    boxes: int | None,
    max_steps: int | None,
    gen_steps: int | None,
) -> dict[str, Any]:
    """A preset's settings with those given explicitly in their place."""
    given = {"room": room, "boxes": boxes, "max_steps": max_steps, "gen_steps": gen_steps}
    if room is not None:
        if len(room) != 2 or min(room) < 3:
            raise ValueError(f"room={room!r}: give (rows, columns), at least 3 of each")
        given["room"] = (int(room[0]), int(room[1]))
    if name is None:
        return given
    chosen = preset(name)
    return {key: chosen[key] if value is None else value for key, value in given.items()}


assert len(_WORDS) <= NUM_ACTIONS  # words stand for the actions of the same number
