"""Who gets which advantage: from episodes to the credit of every turn.

The formulas are in `himac_agents.algorithms.advantages`; here they meet episodes, and each turn is
told its advantage (`turn.advantage`), once. Crashed episodes carry no credit and do not enter any
mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from himac_agents.algorithms import advantages
from himac_agents.algorithms.advantages import Floats
from himac_agents.algorithms.batching import segments_of
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Role
from himac_agents.rollouts.types import Episode, Segment

T = TypeVar("T")

#: A flat method's own: (settings, episodes that did not crash) -> an advantage for each episode, or
#: for each episode those of its turns.
FlatAdvantage = Callable[[TrainConfig, Sequence[Episode]], Iterable[Any]]


@dataclass
class Credit:
    """Sequences that are to be learned from; their turns know their advantages.

    Attributes:
        segments: The sequences.
        metrics: What there is to say of the groups.
    """

    segments: list[Segment] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def give(self, segment: Segment, advantage: float | Sequence[float]) -> None:
        """Adds a sequence, and tells its turns their advantages: one for all, or one each.

        Raises:
            ValueError: There are more or fewer advantages than turns.
        """
        given = one_each(advantage, len(segment.turns))
        for turn, value in zip(segment.turns, given, strict=True):
            turn.advantage, turn.token_advantages = value, ()
        self.segments.append(segment)

    def give_tokens(self, segment: Segment, total: float, tokens: Sequence[float]) -> None:
        """Adds a sequence of one turn whose tokens have advantages of their own.

        Args:
            segment: The sequence.
            total: The turn's advantage as a whole, for reports.
            tokens: One for each output id; empty: `total` is for all.

        Raises:
            ValueError: There is more or less than one turn, or than one number a token.
        """
        (turn,) = segment.turns
        if tokens and len(tokens) != len(turn.output_ids):
            raise ValueError(f"{len(tokens)} advantages for {len(turn.output_ids)} tokens")
        turn.advantage, turn.token_advantages = total, tuple(tokens)
        self.segments.append(segment)

    def dead(self) -> set[int]:
        """The groups in which no turn has an advantage: nothing can be learned from them."""
        groups = {segment.group for segment in self.segments}
        return groups - {s.group for s in self.segments if any(t.teaches for t in s.turns)}

    def summary(self) -> dict[str, float]:
        """The metrics; where the method has not counted its dead groups, they are counted here."""
        groups = {segment.group for segment in self.segments}
        dead = len(self.dead()) / len(groups) if groups else 0.0
        return {"dead_groups": dead, **self.metrics}

    def only(self, role: Role) -> Credit:
        """The same for one level's sequences."""
        return Credit([s for s in self.segments if s.role == role], self.metrics)

    def replace(self, groups: set[int], other: Credit) -> Credit:
        """The same with the sequences of some groups taken out and others put in."""
        kept = [s for s in self.segments if s.group not in groups]
        return Credit([*kept, *other.segments], self.metrics)


def one_each(advantage: Any, turns: int) -> list[float]:
    """One advantage for all turns, or one each, as one each.

    Raises:
        ValueError: There are more or fewer than turns.
    """
    if np.ndim(advantage) == 0:
        return [float(advantage)] * turns
    if len(advantage) != turns:
        raise ValueError(f"{len(advantage)} advantages for {turns} turns")
    return [float(value) for value in advantage]


def settled(value: T | None, name: str) -> T:
    """A setting that the method has filled in; a ValueError where it has not."""
    if value is None:
        raise ValueError(
            f"{name} is left to the method: himac_agents.algorithms.methods.resolve(config) "
            "fills it in"
        )
    return value


# -- a hierarchy ---------------------------------------------------------------------------------


