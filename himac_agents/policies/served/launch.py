"""Starting a vLLM server that takes weights: its flags, its environment, and when it is ready."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from himac_agents.policies.published import folder_of
from himac_agents.policies.served.plugin import FILE_BACKEND, PROCESSOR
from himac_agents.policies.served.server import RolloutError, Server

#: Seconds until a server that has not failed is given up: a large model is read from a slow disk.
_START = 1800.0


@dataclass(frozen=True)
class Serving:
    """How a model is served."""

    model: tyro.conf.Positional[str]
    """The model's folder or name (one that `himac model where` lists, or one of the Hub)."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = 8000
    """The port to listen on."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Precision, the same as the trained model's (default: bfloat16 on a GPU, else float32)."""
    max_model_len: int | None = None
    """Longest conversation, in tokens (default: the model's own limit)."""
    max_num_seqs: int = 128
    """Most answers written at the same time."""
    lora_rank: int = 0
    """Highest rank of the LoRA adapters to be sent; 0: whole models are sent."""
    loras: int = 2
    """How many adapters at the same time (planner and executor may have one each)."""
    transfer: Literal["file", "nccl", "ipc"] | None = None
    """How weights are sent: "nccl" from GPU to GPU, "ipc" within one GPU, or through a "file"
    (default: nccl on a GPU, else file)."""
    python: str = ""
    """Python interpreter of the environment with vLLM (default: this one)."""
    options: str = ""
    """Further options of vLLM's own server, as one string: --options="--seed 1"."""

    @property
    def url(self) -> str:
        """Where it can be asked from this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def command(self, *, gpu: bool) -> list[str]:
        """The command line."""
        transfer = self.transfer or ("nccl" if gpu else "file")
        backend = FILE_BACKEND if transfer == "file" else transfer
        words = [
            self.python or sys.executable, "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(folder_of(self.model)),
            "--host", self.host,
            "--port", str(self.port),
            "--dtype", self.dtype or ("bfloat16" if gpu else "float32"),
            "--max-num-seqs", str(self.max_num_seqs),
            # Log-probabilities under the distribution that is drawn from, and no sampling but ours.
            "--logprobs-mode", "processed_logprobs",
            "--generation-config", "vllm",
            "--logits-processors", PROCESSOR,
        ]  # fmt: skip
        if self.max_model_len is not None:
            words += ["--max-model-len", str(self.max_model_len)]
        if self.lora_rank:
            words += ["--enable-lora", "--max-lora-rank", str(self.lora_rank)]
            words += ["--max-loras", str(self.loras)]
        else:
            words += ["--weight-transfer-config", json.dumps({"backend": backend})]
        if not gpu:
            words += ["--enforce-eager", "--distributed-executor-backend", "uni"]
            # Of a prompt that is read in parts, vLLM winds the request's random numbers back, which
            # those of a processor do not know: the server would die of many prompts at once.
            words.append("--no-enable-chunked-prefill")
        return [*words, *shlex.split(self.options)]

    def environment(self, *, gpu: bool) -> dict[str, str]:
        """Its environment: the routes that control it are on, and nothing is reported anywhere."""
        needed = {
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            # The logits processor is written for this one; the newer has another interface.
            "VLLM_USE_V2_MODEL_RUNNER": "0",
        }
        if self.transfer == "ipc":
            # What names a GPU's memory to another process is pickled.
            needed["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
        usual = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
        if not gpu:
            usual |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}
        return {**usual, **os.environ, **needed}

    def pass_on(self) -> str:
        """The options that make a training sample from it."""
        return f"--rollout server --servers {self.url}"


def check_port(host: str, port: int) -> None:
    """Finds out beforehand whether a port is free: a server says so only once its model is read.

    Raises:
        RolloutError: It is taken, or not ours to listen on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "is taken: --port names another" if taken else f"cannot be used: {error}"
            raise RolloutError(f"{host}:{port} {why}") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_python(python: str) -> None:
    """Makes sure that an interpreter finds vLLM, and this package, which vLLM imports.

    Raises:
        RolloutError: It does not.
    """
    look = (
        "import importlib.util as u, sys; "
        "sys.exit(sum(k for k, n in ((1, 'vllm'), (2, 'himac_agents')) if u.find_spec(n) is None))"
    )
    try:
        missing = subprocess.run([python, "-c", look], check=False, timeout=60).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RolloutError(f"--python {python}: {error}") from error
    if missing:
        lacks = {1: "vLLM", 2: "this package", 3: "vLLM and this package"}.get(missing, "Python")
        raise RolloutError(
            f"{python} has no {lacks}: install both into one environment (pip install vllm himac) "
            "and name its interpreter with --python"
        )


def serve(how: Serving, say: Callable[[str], None]) -> int:
    """Runs a server until it ends or is interrupted.

    Args:
        how: What and where.
        say: Told the options to pass, once it answers.

    Returns:
        The server's exit status; 0 where it was interrupted.

    Raises:
        RolloutError: The port is taken, vLLM is missing, or the server ends before it answers.
    """
    check_port(how.host, how.port)
    check_python(how.python or sys.executable)
    gpu = _has_gpu()
    if not is_loopback(how.host):
        say(
            f"Anyone who can reach {how.host} can replace this model's weights, and make the "
            "server read files: there is no password."
        )
    process = subprocess.Popen(
        how.command(gpu=gpu), env=how.environment(gpu=gpu), start_new_session=True
    )
    # Whoever ends this process ends the server: it would keep port and memory.
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        _wait_until_ready(how, process)
        say(f"{how.model} is served at {how.url} (stop with Ctrl-C). To sample from it:")
        say(f"  himac train ... {how.pass_on()}")
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)
        _end(process)


def _wait_until_ready(how: Serving, process: subprocess.Popen[bytes]) -> None:
    """Returns once the server has answered a question: the first takes longer than all others."""
    server = Server(how.url, control_timeout=5.0)
    begun = time.monotonic()
    while time.monotonic() - begun < _START:
        if (status := process.poll()) is not None:
            raise RolloutError(f"the server has ended ({status}): its output above tells why")
        try:
            name = server.call("GET", "/v1/models")["data"][0]["id"]
        except RolloutError:
            time.sleep(0.5)
            continue
        server.complete([{"model": name, "prompt": [0], "max_tokens": 1}])
        return
    raise RolloutError(f"{how.url} has not answered within {_START:g} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and the processes that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(20)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _has_gpu() -> bool:
    """Whether torch finds a GPU; without torch here, whether there is a driver."""
    try:
        import torch
    except ImportError:
        return Path("/dev/nvidiactl").exists()
    return bool(torch.cuda.is_available())
