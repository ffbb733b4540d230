"""The order of the rooms: who may import whom, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: The rooms of himac_agents; each imports from those above it only.
ROOMS = (
    "files", "register", "distributed", "config", "policies", "prompts", "agents",
    "rollouts", "algorithms", "evaluation", "reports", "training", "adapters", "experiments", "cli",
)  # fmt: skip
#: The kernel files are one compiled unit each.
LONG = {"himac_envs/sokoban/kernels/generate.py", "himac_envs/sokoban/kernels/search.py"}


def _modules() -> dict[str, Path]:
    found = {}
    for package in ("himac_envs", "himac_agents"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _imports(path: Path) -> Iterator[str]:
    """The project's modules that a file imports anywhere, also in functions and for types."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written out"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES:
                    yield inner
                elif node.module in MODULES:
                    yield str(node.module)


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_rooms_import_only_from_rooms_above_them() -> None:
    wrong = []
    for name, path in MODULES.items():
        # The package itself names what lies in its rooms, lazily.
        if not name.startswith("himac_agents.") or _room(name) == "__main__":
            continue
        own = ROOMS.index(_room(name))
        for other in _imports(path):
            if other.startswith("himac_agents.") and ROOMS.index(_room(other)) > own:
                wrong.append(f"{name} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_the_suite_never_imports_the_agents() -> None:
    for name, path in MODULES.items():
        if name.startswith("himac_envs"):
            others = [o for o in _imports(path) if o.startswith("himac_agents")]
            # One benchmark is started by the command line, which is theirs.
            assert not others, f"{name} imports {others}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    arrows = {name: set(_imports(path)) - {name} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join([*way[way.index(name) :], name])}"
        if name in done:
            return
        for other in sorted(arrows[name]):
            # A package's own file names its modules: that is no dependence of theirs on it.
            if not name.startswith(f"{other}."):
                visit(other, (*way, name))
        done.add(name)

    for name in arrows:
        visit(name, ())


def test_the_root_holds_few_modules() -> None:
    assert len(list((ROOT / "himac_agents").glob("*.py"))) <= 6


@pytest.mark.parametrize("package", ["himac_envs", "himac_agents", "tests", "examples"])
def test_files_can_be_held_in_the_head(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        assert name in LONG or len(path.read_text(encoding="utf-8").splitlines()) <= 450, name
