"""Where a remote model is, how it is asked, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from himac_agents.config.setting import check_limits

#: Where a model is without a `base_url`.
DEFAULT_URL = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Endpoint:
    """Where a remote model is and how it is asked.

    Attributes:
        model: The model's name there.
        base_url: The address, up to and with the version ("http://127.0.0.1:8000/v1").
        key_env: The environment variable that holds the key; local servers need none.
        timeout: Seconds until a request is given up.
        retries: How often a request is repeated.
        backoff: Seconds before the first repetition; doubled at each, with up to half taken off at
            random so that many clients do not come back together.
        max_wait: The longest pause in seconds. A server that asks for a longer one has failed.
        concurrency: Requests under way at the same time.
        price_in: Dollars for a million tokens read.
        price_out: Dollars for a million tokens written.
        max_cost: Dollars after which nothing more is asked; None: no limit. What is under way
            then is still paid.
        options: Further fields of every request ("top_p", "reasoning_effort", ...); None removes a
            field that is sent otherwise ("seed", "temperature", "max_tokens").
    """

    model: str
    base_url: str = DEFAULT_URL
    key_env: str = "OPENAI_API_KEY"
    timeout: float = 120.0
    retries: int = 6
    backoff: float = 1.0
    max_wait: float = 120.0
    concurrency: int = 16
    price_in: float = 0.0
    price_out: float = 0.0
    max_cost: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("a remote policy needs the model's name (--model)")
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url={self.base_url!r}: an address begins with http(s)://")
        check_limits("retries", self.retries, least=0)
        check_limits("concurrency", self.concurrency, least=1)
        check_limits("timeout", self.timeout, above=0)
        for name in ("price_in", "price_out", "max_cost"):
            if (value := getattr(self, name)) is not None:
                check_limits(name, value, least=0)
        if self.max_cost is not None and self.price_in + self.price_out <= 0:
            raise ValueError("max_cost needs prices: give price_in and price_out")

    @property
    def url(self) -> str:
        """The address of chat completions."""
        base = self.base_url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"


def read_options(text: str) -> dict[str, Any]:
    """Further request fields from a JSON object in text ("" for none).

    Raises:
        ValueError: It is not a JSON object.
    """
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"options {text!r} are not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f'options {text!r}: a JSON object is needed, such as {{"top_p": 0.9}}')
    return found
