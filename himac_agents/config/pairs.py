"""How a mapping is given on the command line: KEY=VALUE ..., each value as in TOML or as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import tyro

from himac_agents.config import values


def read_pairs(words: list[str]) -> dict[str, Any]:
    """`["max_steps=6", "data=generated"]` as a mapping.

    A key that holds an equals sign, or space at its ends, is written in double quotes.

    Raises:
        ValueError: A word is not KEY=VALUE.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, value = _split(word)
        try:
            found[key] = values.read(value)
        except ValueError:
            found[key] = value
    return found


def write_pairs(given: Mapping[str, Any]) -> list[str]:
    """The inverse of `read_pairs`."""
    return [f"{_key(key)}={_value(value)}" for key, value in given.items()]


def _split(word: str) -> tuple[str, str]:
    """A word's key and value."""
    if word.startswith('"'):
        # The key ends with the first equals sign before which a whole string stands.
        for place, sign in enumerate(word):
            if sign == "=" and isinstance(key := _quoted(word[:place].strip()), str):
                return key, word[place + 1 :]
    key, equals, value = word.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"{word!r} is not of the form KEY=VALUE")
    return key.strip(), value


def _quoted(text: str) -> Any:
    try:
        return values.read(text)
    except ValueError:
        return None


def _key(key: str) -> str:
    # A word that begins with a hyphen would be an option.
    plain = key and key == key.strip() and "=" not in key and key[0] not in '"-'
    return key if plain else values.write(key)


def _value(value: Any) -> str:
    """Text as it is where it is read as that text; all else as in TOML."""
    if isinstance(value, str):
        try:
            values.read(value)
        except ValueError:
            return value
    return values.write(value)


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
