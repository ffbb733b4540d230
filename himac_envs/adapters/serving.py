"""An ASGI application on a port: sockets that idle are closed, the port is ours before we say so.

Used by `himac serve-env` and by `himac_envs.adapters.openenv`; it knows neither stack nor task.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

from himac_envs.adapters.errors import MissingStackError
from himac_envs.adapters.sessions import Sessions
from himac_envs.errors import HiMACError

try:
    import uvicorn
except ImportError as error:
    raise MissingStackError("serving", "pip install himac openenv", error) from error

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

#: The close code of a socket that was not used for too long (4000 to 4999 are an application's).
IDLE_CODE = 4408


class PortError(HiMACError, OSError):
    """The address cannot be listened on."""


class _Socket:
    """One WebSocket: when it last spoke, and whether it was given up."""

    def __init__(self, now: float) -> None:
        self.heard = now
        self.waiting = False
        self.given_up = asyncio.Event()


class IdleSockets:
    """Closes WebSockets that say nothing for as long as a session may idle, and sweeps sessions.

    The application around which it stands sees such a socket as one whose client went away, so it
    frees what belongs to it in its usual way. A socket whose request is being worked on is not
    idle.

    Args:
        sessions: Their clock and time-out hold for sockets too.
    """

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self._sockets: set[_Socket] = set()

    def __len__(self) -> int:
        return len(self._sockets)

    def sweep(self) -> int:
        """Give up the sockets that idle; return how many. Call it in the server's event loop."""
        oldest = self.sessions.now() - self.sessions.timeout
        idle = [s for s in self._sockets if s.waiting and s.heard < oldest]
        for found in idle:
            found.given_up.set()
        return len(idle)

    def around(self, app: App) -> App:
        """Return the application with this around it (ASGI middleware)."""

        async def wrapped(scope: Message, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                await self._socket(app, scope, receive, send)
            elif scope["type"] == "lifespan":
                sweeping = asyncio.create_task(self._sweep_on())
                try:
                    await app(scope, receive, send)
                finally:
                    sweeping.cancel()
                    self.sessions.close_all()
            else:
                await app(scope, receive, send)

        return wrapped

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(min(self.sessions.timeout / 4, 30.0))
            self.sweep()
            await asyncio.to_thread(self.sessions.sweep)

    async def _socket(self, app: App, scope: Message, receive: Receive, send: Send) -> None:
        found = _Socket(self.sessions.now())
        self._sockets.add(found)

        async def hear() -> Message:
            told = asyncio.ensure_future(receive())
            ended = asyncio.ensure_future(found.given_up.wait())
            found.waiting = True
            try:
                await asyncio.wait({told, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                found.waiting = False
                found.heard = self.sessions.now()
                ended.cancel()
                if not told.done():
                    told.cancel()
            if told.done() and not told.cancelled():
                return told.result()
            reason = f"not used for {self.sessions.timeout:g} s: connect and reset again"
            with suppress(Exception):  # the client may have gone in the meantime
                await send({"type": "websocket.close", "code": IDLE_CODE, "reason": reason})
            return {"type": "websocket.disconnect", "code": IDLE_CODE, "reason": reason}

        try:
            await app(scope, hear, send)
        finally:
            self._sockets.discard(found)


# ---- a port ------------------------------------------------------------------------------------
def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the address.

    Raises:
        PortError: It cannot be; the message says what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        # Who connects before the server runs waits, instead of being refused.
        found.listen(128)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            why = "is in use: stop the program that has it, or choose another with --port"
        else:
            why = f"cannot be listened on: {error}"
        raise PortError(f"port {port} of {host} {why}") from error
    return found


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address(bound: socket.socket) -> str:
    """Return the address of a bound socket as a URL."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _server(app: App) -> uvicorn.Server:
    # A client that is gone without a word is noticed by the pings, 20 s each way.
    config = uvicorn.Config(app, log_level="error", ws_ping_interval=20.0, ws_ping_timeout=20.0)
    return uvicorn.Server(config)


def run(app: App, bound: socket.socket) -> None:
    """Serve until interrupted."""
    _server(app).run(sockets=[bound])


@contextmanager
def running(app: App, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve from a thread of this process and yield the address.

    Raises:
        PortError: The address cannot be listened on.
    """
    bound = listen(host, port)
    server = _server(app)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [bound]}, name="himac-serving", daemon=True
    )
    thread.start()
    try:
        yield address(bound)
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        bound.close()
