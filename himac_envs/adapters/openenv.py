"""OpenEnv: the environments behind an HTTP and WebSocket server, and a client for it.

Install: ``pip install himac openenv`` (release 0.10). A server, for clients in any language, no
container image needed::

    himac serve-env HiMAC-ALFWorld-Flat-v0 --port 8000

A client in Python (an `openenv.core.EnvClient`; asynchronous without ``.sync()``)::

    from himac_envs.adapters.openenv import HiMACClient

    with HiMACClient("http://127.0.0.1:8000").sync() as env:
        seen = env.reset(split="train", index=0)
        while not seen.done:
            seen = env.step(model(seen.observation.text))
        print(seen.observation.won, seen.observation.episode_return)

A server in one's own process: `serving`, or `make_app` for any ASGI server.

- Blueprint, sub-goals, ``<sub_done>``: on a hierarchical id the first answer of an episode is read
  as a blueprint; ``observation.phase`` says which kind of answer is wanted ("plan", "act"; "" on a
  flat id), ``observation.subgoal`` is the current one, and ``<sub_done>`` begins the next.
- Rewards: ``reward`` is the environment's, of this step; ``observation.episode_return`` is their
  sum. ``--env-kwargs reward=verl-agent`` and the like change it.
- Admissible commands: in ``observation.admissible``, ``<sub_done>`` last; none in phase plan. The
  text lists them too with ``--list-admissible``.
- Invalid text: costs a step and sets ``observation.invalid``. Thoughts, tags and quotes around a
  command are taken off. What is no action at all (a number for a text, an unknown field, broken
  JSON) is answered with OpenEnv's VALIDATION_ERROR or INVALID_JSON, and changes nothing.
- After the end: an EXECUTION_ERROR (HTTP: 409) that says so; ``reset`` begins the next episode.
- Pictures: not sent; an observation is text.
- Groups: members share a task by ``reset(task_id=...)``, ``reset(split=..., index=...)`` or
  ``reset(seed=...)``, the same on every server with the same data. OpenEnv's task routes list them.
- Time limits: the step that reaches the environment's ``max_steps`` is ``done`` and
  ``observation.truncated``. OpenEnv's ``timeout_s`` is not used: no step waits for anything.
- Many at once: each WebSocket is a session with an environment of its own. Their number is bounded
  (CAPACITY_REACHED), and one that is not used for a time is closed, with code 4408. Plain HTTP
  begins a session with ``POST /reset {"session": "new"}``; its id, ``metadata.session``, goes with
  each ``POST /step`` as ``"session"``. Without it a reset is forgotten once it is answered, as
  OpenEnv has it.
- Closing: a socket that closes, by ``close()`` or by a client's death, closes its session at once;
  ``DELETE /sessions/ID`` closes one of HTTP. A client whose server was restarted reads so at its
  next step, and begins again with ``reset``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from himac_envs._version import __version__
from himac_envs.adapters.errors import EpisodeOverError, MissingStackError
from himac_envs.adapters.session import Session
from himac_envs.adapters.sessions import (
    SessionGoneError,
    Sessions,
    TooManySessionsError,
    UnknownIndexError,
)
from himac_envs.errors import HiMACError, UnknownSplitError, UnknownTaskError

try:
    import fastapi
    from openenv.core import EnvClient
    from openenv.core.client_types import StepResult
    from openenv.core.env_server import (
        Action,
        ConcurrencyConfig,
        Environment,
        Observation,
        State,
        create_app,
    )
    from openenv.core.env_server.types import EnvironmentMetadata
except ImportError as error:
    raise MissingStackError("openenv", "pip install himac openenv", error) from error

from himac_envs.adapters.serving import IdleSockets, running

#: What `reset` takes beside OpenEnv's own ``seed`` and ``episode_id``.
RESET_ARGUMENTS = ("task_id", "split", "index", "session")
NEW = "new"


class ResetError(HiMACError, ValueError):
    """Arguments of a reset that mean nothing here."""


class HiMACAction(Action):  # type: ignore[misc]  # the stack has no types here
    """One answer of an agent: a command, or a blueprint where one is wanted."""

    text: str


class HiMACObservation(Observation):  # type: ignore[misc]
    """What an agent sees; ``done`` and ``reward`` are OpenEnv's own fields."""

    text: str = ""
    goal: str = ""
    phase: str = ""
    subgoal: str = ""
    admissible: list[str] = []  # noqa: RUF012  # pydantic copies it
    task_id: str = ""
    step: int = 0
    won: bool = False
    score: float = 0.0
    invalid: bool = False
    truncated: bool = False
    episode_return: float = 0.0


class HiMACState(State):  # type: ignore[misc]
    """Where an episode is; ``episode_id`` and ``step_count`` (decisions) are OpenEnv's own."""

    env_id: str = ""
    task_id: str = ""
    phase: str = ""
    done: bool = False
    won: bool = False
    score: float = 0.0
    episode_return: float = 0.0
    session: str = ""
    server_started: str = ""


