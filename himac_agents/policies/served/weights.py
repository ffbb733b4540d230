"""How the weights of a model that learns come to those that sample with it.

- `FileTransfer`: a safetensors file that the servers read. No GPU is needed, nor vLLM beside the
  model that learns; the folder must be one that the servers see.
- `DeviceTransfer`: vLLM's own senders, from GPU to GPU ("nccl"), or within one ("ipc").
"""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from himac_agents import distributed
from himac_agents.files import scratch_of
from himac_agents.policies.served.engine import Receiver
from himac_agents.policies.served.server import RolloutError
from himac_agents.policies.sharding import whole

#: The output layer's name where it is not the embedding's own.
_HEAD = "lm_head.weight"


def named_weights(model: Any) -> dict[str, Tensor]:
    """A model's weights by the names of its checkpoint: those that are to be sent.

    A model whose output layer is its embedding sends that twice: vLLM may have packed a copy of it,
    which stays what it was unless it is sent by its own name.
    """
    found = dict(model.named_parameters())
    if _HEAD not in found and getattr(model.config, "tie_word_embeddings", False):
        found[_HEAD] = model.get_input_embeddings().weight
    return found


class Weights:
    """A model's weights as they are sent, one after the other.

    Of a model that is sharded over processes each weight is gathered when its turn comes, and all
    of them run through the weights together: whoever begins goes to the end, or calls `finish`.

    Args:
        model: The model.
        dtype: What the weights are sent in.
    """

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self.dtype, self._named = dtype, named_weights(model)
        self._under_way: Iterator[tuple[str, Tensor]] | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What comes, in its order."""
        return {name: tuple(weight.shape) for name, weight in self._named.items()}

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        self._under_way = self._gather()
        return self._under_way

    def _gather(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in self._named.items():
            yield name, whole(weight).to(self.dtype)

    def finish(self) -> None:
        """Runs through what is left, so that no other process waits for this one."""
        for _ in self if self._under_way is None else self._under_way:
            pass


class FileTransfer:
    """Weights as a file.

    Args:
        folder: Where it is written, for as long as it is read; "": a folder of this machine's own.
    """

    backend = "himac_file"

    def __init__(self, folder: str = "") -> None:
        self.folder = Path(folder) if folder else scratch_of(self, "himac-weights-")

    def send(self, weights: Weights, to: Sequence[Receiver], version: str) -> None:
        """Sends a model's weights, which are then called by their version.

        Raises:
            RolloutError: A receiver does not take them.
        """
        path = (self.folder / f"{version}-{os.getpid()}.safetensors").absolute()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(path, weights)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise RolloutError(
                f"the weights cannot be written into {self.folder}: {error} (sync_folder names "
                "another)"
            ) from error
        try:
            update(to, {"path": str(path)}, version)
        finally:
            path.unlink(missing_ok=True)


#: The names that safetensors has for types.
_TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write(path: Path, weights: Weights) -> None:
    """Writes weights in safetensors' format, one at a time: all of them never stand in memory.

    The format: the header's length in 8 bytes, the header (names, types, shapes and places, in
    JSON), and the tensors' bytes.
    """
    size, at = weights.dtype.itemsize, 0
    header: dict[str, Any] = {}
    for name, shape in weights.shapes().items():
        end = at + size * math.prod(shape)
        header[name] = {
            "dtype": _TYPES[weights.dtype], "shape": shape, "data_offsets": [at, end],
        }  # fmt: skip
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, weight in weights:
            file.write(weight.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def update(to: Sequence[Receiver], told: dict[str, Any], version: str) -> None:
    """Lets receivers load weights, all of them at the same time.

    Raises:
        RolloutError: One does not.
    """

    def one(receiver: Receiver) -> None:
        receiver.call("POST", "/init_weight_transfer_engine", {"init_info": {}})
        receiver.call("POST", "/start_weight_update")
        receiver.call("POST", "/update_weights", {"update_info": told})
        receiver.call("POST", "/finish_weight_update", {"weight_version": version})

    with ThreadPoolExecutor(max(1, len(to))) as threads:
        for done in [threads.submit(one, receiver) for receiver in to]:
            done.result()


class _Source:
    """vLLM's `WeightSource` over a model: what is sent, and beforehand what it will be."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def metadata(self) -> list[Any]:
        """Names, types and shapes, in the order in which the weights come."""
        from vllm.distributed.weight_transfer.base import ParamMeta

        dtype = self.weights.dtype
        return [ParamMeta(name, dtype, shape) for name, shape in self.weights.shapes().items()]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.weights


