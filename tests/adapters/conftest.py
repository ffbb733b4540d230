"""What the tests of the adapters share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ("ALFWorld", "WebShop", "Sokoban")
FLAT = tuple(f"HiMAC-{name}-Flat-v0" for name in BENCHMARKS)
HIERARCHICAL = tuple(f"HiMAC-{name}-v0" for name in BENCHMARKS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`env_id` is every text environment of the three benchmarks, unless a test names its own."""
    own = [str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize")]
    if "env_id" in metafunc.fixturenames and not any("env_id" in names for names in own):
        metafunc.parametrize("env_id", [*FLAT, *HIERARCHICAL])


@pytest.fixture
def run_example(tmp_path: Path) -> Callable[..., str]:
    """Runs a script of examples/adapters, of at most 10 lines of code; returns what it prints."""

    def run(name: str, *arguments: str) -> str:
        script = ROOT / "examples" / "adapters" / name
        lines = script.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith('"""') and lines[0].endswith('"""'), "one line says what it is"
        code = [line for line in lines[1:] if line.strip()]
        assert len(code) <= 10, f"{name} has {len(code)} lines of code"
        done = subprocess.run(
            [sys.executable, str(script), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=500,  # a guard
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run