def planner_credit(
    config: TrainConfig, plans: Sequence[Episode], runs: Sequence[Episode]
) -> tuple[Credit, list[float]]:
    """Macro: each blueprint's tokens carry how its execution did beside the others of its task.

    Args:
        config: Standard deviation and format penalty.
        plans: Episodes that hold the planner's segments.
        runs: For each plan the episode that executed it (the plan's own, where it did so itself).

    Returns:
        The credit, and the return of each blueprint.
    """
    returns = blueprint_returns(config, plans, runs)
    both = enumerate(zip(plans, runs, strict=True))
    whole = [i for i, (plan, run) in both if not (plan.error or run.error)]
    groups = [plans[i].request.group for i in whole]
    values = [returns[i] for i in whole]
    macro = advantages.group_relative(values, groups, std=config.advantage_std)
    credit = Credit(metrics={"dead_groups": advantages.dead_groups(values, groups)})
    for i, advantage in zip(whole, macro, strict=True):
        for segment in segments_of([plans[i]], "planner"):
            credit.give(segment, float(advantage))
    return credit, returns


def blueprint_returns(
    config: TrainConfig, plans: Sequence[Episode], runs: Sequence[Episode]
) -> list[float]:
    """Each execution's return, less the format penalty of a blueprint that cannot be parsed."""
    return [
        run.reward - (0.0 if plan.blueprint_valid else config.format_penalty)
        for plan, run in zip(plans, runs, strict=True)
    ]


def give_lines(
    credit: Credit,
    plan: Episode,
    segment: Segment,
    worth: Mapping[int, float],
    total: float,
    every: float = 0.0,
) -> None:
    """Tells the tokens of a blueprint what its lines were worth.

    Args:
        credit: Gets the blueprint's sequence.
        plan: The planner's episode.
        segment: The blueprint's sequence.
        worth: By a line's place.
        total: The blueprint as a whole: for reports, and for all tokens of one that could not be
            parsed, or not be read line by line.
        every: What each token gets besides.
    """
    (turn,) = segment.turns
    tokens = [every + worth.get(line, 0.0) for line in turn.lines]
    credit.give_tokens(segment, total, tokens if plan.blueprint_valid else ())


def executor_credit(config: TrainConfig, episodes: Sequence[Episode]) -> Credit:
    """Micro: each execution compared as a whole, or sub-goal by sub-goal, or both.

    See `executor_advantage` in `TrainConfig`.
    """
    whole = [e for e in episodes if e.error is None]
    credit = begun(whole)
    given = executor_advantages(config, whole, credit.metrics)
    for segment, advantage in zip(segments_of(whole, "executor"), given, strict=True):
        credit.give(segment, float(advantage))
    return credit


def begun(episodes: Sequence[Episode]) -> Credit:
    """Credit that nobody has got yet, and how many groups of whole episodes differ in nothing."""
    return Credit(metrics={"dead_groups": advantages.dead_groups(*_compared(episodes))})


def executor_advantages(
    config: TrainConfig, whole: Sequence[Episode], metrics: dict[str, float]
) -> Floats:
    """[segments] what `executor_advantage` says of each of the executor's, in their order.

    Args:
        config: Which it is, and its parts.
        whole: Episodes that did not crash.
        metrics: Gets what there is to say of the groups of sub-goals.
    """
    kind = settled(config.executor_advantage, "executor_advantage")
    trajectory = grpo(config, whole)
    owner = [i for i, e in enumerate(whole) for _ in segments_of([e], "executor")]
    values = np.asarray([trajectory[i] for i in owner], np.float64)
    if kind != "trajectory":
        option = _option_level(config, whole, metrics)
        values = option + values if kind == "both" else option
    return values


def achieved(config: TrainConfig, segment: Segment) -> bool | None:
    """Whether a sub-goal counts as achieved; None where the environment does not understand it.

    It has to hold, and to have ended with `<sub_done>` or with the task. If it counted without
    that, an executor could only lose by saying `<sub_done>`, which is sometimes wrong: it would
    learn to go on until the steps are used up. See `credit_cut_subgoals` in `TrainConfig`.
    """
    option = segment.option or {"achieved": False}
    holds: bool | None = option["achieved"]
    cut = option.get("reason") in ("budget", "truncated")
    if holds and cut and not settled(config.credit_cut_subgoals, "credit_cut_subgoals"):
        return False
    return holds


