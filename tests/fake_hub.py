"""For tests without a network: a hub of model repositories, as far as publishing needs one.

The routes and fields are those that huggingface_hub asks for: a repository is made, each file is
said to be sent with the commit or as a large file beforehand, and one commit names them all.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from local_server import LocalServer


@dataclass
class Repository:
    """What one holds after its commits."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


class FakeHub(LocalServer):
    """A hub on this machine, in threads, for as long as the `with` block runs.

    Args:
        token: The token that it knows.

    Attributes:
        url: Its address, for HF_ENDPOINT.
        repositories: What it holds.
        fail: Routes, by a part of their path, that answer with this status.
    """

    def __init__(self, token: str = "hf_test") -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.fail: dict[str, int] = {}
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _body(self) -> bytes:
                if self.headers.get("transfer-encoding") == "chunked":
                    found = b""
                    while size := int(self.rfile.readline(), 16):
                        found += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                    return found
                return self.rfile.read(int(self.headers.get("content-length", 0)))

            def _answer(self, status: int, content: Any) -> None:
                sent = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def do_PUT(self) -> None:
                body = self._body()
                hub.large[hashlib.sha256(body).hexdigest()] = body
                self._answer(200, {})

            def do_POST(self) -> None:
                body = self._body()
                hub.asked.append(self.path)
                for part, status in hub.fail.items():
                    if part in self.path:
                        return self._answer(status, {"error": "the shelves are full"})
                if self.headers.get("authorization") != f"Bearer {token}":
                    return self._answer(401, {"error": "Invalid username or password."})
                self._answer(200, hub._post(self.path, body))

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        super().__init__(Handler)
        self.url = self.address

    def _post(self, path: str, body: bytes) -> Any:
        if path == "/api/repos/create":
            told = json.loads(body)
            name = "/".join(filter(None, (told.get("organization"), told["name"])))
            private = bool(told.get("private")) or told.get("visibility") == "private"
            self.repositories.setdefault(name, Repository(private))
            return {"url": f"{self.url}/{name}", "id": name, "name": name}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            return {"transfer": "basic", "objects": [self._slot(one) for one in wanted]}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return {
                "files": [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if "safetensors" in one["path"] else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for one in files
                ]
            }
        name = path.removeprefix("/api/models/").partition("/commit/")[0]
        repository = self.repositories[name]
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                repository.commits.append(value["summary"])
            elif entry["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                repository.files[value["path"]] = self.large[value["oid"]]
        oid = f"{len(repository.commits):040x}"
        return {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{name}/commit/{oid}"}

    def _slot(self, wanted: dict[str, Any]) -> dict[str, Any]:
        oid = wanted["oid"]
        if oid in self.large:
            return {**wanted}
        return {**wanted, "actions": {"upload": {"href": f"{self.url}/large/{oid}"}}}
