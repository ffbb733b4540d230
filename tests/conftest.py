"""Fixtures and options shared by every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never see, and never write to, the user's own installed data."""
    monkeypatch.setenv("HIMAC_HOME", str(tmp_path_factory.getbasetemp() / "himac-home"))
