"""What a sync needs of models that may be sharded over the processes.

Only the leading process speaks with servers. What it asks here of a sharded model it asks all the
others for, too, who wait in `bring` and do the same until it is `done`. Of a model that lies whole
in each process nobody is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from himac_agents.distributed import team
from himac_agents.policies.base import TokenBatch
from himac_agents.policies.chat import ChatPolicy
from himac_agents.policies.served.weights import Weights
from himac_envs.errors import HiMACError


class Parts:
    """The policies of a run, asked by one process and answered by all.

    Args:
        policies: By name. Those that are sharded are gathered to play no longer: others play.
    """

    def __init__(self, policies: Mapping[str, ChatPolicy]) -> None:
        self._policies = policies
        self._sharded = any(policy.shards is not None for policy in policies.values())
        for policy in policies.values():
            if policy.shards is not None:
                policy.shards.plays = False

    # -- the leading process ---------------------------------------------------------------------

    @contextmanager
    def weights(self, name: str, dtype: str) -> Iterator[Weights]:
        """A policy's weights, which nobody has to run through to the end."""
        self._ask("weights", name, dtype)
        found = self._weights(name, dtype)
        try:
            yield found
        finally:
            if self._sharded:
                found.finish()

    def logprobs(self, name: str, batch: TokenBatch) -> NDArray[np.float32]:
        """Log-probabilities of a batch under a policy, [batch, time]."""
        self._ask("logprobs", name, batch)
        return self._logprobs(name, batch)

    def save(self, name: str, folder: Path) -> None:
        """Writes a policy into a folder."""
        self._ask("save", name, folder)
        self._policies[name].save_pretrained(folder)

    def done(self) -> None:
        """Lets the others go on."""
        self._ask("done", "", None)

    def _ask(self, what: str, name: str, value: Any) -> None:
        if self._sharded:
            team().agree((what, name, value))

    # -- the others ------------------------------------------------------------------------------

    def bring(self) -> None:
        """Does what the leading process asks for, until it is done."""
        nothing: tuple[str, str, Any] = ("", "", None)
        while self._sharded:
            what, name, value = team().agree(nothing)
            if what == "done":
                return
            if what == "weights":
                self._weights(name, value).finish()
            elif what == "logprobs":
                self._logprobs(name, value)
            else:
                # What went wrong in writing is told by the process that wrote.
                with suppress(HiMACError):
                    self._policies[name].save_pretrained(value)

    # -- all -------------------------------------------------------------------------------------

    def _weights(self, name: str, dtype: str) -> Weights:
        policy = self._policies[name]
        if policy.shards is not None:
            policy.shards.scatter()
        return Weights(policy.model, getattr(torch, dtype))

    def _logprobs(self, name: str, batch: TokenBatch) -> NDArray[np.float32]:
        with torch.no_grad():
            logp = self._policies[name].logprobs_and_entropy(batch)[0]
        found: NDArray[np.float32] = logp.float().cpu().numpy()
        return found