class HiMACEnvironment(Environment):  # type: ignore[misc]
    """OpenEnv's environment over one session of `Sessions`.

    OpenEnv makes one for each socket and one for each HTTP request, so making it costs nothing: the
    session is opened by the first `reset`.

    Args:
        sessions: Those of the server.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, sessions: Sessions) -> None:
        super().__init__()
        self._sessions = sessions
        self._own = ""
        self._state = HiMACState(env_id=sessions.env_id, server_started=sessions.started)

    # ---- an episode ----------------------------------------------------------------------------
    def reset(
        self, seed: int | None = None, episode_id: str | None = None, **arguments: Any
    ) -> HiMACObservation:
        """Begin an episode; see `RESET_ARGUMENTS`.

        Args:
            seed: Chooses the task where none is named.
            episode_id: What `state` calls the episode; default: the task's id.
            **arguments: ``task_id``, or ``split`` and ``index`` of OpenEnv's task routes;
                ``session`` (plain HTTP): "new", or the id of one that is open.

        Raises:
            ResetError: There are other arguments, or they name two tasks.
            UnknownTaskError: The data does not hold this task.
            TooManySessionsError: The server's bound is reached.
        """
        task_id = self._task(arguments)
        kept = str(arguments.get("session") or "")
        session_id = kept if kept not in ("", NEW) else self._session(keep=kept == NEW)
        try:
            with self._sessions.use(session_id) as session:
                session.reset(task_id, seed)
                self._state = self._stand(session, session_id, episode_id or session.task_id)
                return self._seen(session, session_id, None)
        except (HiMACError, ValueError):
            if kept == NEW:
                self._sessions.close(session_id)
            raise

    def step(
        self, action: HiMACAction, timeout_s: float | None = None, **arguments: Any
    ) -> HiMACObservation:
        """Give one answer.

        Args:
            action: What the agent wrote. Its ``metadata`` may name the session that it is meant
                for, which a restarted server refuses.
            timeout_s: Not used: no step waits for anything.
            **arguments: ``session`` (plain HTTP).

        Raises:
            EpisodeOverError: The episode is over.
            SessionGoneError: The session is no longer open, or never was.
        """
        session_id = str(arguments.get("session") or self._own)
        meant = str(action.metadata.get("session") or session_id)
        if meant != session_id:
            raise SessionGoneError(self._sessions.why_gone(meant))
        if not session_id:
            raise SessionGoneError(
                "no episode is open on this connection: call reset to begin one. If one "
                f"was open, the server has been restarted since, at {self._sessions.started}"
            )
        with self._sessions.use(session_id) as session:
            session.step(action.text)
            self._state = self._stand(session, session_id, str(self._state.episode_id or ""))
            return self._seen(session, session_id, session.reward)

    @property
    def state(self) -> HiMACState:
        """Where the episode is."""
        return self._state

    def close(self) -> None:
        """Close the session; harmless when called again."""
        if self._own:
            self._sessions.close(self._own)
            self._own = ""

    def get_metadata(self) -> Any:
        """Return what OpenEnv shows of the environment."""
        return EnvironmentMetadata(
            name=self._sessions.env_id,
            description=(
                "A text environment of HiMAC: one command an action"
                + (", a blueprint first" if self._sessions.hierarchical else "")
            ),
            version=__version__,
        )

    # ---- tasks (OpenEnv's TaskProvider) --------------------------------------------------------
    def list_splits(self) -> list[str]:
        """Return the splits that have tasks."""
        return self._sessions.splits()

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        """Return a split's tasks."""
        return self.get_task_range(split)

    def num_tasks(self, split: str) -> int:
        """Return how many tasks a split has."""
        return len(self._sessions.task_ids(split))

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        """Return one task; IndexError where there is none."""
        return {"id": self._sessions.task_id(split, index), "index": index}

    def get_task_range(
        self, split: str, start: int | None = None, stop: int | None = None
    ) -> list[dict[str, Any]]:
        """Return the tasks of a slice."""
        ids = self._sessions.task_ids(split)
        return [{"id": ids[i], "index": i} for i in range(len(ids))[start:stop]]

    # ---- parts ---------------------------------------------------------------------------------
    def _session(self, keep: bool) -> str:
        """The id of an open session: this environment's own, or one that outlives it."""
        if keep:
            return self._sessions.open()
        if not self._sessions.holds(self._own):
            self._own = self._sessions.open()
        return self._own

    def _task(self, arguments: dict[str, Any]) -> str | None:
        unknown = sorted(set(arguments) - set(RESET_ARGUMENTS))
        if unknown:
            known = ", ".join(("seed", "episode_id", *RESET_ARGUMENTS))
            raise ResetError(f"reset has no argument {', '.join(unknown)}: it takes {known}")
        task_id, index = arguments.get("task_id"), arguments.get("index")
        split = arguments.get("split")
        if index is None:
            if split is not None:
                raise ResetError("reset(split=...) needs index=..., a number of num_tasks(split)")
            return None if task_id is None else str(task_id)
        if task_id is not None:
            raise ResetError("reset takes task_id, or split and index, not both")
        if not isinstance(index, int):
            raise ResetError(f"reset(index={index!r}): it is a number")
        return self._sessions.task_id(None if split is None else str(split), index)

    def _stand(self, session: Session, session_id: str, episode_id: str) -> HiMACState:
        return HiMACState(
            episode_id=episode_id,
            step_count=session.decisions,
            env_id=session.env_id,
            task_id=session.task_id,
            phase=_phase(session),
            done=session.done,
            won=session.won,
            score=session.score,
            episode_return=session.episode_return,
            session=session_id,
            server_started=self._sessions.started,
        )

    def _seen(self, session: Session, session_id: str, reward: float | None) -> HiMACObservation:
        return HiMACObservation(
            text=session.text,
            goal=session.goal,
            phase=_phase(session),
            subgoal=session.subgoal,
            admissible=session.admissible,
            task_id=session.task_id,
            step=int(session.info["step"]),
            won=session.won,
            score=session.score,
            invalid=session.invalid,
            truncated=session.truncated,
            episode_return=session.episode_return,
            done=session.done,
            reward=reward,
            metadata={"session": session_id},
        )


