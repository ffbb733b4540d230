"""A study's card: the form that its file has, and what its names and settings may be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from himac_agents.config import TrainConfig, settings_of
from himac_agents.config.setting import as_declared, check_keys, placed
from himac_agents.config.tables import read_table
from himac_agents.config.values import read_file
from himac_envs import registry

#: What can be shown of all cells together; `views.VIEWS` draws each.
VIEWS = ("sweep", "bottleneck")

#: Settings that are each run's own: its row names them.
_EACH = {"method": "[[runs]] names methods", "seed": "name `seeds`, for all or in [[runs]]"}

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.]*"
#: Names become parts of folders' and files' names, joined by dashes. The first part of a record's
#: name is the study's: without a dash of its own, it is told from the cell's behind it.
_FORMS = {
    "study": (_WORD, "letters, digits, `_` and `.`"),
    "cell": (rf"{_WORD}(-[\w.]+)*", "letters, digits, `_`, `.` and single dashes between them"),
    "method": (
        rf"({_WORD}:)?{_WORD}(-[\w.]+)*",
        "letters, digits, `_`, `.` and single dashes between them; [methods.NAME] with method = "
        "... gives another name to a method",
    ),
}


@dataclass(frozen=True)
class Card:
    """The keys of a card; `plan.Study` says what each is."""

    summary: str
    seeds: tuple[int, ...]
    cells: dict[str, dict[str, Any]]
    runs: tuple[dict[str, Any], ...]
    base: str | None = None
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: str = ""
    readme: bool = True
    view: str = ""
    axis: str = ""


def read(name: str) -> tuple[str, Card]:
    """The study's name, and its card in `registry/studies` or in a TOML file of the same form.

    Raises:
        FileNotFoundError: There is no such card; the message lists those that exist.
        ValueError: It is not TOML, or a key is unknown, missing or of another type.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise FileNotFoundError(f"there is no study {name}")
        content, name = read_file(Path(name)), Path(name).stem
    else:
        content = registry.read("studies", name)
    return name, read_table(Card, content, f"study {name!r}")


def check_name(where: str, kind: str, name: str) -> None:
    """Refuses the name of a "study", a "cell" or a "method" that cannot stand in a file's name.

    Raises:
        ValueError: The message says what it may be made of.
    """
    form, said = _FORMS[kind]
    if not re.fullmatch(form, name, re.ASCII):
        raise ValueError(f"{where}: {name!r} cannot name a {kind}: use {said}")


def check_once(where: str, name: str, values: Iterable[Any]) -> None:
    """Refuses a list that is empty or holds something twice.

    Raises:
        ValueError: The message names the list, and what is there twice.
    """
    seen = list(values)
    if not seen:
        raise ValueError(f"{where}: `{name}` is empty")
    for value in seen:
        if seen.count(value) > 1:
            raise ValueError(f"{where}: `{name}` holds {value!r} twice")


def check_changes(where: str, changes: Mapping[str, Any], *, arm: bool = False) -> None:
    """Refuses changes of a preset that are none.

    Args:
        where: Where they stand, for the error.
        changes: Settings with their values.
        arm: Whether they are a method's or an arm's, which may say of which method it is.

    Raises:
        ValueError: A setting is unknown, each run's own, or cannot have its value.
    """
    check_keys(changes, settings_of(TrainConfig), where, "setting")
    for key, value in changes.items():
        if key in _EACH and not (arm and key == "method"):
            raise ValueError(f"{where}: {key} is each run's own: {_EACH[key]}")
        with placed(where):
            as_declared(TrainConfig, key, value)
