"""AdamW whose step shrinks with the evidence behind it.

Adam divides by the size of past gradients, so that a loss scaled down moves weights as far as
before. Where a step is to rest on a share s of what a full one rests on, all of it is a share of a
step: the rate is s times the rate, both moments decay by beta ** s and take in 1 - beta ** s of the
gradient, and the count of steps, which the correction of their bias reads, grows by s. Small steps
then neither move the weights far themselves nor leave a full gradient in the momentum of those that
follow; nothing is carried over, so that a resumed run goes on as an uninterrupted one. A step of
share 1 is AdamW's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

BETAS = (0.9, 0.95)
#: What AdamW keeps of past gradients, by its names.
MOMENTS = ("exp_avg", "exp_avg_sq")


def make(
    policy: Sequence[torch.nn.Parameter], critic: Iterable[torch.nn.Parameter], lr: float
) -> torch.optim.AdamW:
    """The optimiser of a policy and, as a second group, of its critic where there is one."""
    groups = [part for part in (list(policy), list(critic)) if part]
    return torch.optim.AdamW(
        [{"params": part} for part in groups], lr=lr, betas=BETAS, weight_decay=0.0
    )


def step(optimizer: torch.optim.AdamW, shares: Sequence[float]) -> None:
    """One step on the gradients that are there; they are gone afterwards.

    Args:
        optimizer: From `make`.
        shares: For each group of parameters its share of a full step, in [0, 1]; at 0 nothing of
            the group moves, its momentum included.
    """
    counts: list[tuple[torch.Tensor, float]] = []
    rates = [group["lr"] for group in optimizer.param_groups]
    for group, share in zip(optimizer.param_groups, shares, strict=True):
        if share == 1.0:
            continue
        if share == 0.0:
            for parameter in group["params"]:
                parameter.grad = None
            continue
        group["lr"] *= share
        group["betas"] = tuple(beta**share for beta in BETAS)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = optimizer.state[parameter]
            if not state:
                _begin(state, parameter)
            count = state["step"]
            counts.append((count, float(count) + share))
            # AdamW adds 1 and raises the group's betas to this: beta ** (count + share) in all.
            count.div_(share)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for tensor, value in counts:
        tensor.fill_(value)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"], group["betas"] = rate, BETAS


def _begin(state: dict[str, torch.Tensor], parameter: torch.Tensor) -> None:
    """What AdamW itself begins with at a parameter's first step."""
    state["step"] = torch.tensor(0.0, dtype=torch.float32)
    for name in MOMENTS:
        state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)


def moments(optimizer: torch.optim.AdamW) -> list[torch.Tensor]:
    """The moments that are kept."""
    return [s[name] for s in optimizer.state.values() for name in MOMENTS if name in s]
