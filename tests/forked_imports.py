"""What processes that are forked (`forking`) find done: imports, and what is made on first use."""

import tempfile
from pathlib import Path

import sharded_runs
import tinymodels
import torch
import torch._dynamo  # FSDP asks for it
import torch.distributed.checkpoint
import torch.distributed.fsdp

import himac_agents.cli.train
import himac_agents.training.trainer  # noqa: F401

torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as _place:
    _model = tinymodels.save_text_model(Path(_place) / "model", layers=1)
    sharded_runs.learn(str(_model), "adapters", Path(_place))
