"""What ``--help`` says of a command's options: each thing once, in lines that fit the terminal."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

#: How values are called that an option takes.
_VALUES = {str: "STR", int: "INT", float: "FLOAT", Path: "PATH"}
#: Defaults that are none: what is left out then is told in the option's own text.
_NOTHING = ("None", "", "''", "False")

_Command = TypeVar("_Command", bound=Callable[..., Any])


def helped(command: _Command) -> _Command:
    """A command whose options carry their help, as do those of the dataclasses that it takes.

    The parser by itself breaks a text where its docstring does, calls what may be left out
    `{None}|STR`, and adds "(default: None)" also where the text has told the default.

    Args:
        command: A function or a dataclass; its annotations are written anew.
    """
    _annotate(command)
    return command


@cache
def _annotate(command: Any) -> None:
    """Does so once: several commands take the same dataclasses."""
    import docstring_parser

    told = docstring_parser.parse_from_object(command).params
    texts = {p.arg_name: " ".join((p.description or "").split()) for p in told}
    for name, hint in get_type_hints(command, include_extras=True).items():
        kind = _bare(hint)
        if inspect.isclass(kind) and dataclasses.is_dataclass(kind):
            _annotate(kind)
        elif text := texts.get(name):
            command.__annotations__[name] = Annotated[hint, _argument(name, hint, text)]


def _argument(name: str, hint: Any, text: str) -> Any:
    def default(label: str) -> str:
        return "" if label in _NOTHING or "(default:" in text else f"(default: {label})"

    metavar = _metavar(name, hint)
    return tyro.conf.arg(help=text, metavar=metavar, help_behavior_hint=default)


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _metavar(name: str, hint: Any) -> str | None:
    """What stands for an option's value; None: what the parser or the option itself says."""
    further = hint.__metadata__ if get_origin(hint) is Annotated else ()
    if any(getattr(one, "metavar", None) for one in further):
        return None
    if tyro.conf.Positional in further:
        return name.upper()
    kinds = [_bare(hint)]
    if get_origin(kinds[0]) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(kinds[0]) if kind is not types.NoneType]
    if len(kinds) != 1:
        return None
    if get_origin(kinds[0]) is Literal:
        return "{" + ",".join(map(str, get_args(kinds[0]))) + "}"
    if get_origin(kinds[0]) is tuple:
        return f"{_VALUES[get_args(kinds[0])[0]]} ..."
    return _VALUES.get(kinds[0])
