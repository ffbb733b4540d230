"""Language models as frozen policies: supervised for a while, and played on from any decision.

What a language model does depends on its conversation and not on the state alone. So it is not
restored but led back: the commands up to a decision are given once more, token by token as they
were written, and from there on it answers itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from himac_agents.agents.agent import Executor, HiMACAgent, Info, Observation
from himac_agents.agents.conversation import Decision as Answer
from himac_agents.agents.conversation import Memory
from himac_agents.agents.expert import Expert
from himac_agents.config import TrainConfig
from himac_agents.experiments.credit.estimators import ESTIMATORS, Estimator
from himac_agents.experiments.credit.measure import (
    Acted,
    Decision,
    Size,
    collected,
    compared,
    drawn_decisions,
    drawn_tasks,
    played,
)
from himac_agents.policies import noise
from himac_agents.policies.base import Completion, Role
from himac_agents.rollouts.episode import noise_of
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest, Turn
from himac_envs.hierarchy import HierarchicalEnv

#: Environments that play at the same time.
LANES = 64


@dataclass(frozen=True, slots=True)
class Trained:
    """A language model that was supervised for a while.

    Attributes:
        policy: "tiny" (built from scratch) or "hf".
        model: For "hf" its folder or name.
        steps: Supervised steps.
        settings: What is set otherwise than in `config`.
    """

    policy: Literal["tiny", "hf"]
    steps: int
    model: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def config(self, env_id: str, kwargs: Mapping[str, Any], seed: int) -> TrainConfig:
        """The settings of its supervision: the honest expert with mistakes, constrained answers."""
        common: dict[str, Any] = {
            "method": "himac", "env": env_id, "env_kwargs": dict(kwargs), "seed": seed,
            "policy": self.policy, "model": self.model, "constrained": True, "prompt": "compact",
            "demos": 400, "demo_noise": 0.2, "warm_tokens": 1024, "warm_steps": self.steps,
            "lanes": LANES, "eval_split": "train", "eval_episodes": 1, "loggers": (),
        }  # fmt: skip
        rate = {} if self.policy == "tiny" else {"warm_lr": 1e-4}
        return TrainConfig(**{**common, **rate, **self.settings})

    def agent(self, folder: Path, env_id: str, kwargs: Mapping[str, Any], seed: int) -> HiMACAgent:
        """It as planner and executor; what is in `folder` already is not made again."""
        from himac_agents.training.trainer import Trainer

        resume = (folder / "config.toml").is_file()
        config = self.config(env_id, kwargs, seed)
        trainer = Trainer(config, folder, resume=resume, console=Console(quiet=True))
        trainer.warm_start()
        trainer.save()
        trainer.run_folder.close()
        return trainer.agent


class _Said(Expert):
    """Answers once more what was answered before."""

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self.turn = turn

    def answer(self, role: Role, memory: Memory) -> Completion:
        """See `Expert.answer`."""
        turn = self.turn
        return Completion(turn.text, turn.output_ids, turn.old_logprobs, allowed=turn.allowed)


@dataclass
class LedBack(Executor):
    """An executor that is led back to a decision, and goes on by itself.

    Attributes:
        ways: By the episode's noise what it has to say first.
    """

    ways: Mapping[int, Sequence[Turn]] = field(default_factory=dict)

    @classmethod
    def of(cls, executor: Executor, ways: Mapping[int, Sequence[Turn]]) -> LedBack:
        """The same executor, with ways to go."""
        own = {f.name: getattr(executor, f.name) for f in fields(Executor) if f.init}
        return cls(**own, ways=ways)

    async def decide(self, memory: Memory, observation: Observation, info: Info) -> Answer:
        """See `Executor.decide`."""
        way = self.ways.get(memory.noise, ())
        if len(memory.past) >= len(way):
            return await super().decide(memory, observation, info)
        own = {f.name: getattr(self, f.name) for f in fields(Executor) if f.init}
        said = Executor(**{**own, "policy": _Said(way[len(memory.past)])})
        return await said.decide(memory, observation, info)


def measure_trained(
    make: Callable[[], HierarchicalEnv],
    executor: Executor,
    size: Size,
    *,
    seed: int = 0,
    lanes: int = LANES,
    estimators: Mapping[str, Estimator] = ESTIMATORS,
) -> dict[str, Any]:
    """Measures a cell whose policy is a language model; see `measure`."""
    pool, env = EnvPool(make, lanes), make()

    def played_tasks() -> Iterator[Acted]:
        for task_id in drawn_tasks(env, size.tasks, seed):
            groups = played(HiMACAgent(None, executor), pool, task_id, size, seed)
            key = noise.key(seed, "truth", task_id)
            yield Acted(groups, trained_truths(executor, pool, groups, size, key))

    return compared(played_tasks(), size, seed, estimators)


def trained_truths(
    executor: Executor,
    pool: EnvPool,
    groups: Sequence[Sequence[Episode]],
    size: Size,
    seed: int,
) -> list[Decision]:
    """The true advantages of some decisions of a language model.

    Q - V, each the share of `size.continuations` episodes that are solved when the model is led
    back to behind the decision, and to before it.
    """
    wanted = drawn_decisions(groups, size, random.Random(seed))
    ways: dict[tuple[int, int, int], Sequence[Turn]] = {}
    for (g, e), places in wanted.items():
        turns = list(groups[g][e].turns())
        for t in places:
            ways |= {(g, e, t): turns[:t], (g, e, t + 1): turns[: t + 1]}
    values: dict[tuple[int, int, int], float] = {}
    requests: list[EpisodeRequest] = []
    by_noise: dict[int, Sequence[Turn]] = {}
    owners: list[tuple[int, int, int]] = []
    for place, way in ways.items():
        episode = groups[place[0]][place[1]]
        if len(way) == sum(1 for _ in episode.turns()):
            values[place] = float(episode.success)  # nothing is left to be played
            continue
        for _ in range(size.continuations):
            request = EpisodeRequest(episode.request.task_id, 0, len(requests), episode.blueprint)
            by_noise[noise_of(seed, request)] = way
            requests.append(request)
            owners.append(place)
    agent = HiMACAgent(None, LedBack.of(executor, by_noise))
    # The tokens are the model's, also while others answer in its place.
    codec: Any = executor.policy
    went = collected(agent, pool, requests, codec=codec, seed=seed)
    won: dict[tuple[int, int, int], list[bool]] = {}
    for place, episode in zip(owners, went, strict=True):
        won.setdefault(place, []).append(episode.success)
    values |= {place: float(np.mean(ends)) for place, ends in won.items()}
    return [
        Decision(g, e, t, values[g, e, t + 1] - values[g, e, t])
        for (g, e), places in wanted.items()
        for t in places
    ]
