"""Step-level credit: what `himac_agents.algorithms.graphs` computes, made of episodes.

Each function is the credit of a method of the register, and serves the credit benchmark
(`himac bench credit`) as it serves training.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from himac_agents.algorithms import advantages, graphs
from himac_agents.algorithms.advantages import Floats
from himac_agents.algorithms.batching import Place, by_group, places_of, segments_of
from himac_agents.algorithms.credit import (
    Credit,
    achieved,
    begun,
    blueprint_returns,
    executor_advantages,
    give_lines,
    grpo,
    planner_credit,
    settled,
)
from himac_agents.algorithms.graphs import Path
from himac_agents.config import TrainConfig
from himac_agents.rollouts.types import Episode, Segment, Turn

#: Stands behind the last line of a blueprint, where none follows; no line is empty.
_NO_MORE = ""

# -- flat methods --------------------------------------------------------------------------------


def crbc(config: TrainConfig, episodes: Sequence[Episode]) -> list[Floats]:
    """CRBC: A = w_G A_GRPO + w_S A_S, A_S from the graph of the group's transitions.

    See `graphs.step_credit`; `graph_credit` chooses GraphHCA's, GraphGPO's or the visit averages'
    step part instead.
    """
    weight = settled(config.graph_weight, "graph_weight")
    whole = _episode_part(config, episodes)
    found: list[Floats] = [np.zeros(0)] * len(episodes)
    for members in by_group(episodes):
        paths = [_path(config, episodes[i], list(episodes[i].turns())) for i in members]
        for i, part in zip(members, _step_part(config, paths), strict=True):
            found[i] = whole[i] + weight * part
    return found


def hgpo(config: TrainConfig, episodes: Sequence[Episode]) -> list[Floats]:
    """HGPO: steps compared with those that saw the same, and the same before; `graphs.nested`."""
    turns = [list(e.turns()) for e in episodes]
    return graphs.nested(
        [advantages.to_go([t.reward for t in own], config.gigpo_discount) for own in turns],
        [[turn.anchor for turn in own] for own in turns],
        [e.request.group for e in episodes],
        depth=config.hgpo_depth,
        alpha=config.hgpo_alpha,
        std=config.advantage_std,
    )


# -- hierarchies ---------------------------------------------------------------------------------


def beacon_credit(config: TrainConfig, episodes: Sequence[Episode]) -> Credit:
    """BEACON (arXiv 2605.06078), its milestones the sub-goals that count as achieved.

    In a segment that achieved its sub-goal r_t = 10 d^{t_k - t}, else 0; among all steps of the
    executions of one task that are in the same place of the blueprint A_seg = r - mean; then
    A = A_GRPO + lambda A_seg. The paper takes its milestones from the official walkthrough, a
    privileged plan; here the planner's own sub-goals are they.
    """
    whole = [e for e in episodes if e.error is None]
    credit = begun(whole)
    trajectory = _episode_part(config, whole)
    owner = [i for i, e in enumerate(whole) for _ in segments_of([e], "executor")]
    segments = segments_of(whole, "executor")
    rewards = graphs.milestone_rewards(
        [len(s.turns) for s in segments],
        [bool(achieved(config, s)) for s in segments],
        discount=config.milestone_discount,
    )
    places = [place for e in whole for place in places_of(e)]
    steps = [(s.group, at) for s, at in zip(segments, places, strict=True) for _ in s.turns]
    paid = np.concatenate([np.zeros(0), *rewards])
    compared = advantages.group_relative(paid, steps, std=False)
    parts = advantages.parted(compared, [len(own) for own in rewards])
    for i, segment, part in zip(owner, segments, parts, strict=True):
        credit.give(segment, list(trajectory[i] + config.milestone_weight * part))
    return credit


def graph_executor_credit(config: TrainConfig, episodes: Sequence[Episode]) -> Credit:
    """This project's: CRBC's system on (state, sub-goal), filled in where it says nothing.

    Over all turns of the executor, `<sub_done>` included, from the first sub-goal through the last:
    what a sub-goal's end leads to is worth what the next sub-goal is from there.

        A = w_G A_G + w_S A_S             where A_S is not 0
        A = w_G A_G + w_S (V(s') - V(s))  elsewhere (`graph_fill`)

    s and s' are the states in which the step's sub-goal and the next one begin; behind the last one
    V is that of the end. With `graph_pays = "reward"` what was paid in between comes on top. With
    `graph_centred` what lies behind the sub-goal is discounted by its length. A_G is GRPO's, or
    what else `executor_advantage` names.

    With `graph_ends = "subgoal"` each sub-goal is a path of its own, and its end is worth 1 where
    it was achieved, else 0: V is the chance to achieve it. One that the environment does not
    understand is judged by its episode.
    """
    whole = [e for e in episodes if e.error is None]
    credit = begun(whole)
    fill = settled(config.graph_fill, "graph_fill")
    graph_weight = settled(config.graph_weight, "graph_weight")
    episode_weight = settled(config.episode_weight, "episode_weight")
    beside = iter(episode_weight * executor_advantages(config, whole, credit.metrics))
    first = {i: [next(beside) for _ in segments_of([e], "executor")] for i, e in enumerate(whole)}
    for members in by_group(whole):
        walks = [(i, walk) for i in members for walk in _walks(config, whole[i])]
        paths = [walk.path for _, walk in walks]
        parts = _step_part(config, paths)
        gains = _boundary_gains(config, paths, [walk.segments for _, walk in walks])
        for (i, walk), part, gain in zip(walks, parts, gains, strict=True):
            if fill:
                longer = np.repeat(gain, [len(segment.turns) for segment in walk.segments])
                part = np.where(part != 0, part, longer)
            values = graph_weight * part
            for segment in walk.segments:
                own, values = values[: len(segment.turns)], values[len(segment.turns) :]
                credit.give(segment, list(first[i].pop(0) + own))
    return credit


@dataclass(frozen=True, slots=True)
class _Walk:
    """A stretch of an execution that ends with something that is worth a number.

    Attributes:
        segments: Its sub-goals.
        path: All that was done in them.
    """

    segments: Sequence[Segment]
    path: Path


def _walks(config: TrainConfig, episode: Episode) -> list[_Walk]:
    """An execution as a whole, or sub-goal by sub-goal; see `graph_ends`."""
    segments = segments_of([episode], "executor")
    turns = [turn for segment in segments for turn in segment.turns]
    whole = _path(
        config, episode, turns, [segment.subgoal for segment in segments for _ in segment.turns]
    )
    if settled(config.graph_ends, "graph_ends") == "episode":
        return [_Walk(segments, whole)]
    found, begins = [], 0
    for segment in segments:
        own = slice(begins, begins + len(segment.turns))
        begins = own.stop
        end = achieved(config, segment)
        worth = float(episode.success if end is None else end)
        found.append(_Walk([segment], Path(whole.states[own], whole.actions[own], worth)))
    return found


def graph_planner_credit(
    config: TrainConfig, plans: Sequence[Episode], runs: Sequence[Episode]
) -> tuple[Credit, list[float]]:
    """This project's: each line of a blueprint carries what its sub-goal changed in the value.

    The nodes of the option graph are the states in which sub-goals begin, told apart by whether
    all before were achieved; its edges are whole sub-goals, not discounted. Line k gets

        A_k = V(s_{k+1}) - V(s_k)    on its own tokens, times w_S (plus w_G A_GRPO on all),

    V behind the last one that of the end. The A_k of a blueprint sum to R - V(s_0), so what a whole
    blueprint is credited with is divided among its lines. The sub-goals that are still to come are
    no part of a node: they are what the planner chooses. Lines that were not reached get 0. A
    blueprint that could not be parsed, or not be read line by line, carries its sum on all tokens
    (and loses the format penalty).

    With `replans` a further blueprint may begin in the state in which the last line ended: then V
    of that state is what the last line led to, and what comes later is the further blueprint's.

    `blueprint_credit` chooses `prefix_credit` instead, or `himac`'s one number a blueprint.
    """
    division = settled(config.blueprint_credit, "blueprint_credit")
    if division == "whole":
        return planner_credit(config, plans, runs)
    if division == "prefixes":
        return prefix_credit(config, plans, runs)
    returns, compared = _compared(config, plans, runs)
    whole = list(compared)
    episode_weight = settled(config.episode_weight, "episode_weight")
    weight = settled(config.graph_weight, "graph_weight")
    credit = begun([runs[i] for i in whole])
    for members in by_group([plans[i] for i in whole]):
        places = [whole[m] for m in members]
        walks = [_options(config, runs[i]) for i in places]
        graph = graphs.Graph.of([walk for walk, _ in walks])
        values = graphs.state_values(graph, 1.0) if graph.states else np.zeros(0)
        gained = graph.reward + graph.next_values(values) - values[graph.state]
        for i, (_, lines), gains in zip(places, walks, graph.split(gained), strict=True):
            every = episode_weight * compared[i]
            penalty = 0.0 if plans[i].blueprint_valid else config.format_penalty
            for number, segment in enumerate(segments_of([plans[i]], "planner")):
                worth: dict[int, float] = {}
                for place, gain in zip(lines, gains, strict=True):
                    if place.blueprint == number:
                        # Behind the last sub-goal the episode may go on under its number.
                        worth[place.line] = worth.get(place.line, 0.0) + float(gain)
                total = every + weight * (sum(worth.values()) - penalty)
                weighed = {line: weight * value for line, value in worth.items()}
                give_lines(credit, plans[i], segment, weighed, total, every)
    return credit, returns


def prefix_credit(
    config: TrainConfig, plans: Sequence[Episode], runs: Sequence[Episode]
) -> tuple[Credit, list[float]]:
    """This project's: each line carries how those fared that begin like this, up to it.

    With A_j `himac`'s number for blueprint j of a group, and m(p) the mean of A over the group's
    blueprints that begin with the lines p (m of none is 0), line k of z_1..z_n gets

        A_k = m(z_1..z_k) - m(z_1..z_{k-1})    and the last one m(z, nothing more) - m(z) besides,

    which is what Q(p, line) - Q(p) is estimated by: what blueprints have in common is not told
    apart, and what differs is put down to the first line that differs. They sum to the mean of A
    over blueprints that are the same. What cannot be read line by line carries its sum on all
    tokens. What could not be parsed carries its A; so do several blueprints of one episode
    (`replans`), since a further one begins in a state of its own.
    """
    returns, compared = _compared(config, plans, runs)
    credit = begun([runs[i] for i in compared])
    for members in by_group([plans[i] for i in compared]):
        own = [list(compared)[m] for m in members]
        begins: dict[int, list[tuple[str, ...]]] = {}
        found: dict[tuple[str, ...], list[float]] = {}
        for i in (i for i in own if plans[i].blueprint_valid and not _replanned(plans[i])):
            blueprint = plans[i].blueprint
            lines = [*(blueprint.texts() if blueprint else ()), _NO_MORE]
            begins[i] = [tuple(lines[: k + 1]) for k in range(len(lines))]
            for begun_like in begins[i]:
                found.setdefault(begun_like, []).append(compared[i])
        for i in own:
            fared = [float(np.mean(found[p])) for p in begins.get(i, ())]
            gains = np.diff([0.0, *fared])
            gains = np.where(np.abs(gains) <= graphs.ROUNDING, 0.0, gains)
            worth = dict(enumerate(gains[:-1].tolist()))
            if worth:
                worth[len(worth) - 1] += float(gains[-1])
            total = fared[-1] if fared else compared[i]
            for segment in segments_of([plans[i]], "planner"):
                if i in begins:
                    give_lines(credit, plans[i], segment, worth, total)
                else:
                    credit.give(segment, total)
    return credit, returns


def _replanned(plan: Episode) -> bool:
    """Whether an episode's planner wrote more than its first blueprint."""
    return len(segments_of([plan], "planner")) > (plan.request.blueprint is None)


def _compared(
    config: TrainConfig, plans: Sequence[Episode], runs: Sequence[Episode]
) -> tuple[list[float], dict[int, float]]:
    """What each blueprint is worth; and of those that did not crash, by place, `himac`'s number."""
    returns = blueprint_returns(config, plans, runs)
    whole = [i for i in range(len(plans)) if not (plans[i].error or runs[i].error)]
    values = [returns[i] for i in whole]
    groups = [plans[i].request.group for i in whole]
    compared = advantages.group_relative(values, groups, std=config.advantage_std)
    return returns, dict(zip(whole, compared.tolist(), strict=True))


def _options(config: TrainConfig, run: Episode) -> tuple[Path, list[Place]]:
    """An execution as a path over sub-goals, and the place of each."""
    segments = segments_of([run], "executor")
    keys = _keys(config, [segment.turns[0] for segment in segments], run)
    states: list[Hashable] = []
    clean = True
    for key, segment in zip(keys, segments, strict=True):
        states.append((key, clean))
        clean = clean and not (segment.option and segment.option["achieved"] is False)
    rewards = [sum(turn.reward for turn in segment.turns) for segment in segments]
    end = _end(config, run)
    path = Path(states, [segment.subgoal for segment in segments], end, _paid(config, rewards))
    return path, places_of(run)


# -- parts ---------------------------------------------------------------------------------------


def _episode_part(config: TrainConfig, episodes: Sequence[Episode]) -> Floats:
    """w_G A_GRPO, one for each episode."""
    return settled(config.episode_weight, "episode_weight") * grpo(config, episodes)


def _discount(config: TrainConfig) -> float:
    if config.graph_discount is not None:
        return config.graph_discount
    return 0.95 if config.graph_credit == "hindsight" else 0.98


def _step_part(config: TrainConfig, paths: Sequence[Path]) -> list[Floats]:
    return graphs.step_credit(
        paths,
        kind=config.graph_credit,
        discount=_discount(config),
        sigma=settled(config.graph_sigma, "graph_sigma"),
    )


def _end(config: TrainConfig, episode: Episode) -> float:
    """What the end of an episode is worth: with rewards counted on the way, nothing more."""
    return float(episode.success) if config.graph_pays == "success" else 0.0


def _paid(config: TrainConfig, rewards: list[float]) -> list[float]:
    return rewards if config.graph_pays == "reward" else []


def _path(
    config: TrainConfig,
    episode: Episode,
    turns: Sequence[Turn],
    subgoals: Sequence[str] | None = None,
) -> Path:
    """Turns as a path; states are told apart by the sub-goal and by the clock, where there are."""
    keys = _keys(config, turns, episode)
    if config.graph_clock:
        keys = [(key, t // config.graph_clock) for t, key in enumerate(keys)]
    states = keys if subgoals is None else list(zip(keys, subgoals, strict=True))
    rewards = _paid(config, [turn.reward for turn in turns])
    return Path(states, [turn.action for turn in turns], _end(config, episode), rewards)


def _boundary_gains(
    config: TrainConfig, paths: Sequence[Path], segments: Sequence[Sequence[Segment]]
) -> list[Floats]:
    """For each path, by sub-goal, what it changed in the value of the state.

    sum_i e^i r_i + e^n V(s') - V(s), n the sub-goal's decisions and e = 1, or the graph's discount
    where gains are to be centred: executions that do equally well then gain nothing.
    """
    graph = graphs.Graph.of(paths)
    discount = _discount(config)
    values = graphs.state_values(graph, discount) if graph.states else np.zeros(0)
    later = discount if config.graph_centred else 1.0
    found = []
    own = zip(
        graph.split(values[graph.state]), graph.split(graph.reward), paths, segments, strict=True
    )
    for seen, rewards, path, parts in own:
        sizes = [len(part.turns) for part in parts]
        starts = np.cumsum([0, *sizes])
        at = np.asarray([*seen[starts[:-1]], path.end])
        paid = [(rewards[a:b] * later ** np.arange(b - a)).sum() for a, b in pairwise(starts)]
        gains = np.asarray(paid) + later ** np.asarray(sizes) * at[1:] - at[:-1]
        found.append(np.where(np.abs(gains) <= graphs.ROUNDING, 0.0, gains))
    return found


def _keys(config: TrainConfig, turns: Sequence[Turn], episode: Episode) -> list[Hashable]:
    """What makes each turn's state the same as another's; see `graph_keys`."""
    return _KEYS[config.graph_keys](turns, episode)


def _by_state(turns: Sequence[Turn], episode: Episode) -> list[Hashable]:
    if any(not turn.state for turn in turns):
        raise ValueError(
            "a turn has no state key: play with collect(..., state_keys=True), as methods do "
            "whose parts set state_keys=True, or set graph_keys='observation'"
        )
    return [turn.state for turn in turns]


@dataclass(frozen=True, slots=True)
class _History:
    """All that was seen and done before: equal where both are."""

    seen: tuple[str, ...]
    done: tuple[str, ...]


def _by_history(turns: Sequence[Turn], episode: Episode) -> list[Hashable]:
    found: list[Hashable] = []
    seen: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    for turn in episode.turns():
        seen = (*seen, turn.anchor)
        if len(found) < len(turns) and turn is turns[len(found)]:
            found.append(_History(seen, done))
        done = (*done, turn.action)
    return found


_KEYS: dict[str, Callable[[Sequence[Turn], Episode], list[Hashable]]] = {
    "state": _by_state,
    "observation": lambda turns, _: [turn.anchor for turn in turns],
    "history": _by_history,
}
