"""Fixtures and options shared by every test."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from himac_envs import data

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="run the longer proofs too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--runslow"):
        return
    skip = pytest.mark.skip(reason="a longer proof: run with --runslow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


def _data_root() -> Path:
    root = Path(os.environ.get("HIMAC_DATA", "../shared/data"))
    return root if root.is_absolute() else (ROOT / root).resolve()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets (HIMAC_DATA, default ../shared/data)."""
    root = _data_root()
    if not root.is_dir():
        pytest.skip(f"the real data sets are not at {root}: set HIMAC_DATA to their folder")
    return root


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of traces recorded from the originals, beside the real data."""
    root = _data_root().parent / "golden"
    if not root.is_dir():
        pytest.skip(f"the recorded traces are not at {root}: set HIMAC_DATA to the folder beside")
    return root


#: The user's own folder of data and models, which tests may read.
_USERS = data.home()


@pytest.fixture(scope="session")
def smollm2(request: pytest.FixtureRequest) -> Path:
    """SmolLM2-135M-Instruct: where it is installed, or fetched once and kept in pytest's cache."""
    pytest.importorskip("transformers")
    assert request.config.cache is not None
    cache = Path(request.config.cache.mkdir("himac-home"))
    for home in (_USERS, cache):
        folder = home / "models" / "smollm2"
        if (folder / data.READY).is_file():
            return folder
    command = [sys.executable, "-m", "himac_agents", "model", "get", "smollm2"]
    home_there = {**os.environ, "HIMAC_HOME": str(cache)}
    why = "not fetched within two minutes"
    try:
        made = subprocess.run(
            command, env=home_there, cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        if made.returncode == 0:
            return Path(made.stdout.strip())
        why = (made.stderr.strip().splitlines() or ["no reason given"])[-1]
    except subprocess.TimeoutExpired:
        pass
    pytest.skip(f"no SmolLM2 ({why}): `himac model get smollm2` gets it")


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_open() -> Iterator[None]:
    """What a file's tests leave open fails that file: else it fails whichever test runs next."""
    yield
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        gc.collect()
    left = [str(one.message) for one in told if issubclass(one.category, ResourceWarning)]
    # anyio's streams in memory hold nothing of the system's; other people's stacks leave some.
    left = [message for message in left if "MemoryObject" not in message]
    assert not left, f"left open: {left}"


@pytest.fixture(scope="module", autouse=True)
def _no_page_of_each_run(request: pytest.FixtureRequest) -> Iterator[None]:
    """Trainings of the tests draw no report, which takes seconds each; files that look at one say
    `DRAWN = True`."""
    training = sys.modules.get("himac_agents.training.run")
    if training is None or getattr(request.module, "DRAWN", False):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Run, "report", lambda self: None)
        yield


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never see, and never write to, the user's own installed data."""
    monkeypatch.setenv("HIMAC_HOME", str(tmp_path_factory.getbasetemp() / "himac-home"))
