"""Checkpoints that a crash cannot spoil, and that continue a run bit for bit.

A checkpoint is a folder: `state.json` (counters, the draw of tasks), one folder a policy in
`save_pretrained` form, and the optimisers' moments as safetensors. It is written beside its place
and renamed into it, so that a folder with the final name is always whole; `kill -9` at any moment
leaves the previous one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from himac_agents.files import CheckpointError, reading, steps

FORMAT = 1


def save(
    folder: Path,
    step: int,
    state: Mapping[str, Any],
    policies: Mapping[str, Any],
    optimizers: Mapping[str, torch.optim.Optimizer],
    critics: Mapping[str, torch.nn.Module] | None = None,
    *,
    keep: int = 2,
) -> Path:
    """Writes a checkpoint and removes all but the newest `keep`.

    Args:
        folder: The run's `checkpoints` folder.
        step: Orders the checkpoints of a run.
        state: JSON values.
        policies: By name; each has `save_pretrained`.
        optimizers: By name.
        critics: By the names of their policies, where the method has any.
        keep: How many stay.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: It cannot be written (a full disk, say); those before it stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".writing-*"):
        shutil.rmtree(stale, ignore_errors=True)
    final = folder / f"step-{step:08d}"
    staged = folder / f".writing-{step:08d}-{os.getpid()}"
    with _staging(staged, final, folder.parent):
        _write(staged, step, state, policies, optimizers, critics or {})
    if final.exists():
        # The same step again (a resumed run): the old one goes first, under another name.
        old = folder / f".writing-old-{os.getpid()}"
        os.replace(final, old)
        os.replace(staged, final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(staged, final)
    _sync(folder)
    for older in sorted(steps(folder))[:-keep]:
        shutil.rmtree(folder / f"step-{older:08d}", ignore_errors=True)
    return final


def save_policies(
    folder: Path, policies: Mapping[str, Any], label: Mapping[str, Any] | None = None
) -> None:
    """Writes policies, by name, into a folder of a run: whole or not at all.

    Args:
        folder: The folder.
        policies: The policies.
        label: What they are, for readers: becomes `label.json`.

    Raises:
        CheckpointError: They cannot be written.
    """
    staged = folder.with_name(f".writing-{folder.name}-{os.getpid()}")
    for stale in folder.parent.glob(f".writing-{folder.name}-*"):
        shutil.rmtree(stale, ignore_errors=True)
    with _staging(staged, folder, folder.parent):
        for name, policy in policies.items():
            policy.save_pretrained(staged / name)
        if label is not None:
            _write_json(staged / "label.json", dict(label))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staged, folder)


@contextmanager
def _staging(staged: Path, final: Path, run: Path) -> Iterator[None]:
    """Clears away what cannot be finished, and says how to go on."""
    try:
        yield
    except BaseException as error:
        # At once: on a full disk its room is wanted.
        shutil.rmtree(staged, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        raise CheckpointError(
            f"{final} cannot be written: {error}. Make room, then `himac train --resume {run}` "
            "goes on from the checkpoint before"
        ) from error


def _write(
    staged: Path,
    step: int,
    state: Mapping[str, Any],
    policies: Mapping[str, Any],
    optimizers: Mapping[str, torch.optim.Optimizer],
    critics: Mapping[str, torch.nn.Module],
) -> None:
    staged.mkdir()
    for name, policy in policies.items():
        policy.save_pretrained(staged / name)
    for name, optimizer in optimizers.items():
        tensors, numbers = _flatten(optimizer)
        save_file(tensors, staged / f"{name}.optimizer.safetensors")
        _write_json(staged / f"{name}.optimizer.json", numbers)
    for name, critic in critics.items():
        kept = {k: v.detach().cpu().contiguous().clone() for k, v in critic.state_dict().items()}
        save_file(kept, staged / f"{name}.critic.safetensors")
    content = {"format": FORMAT, "step": step, "state": dict(state)}
    _write_json(staged / "state.json", content)
    for path in staged.rglob("*"):
        if path.is_file():
            _sync(path)


def read_state(path: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint.

    Raises:
        CheckpointError: It is missing, not JSON, or of another format.
    """
    with reading(path / "state.json"):
        content = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise CheckpointError(
                f"{path}: checkpoint format {content['format']!r}, this version reads {FORMAT}"
            )
        return {**content, "state": dict(content["state"])}


def restore_critic(path: Path, name: str, critic: torch.nn.Module) -> None:
    """Fills a policy's critic with the saved weights.

    Raises:
        CheckpointError: They are missing, damaged, or another critic's.
    """
    with reading(path / f"{name}.critic.safetensors"):
        critic.load_state_dict(load_file(path / f"{name}.critic.safetensors"))


def restore_optimizer(path: Path, name: str, optimizer: torch.optim.Optimizer) -> None:
    """Fills an optimiser, made over the same parameters, with the saved moments.

    Raises:
        CheckpointError: The saved moments are missing or belong to another model.
    """
    with reading(path / f"{name}.optimizer.safetensors"):
        tensors = load_file(path / f"{name}.optimizer.safetensors")
    content = optimizer.state_dict()
    count = sum(len(group["params"]) for group in content["param_groups"])
    with reading(path / f"{name}.optimizer.json"):
        numbers = json.loads((path / f"{name}.optimizer.json").read_text(encoding="utf-8"))
        if count != numbers["parameters"]:
            raise CheckpointError(
                f"{path}: saved for {numbers['parameters']} parameters, this model has {count}"
            )
        groups = [
            {**group, **saved}
            for group, saved in zip(content["param_groups"], numbers["groups"], strict=True)
        ]
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, _, field = key.partition(".")
        state.setdefault(int(index), {})[field] = tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _flatten(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    content = optimizer.state_dict()
    tensors = {
        f"{index}.{field}": torch.as_tensor(value).detach().cpu().contiguous().clone()
        for index, fields in content["state"].items()
        for field, value in fields.items()
    }
    groups = [{"lr": group["lr"]} for group in content["param_groups"]]
    count = sum(len(group["params"]) for group in content["param_groups"])
    return tensors, {"parameters": count, "groups": groups}


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        # Some file systems cannot sync a folder; the rename is still atomic there.
        pass
    finally:
        os.close(handle)
