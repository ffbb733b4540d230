"""Where data sets and caches live on this machine.

``HIMAC_HOME`` (default: the platform's data folder) is where ``himac data`` installs, and the only
place that ``data=None`` looks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import platformdirs

from himac_envs import registry

#: Written last into a data set's folder; without it the folder counts as not installed.
READY = ".ready"
#: A value that begins so names official data: below that variable's folder, or installed.
_VARIABLE = "$HIMAC_DATA"


def home() -> Path:
    """Return the folder of installed data sets and caches (it may not exist yet)."""
    set_by_user = os.environ.get("HIMAC_HOME")
    return Path(set_by_user) if set_by_user else Path(platformdirs.user_data_dir("himac"))


def installed(name: str) -> Path | None:
    """Return the folder of an installed data set, or None.

    Args:
        name: "alfworld", "webshop" or "boxoban".
    """
    folder = home() / "data" / name
    return folder if (folder / READY).is_file() else None


def fill(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return an environment's keyword arguments with data sets' names replaced by their folders.

    ``data`` may be the name of a data set that `himac data get` installs. Any value may be
    "$HIMAC_DATA/NAME", which is the same. Everything else stays as it is: a folder, "generated",
    a name that only the environment knows.

    Raises:
        FileNotFoundError: The data set is not there.
    """
    found: dict[str, Any] = {}
    for key, value in kwargs.items():
        if isinstance(value, str):
            if value.startswith(_VARIABLE):
                value = official(value.removeprefix(_VARIABLE).strip("/"))
            elif key == "data" and value in registry.names("data"):
                value = official(value)
        found[key] = value
    return found


def official(name: str) -> str:
    """Return where an official data set lies: below HIMAC_DATA if that is set, else as installed.

    Raises:
        FileNotFoundError: It is not there; the message says how to get it.
    """
    root = os.environ.get("HIMAC_DATA")
    found = Path(root) / name if root else installed(name)
    if found is None:
        raise FileNotFoundError(
            f"{name}'s published data is not installed: `himac data get {name}` installs it, or "
            f"set HIMAC_DATA to a folder that holds it as {name}/; generated tasks need no data"
        )
    return str(found)


def fingerprint(paths: Iterable[Path]) -> str:
    """Return a short key of files' names, sizes and modification times: changed inputs, new key."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        stat = path.stat()
        digest.update(f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def writable(folder: Path) -> bool:
    """Return whether files may be put into a folder, which need not exist yet.

    A folder without its owner's write bit counts as read-only even for the superuser: who took
    the bit away meant it.
    """
    while not folder.exists():
        folder = folder.parent
    return bool(folder.stat().st_mode & 0o200) and os.access(folder, os.W_OK)


def cache_dirs(beside: Path | None = None) -> tuple[Path, ...]:
    """Return the folders where caches may lie: in ``beside``, and under `home`.

    Args:
        beside: The folder of the data that the cache is made from.
    """
    return (*([beside / ".himac-cache"] if beside else []), home() / "cache")


def cache_dir(beside: Path | None = None) -> Path:
    """Return the first of `cache_dirs` that can be written to; it may not exist yet.

    Raises:
        OSError: None can; the message names them.
    """
    places = cache_dirs(beside)
    for folder in places:
        if writable(folder):
            return folder
    raise OSError(
        f"no cache folder can be written: tried {', '.join(map(str, places))}; "
        "set HIMAC_HOME to a folder that you may write to"
    )
