"""WebShop's published files fetched from a server: sizes unknown, checksums pinned, then played."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest

import himac_envs
from himac_agents.cli import main
from himac_envs import data, download
from himac_envs.webshop.generate import ShopGenerator

assert himac_envs
NAMES = ("items_shuffle_1000.json", "items_ins_v2_1000.json", "items_human_ins.json")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    rows, mined = zip(*(ShopGenerator().row(n) for n in range(80)), strict=True)
    told = {
        "instruction": "i want a lamp.",
        "instruction_attributes": ["easy install"],
        "instruction_options": [],
    }
    content = (
        rows,
        {r["asin"]: m for r, m in zip(rows, mined, strict=True)},
        {rows[0]["asin"]: [told]},
    )
    for name, value in zip(NAMES, content, strict=True):
        (folder / name).write_text(json.dumps(value))
    return folder


@pytest.fixture
def server(published: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(published))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIMAC_HOME", str(tmp_path / "home"))


def test_get_build_and_play(server: str, published: Path, tmp_path: Path) -> None:
    assert gym.make("HiMAC-WebShop-Flat-v0").unwrapped.data_name == "generated"
    assert main(["data", "get", "webshop", "--base-url", server]) == 0
    assert data.installed("webshop") is not None
    assert [problem for _, problem in download.verify("webshop")] == ["", "", ""]
    env = gym.make("HiMAC-WebShop-Flat-v0", split="test").unwrapped
    assert env.data_name == "webshop" and env.catalogue.size == 80
    human = gym.make("HiMAC-WebShop-Flat-v0", goals="human", split="test").unwrapped
    human.reset(seed=0)
    assert human._goal().startswith("i want a lamp")
    assert main(["data", "build", "webshop", str(published), "--num-products", "20"]) == 0
    assert main(["data", "build", "webshop", str(tmp_path)]) == 1
    assert main(["data", "build", "sokoban", str(tmp_path)]) == 1


def test_a_file_that_changed_after_its_pinning_is_fetched_anew(server: str) -> None:
    download.get("webshop", base_url=server)
    path = download.folder("webshop") / NAMES[0]
    path.write_text("[]")
    assert dict(download.verify("webshop"))[NAMES[0]].startswith("checksum differs")
    download.get("webshop", base_url=server)
    assert dict(download.verify("webshop"))[NAMES[0]] == ""


def test_a_cut_file_of_unknown_size_is_not_installed(
    server: str, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_TRIES", 1)
    (published / NAMES[1]).unlink()
    with pytest.raises(download.DownloadError, match="not found"):
        download.get("webshop", base_url=server)
    assert data.installed("webshop") is None
