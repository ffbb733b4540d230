"""Levels as text: XSB, SOK and Boxoban files, read and written.

The characters, by the common convention (sokobano.de wiki, "Level format"):

==========  =====================  ==========  =====================
``#``       wall                   ``.`` o     target
``@`` p     player                 ``+`` P     player on a target
``$`` b     box                    ``*`` B     box on a target
space - _   floor
==========  =====================  ==========  =====================

Rows may be run-length encoded (``3#`` for ``###``, ``|`` between rows, brackets for repeated
groups). Lines that hold anything else (titles, ``; 17``, comments) separate levels.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np

from himac_envs.sokoban.rules import Board, Cell, Level, LevelError

__all__ = ["LevelFolder", "NumberedIds", "format_xsb", "parse_levels", "read_levels"]

_CODES = {
    "#": (0, 0), " ": (1, 1), "-": (1, 1), "_": (1, 1),
    ".": (2, 2), "o": (2, 2), "*": (2, 3), "B": (2, 3),
    "$": (1, 4), "b": (1, 4), "@": (1, 5), "p": (1, 5),
    "+": (2, 5), "P": (2, 5),
}  # fmt: skip
_BOARD = re.compile(r"^[ \-_]*[#0-9(][#@+$*. \-_pPbBo0-9|()]*$")
#: What a row may hold besides the codes: run-length encoding.
_PACKING = "0123456789|()"
_RUN = re.compile(r"(\d+)([^\d()])")
_GROUP = re.compile(r"(\d*)\(([^()]*)\)")
_MAX_CELLS = 10_000
SUFFIXES = (".txt", ".xsb", ".sok")


def parse_levels(
    text: str, source: str = "text", path: str | os.PathLike[str] | None = None
) -> list[Level]:
    """Read every level of a text.

    Args:
        text: The text of a file.
        source: Its name; level *n* (from 0) is named ``<source>:<n>``.
        path: The file, for messages.

    Raises:
        LevelError: A level cannot be read or played; the message names it, its file and line, and
            the column of a character that no level has.
    """
    return [
        _level(rows, f"{source}:{n}", line, path) for n, (line, rows) in enumerate(_blocks(text))
    ]


def read_levels(path: str | os.PathLike[str], source: str | None = None) -> list[Level]:
    """Read every level of a file; see :func:`parse_levels`."""
    path = Path(path)
    return parse_levels(_read(path), source or path.stem, path)


def format_xsb(room: Level | Board) -> str:
    """A level (or a board in play) in XSB characters, one line a row, no line end at the end."""
    characters = "# .*$@"
    rows = []
    for r in range(room.rows):
        row = []
        for cell in range(r * room.cols, (r + 1) * room.cols):
            on_target = room.state[cell] == Cell.PLAYER and room.fixed[cell] == Cell.TARGET
            row.append("+" if on_target else characters[room.state[cell]])
        rows.append("".join(row))
    return "\n".join(rows)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no level file at {path}: pass a .txt, .xsb or .sok file or a folder of them as data="
        ) from None


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """The levels' rows with the number of the first line (from 1)."""
    rows: list[str] = []
    start = 0
    for number, line in enumerate(text.splitlines(), 1):
        if "#" in line and (_BOARD.match(line) or (rows and _is_spoilt(line))):
            if not rows:
                start = number
            rows.append(line.rstrip())
        elif rows:
            yield start, rows
            rows = []
    if rows:
        yield start, rows


def _is_spoilt(line: str) -> bool:
    """Whether a line among a level's rows is a row with a few characters that no level has."""
    row = line.strip()
    strange = sum(c not in _CODES and c not in _PACKING for c in row)
    return row.startswith("#") and row.endswith("#") and 3 * strange < len(row)


def _expand(row: str) -> str:
    """Undo run-length encoding."""
    if not any(c.isdigit() or c in "()" for c in row):
        return row
    for _ in range(16):
        grown = _GROUP.sub(lambda m: m.group(2) * min(int(m.group(1) or 1), _MAX_CELLS), row)
        if grown == row or len(grown) > _MAX_CELLS:
            break
        row = grown
    return _RUN.sub(lambda m: m.group(2) * min(int(m.group(1)), _MAX_CELLS), row)


