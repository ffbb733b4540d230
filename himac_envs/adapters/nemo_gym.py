"""NeMo Gym: a resources server of its Gymnasium kind, for its ``gymnasium_agent``.

Install: ``pip install himac nemo-gym`` (release 0.7, Python 3.13). Use, as the ``app.py`` of a
resources server::

    from himac_envs.adapters.nemo_gym import HiMACResourcesServer

    if __name__ == "__main__":
        HiMACResourcesServer.run_webserver()

with ``env_id: HiMAC-ALFWorld-Flat-v0`` (and ``env_kwargs``, ``max_sessions``, ``session_timeout``)
beside ``entrypoint: app.py`` in its configuration, ``max_steps`` of the agent at least the
environment's, and a data set of `rows`, one JSON object a line.

- Blueprint, sub-goals, ``<sub_done>``: on a hierarchical id the first answer is the blueprint, in
  the same conversation.
- Rewards: each step's; NeMo Gym's agent adds them up. ``info`` has won, score and invalid.
- Admissible commands: below each observation with ``env_kwargs: {list_admissible: true}``.
- Invalid text: thoughts, tags and quotes are taken off; what is still no command is answered as the
  benchmark does, and costs a step. An answer without text is an empty command.
- After the end, or where the server was started again: HTTP 410, with the reason.
- Pictures: not shown.
- Groups: NeMo Gym repeats a row; each row has its ``task_id``.
- Time limits: ``max_steps`` in ``env_kwargs``; the agent's own ends a rollout as truncated.
- Many at once: one session a rollout, known by NeMo Gym's cookie; `Sessions` bounds them (503).
- Closing: at the end, by the agent's ``/close``, or once it was not used for ``session_timeout``.

What was checked: the server's class from release 0.7 (`GymnasiumServer`), over HTTP with its own
cookies, on Python 3.11, which its package does not admit but its modules run on. The calls are
those of its `GymnasiumAgent`, whose own process, and Ray, were not started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from himac_envs.adapters.errors import MissingStackError
from himac_envs.adapters.rows import Row, choose_tasks, instructions
from himac_envs.adapters.sessions import (
    LIMIT,
    TIMEOUT,
    SessionGoneError,
    Sessions,
    TooManySessionsError,
)
from himac_envs.errors import HiMACError, UnknownTaskError
from himac_envs.registry import find_env, find_id

try:
    from fastapi import HTTPException, Request
    from nemo_gym.base_resources_server import BaseResourcesServerConfig
    from nemo_gym.server_utils import SESSION_ID_KEY
    from pydantic import Field, PrivateAttr
    from resources_servers.gymnasium import GymnasiumServer, extract_text
except ImportError as error:
    raise MissingStackError("nemo_gym", "pip install himac nemo-gym", error) from error

_Answer = TypeVar("_Answer")

#: HTTP's word for each error; all others are 422.
STATUS: dict[type[HiMACError], int] = {
    UnknownTaskError: 404,
    SessionGoneError: 410,
    TooManySessionsError: 503,
}


def rows(
    env_id: str, *, split: str = "train", count: int | None = None, seed: int = 0, **kwargs: Any
) -> list[Row]:
    """Return a data set's rows, plain values only.

    Args:
        env_id: The environment, as the server's configuration has it.
        split: Of its tasks.
        count: How many, drawn without repetition; None: all, in their order.
        seed: Of the draw.
        **kwargs: For the environment, ``data`` above all.
    """
    told = instructions(find_id(env_id), hierarchical=find_env(env_id, **kwargs).hierarchical)
    params = {"input": [{"role": "system", "content": told}]}
    ids = choose_tasks(env_id, split=split, count=count, seed=seed, **kwargs)
    return [{"responses_create_params": params, "task_id": task_id} for task_id in ids]


class HiMACServerConfig(BaseResourcesServerConfig):
    """The server's configuration, beside NeMo Gym's own."""

    env_id: str
    env_kwargs: dict[str, Any] = Field(default_factory=dict)
    max_sessions: int = LIMIT
    session_timeout: float = TIMEOUT


class HiMACResourcesServer(GymnasiumServer):
    """Episodes of one environment, each under the cookie of its rollout."""

    ray_enabled: ClassVar[bool] = False
    config: HiMACServerConfig
    _sessions: Sessions = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Read the data; errors in the configuration are told here."""
        super().model_post_init(context)
        c = self.config
        self._sessions = Sessions(
            c.env_id, limit=c.max_sessions, timeout=c.session_timeout, **c.env_kwargs
        )

    def setup_webserver(self) -> Any:
        """Add the optional route by which the agent closes what it leaves."""
        app = super().setup_webserver()

        async def close(request: Request) -> dict[str, Any]:
            await self.close_session(request.session.get(SESSION_ID_KEY))
            return {}

        # FastAPI reads the types at run time; here they are text.
        close.__annotations__ = {"request": Request}
        app.post("/close")(close)
        return app

    async def reset(
        self, metadata: dict[str, Any], session_id: str | None = None
    ) -> tuple[str | None, dict[str, Any]]:
        """Begin the episode of a row."""
        await self.close_session(session_id)

        def begin() -> tuple[str, dict[str, Any]]:
            opened = self._sessions.open()
            try:
                with self._sessions.use(opened) as session:
                    text = session.reset(metadata.get("task_id"), metadata.get("seed"))
                    told = {**session.summary(), "supports_explicit_close": True}
            except Exception:
                self._sessions.close(opened)
                raise
            self.session_state[session_id] = opened
            return text, told

        return await _answer(begin)

    async def step(
        self, action: Any, metadata: dict[str, Any], session_id: str | None = None
    ) -> tuple[str | None, float, bool, bool, dict[str, Any]]:
        """Give one answer of the model."""
        said = extract_text(action)

        def go_on() -> tuple[str | None, float, bool, bool, dict[str, Any]]:
            opened = self.session_state.get(session_id)
            if opened is None:
                raise SessionGoneError(
                    "no episode is open for this rollout: it has ended, was closed, or this server "
                    f"was started again ({self._sessions.started}); call reset to begin one"
                )
            with self._sessions.use(opened) as session:
                session.step(said)
                text = None if session.done else session.text
                told = session.summary()
                return text, session.reward, session.terminated, session.truncated, told

        return await _answer(go_on)

    def _cleanup_session(self, session_id: str | None) -> None:
        opened = self.session_state.pop(session_id, None)
        if opened is not None:
            self._sessions.close(opened)


async def _answer(what: Callable[[], _Answer]) -> _Answer:
    try:
        return await asyncio.to_thread(what)
    except HiMACError as error:
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 422)
        raise HTTPException(status, str(error)) from error
