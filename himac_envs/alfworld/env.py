"""`ALFWorldEnv`: ALFWorld's household games as a flat text environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np

from himac_envs.alfworld import facts
from himac_envs.alfworld.aims import achieved, understand
from himac_envs.alfworld.dialect import DialectName, find_dialect
from himac_envs.alfworld.engine import NOTHING_HAPPENS, State
from himac_envs.alfworld.expert import Follower, blueprint, follow, plan_subgoal
from himac_envs.alfworld.game import Game
from himac_envs.alfworld.games import GameLibrary, open_library
from himac_envs.alfworld.planner import solve
from himac_envs.alfworld.records import SavedState
from himac_envs.blueprint import Blueprint
from himac_envs.data import installed
from himac_envs.errors import HiMACError
from himac_envs.task import Outcome, RewardMode, TaskEnv

ExtraInfo = Literal["facts", "inventory", "task_type", "expert"]
EXTRAS: Final = ("facts", "inventory", "task_type", "expert")
BACKENDS: Final = ("fast", "textworld")


class ALFWorldEnv(TaskEnv):
    """ALFWorld: household tasks in text, exactly as the original plays them.

    ## Description
    The agent stands in a room with receptacles (cabinets, a fridge, ...) and is told one task:
    place an object; clean, heat or cool it first; place two; or look at one under a lamp. The
    games are the official ones ([ALFWorld](https://arxiv.org/abs/2010.03768)) or generated ones
    of the same kind. Every text, admissible command, score and end is that of alfworld's
    ``AlfredTWEnv``; ``make parity`` compares the two.

    ## Action Space
    `FreeText`, one command: ``go to cabinet 1``, ``open cabinet 1``, ``close cabinet 1``,
    ``take mug 1 from cabinet 1``, ``move mug 1 to cabinet 1`` (old dialect: ``put mug 1 in/on
    cabinet 1``), ``clean mug 1 with sinkbasin 1``, ``heat mug 1 with microwave 1``, ``cool mug 1
    with fridge 1``, ``use desklamp 1``, ``slice apple 1 with knife 1``, ``examine mug 1``,
    ``inventory``, ``look``, ``help``. Anything else is answered with ``Nothing happens.``

    ## Observation Space
    ``Dict(text=FreeText)``: the original's feedback.

    ## Starting State
    In the middle of the room, hands empty; the text lists the receptacles and tells the task.

    ## Rewards
    1 on each step after which the goal holds, else 0. ``reward="sparse"`` and ``"verl-agent"``
    are described at `TaskEnv`.

    ## Episode End
    Terminated when the goal holds; truncated after ``max_steps`` commands, wrong ones included.
    Stepping on after the end is allowed; the goal may cease to hold.

    ## Information
    The keys of every `TaskEnv`; ``admissible`` is the original's list in its order. On request
    (``extra=``): ``facts`` (what holds, as the original writes it), ``inventory``, ``task_type``
    and ``expert`` (the oracle's next command, "" where there is none).

    ## Arguments
    ``split``: "train", "valid_seen" (= "valid", "eval_in_distribution"), "valid_unseen" (=
    "test", "eval_out_of_distribution"), "all".
    ``data``: a folder with the official zip archives or the unpacked tree; "generated"; None: the
    installed official games, else generated ones. ``dialect``: play any game with the strings of
    release "2.1.1" or "2.1.2"; None: the file's own. ``goals``: "templated", or "human" for what
    annotators wrote (drawn from the seed where there are several; the printed sentence gets the
    grammar's full stop on top, as in the original). ``domain_randomization``: shuffle the numbers
    in names at every reset. ``backend``: "fast", or "textworld" for the original package.

    ## Version History
    v0: first release.
    """

    def __init__(
        self,
        *,
        split: str = "train",
        data: str | os.PathLike[str] | None = None,
        max_steps: int | None = None,
        render_mode: str | None = None,
        reward: RewardMode = "original",
        goals: Literal["templated", "human"] = "templated",
        dialect: DialectName | None = None,
        domain_randomization: bool = False,
        extra: Sequence[ExtraInfo] = (),
        backend: Literal["fast", "textworld"] = "fast",
    ) -> None:
        super().__init__(
            split=split,
            data=None if data is None else os.fspath(data),
            max_steps=max_steps,
            render_mode=render_mode,
            reward=reward,
        )
        _choose("goals", goals, ("templated", "human"))
        _choose("backend", backend, BACKENDS)
        for name in extra:
            _choose("extra", name, EXTRAS)
        if dialect is not None:
            find_dialect(dialect)
        self.goals = goals
        self.dialect = dialect
        self.domain_randomization = domain_randomization
        self.extra = tuple(extra)
        self.backend = backend
        self._library: GameLibrary | None = None
        self._state: State | None = None
        self._original: Any = None
        self._expert: Iterator[str] | None = None
        self._told: frozenset[str] = frozenset()  # see facts.deeds
        self.data_name = self.library.name
        self.task_ids()

    # --- games -------------------------------------------------------------------------------

    def _open_library(self) -> GameLibrary:
        """Where the games come from; a subclass may bring its own."""
        if self.data == "generated":
            folder = None
        elif self.data is not None:
            return open_library(self.data)
        else:
            folder = installed("alfworld")
        if folder is not None:
            return open_library(folder)
        from himac_envs.alfworld.generate import GeneratedLibrary

        return GeneratedLibrary()

    @property
    def library(self) -> GameLibrary:
        """The games that this environment plays."""
        if self._library is None:
            self._library = self._open_library()
        return self._library

    @property
    def game(self) -> Game:
        """The game being played."""
        return self._playing().game

    def task_ids(self, split: str | None = None) -> Sequence[str]:
        """Return a split's task ids, sorted; None is the environment's own split.

        Raises:
            UnknownSplitError: No such split, or it has no games in this data.
        """
        return self.library.task_ids(self.split if split is None else split)

    @property
    def data_version(self) -> str:
        """The release of the official games ("json_2.1.2_tw-pddl"), else the package's version."""
        return super().data_version or self.data_name.rpartition("/")[2]

    def _playing(self) -> State:
        if self._state is None:
            raise HiMACError("no game is being played yet: call reset() first")
        return self._state

    # --- TaskEnv -----------------------------------------------------------------------------

    def _start(self, task_id: str) -> Outcome:
        game = self.library.game(task_id, self.dialect)
        if self.goals == "human":
            written = self.library.annotations(task_id)
            if not written:
                raise HiMACError(
                    f"goals='human': {task_id!r} has no goal written by people in "
                    f"{self.library.name}; it takes the official json_2.1.1_json.zip beside the "
                    "games (`himac data get alfworld`)"
                )
            game = game.with_goal_text(f"{written[self._draw(len(written))]}.")
        if self.domain_randomization:
            game = game.renumbered(self.np_random)
        self._state = State(game)
        self._expert = None
        self._told = frozenset()
        self._original = None
        if self.backend == "textworld":
            self._original = self._load_original(task_id, game)
            return self._outcome(self._original.intro)
        return self._outcome(game.intro)

    def _draw(self, number: int) -> int:
        return int(self.np_random.integers(number)) if number > 1 else 0

    def _act(self, command: str) -> Outcome:
        state = self._playing()
        before = state.save() if "facts" in self.extra else None
        text = state.act(command)
        if before is not None and text is not None:
            self._told = facts.deeds(self._told, before, command, state)
        if self._original is not None:
            # The fast state goes along, for the oracle; what the agent sees is the original's.
            text = self._original.act(command)
        return self._outcome(text)

    def _outcome(self, text: str | None) -> Outcome:
        """What a step shows; ``text`` is None for a command that is not admissible."""
        state = self._playing()
        won = state.won if self._original is None else bool(self._original.won)
        outcome = Outcome(
            text=NOTHING_HAPPENS if text is None else text,
            reward=float(won),
            terminated=won,
            won=won,
            score=float(won),
            invalid=text is None,
        )
        if self.extra:
            outcome.extra = self._extra()
        return outcome

    def _extra(self) -> dict[str, Any]:
        state = self._playing()
        makers: dict[str, Callable[[], Any]] = {
            "facts": lambda: (
                facts.facts(state, self._told) if self._original is None else self._original.facts()
            ),
            "inventory": lambda: facts.inventory(state),
            "task_type": lambda: facts.task_type(state.game),
            "expert": self._next_command,
        }
        return {name: makers[name]() for name in self.extra}

    def _next_command(self) -> str:
        if self._expert is None:
            self._expert = self.oracle()
        try:
            command = next(self._expert, "")
        except ValueError:  # nothing leads to the goal from here
            command = ""
        if not command:
            self._expert = None
        return command

    @property
    def task_type(self) -> str:
        """Which of the benchmark's six types the game is of; "several" beyond them."""
        return "" if not self.task_id else facts.task_type(self._playing().game)

    def _admissible(self) -> list[str]:
        if self._original is not None:
            return list(self._original.admissible())
        return self._playing().admissible()

    def _goal(self) -> str:
        text = self._playing().game.goal_text
        # The grammar's own full stop is not part of what a person wrote.
        return text.removesuffix(".") if self.goals == "human" else text

    def _save(self) -> tuple[Game, SavedState, frozenset[str], tuple[str, ...] | None]:
        state = self._playing()
        history = None if self._original is None else tuple(self._original.history)
        return state.game, state.save(), self._told, history

    def _essence(self) -> Any:
        # Sentences and shuffled names are the episode's; what is on the floor is the game's.
        state = self._playing()
        names = self.domain_randomization and (state.game.object_names, state.game.receptacle_names)
        return tuple(state.essence()), state.game.goal_text, names

    def _load(self, state: tuple[Game, SavedState, frozenset[str], tuple[str, ...] | None]) -> None:
        game, saved, self._told, history = state
        if self._state is None or self._state.game is not game:
            self._state = State(game)
        self._state.restore(saved)
        self._expert = None
        if self._original is not None:
            self._original = self._load_original(self._task_id, game)
            for command in history or ():
                self._original.act(command)

    def _load_original(self, task_id: str, game: Game) -> Any:
        from himac_envs.alfworld.reference import Original

        return Original.of(self.library, task_id, game, facts="facts" in self.extra)

    # --- the expert --------------------------------------------------------------------------

    def oracle(self, subgoal: str | None = None) -> Iterator[str]:
        """Yield commands that achieve a sub-goal (None: win the game) from the current state.

        The expert sees the whole state. It searches the engine's own state space and follows no
        recorded walkthrough; see `himac_envs.alfworld.planner`.

        Raises:
            ValueError: The sub-goal is not understood, or cannot be reached from here.
        """
        if subgoal is None:
            return self._follow(Follower(solve, lambda state: state.won))
        aim = understand(self._playing().game, subgoal)
        if aim is None:
            raise ValueError(
                f"the sub-goal {subgoal!r} is not understood here; himac_envs.alfworld.subgoals "
                "lists the forms, e.g. 'find and take a mug'"
            )
        return self._follow(
            Follower(lambda state: plan_subgoal(state, aim), lambda state: achieved(state, aim))
        )

    def _follow(self, choose: Callable[[State], str | None]) -> Iterator[str]:
        self._playing()  # an error now, not at the first command
        return follow(self._playing, lambda: self._steps, choose)

    def explorer(
        self, subgoal: str | None = None, rng: np.random.Generator | None = None
    ) -> Iterator[str]:
        """Yield commands of an expert that knows only what has been seen so far.

        It looks for things in plausible receptacles, likeliest first, as a person would, so that
        its commands can be learned from. See `himac_envs.alfworld.explorer`.

        Args:
            subgoal: A sub-goal; None: the whole task.
            rng: Varies the order of the search; None: the environment's own generator.

        Raises:
            ValueError: The sub-goal is not understood, or everything was seen in vain.
        """
        from himac_envs.alfworld.explorer import Explorer

        aim = None
        if subgoal is not None:
            aim = understand(self._playing().game, subgoal)
            if aim is None:
                raise ValueError(f"the sub-goal {subgoal!r} is not understood here")
        explorer = Explorer(self.np_random if rng is None else rng)
        return self._follow(lambda state: explorer.choose(state, aim))

    def oracle_blueprint(self) -> Blueprint:
        """Return an expert's sub-goals from here, using only what can be known here."""
        return Blueprint.of(str(aim) for aim in blueprint(self._playing()))

    def achieved(self, subgoal: str) -> bool | None:
        """Return whether a sub-goal holds now; None where its text is not understood."""
        state = self._playing()
        aim = understand(state.game, subgoal)
        return None if aim is None else achieved(state, aim)

    # --- copying -----------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle without the library (opened anew when needed) and iterators."""
        return {**self.__dict__, "_library": None, "_expert": None, "_original": None} | {
            "_history": None if self._original is None else tuple(self._original.history)
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        history = state.pop("_history", None)
        self.__dict__.update(state)
        if history is not None:
            self._original = self._load_original(self._task_id, self._playing().game)
            for command in history:
                self._original.act(command)


def _choose(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, known))}")
