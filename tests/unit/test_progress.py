"""Nothing is silent for more than three seconds, on a terminal or elsewhere."""

from __future__ import annotations

import io
import threading
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from himac_agents.cli import demos, evaluation, main
from himac_agents.training.progress import EVERY, Display


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _display(clock: Clock) -> tuple[Display, io.StringIO]:
    file = io.StringIO()
    return Display(Console(file=file, width=40), clock=clock, pulse=0), file


def _new(file: io.StringIO) -> list[str]:
    lines = file.getvalue().splitlines()
    file.seek(0)
    file.truncate()
    return lines


def test_a_line_comes_with_every_few_seconds_of_work_and_no_more() -> None:
    clock = Clock()
    display, file = _display(clock)
    with display.stage("demonstrations", 400) as tick:
        for _ in range(40):
            clock.now += 0.05
            tick()
        assert _new(file) == [], "what is quick needs no lines"
        clock.now += 1.1
        display.beat()
        assert _new(file) == ["demonstrations  40/400  3 s"]
        display.beat()
        clock.now += 2.4
        tick({"loss": 0.5}, 60)
        assert _new(file) == []
        clock.now += 0.2
        tick()
        assert _new(file) == ["demonstrations  61/400  loss 0.500  6 s"]
    assert _new(file) == ["demonstrations  61/400  loss 0.500  6 s"]


def test_the_innermost_stage_tells_and_a_line_of_another_counts() -> None:
    clock = Clock()
    display, file = _display(clock)
    with display.stage("learning", 9):
        with display.stage("evaluation"):
            clock.now += EVERY
            display.beat()
            assert _new(file) == ["evaluation  2 s"]
            clock.now += 2
            display.say("a word")
            clock.now += 2
            display.beat()
            assert _new(file) == ["a word"]
        _new(file)
        clock.now += EVERY
        display.beat()
        assert _new(file) == ["learning  0/9  9 s"]
    _new(file)
    clock.now += 60
    display.beat()
    assert _new(file) == [], "nothing is done, so nothing is told"


def test_several_short_stages_are_not_silent_together() -> None:
    clock = Clock()
    display, file = _display(clock)
    for title in ("environments", "vocabulary", "model"):
        with display.stage(title):
            clock.now += 1.0
            display.beat()
    assert _new(file) == ["model  1 s"]


def test_work_that_never_ticks_is_told_of_by_a_thread_that_ends_with_it() -> None:
    """A start that loads, or one long update: nobody but the thread can tell."""

    class Heard(io.StringIO):
        lines = 0
        enough = threading.Event()

        def write(self, text: str) -> int:
            self.lines += text.count("working  ")
            if self.lines >= 3:
                self.enough.set()
            return super().write(text)

    file, clock = Heard(), Clock()

    def passing() -> float:
        clock.now += 1.0  # a second with every look
        return clock.now

    display = Display(Console(file=file, width=80), clock=passing, pulse=0.001)
    with display.stage("working"):
        assert display._heart is not None
        heart = display._heart
        assert file.enough.wait(30), file.getvalue()
    assert not heart.is_alive() and display._heart is None


@pytest.mark.parametrize(
    ("command", "module", "said"),
    [
        (["eval", "HiMAC-ALFWorld-Flat-v0", "--episodes", "3"], evaluation, "playing  3/3"),
        (["demos", "HiMAC-ALFWorld-v0", "--episodes", "3"], demos, "demonstrations  3/3"),
    ],
)
def test_commands_that_play_tell_how_far_they_are_where_no_terminal_is(
    command: list[str],
    module: ModuleType,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "Display", partial(Display, every=0.0, pulse=0))
    assert main([*command, "--data", "generated", "--max-steps", "3"]) == 0
    assert said in capsys.readouterr().err


def test_whole_numbers_are_told_as_such() -> None:
    display, file = _display(Clock())
    display.every = 0.0
    with display.stage("playing", 9) as tick:
        tick({"answers": 12, "dollars": 0.5}, 4)
        assert _new(file) == ["playing  4/9  answers 12  dollars 0.500  0 s"]


def test_a_terminal_has_bars_one_within_another() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    display = Display(console, pulse=0)
    with display.stage("learning", 4) as tick:
        tick({"success": 0.25})
        with display.stage("evaluation", 2) as inner:
            inner()
            assert display._bars is not None and len(display._bars.tasks) == 2
            display._bars.refresh()
        assert len(display._bars.tasks) == 1
    assert display._bars is None
    shown = file.getvalue()
    for part in ("learning", "1/4", "success 0.250", "evaluation", "1/2"):
        assert part in shown, part
    quiet = Display(Console(file=file, quiet=True), pulse=0)
    before = file.getvalue()
    with quiet.stage("nothing"):
        quiet.say("nothing")
    assert file.getvalue() == before
