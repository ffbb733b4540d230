"""What a run demonstrates, and which policy imitates what of it at which supervised step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from himac_agents.agents.agent import history_of
from himac_agents.algorithms.methods import method_of
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Codec, TokenBatch
from himac_agents.prompts import Prompts
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, Segment
from himac_agents.training.demo_files import demos_for, segments_of_demos
from himac_agents.training.demonstrations import (
    Supervision,
    demonstrate,
    demonstration_order,
    texts_of,
)
from himac_agents.training.progress import Display
from himac_envs.contract import ExpertName, expert_of

#: A new tiny model's vocabulary is that of so many demonstrated tasks.
_READ_FOR_WORDS = 400


class Demonstrations:
    """The demonstrations of one run, from a file or made on first use.

    Attributes:
        task_ids: The tasks that are demonstrated.
        other_ids: The split's other tasks, in the run's own order.
        steps: Steps of tasks in the demonstrations; 0 before they are made.

    Args:
        config: The run's settings.
        pool: Its environments.
        prompts: Its agent's style.
        train_ids: The training split.
        display: Where their making is shown.
    """

    def __init__(
        self,
        config: TrainConfig,
        pool: EnvPool,
        prompts: Prompts,
        train_ids: Sequence[str],
        display: Display | None = None,
    ) -> None:
        self._display = display or Display(Console(quiet=True))
        self._config, self._pool, self._prompts = config, pool, prompts
        self._train_ids = train_ids
        self._flat = not method_of(config).hierarchical
        self._lines = demos_for(config)
        order = demonstration_order(len(train_ids), config.seed)
        first = [train_ids[i] for i in order[: config.demos]]
        self.task_ids = self._of_other_kinds(order) if config.demo_without else first
        if self._lines:
            known = set(train_ids)
            shown = dict.fromkeys(demo.task_id for demo in self._lines)
            self.task_ids = [task_id for task_id in shown if task_id in known]
        # A kind that is not demonstrated is met later: its words are to be known.
        self._read_for_words = self.task_ids if self._lines else first
        taken = set(self.task_ids)
        self.other_ids = [i for k in order if (i := train_ids[k]) not in taken]
        self.steps = 0
        self._segments: list[Segment] | None = None

    def _of_other_kinds(self, order: Iterable[int]) -> list[str]:
        """The first tasks that are of none of the kinds in `demo_without`.

        Raises:
            ValueError: The environment tells no kinds, or there are too few tasks.
        """
        without, found = set(self._config.demo_without), list[str]()
        for task_id in (self._train_ids[i] for i in order):
            if len(found) == self._config.demos:
                break
            self._pool[0].reset(options={"task_id": task_id})
            kind = str(getattr(self._pool[0].unwrapped, "task_type", ""))
            if not kind:
                raise ValueError(
                    f"demo_without={self._config.demo_without}: this environment has no property "
                    "task_type"
                )
            if kind not in without:
                found.append(task_id)
        if len(found) < self._config.demos:
            raise ValueError(
                f"demo_without={self._config.demo_without}: only {len(found)} of "
                f"{self._config.demos} demonstrated tasks are of another kind: lower demos"
            )
        return found

    @property
    def expert(self) -> ExpertName:
        """Who demonstrates: the oracle also where the environment has no explorer.

        Raises:
            ContractError: It has neither.
        """
        name = self._config.flat_env if self._flat else self._config.env
        return expert_of(self._pool[0], self._config.expert, name)

    def texts(self) -> list[str]:
        """All that is read and written in them, for the vocabulary of a model to be built."""
        config = self._config
        shown = self._read_for_words[:_READ_FOR_WORDS] or self._train_ids[:_READ_FOR_WORDS]
        with self._display.stage("what is read and written", len(shown)) as tick:
            # Played with more mistakes than are demonstrated: what follows them is to have words.
            how: dict[str, Any] = {"noise": 0.2, "seed": config.seed + 1, "transcripts": True}
            episodes = self._played(shown, tick, **how)
        return texts_of(episodes, self._prompts, history_of(config) if self._flat else None)

    def segments(self, codec: Codec) -> list[Segment]:
        """Their sequences in a model's tokens, made on first use and the same at every call."""
        if self._segments is None:
            found = self._readable(self._read(codec) if self._lines else self._make(codec), codec)
            times = self._config.warm_planner_repeats
            self._segments = [s for s in found for _ in range(times if s.role == "planner" else 1)]
        return self._segments

    def _readable(self, segments: list[Segment], codec: Codec) -> list[Segment]:
        """The sequences that the model can read; how many it cannot is said."""
        limit = getattr(codec, "context_length", None)
        if limit is None:
            return segments
        found = [s for s in segments if max(len(s.ids_of(t)) for t in s.turns) <= limit]
        if len(found) < len(segments):
            self._display.say(
                f"note: {len(segments) - len(found):,} of {len(segments):,} demonstrated sequences "
                f"are left out: they exceed the model's context length of {limit:,} tokens "
                "(--history N shortens those of flat agents)"
            )
        return found

    def _read(self, codec: Codec) -> list[Segment]:
        self.steps = sum(demo.steps for demo in self._lines)
        return segments_of_demos(self._lines, codec)

    def _make(self, codec: Codec) -> list[Segment]:
        config, asked = self._config, self._config.expert
        if (shown_by := self.expert) != asked:
            self._display.say(f"note: the environment has no {asked}; the {shown_by} demonstrates")
        with self._display.stage("demonstrations", len(self.task_ids)) as tick:
            episodes = self._played(
                self.task_ids,
                tick,
                codec=codec,
                noise=config.demo_noise,
                plan_noise=config.plan_noise,
                seed=config.seed + 2,
                constrained=config.constrained,
                history=history_of(config),
            )
        self.steps = sum(e.steps for e in episodes)
        return [s for episode in episodes if episode.error is None for s in episode.segments]

    def _played(
        self, task_ids: Sequence[str], tick: Callable[[], None], **how: Any
    ) -> list[Episode]:
        """What the expert makes of some tasks; see `demonstrate`."""
        how |= {"prompts": self._prompts, "expert": self.expert, "flat": self._flat}
        return demonstrate(self._pool, task_ids, on_episode=lambda _: tick(), **how)

    def by_policy(self, policies: Mapping[str, Any]) -> dict[str, list[Segment]]:
        """Which sequences each policy imitates: one that is shared all, the others their role's."""
        found = self.segments(next(iter(policies.values())))
        return {
            name: found if name == "policy" else [s for s in found if s.role == name]
            for name in policies
        }

    def shown_to(self, name: str, step: int) -> bool:
        """Whether a policy takes part in a supervised step: a planner of its own not in each."""
        share = self._config.warm_planner_share if name == "planner" else 1.0
        return int((step + 1) * share) > int(step * share)

    def batches(
        self, policies: Mapping[str, Any], seed: int, start: int
    ) -> dict[str, Iterator[TokenBatch]]:
        """Each policy's batches from supervised step `start` on."""
        return {
            name: Supervision(segments, self._config.warm_tokens, seed).batches(
                sum(self.shown_to(name, step) for step in range(start))
            )
            for name, segments in self.by_policy(policies).items()
        }
