"""Find the official games in a folder, in zip archives or unpacked, without unpacking anything.

The index lists every game with where its bytes lie, so that a game is later read with one seek.
Building it means inflating each game once, since whether a game is solvable stands at its end;
the result is kept in a cache beside the data, or in the suite's home where that is read-only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from himac_envs.alfworld.errors import GameFileError
from himac_envs.data import cache_dir, cache_dirs

OFFICIAL_SPLITS: Final = ("train", "valid_seen", "valid_unseen")
TASK_TYPES: Final = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""The six types that the original plays, in its own order."""

_GAME: Final = "game.tw-pddl"
_ANNOTATION: Final = "traj_data.json"
# Raised when the index's form or its rules change, so that old caches are not read.
_FORM: Final = 3
_SOLVABLE: Final = re.compile(rb'"solvable"\s*:\s*(true|false)')


@dataclass(frozen=True)
class Place:
    """Where a file's bytes lie.

    Attributes:
        path: The archive, or the file itself.
        member: Its name inside the archive, "" for a plain file.
        offset: Start of the member's local header.
        packed: Bytes that it takes.
        method: Zip compression method (0 stored, 8 deflated).
        crc: CRC-32 of its content.
    """

    path: str
    member: str = ""
    offset: int = 0
    packed: int = 0
    method: int = 0
    crc: int = 0

    def read(self) -> bytes:
        """Return the file's content.

        Raises:
            GameFileError: It is missing, or the archive is damaged or was changed.
        """
        where = f"{self.path} ({self.member})" if self.member else self.path
        try:
            with open(self.path, "rb") as file:
                if not self.member:
                    return file.read()
                file.seek(self.offset)
                header = file.read(30)
                if header[:4] != b"PK\x03\x04":
                    raise GameFileError(
                        f"{where}: not in the archive any more: it has changed since it was indexed"
                    )
                name_length, extra_length = struct.unpack("<HH", header[26:30])
                file.seek(name_length + extra_length, os.SEEK_CUR)
                data = file.read(self.packed)
            content = zlib.decompress(data, -15) if self.method else data
        except (OSError, zlib.error) as error:
            raise GameFileError(
                f"{where}: cannot be read ({error}); `himac data get alfworld` fetches it again"
            ) from error
        if zlib.crc32(content) != self.crc:
            raise GameFileError(
                f"{where}: its checksum is wrong: the archive is damaged; `himac data get "
                "alfworld` fetches it again"
            )
        return content


@dataclass(frozen=True)
class Index:
    """The games of one data folder.

    Attributes:
        source: What was indexed, in words.
        games: Place of each playable game by task id, sorted.
        annotations: Place of the traj_data.json of each of them that has one.
        left_out: Why a game that is there is not played, by task id.
    """

    source: str
    games: dict[str, Place]
    annotations: dict[str, Place]
    left_out: dict[str, str]


@dataclass(frozen=True)
class _Found:
    """The files of a data folder, before any is read."""

    source: str
    games: dict[str, Place]
    annotations: dict[str, Place]
    key: str


def load_index(folder: str | os.PathLike[str]) -> Index:
    """Return the index of a data folder, from the cache where that is still true.

    Args:
        folder: A folder with the official zip archives, an unpacked ``json_2.1.1`` tree, a folder
            above one of these, or an archive.

    Raises:
        FileNotFoundError: The folder does not exist, or holds no games.
        GameFileError: An archive is damaged.
    """
    found = _find(Path(folder))
    name = f"alfworld-index-{found.key[:20]}.json"
    base = Path(folder) if Path(folder).is_dir() else Path(folder).parent
    for place in cache_dirs(base):
        if index := _read_cache(place / name, found):
            return index
    from filelock import FileLock  # imported here: a cached index needs no lock

    try:
        cache = cache_dir(base) / name
        cache.parent.mkdir(parents=True, exist_ok=True)
    except OSError:  # a cache is only a convenience
        return _build(found)
    with FileLock(f"{cache}.lock"):
        index = _read_cache(cache, found)
        if index is None:
            index = _build(found)
            _write_cache(cache, found, index)
    return index


