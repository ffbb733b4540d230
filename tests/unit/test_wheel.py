"""What a wheel holds: the two packages, the registry as data, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from wheels import unpacked_wheel

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked_wheel(tmp_path_factory.mktemp("wheel"))


def test_only_our_packages_are_importable(unpacked: Path) -> None:
    names = {p.name for p in unpacked.iterdir() if not p.name.endswith(".dist-info")}
    assert names == {"himac_envs", "himac_agents"}
    for package in names:
        assert (unpacked / package / "py.typed").is_file()
    cards = sorted(p.relative_to(ROOT / "registry") for p in (ROOT / "registry").rglob("*.toml"))
    shipped = unpacked / "himac_envs" / "_registry"
    assert cards == sorted(p.relative_to(shipped) for p in shipped.rglob("*.toml"))


def test_an_installed_wheel_finds_its_cards(unpacked: Path) -> None:
    code = (
        "import himac_envs, gymnasium as gym; from himac_envs import registry;"
        "gym.make('HiMAC-ALFWorld-v0').reset(seed=0); print(registry.root())"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=unpacked.parent,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(unpacked / "himac_envs" / "_registry")
