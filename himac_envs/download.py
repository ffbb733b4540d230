"""Fetching public data sets: resumed, verified, locked, and marked ready last.

What exists is said by the cards in ``registry/data``. A download that breaks off goes on where it
stopped; a file whose size or checksum is wrong never becomes part of an installed set; processes
that want the same set wait for the one that fetches it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from himac_envs import registry
from himac_envs.data import READY, home
from himac_envs.errors import HiMACError

_CHUNK = 1 << 18
_TRIES = 5


class DownloadError(HiMACError, OSError):
    """A file could not be fetched, or is not what it should be."""


@dataclass(frozen=True)
class DataFile:
    """One published file.

    Attributes:
        name: Its name in the data set's folder.
        url: Where it is published.
        size: Bytes; 0 where no record gives it.
        sha256: Checksum in hexadecimal, "" where no record gives one (pinned at first download).
    """

    name: str
    url: str
    size: int
    sha256: str


@dataclass(frozen=True)
class DataVersion:
    """One version of a data set: some files.

    Attributes:
        name: E.g. "2.1.2".
        files: What it consists of.
        release: The publisher's name of it.
        note: What to know about it.
    """

    name: str
    files: tuple[DataFile, ...]
    release: str = ""
    note: str = ""


@dataclass(frozen=True)
class DataCard:
    """A public data set, read from ``registry/data``."""

    name: str
    about: str
    licence: str
    default: str
    versions: tuple[DataVersion, ...]

    def version(self, name: str | None) -> DataVersion:
        """Return a version (None: the default).

        Raises:
            ValueError: There is none of that name.
        """
        wanted = name or self.default
        for version in self.versions:
            if version.name == wanted:
                return version
        known = ", ".join(v.name for v in self.versions)
        raise ValueError(f"{self.name} has no version {wanted!r}: there are {known}")


def card(name: str) -> DataCard:
    """Return a data set's card.

    Raises:
        FileNotFoundError: There is none of that name; the message lists those that exist.
    """
    found = registry.read("data", name)
    versions = tuple(
        DataVersion(
            name=v["name"],
            files=tuple(DataFile(**f) for f in v["files"]),
            release=v.get("release", ""),
            note=v.get("note", ""),
        )
        for v in found["version"]
    )
    return DataCard(found["name"], found["about"], found["licence"], found["default"], versions)


def folder(name: str) -> Path:
    """Return where a data set is (to be) installed."""
    return home() / "data" / name


def get(
    name: str, version: str | None = None, *, base_url: str | None = None, progress: bool = False
) -> Path:
    """Fetch, verify and install a data set; a file that is there and right is left alone.

    Args:
        name: A card's name.
        version: Which version (None: the card's default).
        base_url: Fetch each file from here by its name (a mirror) instead of its published place.
        progress: Show a progress bar on stderr.

    Returns:
        The data set's folder.

    Raises:
        DownloadError: A file cannot be fetched, or its size or checksum is wrong.
    """
    wanted = card(name).version(version)
    target = folder(name)
    target.mkdir(parents=True, exist_ok=True)
    with FileLock(str(target / ".lock")):
        for file in wanted.files:
            if not _problem(target / file.name, file, _pins(target)):
                continue
            # From here on the folder does not count as installed until all is well again.
            (target / READY).unlink(missing_ok=True)
            fetch(file, target, base_url=base_url, progress=progress)
        _write(target / READY, json.dumps({"version": wanted.name}) + "\n")
    return target


def verify(name: str, version: str | None = None) -> Iterator[tuple[str, str]]:
    """Yield each file of an installed version with what is wrong with it ("" if nothing)."""
    target = folder(name)
    for file in card(name).version(version).files:
        yield file.name, _problem(target / file.name, file, _pins(target))


def _problem(path: Path, file: DataFile, pins: dict[str, str]) -> str:
    """Say what is wrong with a file on disk, "" for nothing."""
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    expected = file.sha256 or pins.get(file.name, "")
    if expected:
        if sha256(path) != expected:
            return f"checksum differs ({size:,} bytes): corrupt, or another version"
        return ""
    if file.size and size != file.size:
        return f"{size:,} bytes instead of {file.size:,}"
    return _zip_problem(path)


def _zip_problem(path: Path) -> str:
    # By content, not by name: a fresh download does not bear its final name yet.
    with path.open("rb") as stream:
        if stream.read(2) != b"PK" and path.suffix != ".zip":
            return ""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return f"not a readable zip archive: {error}"
    return f"{broken} inside it is corrupt" if broken else ""


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _pins(target: Path) -> dict[str, str]:
    """Checksums pinned by earlier downloads of files for which no record gives one."""
    try:
        pins: dict[str, str] = json.loads((target / "pinned.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return pins


def fetch(
    file: DataFile, target: Path, *, base_url: str | None = None, progress: bool = False
) -> None:
    """Fetch one file into a folder: what came before is gone on from, what is wrong is refused.

    Args:
        file: What, and from where.
        target: The folder.
        base_url: See `get`.
        progress: See `get`.

    Raises:
        DownloadError: It cannot be fetched, or its size or checksum is wrong.
    """
    import pooch

    url = file.url if base_url is None else f"{base_url.rstrip('/')}/{file.name}"
    part = target / f"{file.name}.part"
    known = file.sha256 or _pins(target).get(file.name)
    fresh = target / f"{file.name}.new"
    fresh.unlink(missing_ok=True)  # left by a process that was killed: pooch would trust it
    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(
            url=url,
            known_hash=f"sha256:{known}" if known else None,
            fname=fresh.name,
            path=target,
            downloader=_Resumable(part, file, progress),
            progressbar=False,
        )
    except ValueError as error:
        part.unlink(missing_ok=True)
        raise DownloadError(
            f"{url}: the downloaded file is not {file.name} (its checksum differs): {error}. The "
            "publisher may have replaced it, or something on the way changed it; nothing was "
            "installed"
        ) from error
    wrong = "" if known else _unpinned_problem(fresh, file)
    if wrong:
        fresh.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
        raise DownloadError(f"{url}: {wrong}; nothing was installed")
    if not known:
        pins = {**_pins(target), file.name: sha256(fresh)}
        _write(target / "pinned.json", json.dumps(pins, indent=2) + "\n")
    os.replace(fresh, target / file.name)
    part.unlink(missing_ok=True)


def _unpinned_problem(path: Path, file: DataFile) -> str:
    size = path.stat().st_size
    if file.size and size != file.size:
        return f"{size:,} bytes came instead of {file.size:,}"
    return _zip_problem(path)


def _write(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


class _Resumable:
    """A downloader for pooch that keeps what has come in a ``.part`` file and goes on from it."""

    def __init__(self, part: Path, file: DataFile, progress: bool) -> None:
        self.part = part
        self.file = file
        self.progress = progress

    def __call__(self, url: str, output_file: Any, pooch: Any, check_only: bool = False) -> bool:
        """Fetch ``url`` into ``output_file`` (a path), as pooch asks of a downloader."""
        import requests

        last = ""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(0.2 * 2**attempt)
            try:
                self._once(url)
                break
            except (requests.RequestException, _Retry) as error:
                last = str(error)
        else:
            raise DownloadError(f"{url}: {last} (tried {_TRIES} times); run the command again")
        shutil.copyfile(self.part, output_file)
        return True

    def _once(self, url: str) -> None:
        import requests

        have = self.part.stat().st_size if self.part.exists() else 0
        if have > self.file.size:  # too much, or of a file whose size nobody knows: from the start
            self.part.unlink()
            have = 0
        if have and have == self.file.size:
            return
        headers = {"Range": f"bytes={have}-"} if have else {}
        with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
            if answer.status_code in (429, 500, 502, 503, 504):
                raise _Retry(f"the server answered {answer.status_code}")
            if answer.status_code == 404:
                raise DownloadError(f"{url}: not found (404)")
            answer.raise_for_status()
            kind = answer.headers.get("Content-Type", "")
            if kind.startswith("text/html"):
                raise DownloadError(
                    f"{url}: got a web page instead of {self.file.name}: is there a login or a "
                    "proxy in between? Nothing was installed"
                )
            appends = answer.status_code == 206
            with self.part.open("ab" if appends else "wb") as stream:
                for chunk in self._watched(answer.iter_content(_CHUNK), have if appends else 0):
                    stream.write(chunk)
            announced = have + int(answer.headers.get("Content-Length", "0"))
        came = self.part.stat().st_size
        # A compressed answer announces another size than what it unpacks to.
        expected = self.file.size or (0 if answer.headers.get("Content-Encoding") else announced)
        if came < expected:
            raise _Retry(f"the connection ended after {came:,} of {expected:,} bytes")

    def _watched(self, chunks: Iterator[bytes], have: int) -> Iterator[bytes]:
        if not self.progress:
            yield from chunks
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(self.file.name, total=self.file.size or None, completed=have)
            for chunk in chunks:
                yield chunk
                bar.advance(task, len(chunk))


class _Retry(Exception):
    """Worth another try."""
