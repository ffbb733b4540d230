"""A real model, SmolLM2-135M, learned here and sampled by a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: `make served`")

from served_policies import insist_on_exact_choices, move, served, taken

from himac_agents.policies.base import Sampling

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(smollm2: Path, serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with serving(
        smollm2, tmp_path_factory.mktemp("smollm2") / "log", "--max-model-len", "2048"
    ) as found:
        yield found


def test_smollm2_is_sampled_with_the_weights_that_learn(server: Any) -> None:
    learner, policy = served(server.folder, server.url)
    policy.forget()
    found = taken(policy)
    print(f"\nbefore: gap {found['sync_gap_max']:.1e}")
    assert found["sync_gap_max"] < 1e-4
    for seed in range(2):
        # Steps as large as updates make them: of the weights' size they would leave noise alone.
        move(learner, seed, by=1e-3)
        found = taken(policy)
        seconds, gap = found["sync_seconds"], found["sync_gap_max"]
        print(f"sync {seconds:.2f} s, gap {gap:.1e} (mean {found['sync_gap']:.1e})")
        assert found["syncs"] == 1 and gap < 1e-4


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_smollm2s_constrained_answers_are_exact(server: Any, temperature: float) -> None:
    learner, policy = served(server.folder, server.url)
    policy.forget()
    insist_on_exact_choices(learner, policy, 32, Sampling(temperature, 16))
