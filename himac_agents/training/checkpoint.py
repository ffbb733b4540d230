"""Checkpoints that a crash cannot spoil, and that continue a run bit for bit.

A checkpoint is a folder: `state.json` (counters, the draw of tasks), one folder a policy in
`save_pretrained` form, and the optimisers' moments as safetensors, or in parts where the model is
sharded over processes (`himac_agents.training.moments`). It is written beside its place and renamed
into it, so that a folder with the final name is always whole; `kill -9` at any moment leaves the
previous one.

Of several processes all call these functions, and the leading one writes. Of sharded models the
others bring their parts, so that all of them must see the folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from himac_agents.distributed import Team, is_sharded, team
from himac_agents.files import CheckpointError, reading, steps
from himac_agents.policies.sharding import shard_like
from himac_agents.training import moments

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
    """Writes a checkpoint, removes all but the newest `keep`, and returns its folder.

    Args:
        folder: The run's `checkpoints` folder.
        step: Orders the checkpoints of a run.
        state: JSON values.
        policies: By name; each has `save_pretrained`.
        optimizers: By name.
        critics: By the names of their policies, where the method has any.
        keep: How many stay.

    Raises:
        CheckpointError: It cannot be written (a full disk, say); those before it stay.
    """
    final, together = folder / f"step-{step:08d}", _writers(policies)
    if together is None:
        return final
    staged = together.agree(folder / f".writing-{step:08d}-{os.getpid()}")
    with _staging(staged, final, folder.parent, together):
        together.led(lambda: _begin(staged, folder.glob(".writing-*")))
        _insist_on_seeing(staged, together)
        _write(staged, step, state, policies, optimizers, critics or {}, together)
        together.led(lambda: _put_in_place(staged, final, keep))
    return final


def _put_in_place(staged: Path, final: Path, keep: int) -> None:
    folder = final.parent
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
    if (together := _writers(policies)) is None:
        return
    staged = together.agree(folder.with_name(f".writing-{folder.name}-{os.getpid()}"))

    def finish() -> None:
        if label is not None:
            _write_json(staged / "label.json", dict(label))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staged, folder)

    with _staging(staged, folder, folder.parent, together):
        together.led(lambda: _begin(staged, folder.parent.glob(f".writing-{folder.name}-*")))
        for name, policy in policies.items():
            policy.save_pretrained(staged / name)
        together.led(finish)


def _writers(policies: Mapping[str, Any]) -> Team | None:
    """Who takes part in writing: everyone, this process alone, or (None) it does not."""
    if any(getattr(policy, "shards", None) is not None for policy in policies.values()):
        return team()
    return Team() if team().leads else None


def _begin(staged: Path, stale: Iterable[Path]) -> None:
    """An empty folder to write into; what a kill left is cleared away."""
    for old in stale:
        shutil.rmtree(old, ignore_errors=True)
    staged.mkdir(parents=True)


def _insist_on_seeing(staged: Path, together: Team) -> None:
    """Makes sure that all processes write into the same folder.

    Raises:
        CheckpointError: A process does not see it.
    """
    blind = [rank for rank, seen in enumerate(together.gather(staged.is_dir())) if not seen]
    if blind:
        raise CheckpointError(
            f"process {blind[0]} cannot see it: with --shard the run's folder (--out) must be "
            "where all machines see it under the same path"
        )


@contextmanager
def _staging(staged: Path, final: Path, run: Path, together: Team) -> Iterator[None]:
    """Clears away what cannot be finished, and says how to go on."""
    try:
        yield
    except BaseException as error:
        # At once: on a full disk its room is wanted.
        if together.leads:
            shutil.rmtree(staged, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        raise CheckpointError(
            f"{final} cannot be written: {error}. Free some space; then `himac train --resume "
            f"{run}` continues from the checkpoint before"
        ) from error


def _write(
    staged: Path,
    step: int,
    state: Mapping[str, Any],
    policies: Mapping[str, Any],
    optimizers: Mapping[str, torch.optim.Optimizer],
    critics: Mapping[str, torch.nn.Module],
    together: Team,
) -> None:
    for name, policy in policies.items():
        policy.save_pretrained(staged / name)
    numbers = {}
    for name, optimizer in optimizers.items():
        tensors, numbers[name] = _flatten(optimizer)
        if any(map(is_sharded, tensors.values())):
            moments.write(staged / moments.folder_of(name), tensors)
        else:
            kept = {k: v.cpu().contiguous().clone() for k, v in tensors.items()}
            path = staged / f"{name}.optimizer.safetensors"
            together.led(partial(save_file, kept, path))

    def finish() -> None:
        for name, told in numbers.items():
            _write_json(staged / f"{name}.optimizer.json", told)
        for name, critic in critics.items():
            own = {k: v.detach().cpu().contiguous() for k, v in critic.state_dict().items()}
            save_file({k: v.clone() for k, v in own.items()}, staged / f"{name}.critic.safetensors")
        content = {"format": FORMAT, "step": step, "state": dict(state)}
        _write_json(staged / "state.json", content)
        for path in staged.rglob("*"):
            if path.is_file():
                _sync(path)

    together.led(finish)


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

    They may have been saved by more or fewer processes than these, sharded over them or not.

    Raises:
        CheckpointError: The saved moments are missing or belong to another model.
    """
    content = optimizer.state_dict()
    with reading(path / f"{name}.optimizer.json"):
        numbers = json.loads((path / f"{name}.optimizer.json").read_text(encoding="utf-8"))
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if len(parameters) != numbers["parameters"]:
            raise CheckpointError(
                f"{path}: saved for {numbers['parameters']} parameters, this model has "
                f"{len(parameters)}"
            )
        groups = [
            {**group, **saved}
            for group, saved in zip(content["param_groups"], numbers["groups"], strict=True)
        ]
    if (folder := path / moments.folder_of(name)).is_dir():
        with reading(folder):
            tensors = moments.read(folder, parameters)
    else:
        with reading(path / f"{name}.optimizer.safetensors"):
            tensors = load_file(path / f"{name}.optimizer.safetensors")
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, _, field = key.partition(".")
        like = parameters[int(index)]
        if tensor.shape == like.shape and not is_sharded(tensor):
            tensor = shard_like(tensor, like)
        state.setdefault(int(index), {})[field] = tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _flatten(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimiser's tensors by the numbers of their parameters, and what else it holds."""
    content = optimizer.state_dict()
    tensors = {
        f"{index}.{field}": torch.as_tensor(value).detach()
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
