"""How every command takes an environment: a name, ``--flat``, ``--data`` and what else it is given.

The name is an id, a benchmark's own name or "module:Id-v0"; see `himac_envs.registry.find_id`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from himac_agents.config.pairs import Pairs
from himac_envs import data, registry

#: True, False, or left out. On the command line `--flat` and `--no-flat`; see `spell_out`.
Flat = Annotated[
    bool | None,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="[True|False]",
        instance_from_str=lambda words: words[0] == "True",
        is_instance=lambda value: value is None or isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
        choices=("True", "False"),
    ),
]


def spell_out(args: Sequence[str]) -> list[str]:
    """`--flat` as `--flat True` and `--no-flat` as `--flat False`, as the parser wants it."""
    found: list[str] = []
    for place, word in enumerate(args):
        following = args[place + 1] if place + 1 < len(args) else ""
        if word == "--no-flat":
            found += ["--flat", "False"]
        elif word == "--flat" and following not in ("True", "False"):
            found += ["--flat", "True"]
        else:
            found.append(word)
    return found


@dataclass(frozen=True)
class EnvOptions:
    """The environment's form and arguments."""

    flat: Flat = None
    """Play the flat environment of the same tasks; --no-flat: the hierarchical one (default: as the
    name says)."""
    data: str | None = None
    """A folder of data, "generated", or the name of an installed data set (himac data where)."""
    max_steps: int | None = None
    """Commands after which an episode is truncated."""
    env_kwargs: Pairs = field(default_factory=dict)
    """Further keyword arguments of the environment."""

    def given(self) -> dict[str, Any]:
        """The keyword arguments, as they were written; a ValueError where one is given twice."""
        if "split" in self.env_kwargs:
            raise ValueError("--env-kwargs split=...: give --split instead")
        short = named(self.data, self.max_steps)
        for key, value in short.items():
            if self.env_kwargs.get(key, value) != value:
                option = f"--{key.replace('_', '-')} {value}"
                raise ValueError(
                    f"{option} and --env-kwargs {key}={self.env_kwargs[key]}: give one"
                )
        return {**self.env_kwargs, **short}

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments, with data sets' names replaced by their folders."""
        return data.fill(self.given())


#: Nothing is asked for beyond the name.
AS_NAMED = EnvOptions()


def named(data: str | None, max_steps: int | None) -> dict[str, Any]:
    """`--data` and `--max-steps` as the keyword arguments that they are short for."""
    short = {"data": data, "max_steps": max_steps}
    return {key: value for key, value in short.items() if value is not None}


def find_text_env(
    name: str, kwargs: Mapping[str, Any], flat: bool | None = None
) -> registry.EnvEntry:
    """The environment that a name means, to be played in text.

    Raises:
        ValueError: It has no text; see also `himac_envs.registry.find_env`.
    """
    found = registry.find_env(name, flat=flat, **kwargs)
    if not (found.flat or found.hierarchical):
        instead = registry.find_id(found.benchmark)
        raise ValueError(f"{found.id} has no text observations: use {instead} with --image")
    return found


@contextmanager
def importable(folder: str) -> Iterator[None]:
    """Lets modules of a folder be imported by name, behind all others."""
    if folder in sys.path or ("" in sys.path and folder == os.getcwd()):
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