def _option_level(
    config: TrainConfig, whole: Sequence[Episode], metrics: dict[str, float]
) -> Floats:
    """Executions of one sub-goal that came after the same sub-goals, compared: one a segment."""
    values, keys, comparable = [], [], []
    for episode in whole:
        begun: tuple[str, ...] = ()
        clean = True
        for segment in segments_of([episode], "executor"):
            option = segment.option or {"achieved": False, "steps": 0}
            value = advantages.option_value(
                achieved(config, segment), option["steps"], step_cost=config.step_cost
            )
            begun = (*begun, segment.subgoal)
            # A sub-goal that the environment does not understand is judged by the whole episode.
            values.append(episode.reward if value is None else value)
            keys.append((episode.request.group, begun))
            comparable.append(clean)
            clean = clean and option["achieved"] is not False
    alive = [k for k, ok in enumerate(comparable) if ok]
    worth, own = [values[k] for k in alive], [keys[k] for k in alive]
    metrics["dead_options"] = advantages.dead_groups(worth, own)
    metrics["option_value"] = float(np.mean(worth)) if worth else 0.0
    return advantages.option_level(values, keys, comparable, std=config.advantage_std)


# -- one flat agent ------------------------------------------------------------------------------


def flat_credit(
    config: TrainConfig, episodes: Sequence[Episode], advantage: FlatAdvantage
) -> Credit:
    """The credit of a flat agent's episodes.

    Args:
        config: What `advantage` reads.
        episodes: Several of each task.
        advantage: `grpo`, `rloo`, `gigpo`, or one's own.

    Raises:
        ValueError: `advantage` gives more or fewer than there are episodes, or turns in one.
    """
    whole = [e for e in episodes if e.error is None]
    credit = begun(whole)
    places = [(e.request.group, t.anchor) for e in whole for t in e.turns()]
    credit.metrics["repeated_states"] = 1.0 - len(set(places)) / max(1, len(places))
    given = list(advantage(config, whole))
    if len(given) != len(whole):
        raise ValueError(f"{len(given)} advantages for {len(whole)} episodes")
    for episode, value in zip(whole, given, strict=True):
        own = one_each(value, sum(1 for _ in episode.turns()))
        for segment in episode.segments:
            mine, own = own[: len(segment.turns)], own[len(segment.turns) :]
            if segment.turns:
                credit.give(segment, mine)
    return credit


def grpo(config: TrainConfig, episodes: Sequence[Episode]) -> Floats:
    """GRPO: episodes of one task compared as wholes."""
    return advantages.group_relative(*_compared(episodes), std=config.advantage_std)


def rloo(config: TrainConfig, episodes: Sequence[Episode]) -> Floats:
    """RLOO: an episode against the mean of the others of its task."""
    return advantages.rloo(*_compared(episodes))


def gigpo(config: TrainConfig, episodes: Sequence[Episode]) -> list[Floats]:
    """GiGPO: episodes as wholes, and steps from the same state.

    Its anchor states are the observations, word for word as the agent read them.
    """
    turns = [list(e.turns()) for e in episodes]
    return advantages.gigpo(
        *_compared(episodes),
        [[t.reward for t in own] for own in turns],
        [[t.anchor for t in own] for own in turns],
        discount=config.gigpo_discount,
        weight=config.gigpo_weight,
        std=config.advantage_std,
    )


def _compared(episodes: Sequence[Episode]) -> tuple[list[float], list[int]]:
    """Returns, and the groups in which they are compared."""
    return [e.reward for e in episodes], [e.request.group for e in episodes]
