"""Downloads from a server that misbehaves in every way that servers do."""

from __future__ import annotations

import hashlib
import http.server
import io
import multiprocessing
import os
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from himac_envs import data, download
from himac_envs.download import DataCard, DataFile, DataVersion, DownloadError


def _zip(seed: int, size: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/game.txt", hashlib.shake_256(bytes([seed])).digest(size))
    return buffer.getvalue()


CONTENT = _zip(1, 3_000_000)


class _Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT, spoiled as `faults` says, one fault a request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: list[str] = []
        self.requests: list[str | None] = []
        self.slow = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        self.server.requests.append(span)
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault.isdigit():
            self.send_error(int(fault))
            return
        body = CONTENT
        if fault == "flip":
            body = body[:1000] + bytes([body[1000] ^ 1]) + body[1001:]
        if fault == "html":
            body = b"<html>please log in</html>"
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("Content-Type", "text/html" if fault == "html" else "application/zip")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        body = body[start:]
        if fault == "truncate":
            body = body[: len(body) // 2]
        for at in range(0, len(body), 1 << 16):
            self.wfile.write(body[at : at + (1 << 16)])
            if self.server.slow:
                time.sleep(0.02)


@pytest.fixture
def server() -> Iterator[_Server]:
    made = _Server()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(params=["checksum known", "checksum pinned"])
def one(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: _Server
) -> str:
    known = hashlib.sha256(CONTENT).hexdigest() if "known" in request.param else ""
    file = DataFile("set.zip", f"{server.url}/set.zip", len(CONTENT), known)
    made = DataCard("set", "a set", "MIT", "1", (DataVersion("1", (file,)),))
    monkeypatch.setattr(download, "card", lambda name: made)
    monkeypatch.setenv("HIMAC_HOME", str(tmp_path))
    return "set"


def _right(folder: Path) -> None:
    assert (folder / "set.zip").read_bytes() == CONTENT
    assert data.installed("set") == folder
    assert not list(folder.glob("*.part")) and not list(folder.glob("*.new"))


def test_install_once_then_leave_alone(one: str, server: _Server) -> None:
    assert data.installed(one) is None
    _right(download.get(one))
    assert len(server.requests) == 1
    _right(download.get(one))
    assert len(server.requests) == 1
    assert list(download.verify(one)) == [("set.zip", "")]


def test_a_broken_connection_goes_on_where_it_stopped(one: str, server: _Server) -> None:
    server.faults = ["truncate", "truncate"]
    _right(download.get(one))
    starts = [int(r.removeprefix("bytes=").rstrip("-")) for r in server.requests if r]
    assert server.requests[0] is None and len(starts) == 2
    assert 0 < starts[0] < starts[1] < len(CONTENT)


def test_two_busy_answers_are_waited_out(one: str, server: _Server) -> None:
    server.faults = ["503", "503"]
    _right(download.get(one))
    assert len(server.requests) == 3


def test_a_flipped_byte_is_never_installed(one: str, server: _Server) -> None:
    server.faults = ["flip"]
    with pytest.raises(DownloadError, match=r"set\.zip"):
        download.get(one)
    assert data.installed(one) is None
    assert not (download.folder(one) / "set.zip").exists()
    _right(download.get(one))


def test_a_web_page_is_not_data(one: str, server: _Server) -> None:
    server.faults = ["html"]
    with pytest.raises(DownloadError, match="web page"):
        download.get(one)
    assert data.installed(one) is None


def test_not_found_says_where(one: str, server: _Server) -> None:
    server.faults = ["404"]
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1.*404"):
        download.get(one)


def test_a_spoiled_file_is_found_and_mended(one: str, server: _Server) -> None:
    folder = download.get(one)
    (folder / "set.zip").write_bytes(CONTENT[:-7] + b"spoiled")
    ((name, problem),) = download.verify(one)
    assert name == "set.zip" and "checksum" in problem
    _right(download.get(one))


def _get(home: str) -> None:
    os.environ["HIMAC_HOME"] = home
    download.get("set")


def test_eight_processes_download_once(one: str, server: _Server, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_get, args=(str(tmp_path),)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0] * 8
    assert len(server.requests) == 1
    _right(download.folder(one))


def test_kill_while_downloading_loses_nothing(one: str, server: _Server, tmp_path: Path) -> None:
    server.slow = True
    fork = multiprocessing.get_context("fork")
    worker = fork.Process(target=_get, args=(str(tmp_path),))
    worker.start()
    part = download.folder(one) / "set.zip.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 500_000):
        assert time.monotonic() < deadline, "the download never began"
        time.sleep(0.005)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert data.installed(one) is None
    server.slow = False
    _right(download.get(one))
    assert server.requests[-1] is not None, "the second try began anew instead of going on"
