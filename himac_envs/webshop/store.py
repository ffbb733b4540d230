"""Compiled folders: built under a lock, marked ready last, checked when opened.

A compiled folder holds arrays and blobs and a ``manifest.json`` that is written last: it names the
format, what the folder was made from and the size of every file. A folder is built beside its
place and renamed, so it is either whole or not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from himac_envs.data import cache_dir
from himac_envs.webshop.errors import CatalogueError

MANIFEST = "manifest.json"
#: Raised whenever the form of the compiled files changes; older folders are rebuilt.
VERSION = 1
_ENDS = 1 << 20


def fingerprint(path: Path) -> str:
    """Return a hash of a file's size and of its first and last megabyte.

    The full product file holds five gigabytes; reading all of it would take longer than opening
    the compiled form may.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_ENDS))
        if size > _ENDS:
            file.seek(max(_ENDS, size - _ENDS))
            digest.update(file.read())
    return digest.hexdigest()


def key_of(facts: Mapping[str, Any]) -> str:
    """Return a short name for the inputs of a compiled folder."""
    text = json.dumps({"version": VERSION, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_root(beside: Path | None = None) -> Path:
    """Return where compiled folders go: beside the data where that is writable, else the home.

    Raises:
        CatalogueError: Neither place can be written to.
    """
    try:
        return cache_dir(beside) / "webshop"
    except OSError as error:
        raise CatalogueError(f"no place for the compiled catalogue: {error}") from None


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a compiled folder's manifest after checking that the folder is whole.

    Raises:
        CatalogueError: No manifest, another format, or a file that is missing or cut.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CatalogueError(f"{folder}: not a compiled catalogue (no {MANIFEST})") from error
    except (ValueError, OSError) as error:
        raise CatalogueError(f"{path}: unreadable ({error}); {_rebuild(folder)}") from error
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
        found = manifest.get("version") if isinstance(manifest, dict) else None
        raise CatalogueError(
            f"{folder}: compiled in format {found!r}, this version reads {VERSION}; "
            f"{_rebuild(folder)}"
        )
    for name, (size, _) in manifest["files"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            found = f"{file.stat().st_size} bytes" if file.is_file() else "nothing"
            raise CatalogueError(
                f"{file}: {size} bytes expected, {found} found: the compiled catalogue is "
                f"damaged; {_rebuild(folder)}"
            )
    return manifest


def _rebuild(folder: Path) -> str:
    return f"delete {folder} and run `himac data build webshop PATH` with the folder of its data"


def verify(folder: Path) -> None:
    """Compare the checksum of every file with the manifest.

    Raises:
        CatalogueError: A file differs.
    """
    for name, (_, checksum) in read_manifest(folder)["files"].items():
        if _crc(folder / name) != checksum:
            raise CatalogueError(
                f"{folder / name}: its content has changed since it was compiled; "
                f"{_rebuild(folder)}"
            )


def _crc(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            value = zlib.crc32(chunk, value)
    return value


def compiled(folder: Path, facts: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """Return a compiled folder, building it first where it is missing, damaged or older.

    Args:
        folder: Its place.
        facts: What it is made from; kept in the manifest.
        build: Writes the files into the folder that it is given.

    Raises:
        CatalogueError: The disk is full or the place cannot be written to; nothing is left behind.
    """
    if _usable(folder):
        return folder
    from filelock import FileLock

    part: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if _usable(folder):  # another process built it while this one waited
                return folder
            _sweep(folder)
            part = Path(
                tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".part", dir=folder.parent)
            )
            build(part)
            _write_manifest(part, facts)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(part, folder)
    except OSError as error:
        raise CatalogueError(
            f"cannot write the compiled catalogue to {folder}: {error}; it needs about the size "
            "of its product file; free some space or set HIMAC_HOME to a larger disk"
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _usable(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        read_manifest(folder)
    except CatalogueError:
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove what builds of this folder left that were killed; the caller holds the lock."""
    for left in folder.parent.glob(f"{folder.name}.*.part"):
        shutil.rmtree(left, ignore_errors=True)


def _write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    files: dict[str, tuple[int, int]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = (path.stat().st_size, _crc(path))
    manifest = {"version": VERSION, "facts": dict(facts), "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def remove(folder: Path) -> None:
    """Delete a compiled folder and its lock."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        os.remove(f"{folder}.lock")
