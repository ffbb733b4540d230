"""The hook for a critic: a module that learns beside a policy, from the policy's hidden states.

Of this project's methods `hiper` has one. A method that needs one names a factory
(`Method.critic`), which is called with the policy and returns a `torch.nn.Module` with

- ``forward(states) -> values``: [n, width] hidden states to [n] numbers, and
- ``loss(states, tokens) -> scalar``: the second loss, a sum over the tokens that is weighted by
  `Tokens.weight` (or `Tokens.turn_weight`), so that a mini-batch may be cut into pieces.

A *state* is the last hidden state from which a token of a turn was predicted: that of a turn's
first token is what the policy knew when it began to write. Gradients flow on into the policy
unless the critic detaches them. The module's parameters are in the policy's optimiser, at the rate
`critic_lr` where that is set, else `critic.lr` where it has that attribute; checkpoints hold them.
What the critic is to learn is `turn.target`, which the method's credit function writes beside
`turn.advantage`; what it says of turns is asked with `Learner.values`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from himac_agents.policies.base import Learnable, TokenBatch

#: Names of the further arrays of a batch that critics need.
FIRST, WRITTEN, TARGET = "first", "written", "target"


class ShowsStates(Learnable, Protocol):
    """What a policy must do for a critic: every `CausalPolicy` does."""

    def logprobs_and_states(
        self, batch: TokenBatch, where: NDArray[np.bool_]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `CausalPolicy.logprobs_and_states`."""
        ...

    def states(self, batch: TokenBatch, where: NDArray[np.bool_]) -> Tensor:
        """See `CausalPolicy.states`."""
        ...


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a critic's loss is told of the tokens whose states it is given; every field is [n].

    Attributes:
        target: The turn's target.
        advantage: The turn's advantage.
        first: Whether it is its turn's first token.
        weight: Adds up to 1 over all tokens of the mini-batch.
        turn_weight: Adds up to 1 over the first tokens of the mini-batch; 0 on others.
    """

    target: Tensor
    advantage: Tensor
    first: Tensor
    weight: Tensor
    turn_weight: Tensor


def written(batch: TokenBatch) -> NDArray[np.bool_]:
    """Which tokens belong to turns, those that nobody decided included."""
    return np.asarray(batch.extra[WRITTEN] > 0)


def tokens_of(batch: TokenBatch, whole: TokenBatch, device: Any) -> Tokens:
    """What there is to say of the tokens of a batch, which is a piece of a whole mini-batch."""
    where = written(batch)

    def picked(values: NDArray[np.float32]) -> Tensor:
        return torch.as_tensor(values[where], device=device)

    first = batch.extra[FIRST]
    return Tokens(
        picked(batch.extra[TARGET]),
        picked(batch.extra["credit"]),
        picked(first) > 0,
        torch.full((int(where.sum()),), 1.0 / float(whole.extra[WRITTEN].sum()), device=device),
        picked(first / max(1.0, float(whole.extra[FIRST].sum()))),
    )


def make(factory: Any, policy: Any, seed: int) -> torch.nn.Module:
    """A critic, on the policy's device; its first weights follow from the run's seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        critic = factory(policy)
    if not isinstance(critic, torch.nn.Module) or not hasattr(critic, "loss"):
        raise TypeError(
            f"a method's critic is a torch.nn.Module with a method loss(states, tokens), not "
            f"{type(critic).__name__}"
        )
    return critic.to(policy.device)


class ValueHead(torch.nn.Module):
    """One linear layer on what the policy knows before it writes; it says 0 until it has learned.

    Its loss is the squared error over turns; the policy is not moved by it.

    Args:
        policy: Whose hidden states it reads.
    """

    #: HiPER's (arXiv 2602.16165).
    lr = 1e-5

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(policy.width, 1)
        torch.nn.init.zeros_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)

    def forward(self, states: Tensor) -> Tensor:
        """[n, width] states to [n] values."""
        values: Tensor = self.linear(states.to(self.linear.weight.dtype))[:, 0]
        return values

    def loss(self, states: Tensor, tokens: Tokens) -> Tensor:
        """See the module's text."""
        error = (self(states.detach()) - tokens.target) ** 2
        whole: Tensor = (error * tokens.turn_weight).sum()
        return whole
