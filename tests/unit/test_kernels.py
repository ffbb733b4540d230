"""Compiling the inner loops is told of, once, and not where they are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="needs numba: pip install 'himac[sokoban]'")

CODE = """
import numpy as np
from himac_envs.sokoban.kernels.search import _hash, _nearest_box
_hash(3), _nearest_box(5, np.zeros(2, np.int64), 2, 7)
"""


def _stderr(cache: Path, code: str = CODE) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stderr


def test_compiling_is_told_once_and_kept(tmp_path: Path) -> None:
    said = _stderr(tmp_path)
    assert said.count("compiling the inner loops of himac_envs.sokoban") == 1
    assert f"once, then they are kept in {tmp_path}" in said
    assert _stderr(tmp_path) == ""


def test_a_cache_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    # numba finds no place for the cache of code that stands in no file.
    code = """
from himac_envs.kernels import kernel
source = "def twice(x):\\n    return 2 * x\\n"
names = {"__name__": "himac_envs.made_up"}
exec(source, names)
assert kernel(names["twice"])(4) == 8
"""
    assert "in every process" in _stderr(tmp_path, code)
