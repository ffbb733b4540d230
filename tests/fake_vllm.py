"""A stand-in for a vLLM server that takes weights: its routes, over a small model in this process.

It answers as `himac_agents.policies.served` asks, with the tokens that the model would write
locally, and fails as it is told.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import torch
from local_server import LocalServer
from safetensors.torch import load_file

from himac_agents.policies.base import Prompt, Sampling
from himac_agents.policies.hf import HFPolicy


@dataclass
class Faults:
    """What goes wrong.

    Attributes:
        withhold: Weights are taken and not used.
        dies_after: Answers after which connections are cut and nothing answers any more.
        slow: Routes that take so many seconds.
        broken: Routes that answer with this status.
        unconstrained: Choices are not held to.
        cuts: Connections that are cut before an answer, and work at the next attempt.
        shift: What is added to each log-probability.
    """

    withhold: bool = False
    dies_after: int | None = None
    slow: dict[str, float] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    unconstrained: bool = False
    cuts: int = 0
    shift: float = 0.0


class FakeVLLM(LocalServer):
    """A server on this machine, in threads, for as long as the `with` block runs.

    Args:
        folder: Its model.
        faults: What goes wrong.
        dtype: What it says it computes in.
        processors: The logits processors that it says it has.
        loras: Adapters at a time; 0: it takes whole models.
        rank: The greatest rank of one.

    Attributes:
        calls: (method, path) of each request, in order of arrival.
        asked: The bodies of completions.
        version: Of its weights.
        adapters: Loaded adapters, by name.
    """

    def __init__(
        self,
        folder: Path,
        faults: Faults | None = None,
        *,
        dtype: str = "float32",
        processors: tuple[str, ...] = ("x:AllowedAnswers",),
        loras: int = 0,
        rank: int = 8,
    ) -> None:
        self.folder, self.faults = folder, faults or Faults()
        self.dtype, self.processors, self.loras, self.rank = dtype, processors, loras, rank
        self.policy: Any = HFPolicy.load(folder, device="cpu", dtype="float32")
        self.adapters: dict[str, Any] = {}
        self.version: str | None = None
        self.calls: list[tuple[str, str]] = []
        self.asked: list[dict[str, Any]] = []
        self.answered = 0
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake._serve(self, "GET")

            def do_POST(self) -> None:
                fake._serve(self, "POST")

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(Handler)
        self.url = self.address
        #: Set when it has died, or is to.
        self.gone = self.closing

    # -- routes ----------------------------------------------------------------------------------

    def _serve(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        split = urlsplit(handler.path)
        path, query = split.path, parse_qs(split.query)
        body = json.loads(handler.rfile.read(int(handler.headers.get("content-length", 0))) or "{}")
        self.calls.append((method, path))
        faults = self.faults
        if path == "/v1/completions":
            with self._lock:
                most = faults.dies_after
                if most is not None and self.answered >= most:
                    self.gone.set()
                cut, faults.cuts = faults.cuts > 0, max(0, faults.cuts - 1)
            if cut:
                handler.close_connection = True
                return
        if path in faults.slow:
            self.gone.wait(faults.slow[path])
        if self.gone.is_set():
            handler.close_connection = True
            return
        if path in faults.broken:
            _reply(handler, faults.broken[path], {"error": {"message": "the engine has failed"}})
            return
        routes: dict[str, Callable[[dict[str, Any], dict[str, list[str]]], Any]] = {
            "/health": lambda _, __: {},
            "/v1/models": self._models,
            "/server_info": self._info,
            "/weight_info": lambda _, __: {"weight_version": self.version},
            "/update_weights": self._update,
            "/finish_weight_update": self._finish,
            "/v1/load_lora_adapter": self._load,
            "/v1/unload_lora_adapter": self._unload,
            "/v1/completions": self._complete,
            **dict.fromkeys(
                ("/pause", "/resume", "/init_weight_transfer_engine", "/start_weight_update"),
                lambda _, __: {},
            ),
        }
        if path not in routes:
            _reply(handler, 404, {"detail": "Not Found"})
            return
        try:
            _reply(handler, 200, routes[path](body, query))
        except Exception as error:
            _reply(handler, 500, {"error": {"message": repr(error)}})

    def _models(self, body: Any, query: Any) -> Any:
        names = ["fake", *self.adapters]
        return {"data": [{"id": name, "root": str(self.folder)} for name in names]}

    def _info(self, body: Any, query: Any) -> Any:
        lora = {"max_loras": self.loras, "max_lora_rank": self.rank} if self.loras else None
        model = {
            "model": str(self.folder), "dtype": f"torch.{self.dtype}", "max_model_len": 4096,
            "logprobs_mode": "processed_logprobs", "logits_processors": list(self.processors),
        }  # fmt: skip
        transfer = None if self.loras else {"backend": "himac_file"}
        config = {"model_config": model, "lora_config": lora, "weight_transfer_config": transfer}
        return {"vllm_config": config}

    def _update(self, body: Any, query: Any) -> Any:
        weights = load_file(body["update_info"]["path"])
        if not self.faults.withhold:
            with torch.no_grad():
                for name, parameter in self.policy.model.named_parameters():
                    parameter.copy_(weights[name])
        return {}

    def _finish(self, body: Any, query: Any) -> Any:
        self.version = body["weight_version"]
        return {}

    def _load(self, body: Any, query: Any) -> Any:
        assert len(self.adapters) < self.loras, "no room for another adapter"
        name = body["lora_name"]
        self.adapters[name] = HFPolicy.load(body["lora_path"], device="cpu", dtype="float32")
        return {}

    def _unload(self, body: Any, query: Any) -> Any:
        del self.adapters[body["lora_name"]]
        return {}

    def _complete(self, body: dict[str, Any], query: Any) -> Any:
        further = body.get("vllm_xargs", {})
        told = None if self.faults.unconstrained else further.get("himac_choices")
        choices = None if told is None else [tuple(choice) for choice in json.loads(told)]
        prompt = Prompt((), body["prompt"], choices=choices, noise=body["seed"])
        how = Sampling(body["temperature"], body["max_tokens"])
        policy = self.policy if body["model"] == "fake" else self.adapters[body["model"]]
        with self._lock:
            (found,) = policy.generate([prompt], how)
            self.answered += 1
            self.asked.append(body)
        logps = [p + self.faults.shift for p in found.logprobs]
        choice = {"token_ids": found.token_ids, "logprobs": {"token_logprobs": logps}}
        return {"choices": [choice]}


def _reply(handler: BaseHTTPRequestHandler, status: int, body: Any) -> None:
    data = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def wait_for(found: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns as soon as something is so.

    Raises:
        AssertionError: It never is.
    """
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
