"""How a mapping is given on the command line: KEY=VALUE ..., each value as in TOML or as text."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Annotated, Any

import tyro


def read_pairs(words: list[str]) -> dict[str, Any]:
    """`["max_steps=6", "data=generated"]` as a mapping.

    Raises:
        ValueError: A word is not KEY=VALUE.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"{word!r} is not of the form KEY=VALUE")
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = value
    return found


def write_pairs(values: Mapping[str, Any]) -> list[str]:
    """The inverse of `read_pairs` for the values that presets hold."""
    shown = {True: "true", False: "false"}
    return [
        f"{key}={shown[value] if isinstance(value, bool) else value}"
        for key, value in values.items()
    ]


#: A field of this type takes KEY=VALUE words on the command line; they replace its preset.
Pairs = Annotated[
    dict[str, Any],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="KEY=VALUE ...",
        instance_from_str=read_pairs,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=write_pairs,
    ),
]