def _phase(session: Session) -> str:
    if not session.hierarchical:
        return ""
    return "plan" if session.planning else "act"


class HiMACClient(EnvClient):  # type: ignore[misc]
    """A client of such a server, whichever process or machine it is in.

    Actions are plain strings (or `HiMACAction`), observations are `HiMACObservation`. Each step
    says which session it is meant for, so that a server that was restarted in between refuses it
    instead of playing on another episode.
    """

    _session = ""

    def _step_payload(self, action: HiMACAction | str) -> dict[str, Any]:
        text = action if isinstance(action, str) else action.text
        return {"text": text, "metadata": {"session": self._session} if self._session else {}}

    def _parse_result(self, payload: dict[str, Any]) -> Any:
        seen = HiMACObservation(
            **payload["observation"], reward=payload.get("reward"), done=payload.get("done", False)
        )
        self._session = str(seen.metadata.get("session", ""))
        return StepResult(observation=seen, reward=seen.reward, done=seen.done)

    def _parse_state(self, payload: dict[str, Any]) -> HiMACState:
        return HiMACState(**payload)


# ---- the server --------------------------------------------------------------------------------
#: HTTP's word for each error; all others are 422, a request that means nothing here.
STATUS: dict[type[HiMACError], int] = {
    UnknownTaskError: 404,
    UnknownSplitError: 404,
    UnknownIndexError: 404,
    EpisodeOverError: 409,
    SessionGoneError: 410,
    TooManySessionsError: 503,
}


async def _say(request: Any, error: Exception) -> Any:
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 422)
    return fastapi.responses.JSONResponse({"detail": str(error)}, status)


def make_app(env_id: str, *, sessions: Sessions | None = None, **kwargs: Any) -> Any:
    """Return the server as an ASGI application (FastAPI), OpenEnv's routes and one of our own.

    Args:
        env_id: A registered id, or another name of `himac_envs.registry.find_id`.
        sessions: Sessions of one's own making; they then hold all settings.
        **kwargs: For `Sessions`: ``limit`` and ``timeout``; for `Session`: ``verbatim`` and
            ``list_admissible``; the rest for the environment.
    """
    pool = Sessions(env_id, **kwargs) if sessions is None else sessions
    app = create_app(
        partial(HiMACEnvironment, pool),
        HiMACAction,
        HiMACObservation,
        env_name=pool.env_id,
        # OpenEnv counts sockets and the sessions of its MCP route; `Sessions` counts episodes.
        concurrency_config=ConcurrencyConfig(
            max_concurrent_envs=pool.limit, session_timeout=pool.timeout
        ),
        state_cls=HiMACState,
    )
    app.add_exception_handler(HiMACError, _say)
    sockets = IdleSockets(pool)
    app.add_middleware(sockets.around)
    app.state.sessions, app.state.sockets = pool, sockets

    def close_session(session_id: str) -> dict[str, Any]:
        """Close a session of plain HTTP."""
        return {"session": session_id, "closed": pool.close(session_id)}

    app.delete("/sessions/{session_id}", tags=["Environment Control"])(close_session)
    return app


@contextmanager
def serving(env_id: str, *, port: int = 0, **kwargs: Any) -> Iterator[str]:
    """Serve from a thread of this process, on the loopback, and yield the address.

    Args:
        env_id: See `make_app`.
        port: The port; 0 takes a free one.
        **kwargs: See `make_app`.
    """
    with running(make_app(env_id, **kwargs), port=port) as url:
        yield url
