"""Threads: as many as a model is worth and as this process may use, and said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from himac_agents.policies import threads
from himac_agents.policies.threads import SMALL, choose_threads, cores, set_threads


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_are_chosen_by_the_models_size() -> None:
    assert choose_threads(0, 200_000, 16) == 1
    assert choose_threads(0, SMALL - 1, 16) == 1
    assert choose_threads(0, SMALL, 16) == 16
    assert choose_threads(3, 200_000, 16) == 3, "who asks knows"


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "900000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
    ids=str,
)
def test_cores_are_those_of_the_affinity_and_of_the_containers_quota(
    files: dict[str, str], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores(tmp_path) == most


def test_what_was_chosen_is_set_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    small = SimpleNamespace(model=torch.nn.Linear(10, 10))
    large = SimpleNamespace(model=torch.nn.Linear(2400, 2400))
    assert "threads: 1, for a model of 0.0M" in set_threads(0, [small])
    assert torch.get_num_threads() == 1
    assert "threads: 6, for a model of 5.8M" in set_threads(0, [small, large])
    assert torch.get_num_threads() == 6
    assert set_threads(2, [large]) == "threads: 2, as asked" and torch.get_num_threads() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "threads: 3," in set_threads(0, [large]), "processes share the machine"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert "threads: 2," in set_threads(0, [large]), "a limit that somebody set is kept"
    torch.set_num_threads(4)
    assert set_threads(0, [object()]) == "" and torch.get_num_threads() == 4
