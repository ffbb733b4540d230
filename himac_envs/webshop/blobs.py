"""Small memory-mapped structures: blobs by number, sorted keys, rows by key."""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class BlobWriter:
    """Writes byte strings one after the other: ``name.bin`` and ``name_at.npy``."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._file = (folder / f"{name}.bin").open("wb")
        self._at = array("q", [0])

    def add(self, blob: bytes) -> None:
        """Append one byte string."""
        self._file.write(blob)
        self._at.append(self._at[-1] + len(blob))

    def finish(self) -> None:
        """Write where each byte string starts."""
        self._file.close()
        np.save(self._folder / f"{self._name}_at.npy", np.frombuffer(self._at, np.int64))

    def close(self) -> None:
        """Close the file without finishing; harmless afterwards."""
        self._file.close()


def mapped(path: Path) -> NDArray[Any]:
    """Return an array file memory-mapped, as a plain array: `numpy.memmap` slices slowly."""
    return np.asarray(np.load(path, mmap_mode="r"))


class Blobs:
    """Byte strings by number, memory-mapped."""

    def __init__(self, folder: Path, name: str) -> None:
        self._at: NDArray[np.int64] = mapped(folder / f"{name}_at.npy")
        with (folder / f"{name}.bin").open("rb") as file:
            empty = os.fstat(file.fileno()).st_size == 0
            self._bytes: bytes | mmap.mmap = (
                b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            )

    def __len__(self) -> int:
        return len(self._at) - 1

    def __getitem__(self, number: int) -> bytes:
        return self._bytes[self._at[number] : self._at[number + 1]]


class SortedKeys:
    """Text keys in the order of their UTF-8 bytes, found by bisection."""

    def __init__(self, folder: Path, name: str) -> None:
        self._blobs = Blobs(folder, name)

    def __len__(self) -> int:
        return len(self._blobs)

    def find(self, key: str) -> int | None:
        """Return the key's place in the order, or None."""
        wanted = key.encode("utf-8", "surrogatepass")
        low, high = 0, len(self._blobs)
        while low < high:
            middle = (low + high) // 2
            here = self._blobs[middle]
            if here == wanted:
                return middle
            if here < wanted:
                low = middle + 1
            else:
                high = middle
        return None


def write_sorted_keys(folder: Path, name: str, keys: Iterable[str]) -> NDArray[np.int32]:
    """Write keys for `SortedKeys`.

    Returns:
        For each place in the order, the key's number in ``keys``, [keys] int32.
    """
    ordered = sorted((key.encode("utf-8", "surrogatepass"), n) for n, key in enumerate(keys))
    writer = BlobWriter(folder, name)
    for key, _ in ordered:
        writer.add(key)
    writer.finish()
    return np.array([n for _, n in ordered], np.int32)


class RowsWriter:
    """Gathers rows under text keys, in the order of adding."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._ids: dict[str, int] = {}
        self._keys, self._rows = array("i"), array("i")

    def add(self, key: str, row: int) -> None:
        """Note a row under a key."""
        self._keys.append(self._ids.setdefault(key, len(self._ids)))
        self._rows.append(row)

    def finish(self) -> None:
        """Write the keys and their rows."""
        order = write_sorted_keys(self._folder, f"{self._name}_keys", self._ids)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        keys = place[np.frombuffer(self._keys, np.int32)] if len(self._keys) else np.zeros(0, int)
        starts = np.zeros(len(order) + 1, np.int64)
        np.cumsum(np.bincount(keys, minlength=len(order)), out=starts[1:])
        rows = np.frombuffer(self._rows, np.int32)[np.argsort(keys, kind="stable")]
        np.save(self._folder / f"{self._name}_starts.npy", starts)
        np.save(self._folder / f"{self._name}_rows.npy", rows)


class Rows:
    """Rows under a text key."""

    def __init__(self, folder: Path, name: str) -> None:
        self._keys = SortedKeys(folder, f"{name}_keys")
        self._starts: NDArray[np.int64] = mapped(folder / f"{name}_starts.npy")
        self._rows: NDArray[np.int32] = mapped(folder / f"{name}_rows.npy")

    def __getitem__(self, key: str) -> list[int]:
        place = self._keys.find(key)
        if place is None:
            return []
        found: list[int] = self._rows[self._starts[place] : self._starts[place + 1]].tolist()
        return found


def save(folder: Path, **columns: Any) -> None:
    """Write arrays as ``name.npy``."""
    for name, column in columns.items():
        np.save(folder / f"{name}.npy", np.asarray(column))
