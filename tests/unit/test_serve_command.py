"""`himac serve`: flags, refusals, and a server that ends with the command that started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from himac_agents.cli import main
from himac_agents.policies.served.launch import Serving, check_port, check_python, is_loopback
from himac_agents.policies.served.server import RolloutError

ROOT = Path(__file__).resolve().parents[2]
#: Stands where an interpreter with vLLM would: it serves what is looked for at the start.
STAND_IN = """#!{python}
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
if sys.argv[1] == "-c":
    sys.exit(0)
if "broken" in sys.argv[sys.argv.index("--model") + 1]:
    sys.exit(3)
assert os.environ["VLLM_SERVER_DEV_MODE"] == "1"
class Handler(BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = {{"data": [{{"id": "m"}}], "choices": [{{"token_ids": [1]}}]}}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    do_GET = do_POST = answer
print("pid", os.getpid(), flush=True)
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def test_flags_by_the_machine() -> None:
    how = Serving("some/model", max_model_len=512, options='--seed 3 --tokenizer "a b"')
    words = how.command(gpu=False)
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--dtype") + 1] == "float32"
    assert words[words.index("--weight-transfer-config") + 1] == '{"backend": "himac_file"}'
    assert words[words.index("--logprobs-mode") + 1] == "processed_logprobs"
    assert words[words.index("--max-model-len") + 1] == "512"
    assert "--enforce-eager" in words and words[-4:] == ["--seed", "3", "--tokenizer", "a b"]
    on_gpu = how.command(gpu=True)
    assert on_gpu[on_gpu.index("--dtype") + 1] == "bfloat16"
    assert on_gpu[on_gpu.index("--weight-transfer-config") + 1] == '{"backend": "nccl"}'
    assert "--enforce-eager" not in on_gpu
    chunked = "--no-enable-chunked-prefill"
    assert chunked in words and chunked not in on_gpu
    adapters = Serving("some/model", lora_rank=16).command(gpu=False)
    assert adapters[adapters.index("--max-lora-rank") + 1] == "16"
    assert "--weight-transfer-config" not in adapters, "adapters come by their own routes"


def test_the_control_routes_are_on_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "0")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    told = Serving("m").environment(gpu=False)
    assert told["VLLM_SERVER_DEV_MODE"] == "1" and told["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert told["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert "VLLM_ALLOW_INSECURE_SERIALIZATION" not in told
    ipc = Serving("m", transfer="ipc").environment(gpu=True)
    assert ipc["VLLM_ALLOW_INSECURE_SERIALIZATION"] == "1"


@pytest.mark.parametrize(
    ("host", "own"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own


def test_the_options_name_an_address_that_can_be_asked() -> None:
    assert Serving("m", host="0.0.0.0", port=9).pass_on().endswith("http://127.0.0.1:9")
    assert Serving("m", host="::1", port=9).url == "http://[::1]:9"


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(RolloutError, match="is taken: --port names another"):
            check_port("127.0.0.1", port)
        assert main(["serve", "some/model", "--port", str(port)]) == 1
        assert "is taken" in capsys.readouterr().err
    check_port("127.0.0.1", port)


def test_an_interpreter_without_vllm(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    with pytest.raises(RolloutError, match=r"has no vLLM: .*--python"):
        check_python(str(bare))
    with pytest.raises(RolloutError, match="--python"):
        check_python(str(tmp_path / "none"))


def _serve(tmp_path: Path, model: str) -> tuple[subprocess.Popen[str], int]:
    python = tmp_path / "python"
    python.write_text(STAND_IN.format(python=sys.executable))
    python.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", model, "--port", str(port), "--python", str(python)]
    process = subprocess.Popen(
        [sys.executable, "-m", "himac_agents", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # Where the tests run in the background, Ctrl-C is ignored by all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    return process, port


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_what_to_pass_and_takes_the_server_with_it(tmp_path: Path, number: int) -> None:
    process, port = _serve(tmp_path, "some/model")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    child = int(next(line for line in lines if line.startswith("pid")).split()[1])
    assert f"--rollout server --servers http://127.0.0.1:{port}" in "".join(lines)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (0 if number == signal.SIGINT else 143)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_server_that_ends_at_once(tmp_path: Path) -> None:
    process, _ = _serve(tmp_path, "broken")
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and "the server has ended (3)" in errors
