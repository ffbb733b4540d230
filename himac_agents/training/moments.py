"""An optimiser's moments of a model that is sharded over processes, as torch's DCP writes them.

Each process writes and reads its own parts, in a folder that all see. Those who read may be more or
fewer than those who wrote, and may hold whole models.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from himac_agents.files import CheckpointError


def folder_of(name: str) -> str:
    """What the folder with a policy's moments is called within a checkpoint."""
    return f"{name}.optimizer"


def write(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes tensors, the sharded ones in parts; all processes call it.

    Raises:
        OSError: A process cannot write its part; all of them hear of it.
    """
    try:
        save(dict(tensors), checkpoint_id=folder)
    except CheckpointException as error:  # no Exception to torch
        raise OSError(_told(error)) from error


def read(folder: Path, parameters: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Reads what `write` wrote, sharded as the parameters are; all processes call it.

    Raises:
        CheckpointError: It was written for another model.
        OSError: A part is missing or damaged.
    """
    saved = FileSystemReader(folder).read_metadata().state_dict_metadata
    found: dict[str, torch.Tensor] = {}
    for key, told in saved.items():
        if not isinstance(told, TensorStorageMetadata):
            continue
        number, _, field = key.partition(".")
        if field == "step":
            found[key] = torch.zeros(told.size)
            continue
        like = parameters[int(number)]
        if tuple(told.size) != tuple(like.shape):
            raise CheckpointError(
                f"{folder}: {key} has the shape {tuple(told.size)}, this model's parameter "
                f"{tuple(like.shape)}: it was saved for another model"
            )
        found[key] = torch.zeros_like(like, requires_grad=False).detach()
    try:
        with warnings.catch_warnings():
            # One process reads alone: torch says so, and here it is meant.
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            load(found, checkpoint_id=folder)
    except CheckpointException as error:  # no Exception to torch
        raise OSError(_told(error)) from error
    return found


def _told(error: CheckpointException) -> str:
    """The first process's trouble in a line."""
    rank, (trouble, _) = min(error.failures.items())
    return f"process {rank}: {type(trouble).__name__}: {trouble}"
