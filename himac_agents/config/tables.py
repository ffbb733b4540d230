"""Tables of TOML as frozen dataclasses: which keys they have, which they need, and of what type."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from himac_agents.config.setting import check_keys, check_limits, placed, typed

T = TypeVar("T")


def read_table(cls: type[T], table: Mapping[str, Any], where: str, **given: Any) -> T:
    """A dataclass whose fields are the keys of a table; those without a default are needed.

    Args:
        cls: The dataclass.
        table: What was read.
        where: Where it stands, for errors.
        **given: Fields that are no keys, with their values.

    Raises:
        ValueError: A key is unknown, missing or of another type; the message says where.
    """
    hints, found = get_type_hints(cls), dict(given)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in given}  # type: ignore[arg-type]
    check_keys(table, fields, where, "key")
    for name, field in fields.items():
        if name in table:
            with placed(where):
                found[name] = value = typed(name, table[name], hints[name])
                if isinstance(value, float):
                    check_limits(name, value)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}: needs `{name}`")
    return cls(**found)
