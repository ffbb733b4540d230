"""Many sessions behind one server: a bound on their number, a time-out, and ids that tell.

A server plays for clients that it cannot see: one is killed in mid-episode, one forgets to close,
one speaks to a server that was started again in the meantime. `Sessions` keeps the memory bounded
in all these cases and says which of them it is. It knows no stack and no network.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from himac_envs.adapters.session import Session
from himac_envs.errors import HiMACError, UnknownSplitError

#: Sessions that are open at a time.
LIMIT = 64
#: Seconds without a call after which a session is closed.
TIMEOUT = 900.0
#: The splits that every environment may have; those of a benchmark's own have names of their own.
SPLITS = ("train", "valid", "test", "all")


class SessionGoneError(HiMACError, LookupError):
    """A session that is not open here (any more); the message says why."""


class TooManySessionsError(HiMACError, RuntimeError):
    """As many sessions are open as may be."""


class UnknownIndexError(HiMACError, IndexError):
    """A number that no task of the split has."""


@dataclass(slots=True)
class _Open:
    session: Session
    used: float
    lock: threading.Lock = field(default_factory=threading.Lock)


class Sessions:
    """Open sessions of one environment, each under an id, for any number of threads.

    A session that is not used for ``timeout`` seconds is closed by `sweep`, and so is whatever it
    held; one that is in use is never closed under its user. Whoever calls `open` sweeps first, so
    that the bound counts living sessions only.

    Args:
        env_id: A registered id, or another name of `himac_envs.registry.find_id`.
        limit: Sessions open at a time.
        timeout: Seconds without a call after which a session is closed.
        clock: The time in seconds, which only grows.
        **kwargs: For `Session`, and through it for the environment.

    Attributes:
        server: An id of this process's sessions: another one after a restart.
        started: When they were begun, for people.

    Raises:
        ValueError: A bound is not positive. Errors of `Session` come here, not with a client.
    """

    def __init__(
        self,
        env_id: str,
        *,
        limit: int = LIMIT,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
        **kwargs: Any,
    ) -> None:
        if limit < 1:
            raise ValueError(f"max_sessions={limit}: at least one session must be possible")
        if not timeout > 0:
            raise ValueError(f"session_timeout={timeout}: seconds, more than 0")
        self.limit, self.timeout = limit, timeout
        self.server = uuid.uuid4().hex[:12]
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self._clock = clock
        self._kwargs = kwargs
        self._sessions: dict[str, _Open] = {}
        self._reserved = 0
        self._opened = 0
        self._lock = threading.Lock()
        # It answers what there is to play, and has read the data before the first client comes.
        self._first = Session(env_id, **kwargs)
        self._first_lock = threading.Lock()
        self.env_id = self._first.env_id

    # ---- one session ---------------------------------------------------------------------------
    def open(self) -> str:
        """Open a session and return its id.

        Raises:
            TooManySessionsError: The bound is reached.
        """
        self.sweep()
        with self._lock:
            if len(self._sessions) + self._reserved >= self.limit:
                raise TooManySessionsError(
                    f"{self.limit} of {self.limit} sessions are open: close one, or wait until one "
                    f"has not been used for {self.timeout:g} s; the server's --max-sessions allows "
                    "more"
                )
            self._reserved += 1
            self._opened += 1
            session_id = f"{self.server}-{self._opened}-{uuid.uuid4().hex[:12]}"
        try:
            session = Session(self.env_id, **self._kwargs)
        except BaseException:
            with self._lock:
                self._reserved -= 1
            raise
        with self._lock:
            self._reserved -= 1
            self._sessions[session_id] = _Open(session, self._clock())
        return session_id

    @contextmanager
    def use(self, session_id: str) -> Iterator[Session]:
        """Have a session to oneself; it counts as used before and after.

        Raises:
            SessionGoneError: It is not open.
        """
        with self._lock:
            found = self._sessions.get(session_id)
            if found is not None:
                found.used = self._clock()
        if found is None:
            raise SessionGoneError(self.why_gone(session_id))
        with found.lock:
            # It may have been closed by another thread while this one waited.
            if self._sessions.get(session_id) is not found:
                raise SessionGoneError(self.why_gone(session_id))
            try:
                yield found.session
            finally:
                found.used = self._clock()

    def close(self, session_id: str) -> bool:
        """Close a session; return whether it was open."""
        with self._lock:
            found = self._sessions.pop(session_id, None)
        if found is None:
            return False
        with found.lock:
            found.session.close()
        return True

    def sweep(self) -> int:
        """Close the sessions that were not used for too long; return how many they were."""
        now = self._clock()
        with self._lock:
            idle = [
                session_id
                for session_id, found in self._sessions.items()
                if now - found.used > self.timeout and not found.lock.locked()
            ]
        return sum(self.close(session_id) for session_id in idle)

    def why_gone(self, session_id: str) -> str:
        """Return what to tell a client that speaks of a session which it does not have."""
        if session_id.partition("-")[0] == self.server:
            return (
                f"session {session_id} is closed: by its client, with its connection, or because "
                f"it was not used for {self.timeout:g} s. Open another with reset"
            )
        return (
            f"session {session_id} is not one of this server, which was started (again) at "
            f"{self.started}: episodes from before are gone. Open another with reset"
        )

    # ---- all of them ---------------------------------------------------------------------------
    def now(self) -> float:
        """Return the time by the clock, in seconds."""
        return self._clock()

    def holds(self, session_id: str) -> bool:
        """Return whether a session is open."""
        return session_id in self._sessions

    def __len__(self) -> int:
        return len(self._sessions)

    def close_all(self) -> None:
        """Close every session."""
        for session_id in list(self._sessions):
            self.close(session_id)

    # ---- what there is to play -----------------------------------------------------------------
    def splits(self) -> list[str]:
        """Return those of `SPLITS` that have tasks in this data."""
        found = []
        for split in SPLITS:
            try:
                if len(self.task_ids(split)):
                    found.append(split)
            except UnknownSplitError:
                continue
        return found

    def task_ids(self, split: str | None = None) -> Sequence[str]:
        """Return the ids of a split's tasks (None: the environment's own split), sorted.

        Raises:
            UnknownSplitError: There are none of this name.
        """
        with self._first_lock:
            return self._first.task_ids(split)

    def task_id(self, split: str | None, index: int) -> str:
        """Return the id of a split's task by its number, from 0.

        Raises:
            UnknownSplitError: There are no tasks of this name.
            UnknownIndexError: The split has no such task.
        """
        ids = self.task_ids(split)
        if not 0 <= index < len(ids):
            raise UnknownIndexError(
                f"there is no task number {index}: {split or 'this split'} has 0 to {len(ids) - 1}"
            )
        return ids[index]

    @property
    def hierarchical(self) -> bool:
        """Whether a blueprint comes first."""
        return self._first.hierarchical