def _level(
    lines: Sequence[str], name: str, line: int, path: str | os.PathLike[str] | None = None
) -> Level:
    of = "" if path is None else f"{os.fspath(path)}, "
    for number, row in enumerate(lines, line):
        for column, character in enumerate(row, 1):
            if character not in _CODES and character not in _PACKING:
                raise LevelError(
                    f"{of}line {number}, column {column}: {character!r} is not a Sokoban character "
                    f"(in {row!r}, of {name}); rows are written with # @ + $ * . and blanks"
                )
    where = f"{of}line {line}: {name}"
    rows = [row for each in lines for row in _expand(each).split("|")]
    cols = max(map(len, rows))
    if len(rows) * cols > _MAX_CELLS:
        raise LevelError(f"{where}: a level has at most {_MAX_CELLS} cells")
    # One ring of open ground around everything: what can be walked from there lies outside.
    state = np.ones((len(rows) + 2, cols + 2), np.uint8)
    fixed = np.ones_like(state)
    for r, row in enumerate(rows, 1):
        for c, character in enumerate(row, 1):
            if character not in _CODES:  # what is left of brackets that do not close
                raise LevelError(f"{where}: {character!r} has no meaning there (in {row!r})")
            fixed[r, c], state[r, c] = _CODES[character]
    outside = [(0, 0)]
    seen = np.zeros(state.shape, bool)
    seen[0, 0] = True
    while outside:
        r, c = outside.pop()
        for near in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            inside = 0 <= near[0] < state.shape[0] and 0 <= near[1] < state.shape[1]
            if inside and not seen[near] and fixed[near] != Cell.WALL:
                seen[near] = True
                outside.append(near)
    if (state[seen] != Cell.FLOOR).any():
        raise LevelError(f"{where}: the walls do not close around the player, boxes and targets")
    fixed[seen] = state[seen] = Cell.WALL
    inner = (slice(1, -1), slice(1, -1))
    try:
        return Level.from_arrays(fixed[inner], state[inner], name)
    except LevelError as error:
        raise LevelError(f"{of}line {line}: {error}") from None


class NumberedIds(Sequence[str]):
    """Task ids ``<name>:<number>`` over stretches of numbers, in order, made when asked for."""

    def __init__(self, parts: Sequence[tuple[str, range]]) -> None:
        self._parts = [(name, numbers) for name, numbers in parts if numbers]
        self._ends = list(np.cumsum([len(numbers) for _, numbers in self._parts], dtype=int))

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"task index {index} out of {len(self)}")
        part = bisect_right(self._ends, index)
        name, numbers = self._parts[part]
        before = self._ends[part - 1] if part else 0
        return f"{name}:{numbers[int(index - before)]}"

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, str):
            return False
        name, _, number = value.rpartition(":")
        if not number.isascii() or not number.isdecimal() or str(int(number)) != number:
            return False
        return any(name == part and int(number) in numbers for part, numbers in self._parts)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, NumberedIds):
            return self._parts == other._parts
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = [*self[:3], "...", *self[-1:]] if len(self) > 4 else list(self)
        return f"<{len(self)} task ids: {', '.join(shown)}>"


@lru_cache(maxsize=64)
def _cached_levels(path: Path, source: str, _stamp: tuple[int, int]) -> tuple[Level, ...]:
    return tuple(parse_levels(_read(path), source, path))


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


