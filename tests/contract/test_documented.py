"""Every public name has a docstring, and a place in the reference; every id has a page."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from typing import Any

import gymnasium as gym
import pytest
from pages_of_docs import DOCS, ROOT

import himac_agents
import himac_envs
from himac_envs import registry

sys.path.append(str(DOCS / "_site"))
import public

SECTIONS = ("Description", "Action Space", "Observation Space", "Rewards", "Episode End",
            "Information", "Arguments", "Version History")  # fmt: skip
NAMES = [
    (module, name)
    for package in ("himac_envs", "himac_agents")
    for module, names in public.names(package).items()
    for name in names
]


def test_the_reference_has_every_name_that_the_packages_export() -> None:
    for package in (himac_envs, himac_agents):
        listed = public.names(package.__name__)[package.__name__]
        assert set(listed) == {n for n in package.__all__ if not n.startswith("__")}
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize(("module", "name"), NAMES, ids=lambda part: part)
def test_a_public_name_is_documented(module: str, name: str) -> None:
    if module == "himac_envs.multiagent":
        pytest.importorskip("pettingzoo")
    if module.startswith("himac_agents.policies") or module == "himac_agents":
        pytest.importorskip("torch")
    found = public.load(module, name)
    if isinstance(found, str):  # a constant: its comment is in the source
        return
    text = inspect.getdoc(found) or ""
    assert len(text.split()) >= 3, f"{module}.{name} has no docstring"
    # A dataclass without one gets its signature for a docstring.
    assert not text.startswith(f"{name}("), f"{module}.{name} has no docstring"
    for member, value in _members(found):
        assert inspect.getdoc(value), f"{module}.{name}.{member} has no docstring"
    if dataclasses.is_dataclass(found) and module != "himac_agents":
        missing = [f.name for f in dataclasses.fields(found) if not f.name.startswith("_")
                   and not re.search(rf"\b{f.name}\b", text)]  # fmt: skip
        assert not missing, f"{module}.{name} does not say what {missing} are"


def _members(found: Any) -> list[tuple[str, Any]]:
    """A class's own methods and properties."""
    if not isinstance(found, type):
        return []
    return [
        (name, value)
        for name, value in vars(found).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod))
    ]


@pytest.mark.parametrize("env_id", registry.env_cards())
def test_an_id_has_a_page_and_a_class_that_tells_all(env_id: str) -> None:
    assert f"environments/{env_id}.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert env_id in gym.registry
    kind = public.env_class(env_id)
    text = inspect.getdoc(kind) or ""
    base = inspect.getdoc(kind.__mro__[1]) or ""
    heads = set(", ".join(re.findall(r"^## (.+)$", text, re.MULTILINE)).split(", "))
    # What a variant does not say is said by the class that it names.
    if missing := set(SECTIONS) - heads:
        assert kind.__mro__[1].__name__ in text and missing <= set(
            ", ".join(re.findall(r"^## (.+)$", base, re.MULTILINE)).split(", ")
        ), f"{kind.__name__} does not tell {sorted(missing)}"
