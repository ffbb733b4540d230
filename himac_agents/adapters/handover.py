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

from himac_agents.rollouts.types import Segment


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


class Handover:
    """The updates of endless iterations, one after the other.

    It stands for the learner that a method's setting names (`iteration.Learns`).

    Args:
        iterate: Plays one iteration, which calls `reinforce` of what it is given.
    """

    def __init__(self, iterate: Callable[[Handover], Any]) -> None:
        self._iterate = iterate
        self._phases: SimpleQueue[Phase | BaseException] = SimpleQueue()
        self._turns: SimpleQueue[bool] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._over = False

    # -- the trainer's side ----------------------------------------------------------------------

    def next(self) -> Phase:
        """Lets the method go on, with the policy as it is now, until it wants it moved again.

        Raises:
            BaseException: Whatever the method raised; it begins anew afterwards.
        """
        if self._thread is None:
            self._over = False
            self._thread = threading.Thread(target=self._play, name="himac", daemon=True)
            self._thread.start()
        else:
            self._turns.put(True)
        found = self._phases.get()
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
        self._phases.put(wanted)
        if not self._turns.get():
            raise _Left
        return wanted.metrics

    def values(self, segments: Sequence[Segment]) -> list[list[float]]:
        """There is no critic here.

        Raises:
            ValueError: Always.
        """
        raise ValueError("methods with a critic learn with himac's own trainer: `himac train`")

    def _play(self) -> None:
        try:
            while True:
                self._iterate(self)
        except _Left:
            pass
        except BaseException as error:
            self._phases.put(error)
