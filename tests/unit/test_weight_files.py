"""Files of weights for servers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tinymodels import save_text_model

from himac_agents.policies.hf import HFPolicy
from himac_agents.policies.served.weights import Weights, write


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_are_written_one_by_one_as_safetensors_reads_them(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = save_text_model(tmp_path / "model", layers=1)
    learner = HFPolicy.load(folder, device="cpu", dtype="float32")
    write(tmp_path / "w.safetensors", Weights(learner.model, dtype))
    read = load_file(tmp_path / "w.safetensors")
    sent = dict(Weights(learner.model, dtype))
    assert read.keys() == sent.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in sent.items())
