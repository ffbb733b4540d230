"""Where a stack is absent, its adapter says how to install it; and none loads what it need not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: Adapters that import their stack, the package that is taken away, and what installs it.
STACKS = {
    "inspect_ai": ("inspect_ai", "pip install himac inspect-ai"),
    "nemo_gym": ("nemo_gym", "pip install himac nemo-gym"),
    "openenv": ("openenv", "pip install himac openenv"),
    "serving": ("uvicorn", "pip install himac openenv"),
    "verifiers": ("verifiers", "pip install himac verifiers"),
}
#: Adapters that need no package of their stack, in whichever they play.
FREE = ("agentgym", "balrog", "rllm", "sessions")

_WITHOUT = """
import importlib, sys
sys.modules[sys.argv[1]] = None
from himac_envs.adapters.errors import MissingStackError
try:
    importlib.import_module(f"{sys.argv[3]}.adapters.{sys.argv[2]}")
except MissingStackError as error:
    print(error)
"""
_LOADED = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(f"himac_envs.adapters.{name}")
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("adapter", sorted(STACKS))
def test_a_missing_stack_is_named_with_its_install_command(adapter: str) -> None:
    package, install = STACKS[adapter]
    assert install in run(_WITHOUT, package, adapter, "himac_envs")


@pytest.mark.parametrize("module", ["verl", "verl_trainer"])
def test_himac_on_verl_names_its_install_command(module: str) -> None:
    said = run(_WITHOUT, "verl", module, "himac_agents")
    assert said.startswith("himac_agents.adapters.verl needs") and "pip install 'himac" in said


def test_free_adapters_load_no_stack() -> None:
    loaded = set(json.loads(run(_LOADED, *FREE)))
    stacks = {package for package, _ in STACKS.values()} | {"fastapi", "httpx", "pydantic"}
    assert not loaded & (stacks | {"torch", "himac_agents"})


def test_the_command_says_what_serving_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from himac_agents.cli import main

    for name in [name for name in sys.modules if name.startswith("himac_envs.adapters.")]:
        if name.rpartition(".")[2] in ("openenv", "serving"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openenv", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve-env", "sokoban", "--port", "0"]) == 1
    assert "Install it: pip install himac openenv" in capsys.readouterr().err
