"""Every public name has a docstring, and a place in the reference; every id has a page."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from pages_of_docs import DOCS, ROOT, dead_links, pages

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


def test_a_link_leads_somewhere_in_the_repository_too() -> None:
    """What exists on the site only is no link: most read these pages as they lie there."""
    every = [*pages(), ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
    found = {str(page.relative_to(ROOT)): dead_links(page) for page in every}
    assert {page: links for page, links in found.items() if links} == {}


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A head\n[a](page.md#a-head) [b](#a-head) [c](https://there.org) `[d](none.md)`\n"
        "```python\n[e](none.md)\n```\n[f](none.md) [g](#no-head) ![h](none.png)\n"
    )
    assert dead_links(page) == ["none.md", "#no-head", "none.png"]


def test_a_file_that_a_page_quotes_is_linked_beside_it() -> None:
    """The repository shows only the name of a file that the site puts in."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for quoted in re.findall(r'^--8<-- "([^"]+)"$', text, re.MULTILINE):
            assert f"/{quoted})" in text.split(f'"{quoted}"')[0], f"{page.name}: {quoted}"
