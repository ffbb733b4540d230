"""One vLLM server by its address: what it is asked, and what can go wrong on the way.

A server that is slow is told from one that is gone: as long as nothing comes, its health is asked
for every ten seconds, and only where that is not answered either the run ends. An answer that was
cut off on the way by a server that lives is asked for again: the same seed gives the same answer.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from himac_envs.errors import HiMACError, MissingDependencyError

#: Seconds of silence after which a server's health is asked for, and that its answer may take.
_PATIENCE, _PROBE = 10.0, 8.0
#: How often a request is made that is cut off by a server that lives.
_TRIES = 3


class RolloutError(HiMACError):
    """Nobody samples: a server cannot be reached, is another one than it should be, or failed."""


@dataclass(frozen=True)
class Held:
    """What a server says it holds.

    Attributes:
        name: What its model is called in requests.
        folder: Where its model came from.
        dtype: What it computes in ("float32").
        context: The longest conversation that it reads, in tokens.
        backend: How it takes weights ("himac_file", "nccl", "ipc"); None: not at all.
        adapters: How many adapters it holds at a time, and the greatest rank of one; None: none.
        constrains: Whether answers can be constrained to choices.
        logprobs: Which log-probabilities it gives ("processed_logprobs").
    """

    name: str
    folder: str
    dtype: str
    context: int
    backend: str | None = None
    adapters: tuple[int, int] | None = None
    constrains: bool = False
    logprobs: str = ""


class Server:
    """A server.

    Args:
        url: Its address ("http://127.0.0.1:8000"); a version behind it is taken off.
        control_timeout: Seconds that a step of a sync may take.
        answer_timeout: Seconds until an answer of a server that lives is given up.

    Attributes:
        busy: Requests under way.

    Raises:
        ValueError: It is no address.
    """

    def __init__(
        self, url: str, *, control_timeout: float = 30.0, answer_timeout: float = 600.0
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"servers: {url!r} is not an address, which begins with http(s)://")
        try:
            import httpx
        except ImportError as error:
            raise MissingDependencyError("httpx", "rollouts from a server", "api") from error
        self._httpx = httpx
        self.url = url.rstrip("/").removesuffix("/v1")
        self.busy = 0
        self._answer_timeout = answer_timeout
        self._control_timeout = control_timeout
        self._control = httpx.Client(base_url=self.url, timeout=control_timeout, trust_env=False)
        self._asking: Any = None
        self._finalizers = [weakref.finalize(self, self._control.close)]
        self._heard = 0.0
        self._probing: asyncio.Lock | None = None

    # -- answers ---------------------------------------------------------------------------------

    async def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The first choice of a completion.

        Raises:
            RolloutError: The server is gone, or refuses.
        """
        if self._asking is None:
            limits = self._httpx.Limits(max_connections=None, max_keepalive_connections=256)
            timeout = self._httpx.Timeout(None, connect=_PROBE)
            self._asking = self._httpx.AsyncClient(
                base_url=self.url, timeout=timeout, limits=limits, trust_env=False
            )
            self._probing = asyncio.Lock()
            close = partial(_close_in, asyncio.get_running_loop(), self._asking)
            self._finalizers.append(weakref.finalize(self, close))
        self.busy += 1
        try:
            for left in reversed(range(_TRIES)):
                try:
                    response = await self._patiently(body)
                    break
                except self._httpx.TransportError as error:
                    self._heard = 0.0
                    await self._insist_alive()
                    if not left:
                        raise RolloutError(
                            f"{self.url} cut off an answer {_TRIES} times: {error!r}"
                        ) from error
        finally:
            self.busy -= 1
        self._heard = time.monotonic()
        return _first(self._content(response, "/v1/completions"), self.url)

    async def _patiently(self, body: Mapping[str, Any]) -> Any:
        begun = time.monotonic()
        task = asyncio.ensure_future(self._asking.post("/v1/completions", json=dict(body)))
        try:
            while not (await asyncio.wait({task}, timeout=_PATIENCE))[0]:
                await self._insist_alive()
                if time.monotonic() - begun > self._answer_timeout:
                    raise RolloutError(
                        f"{self.url} is alive, but gave no answer within {self._answer_timeout:g} "
                        "s: use fewer lanes, or raise answer_timeout"
                    )
            return task.result()
        finally:
            task.cancel()

    async def _insist_alive(self) -> None:
        """Makes sure that the server was heard of lately; of many that wait, one asks.

        Raises:
            RolloutError: It does not answer, or says that it is broken.
        """
        assert self._probing is not None
        async with self._probing:
            if time.monotonic() - self._heard < _PATIENCE:
                return
            try:
                response = await self._asking.get("/health", timeout=_PROBE)
            except self._httpx.TransportError as error:
                raise self._gone(error) from error
            if response.status_code >= 500:
                raise RolloutError(
                    f"{self.url} says that its engine has failed ({response.status_code}): its own "
                    "output tells why; start it again with `himac serve`"
                )
            self._heard = time.monotonic()

    def _gone(self, error: Exception) -> RolloutError:
        return RolloutError(
            f"{self.url} does not answer ({type(error).__name__}): is the server running? "
            "`himac serve MODEL` starts one"
        )

    # -- control ---------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """A control route's answer, as JSON where it is such.

        Args:
            method: Of HTTP.
            path: The route.
            json: What is sent.
            params: What stands behind the question mark.
            timeout: Seconds that it may take, where that is another limit than a sync's.

        Raises:
            RolloutError: It cannot be reached, is not there, takes too long or fails.
        """
        limit = self._control_timeout if timeout is None else timeout
        try:
            response = self._control.request(
                method, path, json=json, params=dict(params or {}), timeout=limit
            )
        except self._httpx.ConnectTimeout as error:
            raise self._gone(error) from error
        except self._httpx.TimeoutException as error:
            raise RolloutError(
                f"{self.url}{path} did not finish within {limit:g} s: see the server's output; for "
                "a large model, raise sync_timeout"
            ) from error
        except (self._httpx.TransportError, self._httpx.InvalidURL) as error:
            raise self._gone(error) from error
        return self._content(response, path)

    def _content(self, response: Any, path: str) -> Any:
        status = response.status_code
        try:
            content = response.json()
        except ValueError:
            content = {}
        if status == 200:
            return content
        if status == 404 and not path.startswith("/v1/"):
            raise RolloutError(
                f"{self.url} has no {path}: either it is no vLLM server, or its control routes are "
                "off: `himac serve MODEL` starts one that takes weights"
            )
        error = content.get("error", content) if isinstance(content, dict) else content
        said = error.get("message", error) if isinstance(error, dict) else error
        said = str(said or response.text)
        raise RolloutError(f"{self.url}{path} answers {status}: {' '.join(said.split())[:300]}")

    def held(self) -> Held:
        """What the server holds.

        Raises:
            RolloutError: It does not tell.
        """
        models = self.call("GET", "/v1/models")
        told = self.call("GET", "/server_info", params={"config_format": "json"})
        try:
            first = models["data"][0]
            config = told["vllm_config"]
            model = config["model_config"]
            lora, transfer = config.get("lora_config"), config.get("weight_transfer_config")
            processors = model.get("logits_processors") or ()
            return Held(
                name=str(first["id"]),
                folder=str(model["model"]),
                dtype=str(model["dtype"]).removeprefix("torch."),
                context=int(model["max_model_len"]),
                backend=None if not transfer else str(transfer["backend"]),
                adapters=None if not lora else (int(lora["max_loras"]), int(lora["max_lora_rank"])),
                constrains=any("AllowedAnswers" in str(p) for p in processors),
                logprobs=str(model.get("logprobs_mode", "")),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise RolloutError(
                f"{self.url} does not report its model ({error!r}): HiMAC needs /server_info as in "
                "vLLM 0.32"
            ) from error

    def complete(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The first choices of a few completions, asked for one after the other.

        Raises:
            RolloutError: One fails.
        """
        path, limit = "/v1/completions", self._answer_timeout
        found = [self.call("POST", path, dict(body), timeout=limit) for body in bodies]
        return [_first(content, self.url) for content in found]

    def close(self) -> None:
        """Closes the connections, as forgetting the server does."""
        for finalizer in self._finalizers:
            finalizer()


def _close_in(loop: asyncio.AbstractEventLoop, client: Any) -> None:
    """Closes connections that only their own loop may close; with it, they are gone already."""
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(client.aclose(), loop)


def _first(content: Any, url: str) -> dict[str, Any]:
    choices = content.get("choices") if isinstance(content, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise RolloutError(f"{url}: the answer holds no choices: {str(content)[:200]}")
    return dict(choices[0])
