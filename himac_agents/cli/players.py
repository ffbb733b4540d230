"""Options that name the player: a remote model, or what samples for a local one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from himac_agents.config.pairs import Pairs
from himac_agents.policies.endpoint import DEFAULT_URL, Endpoint, read_options


@dataclass(frozen=True)
class Remote:
    """The remote model that "api" stands for."""

    model: str = ""
    """The model's name at the endpoint."""
    base_url: str = ""
    """The endpoint's address, such as http://127.0.0.1:8000/v1 (default: OpenAI's)."""
    key_env: str = Endpoint.key_env
    """The environment variable that holds the API key; a local server needs none."""
    timeout: float = Endpoint.timeout
    """Seconds to wait for an answer."""
    retries: int = Endpoint.retries
    """How often a failed request is repeated, after growing pauses or those the server asks for."""
    concurrency: int = Endpoint.concurrency
    """Most requests at the same time."""
    price_in: float = Endpoint.price_in
    """Price of a million input tokens, in dollars."""
    price_out: float = Endpoint.price_out
    """Price of a million output tokens, in dollars."""
    max_cost: float | None = Endpoint.max_cost
    """Limit in dollars: beyond it no request is sent; the remaining episodes count as errors."""
    options: str = ""
    """Further request fields as a JSON object, such as {"top_p": 0.9}; null removes a field."""

    def endpoint(self) -> Endpoint | None:
        """The endpoint; None where no model was named."""
        if not self.model:
            return None
        url, options = self.base_url or DEFAULT_URL, read_options(self.options)
        return Endpoint(**{**vars(self), "base_url": url, "options": options})


@dataclass(frozen=True)
class Sampler:
    """What samples for a trained agent or a saved Hugging Face model."""

    rollout: Literal["local", "vllm", "server"] = "local"
    """What samples the answers: the loaded model itself, vLLM in this process, or vLLM servers."""
    servers: tuple[str, ...] = ()
    """The servers' addresses (himac serve MODEL prints the options); they get the weights."""
    sync_bound: float = 0.0
    """Largest mean difference, in nats per token, between the log-probabilities of server and model
    (default: 0.001 in float32, 0.15 otherwise)."""
    template_options: Pairs = field(default_factory=dict)
    """Arguments for the model's chat template, such as enable_thinking=false (default: as it was
    trained)."""

    def settings(self) -> dict[str, Any]:
        """The settings that say so; those alone that are given."""
        found: dict[str, Any] = {}
        if self.template_options:
            found["template_options"] = dict(self.template_options)
        if self.rollout != "local" or self.servers:
            names = ("rollout", "servers", "sync_bound")
            found |= {name: getattr(self, name) for name in names}
        return found


#: Nothing is said of who plays.
NO_REMOTE, AS_LOADED = Remote(), Sampler()
