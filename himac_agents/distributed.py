"""Several processes, one learner: parallelism that changes how fast, not what is learned.

Each process plays its share of an iteration's tasks, whole groups at a time, so that advantages are
computed where the episodes are. For the update every process gathers the (small) token arrays of
all of them, forms the same mini-batches, takes every n-th micro-batch, and the gradients are added
up over the processes. Token and sequence counts are those of the whole mini-batch (see
`himac_agents.algorithms.losses.token_weights`), so that one process and several make the same
update up to the order in which floating-point numbers are added.

Whole models in every process have their gradients added up here, in one message for many: so
processes without rows compute nothing, and any policy that has parameters takes part. Models that
are sharded over the processes (`himac_agents.policies.sharding`) bring theirs added up already.

Start with ``himac train --processes N``, or by a launcher that sets RANK, WORLD_SIZE, MASTER_ADDR
and MASTER_PORT (``torchrun ... -m himac_agents train ...``). A process by itself has the null team:
nothing is sent, nothing is computed differently.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from himac_envs.errors import HiMACError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

#: Numbers that go into one message when gradients are added up.
_BUCKET = 1 << 24

#: How long a process waits for the others: their episodes may take longer than its own. One that
#: dies is noticed by the launcher at once.
_PATIENCE = timedelta(hours=2)


class Team:
    """One process by itself; `ProcessTeam` is the same for several.

    Attributes:
        rank: This process's number.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files and prints."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part: the items cut into `size` stretches of (nearly) equal length."""
        bounds = [len(items) * r // self.size for r in range(self.size + 1)]
        return list(items[bounds[self.rank] : bounds[self.rank + 1]])

    def gather(self, value: T) -> list[T]:
        """Every process's value, in order of rank, in every process."""
        return [value]

    def agree(self, value: T) -> T:
        """The leading process's value, in every process."""
        return value

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replaces each gradient by its sum over the processes."""

    def add_array(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The sum over the processes of an array of one shape."""
        return values

    def add(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums over the processes, key by key."""
        found = self.gather(dict(values))
        return {key: sum(part[key] for part in found) for key in values}

    def mean(self, values: Mapping[str, float], weight: float) -> dict[str, float]:
        """Means over the processes, weighted; a process without a key does not count for it."""
        found = self.gather((dict(values), weight))
        if len(found) == 1:
            return dict(values)
        keys = dict.fromkeys(key for part, _ in found for key in part)
        return {
            key: float(
                np.average(
                    [part[key] for part, _ in found if key in part],
                    weights=[w for part, w in found if key in part],
                )
            )
            for key in keys
        }

    def wait(self) -> None:
        """Returns once every process is here."""

    def led(self, work: Callable[[], object]) -> None:
        """Lets the leading process work, and the others wait and fail as it does.

        Raises:
            HiMACError: In the others: it failed there, and how. There, what it failed with.
        """
        error: Exception | None = None
        if self.leads:
            try:
                work()
            except Exception as found:
                error = found
        told = self.agree(None if error is None else f"{error}")
        if error is not None:
            raise error
        if told is not None:
            raise HiMACError(f"the leading process: {told}")


class ProcessTeam(Team):
    """The processes of torch.distributed's default group."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self._dist = dist
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def gather(self, value: T) -> list[T]:
        """See `Team.gather`."""
        found: list[Any] = [None] * self.size
        self._dist.all_gather_object(found, value)
        return found

    def agree(self, value: T) -> T:
        """See `Team.agree`."""
        found = [value]
        self._dist.broadcast_object_list(found, src=0)
        return found[0]

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """See `Team.add_gradients`. A parameter that no process has a gradient for keeps none."""
        import torch

        parameters = list(parameters)
        if not parameters:
            return
        device = parameters[0].device
        known = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
        self._dist.all_reduce(known)
        bucket: list[torch.Tensor] = []
        for parameter, count in zip(parameters, known.tolist(), strict=True):
            if count == 0:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if bucket and (
                sum(g.numel() for g in bucket) + parameter.numel() > _BUCKET
                or bucket[0].dtype != parameter.grad.dtype
            ):
                self._add(bucket)
                bucket = []
            bucket.append(parameter.grad)
        if bucket:
            self._add(bucket)

    def _add(self, tensors: Sequence[torch.Tensor]) -> None:
        import torch

        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._dist.all_reduce(flat)
        for tensor, part in zip(
            tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True
        ):
            tensor.copy_(part.view_as(tensor))

    def add_array(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Team.add_array`."""
        import torch

        device = "cuda" if self._dist.get_backend() == "nccl" else "cpu"
        tensor = torch.as_tensor(values.copy(), device=device)
        self._dist.all_reduce(tensor)
        return np.asarray(tensor.cpu().numpy())

    def wait(self) -> None:
        """See `Team.wait`."""
        self._dist.barrier()


_ALONE = Team()


def team() -> Team:
    """The team of this process: the null team unless `join` found others."""
    dist = _distributed()
    return ProcessTeam() if dist is not None and dist.get_world_size() > 1 else _ALONE


def _distributed() -> Any:
    """torch.distributed where a group has been formed, else None; imports nothing for it.

    Playing and evaluating need no torch: a remote or a scripted agent has none to wait for.
    """
    dist = sys.modules.get("torch.distributed")
    ready = dist is not None and dist.is_available() and dist.is_initialized()
    return dist if ready else None


def join() -> Team:
    """Joins the processes that a launcher has started, if one has; returns the team.

    Tensors of GPUs go by NCCL, all else by gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and _distributed() is None:
        import torch
        import torch.distributed as dist

        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, timeout=_PATIENCE)
    return team()


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor: all of it, or its part of one that is sharded."""
    part = getattr(tensor, "to_local", None)
    return tensor if part is None else part()


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies in parts on all processes."""
    return hasattr(tensor, "to_local")


def leave() -> None:
    """Closes what `join` opened."""
    dist = _distributed()
    if dist is not None:
        dist.destroy_process_group()
