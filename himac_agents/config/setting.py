"""How a setting is declared: type, default, limits and help, once, as a field of a section.

`section` makes a frozen dataclass of a class of settings. A field's help is the text below it. A
default alone declares a setting that changes what the section says; `setting` adds limits, or says
that it changes something else. What is declared is what is checked, what the command line shows and
what decides which runs are comparable: nothing is listed a second time.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import (
    Annotated,
    Any,
    Literal,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import tyro

from himac_agents.config import values
from himac_agents.register import did_you_mean

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
#: More minutes than any command is given, and not too many for a clock.
MOST_MINUTES = 100_000


@dataclass(frozen=True, slots=True)
class Setting:
    """What is declared of one setting.

    Attributes:
        changes: What it changes; see `Changes`.
        least: The smallest value; None: no limit.
        most: The greatest.
        above: Values must exceed this.
        help: What it is, for readers and for ``--help``.
    """

    changes: Changes | None = None
    least: float | None = None
    most: float | None = None
    above: float | None = None
    help: str = ""


def setting(default: Any, changes: Changes | None = None, **limits: Any) -> Any:
    """Declares a field of a section.

    Args:
        default: Its default; a mapping is copied each time.
        changes: What it changes, where that is something else than the section says.
        **limits: `least`, `most` or `above`; see `Setting`.
    """
    metadata = {_META: Setting(changes, **limits)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(frozen_default=True)
def section(changes: Changes) -> Callable[[type], type]:
    """Makes a frozen dataclass of settings, whose fields carry their help to the command line.

    Args:
        changes: What a setting changes that does not say so itself.
    """

    def made(cls: type) -> type:
        hints, texts = _hints(cls), _texts(cls.__module__)[cls.__name__]
        for name in inspect.get_annotations(cls):
            field, text = getattr(cls, name), texts[name]
            if not isinstance(field, dataclasses.Field):
                field = setting(field)
            own = field.metadata[_META]
            told = dataclasses.replace(own, changes=own.changes or changes, help=text)
            field.metadata = types.MappingProxyType({_META: told})
            setattr(cls, name, field)
            cls.__annotations__[name] = Annotated[hints[name], tyro.conf.arg(help=text)]
        return dataclass(frozen=True)(cls)

    return made


@cache
def _texts(module: str) -> dict[str, dict[str, str]]:
    """The texts below the fields of a module's classes, by class and field."""
    classes = ast.parse(inspect.getsource(sys.modules[module])).body
    return {
        cls.name: {
            field.target.id: " ".join(str(text.value.value).split())
            for field, text in pairwise(cls.body)
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        }
        for cls in classes
        if isinstance(cls, ast.ClassDef)
    }


@cache
def _hints(cls: type) -> dict[str, Any]:
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
        value = _declared(name, getattr(config, name), hints[name], told)
        object.__setattr__(config, name, value)


def as_declared(cls: type, name: str, value: Any) -> Any:
    """The value of one setting in the form that it has; see `settle`.

    Args:
        cls: A configuration's class.
        name: One of its settings.
        value: What is to be its value.

    Raises:
        ValueError: The message names the setting, its value and what it may be.
    """
    return _declared(name, value, _hints(cls)[name], settings_of(cls)[name])


def _declared(name: str, value: Any, hint: Any, told: Setting) -> Any:
    value = typed(name, value, hint)
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, (int, float)) and not isinstance(one, bool):
            check_limits(name, one, least=told.least, most=told.most, above=told.above)
    return value


@contextmanager
def placed(where: str) -> Iterator[None]:
    """Puts before what is told of a wrong value where that stands."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{where}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def check_keys(values: Iterable[str], known: Iterable[str], where: str, what: str) -> None:
    """Refuses keys that are not known.

    Args:
        values: The keys.
        known: Those that there are.
        where: Where they stand, for the error.
        what: What they are, such as "setting".

    Raises:
        ValueError: The message names near ones.
    """
    names = list(known)
    for key in values:
        if key not in names:
            raise ValueError(f"{where}: unknown {what} {key!r}.{did_you_mean(key, names)}")


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
            raise ValueError(f"{name}={value}: must be between {_shown(least)} and {_shown(most)}")
    elif least is not None and not (finite and value >= least):
        raise ValueError(f"{name}={value}: must be at least {_shown(least)}")
    elif above is not None and not (finite and value > above):
        raise ValueError(f"{name}={value}: must be above {_shown(above)}")
    elif not finite:
        raise ValueError(f"{name}={value}: must be finite")


def _shown(limit: float) -> str:
    return "2^63 - 1" if limit == GREATEST_SEED else f"{limit:g}"


def typed(name: str, value: Any, hint: Any) -> Any:
    """The value in the form that its type has.

    Raises:
        ValueError: It is of no such type.
    """
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    origin = get_origin(hint)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{name}={value!r} should be a mapping")
        inner = get_args(hint)[1]
        if inner is Any:
            return values.plain(value, name)
        return {key: typed(f"{name}.{key}", one, inner) for key, one in value.items()}
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise ValueError(f"{name}={value!r} should be a list")
        inner = get_args(hint)[0]
        return tuple(typed(name, one, inner) for one in value)
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
