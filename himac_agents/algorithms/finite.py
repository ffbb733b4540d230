"""Numbers that are none: found before a step is made, and said where they came from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from himac_agents.distributed import is_sharded, local, team
from himac_envs.errors import HiMACError


class NonFiniteError(HiMACError):
    """A step was refused because a number in it is infinite or no number; nothing has moved.

    Attributes:
        phase: What was being learned: "warm start", "planner", "executor", "flat", "joint".
        policy: The policy's name in the run.
        quantity: What is not finite.
    """

    def __init__(self, phase: str, policy: str, quantity: str) -> None:
        self.phase, self.policy, self.quantity = phase, policy, quantity
        super().__init__(
            f"{phase}, policy {policy!r}: {quantity}. The step was refused: weights and optimiser "
            "are those before it"
        )


def norm(tensors: Iterable[Tensor]) -> float:
    """The Euclidean norm of all numbers together; not finite where one of them is not.

    Of tensors that lie in parts on all processes, all parts count; all processes call it.
    """
    told = [t.detach() for t in tensors]
    kept = float(torch.nn.utils.get_total_norm([t for t in told if not is_sharded(t)]))
    parts = [local(t) for t in told if is_sharded(t)]
    if not parts:
        return kept
    own = float(torch.nn.utils.get_total_norm(parts))
    return math.hypot(kept, math.sqrt(team().add({"square": own * own})["square"]))


def clip(parameters: Sequence[torch.nn.Parameter], most: float, norm: float) -> None:
    """Scales gradients down so that their norm is `most` at most.

    Args:
        parameters: Whose gradients.
        most: The limit; infinite: none.
        norm: Their norm before, that of all processes' parts together.
    """
    sharded = [p for p in parameters if is_sharded(p)]
    if len(sharded) < len(parameters):
        kept = [p for p in parameters if not is_sharded(p)]
        torch.nn.utils.clip_grads_with_norm_(kept, most, torch.tensor(norm))
    # As torch does it, which takes no tensor of one process beside those of all.
    share = min(1.0, most / (norm + 1e-6))
    for parameter in sharded if share < 1.0 else ():
        if parameter.grad is not None:
            local(parameter.grad).mul_(share)


def broken(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor with a number that is not finite."""
    pairs = tensors.items() if isinstance(tensors, Mapping) else tensors
    return next((name for name, t in pairs if not bool(torch.isfinite(t).all())), None)


def named(model: Any, parameters: Sequence[torch.nn.Parameter]) -> list[str]:
    """The names of a model's parameters; their numbers where it tells none."""
    known: dict[int, str] = {}
    if hasattr(model, "named_parameters"):
        known = {id(p): name for name, p in model.named_parameters()}
    return [known.get(id(p), f"parameter {k}") for k, p in enumerate(parameters)]
