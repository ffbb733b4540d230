"""What a long piece of work shows and costs: stages on a console, and a clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

#: Seconds of work after which a console that is no terminal gets a line.
EVERY = 2.5
#: Seconds between two looks at the clock: with them nothing is silent for three.
_PULSE = 0.25


class Clock:
    """What passes between two readings: wall time, and CPU time of all the process's threads."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Seconds (wall, CPU) since the last reading, or since the clock was made."""
        wall, cpu = time.perf_counter(), time.process_time()
        passed = wall - self._wall, cpu - self._cpu
        self._wall, self._cpu = wall, cpu
        return passed


@dataclass
class Stage:
    """A piece of work under way.

    Attributes:
        title: What is done.
        total: Of how many parts; None where that is not known.
        done: How many are done.
        values: The latest metrics.
        began: When it began, by the display's clock.
        bar: Its bar, on a terminal.
    """

    title: str
    total: int | None
    done: int
    began: float
    values: dict[str, float] = field(default_factory=dict)
    bar: TaskID | None = None

    def line(self, now: float) -> str:
        """How far it is, in one line."""
        parts = [self.title]
        if self.total is not None:
            parts.append(f"{self.done}/{self.total}")
        if self.values:
            parts.append(self.shown())
        return "  ".join([*parts, f"{now - self.began:.0f} s"])

    def shown(self) -> str:
        """The latest metrics."""
        return "  ".join(
            f"{key} {value}" if isinstance(value, int) else f"{key} {value:.3f}"
            for key, value in self.values.items()
        )


class Display:
    """Shows what is being done, one stage within another, and is never silent for long.

    On a terminal each stage has a bar whose time goes on by itself. Elsewhere a line comes after
    every few seconds of work, in one stage or in several, and at the end of a long one: what is
    over at once says nothing.

    Args:
        console: Where.
        clock: Seconds, for the lines.
        pulse: Seconds between two looks at the clock, taken by a thread while a stage is open; 0:
            by nobody but whoever calls `beat`.
        every: Seconds of work after which a console that is no terminal gets a line.
    """

    def __init__(
        self,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
        pulse: float = _PULSE,
        every: float = EVERY,
    ) -> None:
        self.console, self.every = console, every
        self._clock, self._pulse = clock, pulse
        self._stages: list[Stage] = []
        self._told = clock()
        self._lock = threading.RLock()
        self._bars: Progress | None = None
        self._over = threading.Event()
        self._heart: threading.Thread | None = None

    def say(self, text: str) -> None:
        """A line of its own."""
        with self._lock:
            self.console.print(text, highlight=False, soft_wrap=True)
            self._told = self._clock()

    @contextmanager
    def stage(
        self, title: str, total: int | None = None, done: int = 0
    ) -> Iterator[Callable[..., None]]:
        """A piece of work; what it yields is called after each part of it.

        Args:
            title: What is done.
            total: Of how many parts.
            done: How many were done before.

        Yields:
            A function of the latest metrics (None: none) and of the parts done (None: one more).
        """
        stage = Stage(title, total, done, self._clock())

        def tick(values: dict[str, float] | None = None, completed: int | None = None) -> None:
            with self._lock:
                stage.done = stage.done + 1 if completed is None else completed
                stage.values = values or stage.values
                if self._bars is not None and stage.bar is not None:
                    self._bars.update(stage.bar, completed=stage.done, shown=stage.shown())
            self.beat()

        self._open(stage)
        try:
            yield tick
        finally:
            self._close(stage)

    def beat(self) -> None:
        """Tells how far the innermost stage is, if nothing was told for a while."""
        with self._lock:
            if self._stages and self._bars is None and self._clock() - self._told >= self.every:
                self.say(self._stages[-1].line(self._clock()))

    def _open(self, stage: Stage) -> None:
        with self._lock:
            self._stages.append(stage)
            if self.console.quiet:
                return
            if not self.console.is_terminal:
                if self._pulse and self._heart is None:
                    self._over = threading.Event()
                    self._heart = threading.Thread(
                        target=self._live, args=(self._over,), name="progress", daemon=True
                    )
                    self._heart.start()
                return
            if self._bars is None:
                self._bars = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeElapsedColumn(),
                    TextColumn("{task.fields[shown]}"),
                    console=self.console,
                )
                self._bars.start()
            stage.bar = self._bars.add_task(
                stage.title, total=stage.total, completed=stage.done, shown=""
            )

    def _live(self, over: threading.Event) -> None:
        while not over.wait(self._pulse):
            self.beat()

    def _close(self, stage: Stage) -> None:
        with self._lock:
            self._stages.remove(stage)
            now = self._clock()
            if self._bars is not None and stage.bar is not None:
                self._bars.remove_task(stage.bar)
                if not self._stages:
                    self._bars.stop()
                    self._bars = None
            if not self.console.quiet and now - stage.began >= self.every:
                self.say(stage.line(now))
            heart = self._heart if not self._stages else None
            if heart is not None:
                self._over.set()
                self._heart = None
        if heart is not None:
            heart.join()