class _All:
    """The receivers as vLLM's senders see them: one, whose steps are everyone's."""

    def __init__(self, to: Sequence[Receiver]) -> None:
        self.to, self.version = to, ""

    def _every(self, path: str, bodies: Sequence[Any]) -> None:
        with ThreadPoolExecutor(len(self.to)) as threads:
            asked = zip(self.to, bodies, strict=True)
            for done in [threads.submit(r.call, "POST", path, body) for r, body in asked]:
                done.result()

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Each receiver's place in the group follows that of the one before it."""
        bodies, offset = [], int(init_info.get("rank_offset", 1))
        for receiver in self.to:
            told = {**init_info, "rank_offset": offset} if "rank_offset" in init_info else init_info
            bodies.append({"init_info": told})
            offset += world_size(receiver)
        self._every("/init_weight_transfer_engine", bodies)

    def start_weight_update(self) -> None:
        """See vLLM's `VLLMWeightSyncClient`."""
        self._every("/start_weight_update", [None] * len(self.to))

    def update_weights(self, update_info: Any) -> None:
        """See vLLM's `VLLMWeightSyncClient`; what goes to a server goes as JSON."""
        told = update_info
        if any(receiver.url.startswith("http") for receiver in self.to):
            from vllm.distributed.weight_transfer.clients import _json_safe_update_payload

            told = _json_safe_update_payload(update_info)
        self._every("/update_weights", [{"update_info": told}] * len(self.to))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """See vLLM's `VLLMWeightSyncClient`."""
        self._every("/finish_weight_update", [{"weight_version": self.version}] * len(self.to))

    def shutdown_weight_transfer_engine(self) -> None:
        """See vLLM's `VLLMWeightSyncClient`."""
        self._every("/shutdown_weight_transfer_engine", [None] * len(self.to))


def world_size(receiver: Receiver) -> int:
    """How many GPUs a receiver works with."""
    return int(receiver.call("GET", "/get_world_size")["world_size"])


class DeviceTransfer:
    """vLLM's senders for GPUs. Written by their interface, and not run: see docs/scaling.md.

    Args:
        backend: "nccl", between GPUs, or "ipc", within one.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._sender: Any = None
        self._client: _All | None = None
        self._source: _Source | None = None

    def send(self, weights: Weights, to: Sequence[Receiver], version: str) -> None:
        """See `FileTransfer.send`.

        vLLM's senders wait for every process of torch's default group, and only one sends here.
        """
        if distributed.team().size > 1:
            raise RolloutError(
                f"weights go by {self.backend!r} from one training process only, and this run has "
                f"{distributed.team().size}: start the servers with --transfer file"
            )
        if self._sender is None or self._source is None:
            self._client, self._source = _All(to), _Source(weights)
            self._sender = self._open(self._source, to)
        self._source.weights = weights
        assert self._client is not None
        self._client.version = version
        self._sender.send_weights()

    def _open(self, source: _Source, to: Sequence[Receiver]) -> Any:
        try:
            from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
            from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
            from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
        except ImportError as error:
            raise RolloutError(
                f"weights go by {self.backend!r} from vLLM's own senders: install vLLM in the "
                "training environment, or start the servers with --transfer file"
            ) from error
        if self.backend == "ipc":
            init: Any = IPCTrainerInitInfo(rank=0)
        else:
            address, port = _meeting_point(to[0].url)
            size = 1 + sum(world_size(receiver) for receiver in to)
            init = NCCLTrainerInitInfo(address, port, size, rank=0)
        return WeightTransferTrainerFactory.trainer_init(init, client=self._client, source=source)


def _meeting_point(url: str) -> tuple[str, int]:
    """An address of this machine that a server can reach, and a free port there."""
    split = urlsplit(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as toward:
        toward.connect((split.hostname or "127.0.0.1", split.port or 80))
        address = str(toward.getsockname()[0])
    with socket.socket() as free:
        free.bind((address, 0))
        return address, int(free.getsockname()[1])
