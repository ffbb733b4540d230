"""Who gets which advantage: from episodes to the credit of every turn.

The formulas are in `himac_agents.algorithms.advantages`; here they meet episodes. Crashed episodes
carry no credit and do not enter any mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from himac_agents.algorithms import advantages
from himac_agents.algorithms.advantages import Floats
from himac_agents.algorithms.batching import segments_of
from himac_agents.algorithms.methods import method_of
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Role
from himac_agents.rollouts.types import Episode, Segment


@dataclass
class Credit:
    """Sequences that are to be learned from, and the advantage of each of their turns.

    Attributes:
        segments: The sequences.
        by_turn: Advantages, by `id(turn)`.
        metrics: What there is to say of the groups.
    """

    segments: list[Segment] = field(default_factory=list)
    by_turn: dict[int, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def give(self, segment: Segment, advantage: float) -> None:
        """Adds a sequence all of whose turns carry one advantage."""
        self.segments.append(segment)
        self.by_turn.update(dict.fromkeys(map(id, segment.turns), advantage))

    def of(self, segment: Segment) -> list[float]:
        """The advantages of a sequence's turns."""
        return [self.by_turn[id(turn)] for turn in segment.turns]

    def dead(self) -> set[int]:
        """The groups in which no turn has an advantage: nothing can be learned from them."""
        groups = {segment.group for segment in self.segments}
        return groups - {s.group for s in self.segments if any(self.of(s))}

    def only(self, role: Role) -> Credit:
        """The same for one level's sequences."""
        return Credit([s for s in self.segments if s.role == role], self.by_turn, self.metrics)

    def replace(self, groups: set[int], other: Credit) -> Credit:
        """The same with the sequences of some groups taken out and others put in."""
        kept = [s for s in self.segments if s.group not in groups]
        return Credit([*kept, *other.segments], {**self.by_turn, **other.by_turn}, self.metrics)


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
    returns = [
        run.reward - (0.0 if plan.blueprint_valid else config.format_penalty)
        for plan, run in zip(plans, runs, strict=True)
    ]
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


def executor_credit(config: TrainConfig, episodes: Sequence[Episode]) -> Credit:
    """Micro: each execution compared as a whole, or sub-goal by sub-goal, or both.

    See `executor_advantage` in `TrainConfig`.
    """
    whole = [e for e in episodes if e.error is None]
    groups = [e.request.group for e in whole]
    returns = [e.reward for e in whole]
    credit = Credit(metrics={"dead_groups": advantages.dead_groups(returns, groups)})
    trajectory = advantages.group_relative(returns, groups, std=config.advantage_std)
    segments = segments_of(whole, "executor")
    owner = [i for i, e in enumerate(whole) for _ in segments_of([e], "executor")]
    values = np.asarray([trajectory[i] for i in owner])
    if config.executor_advantage != "trajectory":
        option = _option_level(config, whole, credit.metrics)
        values = option + values if config.executor_advantage == "both" else option
    for segment, advantage in zip(segments, values, strict=True):
        credit.give(segment, float(advantage))
    return credit


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
                option["achieved"], option["steps"], step_cost=config.step_cost
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


def flat_credit(config: TrainConfig, episodes: Sequence[Episode]) -> Credit:
    """GRPO, RLOO or GiGPO: episodes of one task compared as wholes; GiGPO: steps too.

    GiGPO's anchor states are the observations, word for word as the agent read them.
    """
    whole = [e for e in episodes if e.error is None]
    groups = [e.request.group for e in whole]
    returns = [e.reward for e in whole]
    credit = Credit(metrics={"dead_groups": advantages.dead_groups(returns, groups)})
    turns = [list(e.turns()) for e in whole]
    if method_of(config).advantage == "gigpo":
        anchors = [[t.anchor for t in own] for own in turns]
        per_turn = advantages.gigpo(
            returns,
            groups,
            [[t.reward for t in own] for own in turns],
            anchors,
            discount=config.gigpo_discount,
            weight=config.gigpo_weight,
            std=config.advantage_std,
        )
        places = [(g, a) for g, own in zip(groups, anchors, strict=True) for a in own]
        credit.metrics["repeated_states"] = 1.0 - len(set(places)) / max(1, len(places))
    else:
        if method_of(config).advantage == "rloo":
            found = advantages.rloo(returns, groups)
        else:
            found = advantages.group_relative(returns, groups, std=config.advantage_std)
        per_turn = [np.full(len(own), a) for own, a in zip(turns, found, strict=True)]
    for episode, own, values in zip(whole, turns, per_turn, strict=True):
        credit.segments += segments_of([episode], "executor")
        credit.by_turn.update(zip(map(id, own), map(float, values), strict=True))
    return credit
