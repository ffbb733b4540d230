"""An address in front of a server that sees what passes, and may act before it goes on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from local_server import LocalServer

#: What is called with a request's path and body, once the server has answered it and before the
#: answer is handed on.
Watch = Callable[[str, dict[str, Any]], None]


class Gate(LocalServer):
    """A server's second address, for as long as the `with` block runs.

    Args:
        url: The server's own.
        watch: Sees each request; several at a time.

    Attributes:
        passed: The paths of what was answered, in order.
    """

    def __init__(self, url: str, watch: Watch | None = None) -> None:
        behind, gate = urlsplit(url), self
        self.passed: list[str] = []
        self.watch = watch
        self._lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                length = int(self.headers.get("content-length", 0))
                body = self.rfile.read(length)
                there = HTTPConnection(behind.hostname or "", behind.port, timeout=120)
                try:
                    kind = {"content-type": "application/json"} if length else {}
                    there.request(self.command, self.path, body or None, kind)
                    answer = there.getresponse()
                    said = answer.read()
                except OSError:
                    # As where nothing listens: no answer.
                    self.close_connection = True
                    return
                finally:
                    there.close()
                path = urlsplit(self.path).path
                with gate._lock:
                    gate.passed.append(path)
                if gate.watch is not None:
                    gate.watch(path, json.loads(body or "{}"))
                try:
                    self.send_response(answer.status)
                    self.send_header("content-type", answer.headers.get("content-type") or "")
                    self.send_header("content-length", str(len(said)))
                    self.end_headers()
                    self.wfile.write(said)
                except OSError:
                    self.close_connection = True  # whoever asked is gone

            do_GET = do_POST = _pass

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(Handler)

    def count(self, path: str) -> int:
        """How often a path was answered."""
        with self._lock:
            return self.passed.count(path)
