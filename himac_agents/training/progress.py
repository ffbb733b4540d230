"""What a long piece of work shows and costs: a progress bar, and a clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


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


class Bar:
    """A progress bar that shows the latest metrics; silent where there is no terminal."""

    def __init__(self, console: Console, title: str, total: int, done: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[shown]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._console, self._title, self._total = console, title, total
        self._id = self._progress.add_task(title, total=total, completed=done, shown="")

    def __enter__(self) -> Callable[..., None]:
        self._progress.start()
        return self._tick

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def _tick(self, values: dict[str, float], completed: int | None = None) -> None:
        shown = "  ".join(f"{key} {value:.3f}" for key, value in values.items())
        if completed is None:
            self._progress.advance(self._id)
        else:
            self._progress.update(self._id, completed=completed)
        self._progress.update(self._id, shown=shown)
        task = self._progress.tasks[0]
        if not self._console.is_terminal and task.completed % max(1, self._total // 10) == 0:
            count = f"{task.completed:.0f}/{self._total}"
            self._console.print(f"{self._title} {count}  {shown}")
