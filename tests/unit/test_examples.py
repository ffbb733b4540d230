"""Every script in examples/ runs, and says what it should."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ARGUMENTS = {"random_agent.py": ["20"], "train_himac.py": ["--quick"]}
SAYS = {
    "random_agent.py": "HiMAC-ALFWorld-v0",
    "own_agent.py": "score",
    "own_env.py": "reward 1.0",
    "own_method.py": "of the held-out tasks",
    "planner_only.py": "the expert's",
    "pettingzoo_agents.py": "won: True",
    "batch.py": "[0 0 0 0 1 1 1 1]",
    "train_himac.py": "HiMAC",
    "hf_himac.py": "tokens written",
    "api_agent.py": "pretended-model: success 0.00",
}


def test_every_example_is_known() -> None:
    assert {p.name for p in EXAMPLES.glob("*.py")} == set(SAYS)


def _pretend(request: dict[str, Any]) -> str:
    """What a model that plans nothing and looks around says to a chat request."""
    if "blueprint" in request["messages"][-1]["content"].lower():
        return "<blueprint>\n1. look around\n2. check what is carried\n</blueprint>"
    return "<think>Where am I?</think><action>look</action>"


@pytest.mark.parametrize("name", sorted(SAYS))
def test_example_runs(name: str, tmp_path: Path) -> None:
    with ChatServer(_pretend) as server:
        told = [server.url, "pretended-model"] if name == "api_agent.py" else []
        _run_example(name, tmp_path, *told, *ARGUMENTS.get(name, []))
        assert bool(server.requests) == bool(told)


def _run_example(name: str, tmp_path: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,  # a guard: minutes only where many share the machine
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert SAYS[name] in done.stdout


def test_own_agent_is_short_and_independent() -> None:
    source = (EXAMPLES / "own_agent.py").read_text(encoding="utf-8")
    assert "import himac_agents" not in source and "from himac_agents" not in source


@pytest.mark.parametrize("name", sorted(SAYS))
def test_examples_use_public_names_only(name: str) -> None:
    tree = ast.parse((EXAMPLES / name).read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    private = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
        and node.attr not in own
    ]
    assert not private
