"""How a run ends that cannot go on: with its last good weights, and with a reason.

Its numbers are none, or nobody samples for it any more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from himac_agents.algorithms.finite import NonFiniteError
from himac_agents.policies.served.server import RolloutError
from himac_agents.training.state import Running
from himac_envs.errors import HiMACError

P = ParamSpec("P")
R = TypeVar("R")


class StoppedError(HiMACError):
    """A run was stopped; its newest checkpoint holds the last good weights."""


@dataclass(frozen=True)
class Mark:
    """Where an iteration began, so that one can go back there as long as nothing was learned.

    Attributes:
        rng: The state of the draw of tasks.
        updates: How many updates the learners had made.
    """

    rng: Mapping[str, Any]
    updates: int

    @classmethod
    def of(cls, trainer: Running) -> Self:
        """The mark of this moment."""
        return cls(dict(trainer.rng.bit_generator.state), _updates(trainer))


def _updates(trainer: Running) -> int:
    return sum(int(learner.updates) for learner in trainer.learners.values())


S = TypeVar("S", bound=Running)


def keeping_the_last_good(
    work: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], R]:
    """Makes a trainer's method save what it has, when a step is refused, and say where it was.

    Where nobody samples any more, the iteration under way is given up: what is saved is the state
    before it, as long as nothing was learned in it.

    Raises:
        StoppedError: A step was refused, in every process, or a server failed.
    """

    @functools.wraps(work)
    def kept(trainer: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(trainer, *args, **kwargs)
        except RolloutError as error:
            folder = trainer.run_folder.folder
            saved = _keep(trainer)
            raise StoppedError(
                f"iteration {trainer.at.iteration + 1}, {error}. {saved}: `himac train --resume "
                f"{folder}` continues, with --servers if their addresses have changed"
            ) from error
        except NonFiniteError as error:
            trainer.save()
            at = trainer.at
            learning = "warm_start" in at.evaluations
            place = (
                f"iteration {at.iteration + 1}" if learning else f"supervised step {at.warm + 1}"
            )
            folder = trainer.run_folder.folder
            raise StoppedError(
                f"{place}, {error}. They are in the newest checkpoint of {folder}: `himac train "
                f"--resume {folder}` continues from it. If it stops again, try a lower learning "
                "rate or a smaller max_grad_norm"
            ) from error

    return kept


def _keep(trainer: Running) -> str:
    """Saves the state before the iteration under way, if that is still at hand; says what is kept.

    One of several processes may have failed alone: there nothing is saved that all must agree on.
    """
    mark, at = trainer.mark, trainer.at
    if trainer.team.size == 1 and (mark is None or mark.updates == _updates(trainer)):
        if mark is not None:
            trainer.rng.bit_generator.state = dict(mark.rng)
        trainer.save()
        return f"All that was learned in {at.iteration} iterations is saved"
    return "The newest checkpoint holds the last state between two iterations that was saved"
