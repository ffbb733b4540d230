"""What TOML holds: which values those are, how they are written, and how they are read."""

from __future__ import annotations

import datetime as dt
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

#: TOML's whole numbers are of 64 bits.
_WHOLE = range(-(2**63), 2**63)


def plain(value: Any, where: str) -> Any:
    """A copy of a value as TOML holds it: tuples become lists, all else is as it was.

    Args:
        value: Numbers, words, truth values, dates and times, lists and mappings of them.
        where: What the value is called, for the error.

    Raises:
        ValueError: TOML has no such value; the message says where it stands.
    """
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise ValueError(f"{where}: the key {key!r} is not a string")
            _check_text(key, where)
        return {key: plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner, f"{where}[{i}]") for i, inner in enumerate(value)]
    if value is None:
        raise ValueError(f"{where}=None: TOML has no such value: leave the key out")
    if type(value) not in (bool, int, float, str, dt.date, dt.time, dt.datetime):
        kind = type(value).__name__
        raise ValueError(f"{where}={value!r}: TOML has no value of type {kind}: give it as text")
    if type(value) is int and value not in _WHOLE:
        raise ValueError(f"{where}={value}: a whole number must be between -2^63 and 2^63 - 1")
    if type(value) is float and math.isnan(value):
        raise ValueError(f"{where}=nan: NaN cannot be compared, so it cannot be a setting")
    if type(value) is str:
        _check_text(value, where)
    if isinstance(value, (dt.datetime, dt.time)):
        return _plain_time(value, where)
    return value


def _check_text(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}={text!r}: cannot be written as UTF-8") from error


def _plain_time(value: dt.datetime | dt.time, where: str) -> dt.datetime | dt.time:
    """A time without a zone, or a date's with the difference that its zone makes."""
    if value.tzinfo is None:
        return value.replace(fold=0)
    zone = value.utcoffset()
    if isinstance(value, dt.time) or zone is None or zone % dt.timedelta(minutes=1):
        raise ValueError(
            f"{where}={value!r}: only a date with a time can have a time zone, of whole minutes"
        )
    return value.replace(tzinfo=dt.timezone(zone) if zone else dt.UTC, fold=0)


def write(value: Any) -> str:
    """A value of `plain` as TOML on one line."""
    return str(_item(value).as_string())


def read(text: str) -> Any:
    """The value that stands behind the equals sign of a line of TOML.

    Raises:
        ValueError: It is none, or more than one.
    """
    found = tomllib.loads(f"value = {text}")
    if list(found) != ["value"]:
        raise ValueError(f"{text!r} is more than one value")
    return found["value"]


def write_line(name: str, value: Any) -> str:
    """`name = value`."""
    document = tomlkit.document()
    document.add(name, _item(value))
    return document.as_string()


def read_file(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not TOML.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; `himac list` names the presets")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error


def _item(value: Any) -> Any:
    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        for key, inner in value.items():
            table.append(key, _item(inner))
        return table
    if isinstance(value, (list, tuple)):
        array = tomlkit.array()
        for inner in value:
            array.append(_item(inner))
        return array
    return tomlkit.item(value)
