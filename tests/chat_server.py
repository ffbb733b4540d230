"""For tests and examples without a network: an OpenAI-compatible server that answers as it is told.

Example:
    >>> with ChatServer(lambda request: "<action>look</action>") as server:  # doctest: +SKIP
    ...     policy = APIPolicy(Endpoint("any", server.url))
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from local_server import LocalServer


@dataclass(frozen=True)
class Reply:
    """What the server does with a request.

    Attributes:
        body: What is sent back: text as it is, or a dict as JSON.
        status: The HTTP status.
        headers: Further headers.
        silent: Say nothing until the server closes, so that the client times out.
        cut: Close the connection in the middle of the answer.
    """

    body: Any = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    cut: bool = False


def chat_reply(text: str | None, *, usage: dict[str, int] | None = None) -> Reply:
    """The usual answer to a chat request."""
    body: dict[str, Any] = {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
    }
    if usage is not None:
        body["usage"] = usage
    return Reply(body)


class ChatServer(LocalServer):
    """A server on this machine, in threads, for as long as the `with` block runs.

    Args:
        answer: Given a request's JSON body, the answer's text or a `Reply`.

    Attributes:
        requests: The bodies of all requests, in order of arrival.
        headers: Their headers.
        url: The base address, for `Endpoint.base_url`.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], str | Reply]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", 0))
                request = json.loads(self.rfile.read(length))
                with server._lock:
                    server.requests.append(request)
                    server.headers.append(dict(self.headers))
                    reply = answer(request)
                server._send(self, reply if isinstance(reply, Reply) else chat_reply(reply))

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        super().__init__(Handler)
        self.url = f"{self.address}/v1"

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        if reply.silent:
            self.closing.wait()
            handler.close_connection = True
            return
        text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        content = text.encode()
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(content) + (10 if reply.cut else 0)))
        handler.end_headers()
        handler.wfile.write(content)
        if reply.cut:
            handler.close_connection = True
