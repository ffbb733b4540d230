"""Short names of values: equal values have equal digests, on every machine and in every process."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

_PLAIN = (int, float, bool, str, bytes, type(None))


def digest(value: Any) -> str:
    """Return 32 hexadecimal digits that name a value.

    Numbers, text, tuples, lists, mappings, sets, arrays and dataclasses are told apart by what they
    hold, mappings and sets whatever their order. What else there is goes by its pickle: objects
    that differ never share a digest, equal ones may have two.
    """
    return blake2b(_written(value).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _written(value: Any) -> str:
    """A value as text from which it could be told apart from any other."""
    if type(value) in _PLAIN:
        return repr(value)
    if isinstance(value, tuple | list):
        return f"({','.join(map(_written, value))},)"
    if isinstance(value, Mapping):
        pairs = sorted(f"{_written(k)}:{_written(v)}" for k, v in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, Set):
        return "<" + ",".join(sorted(map(_written, value))) + ">"
    if isinstance(value, bytearray):
        return repr(bytes(value))
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"array[{value.dtype.str},{value.shape},{value.tobytes()!r}]"
    if is_dataclass(value) and not isinstance(value, type):
        held = ",".join(_written(getattr(value, field.name)) for field in fields(value))
        return f"{type(value).__qualname__}[{held}]"
    return f"pickle[{pickle.dumps(value)!r}]"
