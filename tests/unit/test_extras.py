"""A missing optional package is named with its extra and the command that brings it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from himac_envs.errors import OPTIONAL, MissingDependencyError, explained

ROOT = Path(__file__).parents[2]


def test_every_optional_package_stands_in_its_extra() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = pyproject["project"]["optional-dependencies"]
    for package, extra in OPTIONAL.values():
        assert any(re.match(rf"{package}\b", needed) for needed in extras[extra]), package
    brought = {
        re.split(r"[><=\[]", needed)[0]
        for name, rows in extras.items()
        if name not in ("dev", "docs", "all", "reference", "jumanji")
        for needed in rows
        if not needed.startswith("himac[")
    }
    assert brought <= {package for package, _ in OPTIONAL.values()}


def test_only_what_is_missing_is_explained() -> None:
    for module, (package, extra) in OPTIONAL.items():
        error = ModuleNotFoundError(f"No module named '{module}.sub'", name=f"{module}.sub")
        told = explained(error, "this test")
        assert isinstance(told, MissingDependencyError) and explained(told) is told
        assert str(told) == f"this test needs {package}: pip install 'himac[{extra}]'"
    assert "himac[agents]" in str(explained(ImportError("blocked: torch")))
    for other in (
        ImportError("cannot import name 'x' from 'torch'", name="torch"),
        ModuleNotFoundError("No module named 'my_own'", name="my_own"),
        ImportError("something else"),
    ):
        assert explained(other) is other


CODE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from himac_agents.cli import main
status = main(sys.argv[2:])
try:
    from himac_agents import Trainer
except ImportError as error:
    print("library:", error)
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("absent", "arguments", "told"),
    [
        ("torch", ["train"], "training needs torch: pip install 'himac[agents]'"),
        ("torch", ["eval", "HiMAC-Sokoban-v0", "--agent", "."], "trained agent needs torch: pip"),
        ("torch", ["bench", "methods"], "this benchmark needs torch: pip install 'himac[agents]'"),
        ("torch,jinja2", ["report", "."], "a report needs jinja2: pip install 'himac[report]'"),
        ("flask", ["site"], "needs flask: pip install 'himac[webshop]'"),
    ],
)
def test_commands_name_the_extra(
    absent: str, arguments: list[str], told: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, absent, *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and told in " ".join(done.stderr.split()), done.stderr
    if "torch" in absent:
        assert "library: himac_agents.Trainer needs torch: pip install 'himac[" in done.stdout
