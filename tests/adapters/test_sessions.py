"""Sessions behind a server: bounded, closed when idle, and honest about why one is gone."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from himac_envs.adapters import Session
from himac_envs.adapters.sessions import (
    SessionGoneError,
    Sessions,
    TooManySessionsError,
    UnknownIndexError,
)
from himac_envs.errors import UnknownSplitError, UnknownTaskError

ENV = "HiMAC-Sokoban-Flat-v0"


class Clock:
    """The time, as the test says it is."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Iterator[Sessions]:
    found = Sessions(ENV, limit=3, timeout=60, clock=clock)
    yield found
    found.close_all()


def test_a_bound_holds_until_one_is_closed_or_idle(sessions: Sessions, clock: Clock) -> None:
    first, second, _third = (sessions.open() for _ in range(3))
    with pytest.raises(TooManySessionsError, match="3 of 3 sessions are open"):
        sessions.open()
    assert sessions.close(first) and not sessions.close(first)
    sessions.open()
    clock.now = 61
    # All idle too long; only one was used since.
    clock.now = 30
    with sessions.use(second) as session:
        session.reset(seed=0)
    clock.now = 61
    assert sessions.sweep() == 2 and len(sessions) == 1
    sessions.open()  # and opening sweeps by itself
    clock.now = 200
    sessions.open()
    assert len(sessions) == 1


def test_a_session_in_use_is_not_closed_under_its_user(sessions: Sessions, clock: Clock) -> None:
    name = sessions.open()
    with sessions.use(name) as session:
        session.reset(seed=0)
        clock.now = 10_000
        assert sessions.sweep() == 0
        session.step("up")
    assert sessions.sweep() == 0, "it was used just now"
    clock.now = 10_061
    assert sessions.sweep() == 1


def test_the_gone_say_why(sessions: Sessions, clock: Clock) -> None:
    name = sessions.open()
    clock.now = 61
    sessions.sweep()
    with pytest.raises(SessionGoneError, match="not used for 60 s"), sessions.use(name):
        pass
    restarted = Sessions(ENV, limit=3, timeout=60, clock=clock)
    with pytest.raises(SessionGoneError, match=r"started \(again\) at"), restarted.use(name):
        pass
    with pytest.raises(SessionGoneError, match=r"started \(again\)"), sessions.use("nonsense"):
        pass


def test_a_thousand_that_are_left_leave_nothing(
    sessions: Sessions, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Session]] = []
    real = Session.__init__

    def counting(self: Session, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        made.append(weakref.ref(self))

    monkeypatch.setattr(Session, "__init__", counting)
    for number in range(1_000):
        name = sessions.open()
        with sessions.use(name) as session:
            session.reset(seed=number)
        del session
        clock.now += 25  # two others may still be young
        assert len(sessions) <= 3
    gc.collect()
    assert len(made) == 1_000
    assert sum(ref() is not None for ref in made) == len(sessions) <= 3


def test_two_threads_in_one_session_wait_for_each_other(sessions: Sessions) -> None:
    name = sessions.open()
    inside = threading.Semaphore(1)
    crossed = []

    def play(seed: int) -> None:
        with sessions.use(name) as session:
            if not inside.acquire(blocking=False):
                crossed.append(seed)
                return
            session.reset(seed=seed)
            session.step("up")
            inside.release()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(play, range(100)))
    assert not crossed


def test_many_threads_open_no_more_than_may_be(sessions: Sessions) -> None:
    def take(_: int) -> str | None:
        try:
            return sessions.open()
        except TooManySessionsError:
            return None

    with ThreadPoolExecutor(8) as threads:
        found = [name for name in threads.map(take, range(40)) if name]
    assert len(found) == len(set(found)) == 3 == len(sessions)


def test_a_failed_reset_leaves_the_session_open(sessions: Sessions) -> None:
    name = sessions.open()
    with pytest.raises(UnknownTaskError), sessions.use(name) as session:
        session.reset("nowhere:1")
    with sessions.use(name) as session:
        assert session.reset(seed=0)


def test_what_there_is_to_play(sessions: Sessions) -> None:
    assert set(sessions.splits()) >= {"train", "valid", "test"}
    ids = sessions.task_ids("valid")
    assert sessions.task_id("valid", 3) == ids[3]
    for index in (-1, len(ids)):
        with pytest.raises(UnknownIndexError, match=f"0 to {len(ids) - 1}"):
            sessions.task_id("valid", index)
    with pytest.raises(UnknownSplitError, match="not a split"):
        sessions.task_ids("everything")


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"timeout": 0.0}, {"timeout": float("nan")}, {"max_steps": 0}]
)
def test_wrong_settings_are_told_before_a_client_comes(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"max_sessions|session_timeout|max_steps"):
        Sessions(ENV, **wrong)
