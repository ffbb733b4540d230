"""The strings in which releases of ALFWorld differ.

Two dialects are in the literature. Releases up to 0.3.5 (data ``json_2.1.1``) say ``put X in/on Y``
and ``You arrive at loc N.``; releases from 0.4.0 on (data ``2.1.2``) say ``move X to Y`` and
``You arrive at Y.`` and know ``help``. The dynamics are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

DialectName: TypeAlias = Literal["2.1.1", "2.1.2"]

HELP_TEXT: Final = """\
Available commands:
  look:                             look around your current location
  inventory:                        check your current inventory
  go to (receptacle):               move to a receptacle
  open (receptacle):                open a receptacle
  close (receptacle):               close a receptacle
  take (object) from (receptacle):  take an object from a receptacle
  move (object) to (receptacle):  place an object in or on a receptacle
  examine (something):              examine a receptacle or an object
  use (object):                     use an object
  heat (object) with (receptacle):  heat an object using a receptacle
  clean (object) with (receptacle): clean an object using a receptacle
  cool (object) with (receptacle):  cool an object using a receptacle
  slice (object) with (object):     slice an object using a sharp object
"""
"""What ``help`` prints. The grammar begins it with a line feed, which the original's own parser
drops; the one at the end stays. Two spaces before "place" are the original's."""


@dataclass(frozen=True)
class Dialect:
    """The strings of one release.

    Attributes:
        name: The data release, or ``"mixed"`` for a file that mixes known rules of several.
        put_command: True: the command is ``put X in/on Y``; False: ``move X to Y``.
        put_feedback: True: ``You put the X in/on the Y.``; False: ``You move the X to the Y.``
        names_location: True: ``You arrive at loc N.``; False: ``You arrive at Y.``
        has_help: Whether ``help`` is a command.
    """

    name: str
    put_command: bool
    put_feedback: bool
    names_location: bool
    has_help: bool


DIALECTS: Final[dict[str, Dialect]] = {
    "2.1.1": Dialect("2.1.1", True, True, True, False),
    "2.1.2": Dialect("2.1.2", False, False, False, True),
}


def find_dialect(dialect: str | Dialect) -> Dialect:
    """Look a dialect up by name; a :class:`Dialect` is returned as it is.

    Raises:
        ValueError: No dialect has this name.
    """
    if isinstance(dialect, Dialect):
        return dialect
    try:
        return DIALECTS[dialect]
    except KeyError:
        known = ", ".join(repr(name) for name in DIALECTS)
        raise ValueError(f"unknown ALFWorld dialect {dialect!r}: choose one of {known}") from None
