"""Models that lie in parts on all processes: weights, gradients and moments (torch's FSDP2).

A model of P parameters that learns as a whole takes 16 bytes a parameter in every process: weights,
gradients and AdamW's two moments, in float32. Sharded over n processes it takes the n-th part, and
beside it what is gathered for a moment: a layer's weights, in the precision that is computed in.

Every pass of a sharded model is a message between all processes: all of them make equally many (see
`himac_agents.algorithms.passes`). Only playing is free of that: `Shards.gather` brings the whole
weights, in the precision that is computed in, into every process, which then answers by itself
until the model learns again. `Shards.scatter` lets go of what was gathered, and sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from himac_agents import distributed


class Shards:
    """A model that is sharded over the processes of the team; see the module's text.

    Attributes:
        model: The model.
        device: Where this process computes.
        whole: Whether every process holds all of the weights now.
        plays: Whether it is to, for playing: not where servers play with the model.

    Args:
        model: A transformers model; its weights may lie in the host's memory, whatever computes.
        dtype: What is computed in; None: what the weights are in.
    """

    def __init__(self, model: Any, dtype: torch.dtype | None = None) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        kind = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, self.whole, self.plays = model, False, True
        self.device = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else (
            torch.device(kind)
        )  # fmt: skip
        how: dict[str, Any] = {
            "mesh": init_device_mesh(kind, (distributed.team().size,)),
            "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
            if dtype is not None
            else MixedPrecisionPolicy(),
            "reshard_after_forward": True,
        }
        for layer in layers_of(model):
            fully_shard(layer, **how)
        fully_shard(model, **how)
        self._parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for part in self._parts:
            # Token weights are those of the whole mini-batch: gradients are added, not averaged.
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)

    def gather(self) -> None:
        """Brings all weights into every process; all of them call it."""
        if self.whole:
            return
        for part in self._parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        self.whole = True

    def scatter(self) -> None:
        """Lets go of what was gathered; nothing is sent."""
        if not self.whole:
            return
        for part in self._parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()
        self.whole = False

    def state(self) -> dict[str, Tensor]:
        """The whole model's state, see `gathered`; all processes call it."""
        self.scatter()
        named: dict[str, Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
        buffers = {n: self.model.get_buffer(n) for n in self.model.state_dict() if n not in named}
        return gathered({**named, **buffers})


@contextmanager
def resting(decoder: torch.nn.Module, said: Any) -> Iterator[None]:
    """Lets a model's layers say again what they said, so that a pass is its output layer alone."""
    own = decoder.__dict__.get("forward")
    decoder.forward = lambda *_, **__: said
    try:
        yield
    finally:
        del decoder.forward
        if own is not None:
            decoder.forward = own


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with all their parts, in the leading process's host memory; elsewhere {}.

    They are gathered one by one; all processes call it. Tied weights are one tensor, and stay one.
    """
    leads = distributed.team().leads
    held: dict[int, Tensor] = {}
    for tensor in tensors.values():
        if id(tensor) not in held:
            own = whole(tensor)
            held[id(tensor)] = own.cpu().clone() if leads else torch.empty(0)
    return {name: held[id(tensor)] for name, tensor in tensors.items()} if leads else {}


def layers_of(model: Any) -> list[torch.nn.Module]:
    """What is gathered at a time: the layers, in each list of modules that is not within another.

    Adapters make lists of modules, too, within the layers.
    """
    found: list[torch.nn.Module] = []

    def visit(module: torch.nn.Module) -> None:
        for child in module.children():
            if isinstance(child, torch.nn.ModuleList):
                found.extend(child)
            else:
                visit(child)

    visit(model)
    return found


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its parts; where it is sharded, all processes call it."""
    gather = getattr(tensor, "full_tensor", None)
    found: Tensor = tensor.detach() if gather is None else gather().detach()
    return found


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, sharded as another of the same shape is; as it is where that is whole."""
    if not distributed.is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    found: Tensor = distribute_tensor(tensor.to(like.device), mesh, placements)
    return found
