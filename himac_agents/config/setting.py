"""How a setting is declared: default, help, limits and what it changes, once, beside its type.

`setting` declares one, `section` makes a frozen dataclass of a class of them. What is declared is
what is checked, what the command line shows and what decides which runs are comparable: nothing is
listed a second time.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, dataclass_transform, get_args, get_origin

import tyro

from himac_agents.config import values

#: What a setting changes.
#:
#: - "start": the warm start or what is measured of it, and with it all that follows.
#: - "learning": what is learned from a warm start, or where that is measured.
#: - "extent": how far learning goes.
#: - "sample": which sample of the same experiment it is: the seed, the number of held-out tasks.
#: - "speed": only how fast it goes.
#: - "record": only what is kept, told and set beside it.
Changes = Literal["start", "learning", "extent", "sample", "speed", "record"]

_META = "setting"

#: The greatest seed that every generator takes.
GREATEST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Setting:
    """What is declared of one setting.

    Attributes:
        help: What it is, for readers and for ``--help``.
        changes: What it changes; see `Changes`.
        least: The smallest value; None: no limit.
        most: The greatest.
        above: Values must exceed this.
        choices: The values to choose among, where its type does not say them.
    """

    help: str
    changes: Changes
    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()


def setting(
    default: Any,
    help: str,
    changes: Changes,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declares a field of a section; see `Setting`. A mapping as default is copied each time."""
    told = Setting(" ".join(help.split()), changes, least, most, above, choices)
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata={_META: told})
    return dataclasses.field(default=default, metadata={_META: told})


@dataclass_transform(frozen_default=True)
def section(cls: type) -> type:
    """A frozen dataclass whose fields carry their help to the command line."""
    hints = _hints(cls)
    for name in inspect.get_annotations(cls):
        told = getattr(cls, name).metadata[_META]
        cls.__annotations__[name] = Annotated[hints[name], tyro.conf.arg(help=told.help)]
    return dataclass(frozen=True)(cls)


@cache
def _hints(cls: type) -> dict[str, Any]:
    from typing import get_type_hints

    return get_type_hints(cls, include_extras=True)


def settings_of(cls: Any) -> dict[str, Setting]:
    """What is declared of each setting of a configuration's class, by name."""
    return {f.name: f.metadata[_META] for f in dataclasses.fields(cls) if _META in f.metadata}


def changing(cls: type, *kinds: Changes) -> frozenset[str]:
    """The names of the settings that change one of these."""
    return frozenset(name for name, told in settings_of(cls).items() if told.changes in kinds)


def settle(config: Any) -> None:
    """Checks each setting by what is declared of it, and brings it into the one form it has.

    Whole numbers become real ones where those are meant, lists tuples, mappings copies as TOML
    holds them. So what is equal before a file is equal behind it.

    Raises:
        ValueError: The message names the setting, its value and what it may be.
    """
    hints = _hints(config.__class__)
    for name, told in settings_of(config).items():
        value = _typed(name, getattr(config, name), hints[name])
        for one in value if isinstance(value, tuple) else (value,):
            if told.choices and one not in told.choices:
                raise ValueError(f"{name}={one!r}: choose among {', '.join(told.choices)}")
            if isinstance(one, (int, float)) and not isinstance(one, bool):
                check_limits(name, one, least=told.least, most=told.most, above=told.above)
        object.__setattr__(config, name, value)


def check_shares(**values: float) -> None:
    """Refuses shares and chances, given by name, that are none.

    Raises:
        ValueError: One does not lie between 0 and 1.
    """
    for name, value in values.items():
        check_limits(name, value, least=0, most=1)


def check_seeds(*seeds: int) -> None:
    """Refuses seeds that some generator does not take.

    Raises:
        ValueError: A seed is below 0, or needs more than 63 bits.
    """
    for seed in seeds:
        check_limits("seed", seed, least=0, most=GREATEST_SEED)


def check_limits(
    name: str,
    value: float,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
) -> None:
    """Refuses a number beyond its limits; see `Setting`.

    Raises:
        ValueError: It is too small, too great or not finite.
    """
    finite = isinstance(value, int) or math.isfinite(value)
    if most is not None and least is not None:
        if not least <= value <= most:
            raise ValueError(f"{name}={value}: it lies between {_shown(least)} and {_shown(most)}")
    elif least is not None and not (finite and value >= least):
        raise ValueError(f"{name}={value}: must be at least {_shown(least)}")
    elif above is not None and not (finite and value > above):
        raise ValueError(f"{name}={value}: must be above {_shown(above)}")
    elif not finite:
        raise ValueError(f"{name}={value}: must be finite")


def _shown(limit: float) -> str:
    return "2^63 - 1" if limit == GREATEST_SEED else f"{limit:g}"


def _typed(name: str, value: Any, hint: Any) -> Any:
    """The value in the form that its type has.

    Raises:
        ValueError: It is of no such type.
    """
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    origin = get_origin(hint)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{name}={value!r} should be of type dict")
        return values.plain(value, name)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise ValueError(f"{name}={value!r} should be of type tuple")
        inner = get_args(hint)[0]
        return tuple(_typed(name, one, inner) for one in value)
    kinds = list(_kinds(hint))
    if value is None and types.NoneType in kinds:
        return None
    kinds = [kind for kind in kinds if kind is not types.NoneType]
    if float in kinds and int not in kinds and type(value) is int:
        return float(value)
    if not any(value in k if isinstance(k, tuple) else type(value) is k for k in kinds):
        choices = [str(one) for kind in kinds if isinstance(kind, tuple) for one in kind]
        if all(isinstance(kind, tuple) for kind in kinds):
            raise ValueError(f"{name}={value!r}: choose among {', '.join(choices)}")
        wanted = " or ".join(
            f'"{", ".join(map(str, k))}"' if isinstance(k, tuple) else f"of type {k.__name__}"
            for k in kinds
        )
        raise ValueError(f"{name}={value!r} should be {wanted}")
    if isinstance(value, (int, str)):
        values.plain(value, name)
    return value


def _kinds(hint: Any) -> Iterator[type | tuple[Any, ...]]:
    """The types, and the tuples of choices, that a hint allows."""
    if get_origin(hint) is Literal:
        yield get_args(hint)
    elif get_origin(hint) in (Union, types.UnionType):
        for one in get_args(hint):
            yield from _kinds(one)
    else:
        yield hint