class LevelFolder:
    """Level files of a folder (Boxoban's layout or any other), or one file.

    Splits are the sub-folders ("unfiltered/train", "medium/valid", "hard"). "train", "valid" and
    "test" stand for the folders of that name, Boxoban's unfiltered ones first; where no folder
    has such a name, every level is in every split.

    Args:
        path: A folder or a file.
        name: What the set of levels is called (None: the name of the folder or file).

    Raises:
        FileNotFoundError: There are no level files there.
    """

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self.path = Path(path)
        self.name = name or self.path.stem
        if self.path.is_file():
            self.files = {self.name: self.path}
        else:
            found = [p for p in _files(self.path) if p.suffix.lower() in SUFFIXES]
            named = {str(p.relative_to(self.path).with_suffix("").as_posix()): p for p in found}
            self.files = {name: named[name] for name in sorted(named, key=_natural)}
        if not self.files:
            raise FileNotFoundError(
                f"no level files ({', '.join(SUFFIXES)}) at {self.path}: pass a file, a folder of "
                "level files, or the folder of a Boxoban download (unfiltered/, medium/, hard/)"
            )
        self._counts: dict[str, int] = {}

    def split_files(self, split: str) -> list[str]:
        """Names of the files of a split ([] if there is no such split)."""
        if split == "all":
            return list(self.files)
        folders = {name: name.rpartition("/")[0] for name in self.files}
        if split in folders.values():
            return [name for name, folder in folders.items() if folder == split]
        if split in ("train", "valid", "test"):
            ends = sorted({f for f in folders.values() if f.rpartition("/")[2] == split})
            if f"unfiltered/{split}" in ends:
                ends = [f"unfiltered/{split}"]
            if ends:
                return [name for name, folder in folders.items() if folder in ends]
            if not self.has_splits:
                return list(self.files)
        return []

    @property
    def has_splits(self) -> bool:
        """Whether a folder is called "train", "valid" or "test"."""
        ends = {name.rpartition("/")[0].rpartition("/")[2] for name in self.files}
        return bool(ends & {"train", "valid", "test"})

    def splits(self) -> list[str]:
        """Names of the splits that hold levels."""
        folders = sorted({name.rpartition("/")[0] for name in self.files} - {""})
        common = [s for s in ("train", "valid", "test") if self.split_files(s)]
        return [*common, *(f for f in folders if f not in common), "all"]

    def count(self, name: str) -> int:
        """Number of levels of one file."""
        if name not in self._counts:
            self._counts[name] = sum(1 for _ in _blocks(_read(self.files[name])))
        return self._counts[name]

    def ids(self, split: str) -> NumberedIds:
        """Task ids of a split: ``<file>:<number>``, files and numbers in order."""
        return NumberedIds([(name, range(self.count(name))) for name in self.split_files(split)])

    def level(self, task_id: str) -> Level:
        """The level of a task id.

        Raises:
            KeyError: There is no such level.
        """
        name, _, number = task_id.rpartition(":")
        if name not in self.files or not number.isdecimal():
            raise KeyError(task_id)
        path = self.files[name]
        levels = _cached_levels(path, name, _stamp(path))
        if int(number) >= len(levels):
            raise KeyError(task_id)
        return levels[int(number)]

    def largest(self, split: str) -> tuple[int, int]:
        """Rows and columns that hold every level of a split.

        Boxoban's files hold rooms of one size, so only the first level of its files is read.
        """
        rows = cols = 0
        for name in self.split_files(split):
            path = self.files[name]
            if path.suffix.lower() == ".txt":
                levels: Sequence[Level] = [_first_level(path, name)]
            else:
                levels = _cached_levels(path, name, _stamp(path))
            for level in levels:
                rows, cols = max(rows, level.rows), max(cols, level.cols)
        return rows, cols


def _files(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Every file below a folder, behind links too; a link that leads back up is left alone."""
    real = os.path.realpath(folder)
    if real in above or not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path, above | {real})
        elif path.is_file():
            yield path


def _first_level(path: Path, name: str) -> Level:
    for line, rows in _blocks(_read(path)):
        return _level(rows, f"{name}:0", line, path)
    raise LevelError(f"{path} holds no level")


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Sort key under which 2 comes before 10."""
    return [(0, int(p)) if p.isdigit() else (1, p) for p in re.split(r"(\d+)", name) if p]
