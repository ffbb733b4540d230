"""Files that a crash cannot leave half written, and errors that name what cannot be read."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from himac_envs.errors import HiMACError

#: A checkpoint's folder.
CHECKPOINT = re.compile(r"^step-(\d{8})$")


class CheckpointError(HiMACError):
    """A checkpoint that is missing, unreadable or not to be written; the message says which."""


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file beside its place and renames it into it; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        staged.write_text(text, encoding="utf-8")
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: It holds no JSON object; the message names the file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected an object")
    return found


def read_json_lines(path: Path, needed: Sequence[str] = ()) -> tuple[list[dict[str, Any]], bool]:
    """The objects in a file of JSON lines, and whether it ends in the middle of a line.

    A running process or one that was killed leaves such a line, which is passed over.

    Raises:
        ValueError: Another line is no JSON object, or one without the keys that are `needed`; the
            message names file and line.
    """
    found: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            # A whole line ends in a line break; what stands after the last one is being written.
            if number == len(lines):
                return found, True
            raise ValueError(f"{path}, line {number}: not valid JSON: {error}") from error
        if not isinstance(row, dict) or any(key not in row for key in needed):
            wanted = f"an object with {' and '.join(needed)}" if needed else "an object"
            raise ValueError(f"{path}, line {number}: expected {wanted}")
        found.append(row)
    return found, False


def scratch_of(owner: object, prefix: str) -> Path:
    """Makes a folder that is removed when its owner is forgotten, or Python ends."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a damaged file or folder makes of reading it, the error names it.

    Raises:
        CheckpointError: It cannot be read; how to go on without it.
    """
    try:
        yield
    except (HiMACError, ImportError):
        raise
    except Exception as error:
        told = f"{path} cannot be read: {type(error).__name__}: {error}"
        folder = next((p for p in (path, *path.parents) if CHECKPOINT.match(p.name)), None)
        if folder is not None:
            told += (
                f". Move {folder} away, and `himac train --resume {folder.parent.parent}` goes on "
                "from the checkpoint before"
            )
        raise CheckpointError(told) from error


def find_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint, if there is one."""
    for step in sorted(steps(folder), reverse=True):
        path = folder / f"step-{step:08d}"
        if (path / "state.json").is_file():
            return path
    return None


def latest_checkpoint(folder: Path) -> Path:
    """The newest whole checkpoint; a CheckpointError where there is none."""
    newest = find_checkpoint(folder)
    if newest is None:
        raise CheckpointError(
            f"{folder} holds no checkpoint: `himac train --resume {folder.parent}` continues the "
            "run, which writes one"
        )
    return newest


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a run's `checkpoints` folder."""
    if not folder.is_dir():
        return []
    return [int(m.group(1)) for p in folder.iterdir() if (m := CHECKPOINT.match(p.name))]
