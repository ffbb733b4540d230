"""What may be named in settings: by a call, by an entry point, and what is refused."""

from __future__ import annotations

from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from himac_agents.algorithms.methods import METHODS, Method, method_of
from himac_agents.config import TrainConfig
from himac_agents.policies.kinds import POLICIES
from himac_agents.prompts import STYLES, ChatPrompts, make, register_prompts, resolve
from himac_agents.register import Register
from himac_agents.training.loggers import LOGGERS

THING, OTHER = 3, "three"


def test_what_is_registered_is_found_and_what_is_not_names_near_ones() -> None:
    numbers: Register[int] = Register("number", "nobody.numbers", {"one": 1}, int)
    assert numbers.add("two", 2) == 2 and numbers["two"] == 2 and list(numbers) == ["one", "two"]
    with pytest.raises(ValueError, match=r"no number 'tow'. Did you mean two\? There are one, two"):
        numbers.find("tow")
    assert numbers.add("two", 2) == 2, "the same once more"
    with pytest.raises(ValueError, match="replace=True"):
        numbers.add("two", 22)
    assert numbers.add("two", 22, replace=True) == numbers.find("two") == 22
    with pytest.raises(TypeError, match="a number is a int"):
        numbers.add("three", "3")  # type: ignore[arg-type]
    for name in ("", " three", "th ree"):
        with pytest.raises(ValueError, match="give one word"):
            numbers.add(name, 3)
    with pytest.raises(TypeError):
        numbers["four"] = 4  # type: ignore[index]


def test_a_name_may_bring_the_module_that_registers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bold_ideas.py").write_text(
        "from himac_agents import register_method\n"
        "register_method('bold', advantage=lambda config, episodes: [0.0] * len(episodes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="MODULE:NAME is one that a module of yours registers"):
        METHODS.find("bold")
    config = TrainConfig(method="bold_ideas:bold")
    try:
        assert method_of(config) is METHODS["bold"] is METHODS.find("bold_ideas:bold")
        # A run that is resumed finds it again.
        (tmp_path / "config.toml").write_text(config.to_toml())
        assert TrainConfig.from_toml(tmp_path / "config.toml").method == "bold_ideas:bold"
        with pytest.raises(ValueError, match=r"no method 'bold_ideas:bald'\. Did you mean bold"):
            METHODS.find("bold_ideas:bald")
    finally:
        METHODS.remove("bold")
    with pytest.raises(ValueError, match="there is no module 'no_such_ideas'"):
        METHODS.find("no_such_ideas:bold")


def test_packages_register_by_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        "some.numbers": [
            EntryPoint("three", f"{__name__}:THING", "some.numbers"),
            EntryPoint("one", f"{__name__}:THING", "some.numbers"),
            EntryPoint("words", f"{__name__}:OTHER", "some.numbers"),
            EntryPoint("gone", "no.such.module:THING", "some.numbers"),
        ]
    }
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("sys").modules[__name__])
    monkeypatch.setattr(metadata, "entry_points", lambda group: points.get(group, []))
    numbers: Register[int] = Register("number", "some.numbers", {"one": 1}, int)
    assert numbers["one"] == 1, "no package is asked for what is known"
    with pytest.warns(UserWarning) as told:
        assert numbers["three"] == 3
    assert numbers["one"] == 1, "a package does not take a name that is taken"
    assert len(told) == 2
    assert "the number 'words'" in str(told[0].message) and "it is no int" in str(told[0].message)
    assert "no.such.module" in str(told[1].message)
    assert list(numbers) == ["one", "three"]


def test_the_registers_of_the_agent_layer() -> None:
    assert {r.group for r in (METHODS, POLICIES, STYLES, LOGGERS)} == {
        "himac.methods", "himac.policies", "himac.prompts", "himac.loggers",
    }  # fmt: skip
    assert all(isinstance(method, Method) for method in METHODS.values())


def test_a_style_of_ones_own() -> None:
    register_prompts("mine", lambda about: ChatPrompts(benchmark=about.benchmark, max_subgoals=3))
    try:
        style = make("mine", "HiMAC-WebShop-v0")
        assert isinstance(style, ChatPrompts) and style.max_subgoals == 3
        assert style.benchmark == "webshop" and resolve("mine", tiny=True) == "mine"
    finally:
        STYLES.remove("mine")
    with pytest.raises(ValueError, match="no style of prompts 'mine'"):
        resolve("mine")
    with pytest.raises(ValueError, match='"auto" stands for'):
        register_prompts("auto", lambda about: ChatPrompts())
