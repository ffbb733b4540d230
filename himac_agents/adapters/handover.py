"""Turns a method's iteration inside out: its updates are handed to whoever drives the training.

A method (`himac_agents.algorithms.methods.Method`) calls ``reinforce`` where it wants its policy
moved, and goes on with the moved policy. Other trainers drive instead: they ask for a batch, step,
and ask again. So the method runs in a thread of its own that stands still while the trainer works,
and the trainer stands still while the method plays: only one of the two ever runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import numpy as np

from himac_agents.agents.agent import HiMACAgent
from himac_agents.algorithms.iteration import Setting
from himac_agents.algorithms.methods import check, method_of
from himac_agents.config import TrainConfig
from himac_agents.policies import noise
from himac_agents.rollouts.pool import EnvPool, Job
from himac_agents.rollouts.types import Episode, Segment


class _Left(BaseException):
    """Ends a method that nobody drives any more."""


@dataclass
class Phase:
    """What a method wants its policy moved by.

    Attributes:
        name: "planner", "executor", "flat", ...
        segments: Sampled sequences; their turns hold advantages.
        metrics: What the method is told that the update found.
    """

    name: str
    segments: Sequence[Segment]
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Errand:
    """Episodes that a method wants played by the trainer's own means.

    Attributes:
        jobs: What is to be played.
        episodes: What came of each.
    """

    jobs: Sequence[Job]
    episodes: list[Episode] = field(default_factory=list)


class Handover:
    """The updates of endless iterations, one after the other.

    It stands for the learner that a method's setting names (`iteration.Learns`).

    Args:
        iterate: Plays one iteration, which calls `reinforce` of what it is given.
        play: Plays what the method hands over (`play`), in the trainer's thread; None: the method
            plays by itself.
    """

    def __init__(
        self,
        iterate: Callable[[Handover], Any],
        play: Callable[[Sequence[Job]], list[Episode]] | None = None,
    ) -> None:
        self._iterate, self._run = iterate, play
        self._phases: SimpleQueue[Phase | Errand | BaseException] = SimpleQueue()
        self._turns: SimpleQueue[bool] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._over = False

    # -- the trainer's side ----------------------------------------------------------------------

    def next(self) -> Phase:
        """Lets the method go on, with the policy as it is now, until it wants it moved again.

        Raises:
            BaseException: Whatever the method raised, or what plays for it; it begins anew
                afterwards.
        """
        if self._thread is None:
            self._over = False
            self._thread = threading.Thread(target=self._play, name="himac", daemon=True)
            self._thread.start()
        else:
            self._turns.put(True)
        while isinstance(found := self._phases.get(), Errand):
            assert self._run is not None
            try:
                found.episodes = self._run(found.jobs)
            except BaseException:
                self.close()
                raise
            self._turns.put(True)
        if isinstance(found, BaseException):
            self._thread = None
            raise found
        return found

    def close(self) -> None:
        """Ends the method, if it plays."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._turns.put(False)
            thread.join()

    # -- the method's side -----------------------------------------------------------------------

    def reinforce(
        self, segments: Sequence[Segment], rng: np.random.Generator, phase: str = "flat"
    ) -> dict[str, float]:
        """See `himac_agents.algorithms.iteration.Learns`."""
        wanted = Phase(phase, segments)
        self._hand(wanted)
        return wanted.metrics

    def play(self, jobs: Sequence[Job]) -> list[Episode]:
        """Has episodes played by the trainer; for `himac_agents.rollouts.pool.AwayPool`."""
        errand = Errand(jobs)
        self._hand(errand)
        return errand.episodes

    def _hand(self, wanted: Phase | Errand) -> None:
        """Gives something to the trainer, and stands still until it is done."""
        self._phases.put(wanted)
        if not self._turns.get():
            raise _Left

    def values(self, segments: Sequence[Segment]) -> list[list[float]]:
        """Raises a ValueError: there is no critic here."""
        raise ValueError("a method with a critic needs HiMAC's own trainer: `himac train`")

    def _play(self) -> None:
        try:
            while True:
                self._iterate(self)
        except _Left:
            pass
        except BaseException as error:
            self._phases.put(error)


def setting_of(
    config: TrainConfig,
    agent: HiMACAgent,
    pool: EnvPool,
    learner: Handover,
    number: int,
    draw: Callable[[np.random.Generator], str],
    rng: np.random.Generator,
    first: int = 0,
) -> Setting:
    """What iteration `number` works with, where all roles are one model that others move."""
    seed = noise.key("run", config.seed, number)
    return Setting(
        config, agent, pool, planner=learner, executor=learner, draw=draw, seed=seed, first=first,
        rng=rng,
    )  # fmt: skip


def checked(settings: TrainConfig, stack: str, kl: str) -> TrainConfig:
    """The settings as they are run on another trainer.

    Args:
        settings: As they were given.
        stack: The trainer's name.
        kl: What is said where the settings ask for a penalty towards a reference.

    Raises:
        ValueError: They ask for what only himac's own trainer does.
    """
    if settings.kl:
        raise ValueError(f"kl={settings.kl}: {kl}")
    settings = check(settings.replace(kl=0.0))
    method = method_of(settings)
    if settings.policy != "hf":
        raise ValueError(
            f"policy={settings.policy!r}: {stack} trains transformers models only: set policy='hf'"
        )
    if settings.constrained:
        raise ValueError(
            f"constrained=True: {stack} computes log-probabilities over the whole vocabulary, not "
            "over the admissible commands only: set constrained=False"
        )
    if method.hierarchical and not settings.share_parameters:
        raise ValueError(
            "share_parameters=False: here one model is planner and executor: set "
            "share_parameters=True"
        )
    if settings.rollout != "local":
        raise ValueError(
            f"rollout={settings.rollout!r}: {stack} itself samples here: set rollout='local'"
        )
    if method.critic is not None:
        raise ValueError(f"method={settings.method!r} has a critic: `himac train` trains it")
    return settings


def insist_on_one_temperature(settings: TrainConfig, theirs: float, stack: str) -> None:
    """Refuses, by a ValueError, two temperatures: the loss weighs the rollout's tokens."""
    if theirs != settings.temperature:
        raise ValueError(
            f"temperature={theirs} in {stack}'s arguments, {settings.temperature} in the settings: "
            "make them equal"
        )


#: Phases without evidence, one after the other, until it is said that there will be none.
PATIENCE = 40


def no_evidence(phases: int) -> ValueError:
    """What is said then."""
    return ValueError(
        f"{phases} phases gave no evidence: in each group all episodes went equally well, or "
        "equally badly. Begin with a model that wins sometimes (supervise it on `himac demos`), or "
        "with easier tasks"
    )
