"""`ALFWorldLongEnv`: several household tasks in one episode, where a plan should matter."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

from himac_envs.alfworld.dialect import DialectName
from himac_envs.alfworld.engine import State
from himac_envs.alfworld.env import ALFWorldEnv, ExtraInfo
from himac_envs.alfworld.games import GameLibrary
from himac_envs.alfworld.generate import GeneratedLibrary, long_horizon
from himac_envs.alfworld.generate.goals import split_sentences
from himac_envs.alfworld.goals import Held, Lit
from himac_envs.task import Outcome, RewardMode


class ALFWorldLongEnv(ALFWorldEnv):
    """Several household tasks in one episode of 20 to 200 commands, with partial score.

    ## Description
    The rooms, commands and texts of `ALFWorldEnv`, but several goals at once: "do all of
    this, in any order: put a clean mug in cabinet. find two pen and put them in drawer. ...".
    Some goals ask for two preparations ("clean and heat some cup and put it in fridge"). The games
    are generated, since the official data has none of this kind; exported, they play in the
    original too, which answers the same and scores 1 when all goals hold.

    ## Action Space, Observation Space, Starting State
    As in `ALFWorldEnv`.

    ## Rewards
    The change of ``info["score"]``: the return of an episode is its last score, and 1 on success.
    Undoing a goal costs what reaching it gave. ``reward="sparse"`` and ``"verl-agent"`` are
    described at `TaskEnv`.

    ## Episode End
    Terminated when all goals hold at the same time; truncated after ``max_steps`` commands. No goal
    is in another's way: each is about an object kind of its own. An object to be looked at under a
    lamp has to be in hand at the end, so that goal, of which there is at most one, comes last.

    ## Information
    The keys of every `TaskEnv`; ``score`` is the share of the goals that hold now. Besides
    ``goals``, the goals' sentences, with ``goals_met`` (hold now) and ``goals_reached`` (held at
    this or an earlier step), in the same order.

    ## Arguments
    ``split``: "train", "valid", "test", "all". ``horizon``: length of the tasks, in commands; a
    task has about one goal for 20 of them (two at least), and its shortest solution always fits.
    ``goals``: exactly so many instead, one to eight, and no more than one for 20 of the horizon.
    ``max_steps``: None is the horizon. ``data``: None or "generated". ``dialect``, ``extra``,
    ``domain_randomization``, ``render_mode``: see `ALFWorldEnv`.

    ## Version History
    v0: first release.
    """

    # Eight goals take up to 24 sub-goals, chained preparations more.
    default_max_subgoals: ClassVar[int] = 48

    def __init__(
        self,
        *,
        split: str = "train",
        horizon: int = 100,
        goals: int | None = None,
        data: str | os.PathLike[str] | None = None,
        max_steps: int | None = None,
        render_mode: str | None = None,
        reward: RewardMode = "original",
        dialect: DialectName | None = None,
        domain_randomization: bool = False,
        extra: Sequence[ExtraInfo] = (),
    ) -> None:
        if data not in (None, "generated"):
            raise ValueError(
                f"data={os.fspath(data or '')!r}: long tasks are generated, no data set has them; "
                "leave `data` out, or play the official games in HiMAC-ALFWorld-v0"
            )
        self.horizon = int(horizon)
        self.controls = long_horizon(self.horizon, goals)
        self._score = 0.0
        self._reached: tuple[bool, ...] = ()
        super().__init__(
            split=split,
            data="generated",
            max_steps=self.horizon if max_steps is None else max_steps,
            render_mode=render_mode,
            reward=reward,
            dialect=dialect,
            domain_randomization=domain_randomization,
            extra=extra,
        )

    def _open_library(self) -> GameLibrary:
        return GeneratedLibrary(self.controls)

    def _start(self, task_id: str) -> Outcome:
        self._score = 0.0
        self._reached = ()
        return super()._start(task_id)

    def _outcome(self, text: str | None) -> Outcome:
        outcome = super()._outcome(text)
        state = self._playing()
        met = goals_met(state)
        self._reached = tuple(
            now or before for now, before in zip(met, self._reached or met, strict=True)
        )
        outcome.score = sum(met) / len(met)
        outcome.reward = outcome.score - self._score
        self._score = outcome.score
        outcome.extra |= {
            "goals": list(split_sentences(state.game.goal_text)),
            "goals_met": list(met),
            "goals_reached": list(self._reached),
        }
        return outcome

    def _save(self) -> Any:
        return super()._save(), self._score, self._reached

    def _load(self, state: Any) -> None:
        inner, self._score, self._reached = state
        super()._load(inner)


def goals_met(state: State) -> tuple[bool, ...]:
    """Return which goals hold now, in the order of their sentences.

    A goal is one condition of the game, except that to look at an object under a lamp is two: the
    lamp is lit, and the object is held.
    """
    met: list[bool] = []
    lit = False
    for condition in state.game.conditions:
        holds = condition.met(state)
        if lit and isinstance(condition, Held):
            met[-1] = met[-1] and holds
        else:
            met.append(holds)
        lit = isinstance(condition, Lit)
    return tuple(met)
