"""How a run ends whose numbers are none: with its last good weights, and with a reason."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from himac_agents.algorithms.finite import NonFiniteError
from himac_envs.task import HiMACError

P = ParamSpec("P")
R = TypeVar("R")


class StoppedError(HiMACError):
    """A run was stopped; its newest checkpoint holds the last good weights."""


class Saving(Protocol):
    """What is used here of a `Trainer`."""

    at: Any
    run_folder: Any

    def save(self) -> None:
        """See `Trainer.save`."""
        ...


S = TypeVar("S", bound=Saving)


def keeping_the_last_good(
    work: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], R]:
    """Makes a trainer's method save what it has, when a step is refused, and say where it was.

    Raises:
        StoppedError: A step was refused, in every process.
    """

    @functools.wraps(work)
    def kept(trainer: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(trainer, *args, **kwargs)
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
                f"--resume {folder}` goes on from it. Where it stops again, a lower learning rate "
                "or a smaller max_grad_norm helps more often than anything else"
            ) from error

    return kept
