"""Reading a JSON array or object of any size one entry at a time.

The full product file holds five gigabytes in one array; only an entry and a few megabytes of text
are in memory at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from himac_envs.webshop.errors import CatalogueError

_CHUNK = 1 << 22
_BLANK = " \t\r\n,"


class _Reader:
    """A window over the text of a file, moved forward entry by entry."""

    def __init__(self, path: Path, file: IO[str], opening: str, closing: str) -> None:
        self._path = path
        self._file = file
        self._closing = closing
        self._text = ""
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode
        if self._next_letter() != opening:
            what = "array" if opening == "[" else "object"
            raise CatalogueError(f"{path}: expected a JSON {what}, starting with {opening!r}")
        self._at += 1

    def _more(self) -> bool:
        try:
            chunk = self._file.read(_CHUNK)
        except UnicodeDecodeError as error:
            raise CatalogueError(f"{self._path}: not UTF-8 text ({error})") from error
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return bool(chunk)

    def _next_letter(self) -> str:
        while True:
            while self._at < len(self._text):
                letter = self._text[self._at]
                if letter not in _BLANK:
                    return letter
                self._at += 1
            if not self._more():
                raise CatalogueError(
                    f"{self._path}: the file ends in the middle of its JSON; fetch it again"
                )

    def ended(self) -> bool:
        """Return whether the array or object closes here."""
        return self._next_letter() == self._closing

    def value(self) -> Any:
        """Read the next value."""
        self._next_letter()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._more():
                    continue
                raise CatalogueError(f"{self._path}: not valid JSON: {error}") from error
            if end == len(self._text) and self._more():
                continue  # a number may go on in the next chunk
            self._at = end
            return value

    def colon(self) -> None:
        """Read the colon between a key and its value."""
        if self._next_letter() != ":":
            raise CatalogueError(f"{self._path}: expected ':' after a key")
        self._at += 1


def iterate_array(path: Path) -> Iterator[Any]:
    """Yield the entries of a file that holds one JSON array.

    Raises:
        CatalogueError: The file is no such array, or is cut short.
    """
    with path.open(encoding="utf-8") as file:
        reader = _Reader(path, file, "[", "]")
        while not reader.ended():
            yield reader.value()


def iterate_object(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the (key, value) entries of a file that holds one JSON object.

    Raises:
        CatalogueError: The file is no such object, or is cut short.
    """
    with path.open(encoding="utf-8") as file:
        reader = _Reader(path, file, "{", "}")
        while not reader.ended():
            key = reader.value()
            reader.colon()
            yield str(key), reader.value()
