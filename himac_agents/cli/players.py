"""How commands are told who plays: a remote model, or who samples for a local one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from himac_agents.config.pairs import Pairs

if TYPE_CHECKING:
    from himac_agents.policies.remote import Endpoint


@dataclass(frozen=True)
class Remote:
    """The remote model that is meant by "api"."""

    model: str = ""
    """The model's name at the endpoint."""
    base_url: str = ""
    """The endpoint's address, up to and with the version (default: OpenAI's)."""
    key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; a local server needs none."""
    timeout: float = 120.0
    """Seconds until a request is given up."""
    retries: int = 6
    """How often a request is repeated, after growing pauses or those the server asks for."""
    concurrency: int = 16
    """Requests under way at the same time."""
    price_in: float = 0.0
    """Dollars for a million tokens read."""
    price_out: float = 0.0
    """Dollars for a million tokens written."""
    max_cost: float | None = None
    """Dollars after which nothing more is asked; episodes that are left count as errors."""
    options: str = ""
    """Further request fields as a JSON object, such as {"top_p": 0.9}; null removes a field."""

    def endpoint(self) -> Endpoint | None:
        """The endpoint; None where no model was named."""
        if not self.model:
            return None
        from himac_agents.policies.remote import DEFAULT_URL, Endpoint, read_options

        url, options = self.base_url or DEFAULT_URL, read_options(self.options)
        return Endpoint(**{**vars(self), "base_url": url, "options": options})


@dataclass(frozen=True)
class Sampler:
    """Who samples for a trained agent or a saved model of Hugging Face, and how it is asked."""

    rollout: Literal["local", "vllm", "server"] = "local"
    """Who writes the answers: the model as it was loaded, vLLM in this process, or servers."""
    servers: tuple[str, ...] = ()
    """Their addresses (himac serve MODEL prints the options); they are sent the weights."""
    sync_bound: float = 0.0
    """How far apart in nats a token the two may be, where another precision is meant."""
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
