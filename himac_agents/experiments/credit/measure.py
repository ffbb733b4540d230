"""One cell: a frozen policy on some tasks, the true advantages, and what estimators make of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from himac_agents.agents.agent import Executor, HiMACAgent
from himac_agents.experiments.credit.estimators import (
    ESTIMATORS,
    VINE,
    Crediting,
    Estimator,
)
from himac_agents.experiments.credit.policy import Scripted, Simulator, Strength
from himac_agents.experiments.credit.vine import Vine
from himac_agents.policies import noise
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest, Turn
from himac_envs.hierarchy import HierarchicalEnv

#: What tells decisions their advantages.
E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)

#: A decision matters where its true advantage is larger.
MATTERS = 0.05


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured in a cell.

    Attributes:
        tasks: Tasks, drawn from the training split.
        groups: Independent groups of episodes a task.
        episodes: Episodes in a group: estimators are told of the first n of each, n in turn.
        decisions: Decisions a task whose truth is found, from the first episodes of all groups.
        continuations: Continuations for each of V and Q.
    """

    tasks: int = 16
    groups: int = 3
    episodes: tuple[int, ...] = (8, 16, 32)
    decisions: int = 24
    continuations: int = 400


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision whose true advantage is known.

    Attributes:
        group, episode, turn: Where it was made.
        truth: Q - V, of solving the task within the steps that were left.
    """

    group: int
    episode: int
    turn: int
    truth: float


def measure(
    make: Callable[[], HierarchicalEnv],
    strength: Strength,
    size: Size,
    *,
    seed: int = 0,
    estimators: Mapping[str, Estimator] = ESTIMATORS,
) -> dict[str, Any]:
    """Measures a cell.

    The blueprint of a task is the oracle's and the same in all of its groups, as in phase B. For
    each task and estimator sums are kept from which `scores` makes figures and intervals.

    Args:
        make: Makes the environment.
        strength: The policy's.
        size: How much.
        seed: Of tasks, episodes, decisions and continuations.
        estimators: What is compared, with `VINE` beside it.

    Returns:
        JSON values: `success`, `env_steps` (an episode), `decisions`, `tasks`, and by number of
        episodes and estimator the sums of each task.
    """
    policy = Scripted(strength, seed)
    agent = HiMACAgent(None, Executor(policy))
    pool = EnvPool(make, 1)
    simulator = Simulator(make(), policy)

    def played_tasks() -> Iterator[Acted]:
        for task_id in drawn_tasks(simulator.env, size.tasks, seed):
            groups = played(agent, pool, task_id, size, seed)
            key = noise.key(seed, "truth", task_id)
            yield Acted(groups, truths_of(simulator, groups, size, key))
            policy.forget()

    every: dict[str, Crediting] = {**estimators, VINE: Vine(simulator, seed=seed)}
    return {"strength": asdict(strength), **compared(played_tasks(), size, seed, every)}


class Known(Protocol[E_contra]):
    """A task that was played, with decisions whose truths are known."""

    @property
    def runs(self) -> Sequence[Sequence[Episode]]:
        """[groups][episodes] as they were played."""
        ...

    @property
    def truths(self) -> Sequence[float]:
        """Of each decision."""
        ...

    def sums(self, estimator: E_contra, count: int) -> list[float]:
        """What an estimator makes of the first so many episodes of each group; see `SUMS`."""
        ...


@dataclass(frozen=True, slots=True)
class Acted:
    """A task whose blueprint was executed, and what some of its decisions were worth.

    Attributes:
        runs: [groups][episodes].
        decisions: Those whose truth is known.
    """

    runs: Sequence[Sequence[Episode]]
    decisions: Sequence[Decision]

    @property
    def truths(self) -> list[float]:
        """See `Known`."""
        return [decision.truth for decision in self.decisions]

    def sums(self, estimator: Crediting, count: int) -> list[float]:
        """See `Known`."""
        told = [group[:count] for group in self.runs]
        own = {id(e) for e in estimator.credit([e for group in told for e in group])}
        return turn_sums([[e for e in group if id(e) in own] for group in told], self.decisions)


def compared(
    tasks: Iterable[Known[E]], size: Size, seed: int, estimators: Mapping[str, E]
) -> dict[str, Any]:
    """What estimators make of tasks that were played and whose truths are known."""
    found: dict[str, dict[str, list[list[float]]]] = {
        str(n): {name: [] for name in estimators} for n in size.episodes
    }
    successes, steps = [], []
    truths: list[float] = []
    for task in tasks:
        episodes = [episode for group in task.runs for episode in group]
        successes.append(float(np.mean([episode.success for episode in episodes])))
        steps.append(float(np.mean([episode.steps for episode in episodes])))
        truths += task.truths
        for n in size.episodes:
            for name, estimator in estimators.items():
                found[str(n)][name].append(task.sums(estimator, n))
    return {
        "size": asdict(size),
        "seed": seed,
        "success": float(np.mean(successes)),
        "env_steps": float(np.mean(steps)),
        "tasks": len(successes),
        "decisions": len(truths),
        "matter": int((np.abs(truths) > MATTERS).sum()),
        "sums": found,
    }


def drawn_tasks(env: HierarchicalEnv, count: int, seed: int) -> list[str]:
    """Tasks of the training split, sorted."""
    ids = list(env.task_ids())
    chosen = noise.generator(seed, "tasks").permutation(len(ids))[:count]
    return [ids[int(i)] for i in sorted(chosen)]


def played(
    agent: HiMACAgent, pool: EnvPool, task_id: str, size: Size, seed: int
) -> list[list[Episode]]:
    """A task's groups of episodes under the oracle's blueprint."""
    env = pool[0].unwrapped
    assert isinstance(env, HierarchicalEnv)
    env.reset(options={"task_id": task_id})
    blueprint = env.oracle_blueprint()
    most = max(size.episodes)
    requests = [
        EpisodeRequest(task_id, group, group * most + k, blueprint)
        for group in range(size.groups)
        for k in range(most)
    ]
    found = collected(agent, pool, requests, seed=noise.key(seed, "episodes"), state_keys=True)
    return in_groups(found, most)


def collected(
    agent: HiMACAgent, pool: EnvPool, requests: Sequence[EpisodeRequest], **how: Any
) -> list[Episode]:
    """Episodes that were all played to their end; see `collect`.

    Raises:
        RuntimeError: One broke off.
    """
    found = collect(agent, pool, requests, **how)
    if broken := next((e for e in found if e.error), None):
        raise RuntimeError(f"{broken.request.task_id}: {broken.error}")
    return found


def in_groups(episodes: list[Episode], size: int) -> list[list[Episode]]:
    """Episodes that were played group after group, `size` in each."""
    return [episodes[i : i + size] for i in range(0, len(episodes), size)]


def drawn_decisions(
    groups: Sequence[Sequence[Episode]], size: Size, rng: random.Random
) -> dict[tuple[int, int], list[int]]:
    """Places of turns, by group and episode, among the first episodes of all groups."""
    first = min(size.episodes)
    places = [
        (g, e, t)
        for g, group in enumerate(groups)
        for e, episode in enumerate(group[:first])
        for t in range(sum(1 for _ in episode.turns()))
    ]
    wanted: dict[tuple[int, int], list[int]] = {}
    for g, e, t in sorted(rng.sample(places, min(size.decisions, len(places)))):
        wanted.setdefault((g, e), []).append(t)
    return wanted


def truths_of(
    simulator: Simulator, groups: Sequence[Sequence[Episode]], size: Size, seed: int
) -> list[Decision]:
    """The true advantages of some decisions, by playing on from where they were made."""
    rng = random.Random(seed)
    wanted = drawn_decisions(groups, size, rng)
    blueprint = groups[0][0].blueprint
    assert blueprint is not None
    root = simulator.begin(groups[0][0].request.task_id, blueprint)
    found = []
    for (g, e), turns in wanted.items():
        node, left = root, simulator.limit
        for t, turn in enumerate(groups[g][e].turns()):
            assert not isinstance(node, bool)
            after, steps = simulator.follow(node, turn.action)
            if t in turns:
                value = simulator.success(node, left, size.continuations, rng)
                gained = simulator.success(after, left - steps, size.continuations, rng)
                found.append(Decision(g, e, t, gained - value))
            if t >= turns[-1]:
                break
            node, left = after, left - steps  # type: ignore[assignment]
    return found


#: What is summed for each task: of decisions, truths y and estimates x, ...
SUMS = (
    "n", "x", "y", "xx", "yy", "xy", "matter", "right", "repeated", "var", "mean_xx", "mean_xy",
    "mean_yy",
)  # fmt: skip


def sums(
    estimates: Sequence[float], truths: Sequence[float], repeats: Sequence[Sequence[float]]
) -> list[float]:
    """A task's sums for an estimator; see `SUMS`.

    The last ones are over the decisions that were made in several groups: the variance between
    groups of the estimate (its mean within each), and what the bias is found from.

    Args:
        estimates: [n] what an estimator said of each decision.
        truths: [n] what is true.
        repeats: [n] for each decision its mean estimate in each group in which it was made.
    """
    x, y = np.asarray(estimates, np.float64), np.asarray(truths, np.float64)
    matter = np.abs(y) > MATTERS
    # No answer is as good as a coin.
    right = np.where(x == 0, 0.5, np.sign(x) == np.sign(y))
    found = [len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]
    found += [matter.sum(), right[matter].sum()]
    rows = [
        (np.var(means, ddof=1), np.mean(means), truth)
        for means, truth in zip(repeats, truths, strict=True)
        if len(means) > 1
    ]
    table: NDArray[np.float64] = np.asarray(rows, np.float64).reshape(-1, 3)
    spread, mean, truth = table.T
    found += [len(table), spread.sum()]
    found += [(mean * mean).sum(), (mean * truth).sum(), (truth * truth).sum()]
    return [float(value) for value in found]


def turn_sums(groups: Sequence[Sequence[Episode]], decisions: Sequence[Decision]) -> list[float]:
    """The sums for an estimator that has just told the executor's turns their advantages.

    Decisions of other episodes than these, the first of each group, do not count.
    """
    decisions = [d for d in decisions if d.episode < len(groups[d.group])]
    turns = [[list(episode.turns()) for episode in group] for group in groups]
    told: dict[tuple[str, str, int], dict[int, list[float]]] = {}
    for g, group in enumerate(groups):
        for episode in group:
            for segment in episode.segments:
                for turn in segment.turns:
                    key = (turn.state, turn.action, segment.index)
                    told.setdefault(key, {}).setdefault(g, []).append(turn.advantage or 0.0)
    return sums(
        [turns[d.group][d.episode][d.turn].advantage or 0.0 for d in decisions],
        [d.truth for d in decisions],
        [
            [float(np.mean(v)) for v in told[_key(groups[d.group][d.episode], d.turn)].values()]
            for d in decisions
        ],
    )


def _key(episode: Episode, number: int) -> tuple[str, str, int]:
    own: list[tuple[Turn, int]] = [(t, s.index) for s in episode.segments for t in s.turns]
    turn, index = own[number]
    return turn.state, turn.action, index