def _read_cache(place: Path, found: _Found) -> Index | None:
    try:
        with open(place, encoding="utf-8") as file:
            cached = json.load(file)
        if cached["key"] != found.key:
            return None
        games = {id_: found.games[id_] for id_ in cached["games"]}
        return Index(found.source, games, found.annotations, cached["left_out"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_cache(place: Path, found: _Found, index: Index) -> None:
    content = {"key": found.key, "games": list(index.games), "left_out": index.left_out}
    beside = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    beside.write_text(json.dumps(content), encoding="utf-8")
    os.replace(beside, place)


def _find(path: Path) -> _Found:
    """List a data folder's files."""
    if not path.exists():
        raise FileNotFoundError(
            f"there is no ALFWorld data at {path}: give the folder with the official zip archives "
            "or the unpacked json_2.1.1 tree, or run `himac data get alfworld`"
        )
    if path.is_file():
        return _find_in_archives([path], path)
    for folder in (path, path / "json_2.1.1", path / "alfworld", path / "alfworld" / "json_2.1.1"):
        if not folder.is_dir():
            continue
        archives = sorted(folder.glob("*.zip"), reverse=True)
        found = _find_in_archives(archives, folder) if archives else None
        if found and found.games:
            return found
        if any((folder / split).is_dir() for split in OFFICIAL_SPLITS):
            found = _find_in_tree(folder)
            if found.games:
                return found
    raise FileNotFoundError(
        f"{path} holds no ALFWorld games: expected json_2.1.2_tw-pddl.zip (or another release), "
        f"or folders {', '.join(OFFICIAL_SPLITS)} with {_GAME} files; `himac data get alfworld` "
        "fetches the official ones"
    )


def _task_id(parts: tuple[str, ...]) -> str | None:
    """``<split>/<task>/<trial>`` from a file's path, None where it is no official game's file."""
    if len(parts) < 4 or parts[-4] not in OFFICIAL_SPLITS:
        return None
    return "/".join(parts[-4:-1])


def _find_in_archives(archives: list[Path], source: Path) -> _Found:
    """List the games of zip archives; where two hold a game, the last in name order counts."""
    games: dict[str, Place] = {}
    annotations: dict[str, Place] = {}
    stamps: list[object] = []
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as opened:
                members = opened.infolist()
        except (zipfile.BadZipFile, OSError) as error:
            raise GameFileError(
                f"{archive}: not a readable zip archive ({error}); delete it and fetch it again "
                "with `himac data get alfworld`"
            ) from error
        stat = archive.stat()
        stamps.append((archive.name, stat.st_size, stat.st_mtime_ns))
        for member in members:
            name = member.filename
            target = games if name.endswith(_GAME) else annotations
            if target is annotations and not name.endswith(_ANNOTATION):
                continue
            id_ = _task_id(tuple(name.split("/")))
            if id_ is None or id_ in target:
                continue
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise GameFileError(f"{archive}: {name} is compressed by an unknown method")
            target[id_] = Place(
                str(archive), name, member.header_offset, member.compress_size,
                member.compress_type, member.CRC,
            )  # fmt: skip
    return _Found(str(source), games, annotations, _key(stamps))


def _find_in_tree(folder: Path) -> _Found:
    games: dict[str, Place] = {}
    annotations: dict[str, Place] = {}
    stamps: list[object] = []
    for split in OFFICIAL_SPLITS:
        for trial in _folders(_folders([folder / split])):
            for name, target in ((_GAME, games), (_ANNOTATION, annotations)):
                path = trial / name
                try:
                    stat = path.stat()
                except OSError:
                    continue
                id_ = _task_id(path.parts)
                if id_ is not None:
                    target[id_] = Place(str(path))
                    stamps.append((id_, name, stat.st_size, stat.st_mtime_ns))
    return _Found(str(folder), games, annotations, _key(sorted(map(str, stamps))))


def _folders(parents: Iterable[Path]) -> Iterator[Path]:
    for parent in parents:
        if parent.is_dir():
            with os.scandir(parent) as entries:
                yield from (Path(entry.path) for entry in entries if entry.is_dir())


def _key(stamps: list[Any]) -> str:
    return hashlib.sha256(json.dumps([_FORM, stamps]).encode()).hexdigest()


def _build(found: _Found) -> Index:
    """Read every game once and keep those that the original would play."""
    left_out: dict[str, str] = {}
    ids = sorted(found.games)
    for id_ in ids:
        if reason := _why_left_out(id_, found):
            left_out[id_] = reason
    games = {id_: found.games[id_] for id_ in ids if id_ not in left_out}
    return Index(found.source, games, found.annotations, left_out)


def _why_left_out(id_: str, found: _Found) -> str:
    """Why the original would not play a game ("" where it would).

    The conditions are those of alfworld's AlfredTWEnv.collect_game_files. The type is read from
    the task's folder, whose name begins with it, instead of traj_data.json.
    """
    if found.annotations and id_ not in found.annotations:
        return f"it has no {_ANNOTATION}"
    if "movable" in id_ or "Sliced" in id_:
        return "movable receptacles and sliced objects are not supported by the original"
    if id_.split("/")[1].split("-")[0] not in TASK_TYPES:
        return "its task type is not one of the six"
    solvable = _solvable(found.games[id_].read())
    if solvable is None:
        return "its file has no key 'solvable'"
    return "" if solvable else "it is marked unsolvable"


def _solvable(content: bytes) -> bool | None:
    """The value of a game file's key "solvable", without parsing the 90 kB before it.

    The key comes last, or before the walkthrough. Inside a JSON string its quotes would be
    escaped, so an unescaped one is a key.
    """
    position = content.rfind(b'"solvable"')
    while position > 0 and content[position - 1 : position] == b"\\":
        position = content.rfind(b'"solvable"', 0, position)
    match = _SOLVABLE.match(content, position) if position >= 0 else None
    return None if match is None else match.group(1) == b"true"
