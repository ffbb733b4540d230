"""Files that a crash cannot leave half written, and errors that name what cannot be read."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
