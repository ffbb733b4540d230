"""Registers: what may be named in settings, ours and anyone's.

A name is registered by a call, or by a package's entry point. Entry points are looked at when a
name is asked for that no call has registered, or when all names are; one that cannot be loaded is
told once and passed over. "module:name" is what the call in a module registers, which is imported.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any, Generic, TypeVar

from himac_envs.registry import import_named

T = TypeVar("T")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The question whether something known was meant that is near a name; "" where nothing is."""
    near = difflib.get_close_matches(name, list(known), n=2)
    return f" Did you mean {' or '.join(near)}?" if near else ""


class Register(Mapping[str, T], Generic[T]):
    """Things of one kind by name.

    Args:
        what: The kind, as errors name it ("method").
        group: The entry points that bring more of them ("himac.methods").
        known: What is there from the beginning.
        kind: The type that all have.
    """

    def __init__(
        self,
        what: str,
        group: str,
        known: Mapping[str, T] | None = None,
        kind: type[Any] = object,
    ) -> None:
        self.what, self.group, self.kind = what, group, kind
        self._known: dict[str, T] = dict(known or {})
        self._looked = False

    def add(self, name: str, thing: T, *, replace: bool = False) -> T:
        """Registers a thing; returns it.

        Raises:
            TypeError: The thing is of another kind.
            ValueError: The name is no word, or is taken and `replace` is not asked for.
        """
        if not isinstance(thing, self.kind):
            raise TypeError(f"a {self.what} is a {self.kind.__name__}, not {thing!r}")
        if not name or name != name.strip() or any(c.isspace() for c in name):
            raise ValueError(f"{name!r} cannot name a {self.what}: give one word")
        if self._known.get(name) is thing:
            return thing
        if name in self and not replace:
            raise ValueError(
                f"there is a {self.what} {name!r} already: choose another name, or register it "
                "with replace=True"
            )
        self._known[name] = thing
        return thing

    def remove(self, name: str) -> None:
        """Takes a thing out again."""
        del self._known[name]

    def find(self, name: str) -> T:
        """The thing of a name.

        Raises:
            ValueError: There is none; the message names near ones and all others.
        """
        if name not in self:
            hint = did_you_mean(name.rpartition(":")[2], self)
            raise ValueError(
                f"no {self.what} {name!r}.{hint} There are {', '.join(self)}; MODULE:NAME is one "
                f"that a module of yours registers"
            )
        return self[name]

    def __getitem__(self, name: str) -> T:
        name = self._brought(name)
        if name not in self._known:
            self._look()
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str):
            name = self._brought(name)
        if name not in self._known:
            self._look()
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        self._look()
        return iter(self._known)

    def __len__(self) -> int:
        self._look()
        return len(self._known)

    def _brought(self, name: str) -> str:
        """The name alone, of "module:name" once the module is imported, which registers it.

        Raises:
            ValueError: There is no such module.
        """
        module, _, own = name.partition(":")
        if not own or not all(part.isidentifier() for part in module.split(".")):
            return name
        import_named(module, self.what, name)
        return own

    def _look(self) -> None:
        """Loads what packages have registered, once. What a call has registered goes first."""
        if self._looked:
            return
        self._looked = True
        for point in metadata.entry_points(group=self.group):
            try:
                thing: Any = point.load()
                if not isinstance(thing, self.kind):
                    raise TypeError(f"it is no {self.kind.__name__}")
            except Exception as error:
                warnings.warn(
                    f"the {self.what} {point.name!r} of the entry point {point.value!r} cannot be "
                    f"loaded: {type(error).__name__}: {error}",
                    stacklevel=3,
                )
                continue
            self._known.setdefault(point.name, thing)
