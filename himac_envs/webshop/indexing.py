"""Building the search index in a stream; see `himac_envs.webshop.index` for its form."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from himac_envs.webshop import bm25
from himac_envs.webshop.analysis import term_of
from himac_envs.webshop.blobs import write_sorted_keys
from himac_envs.webshop.words import split_words

#: Tokens gathered before a sorted run is written.
_RUN_TOKENS = 3_000_000
#: Words whose terms are remembered while building.
_KNOWN_WORDS = 1_000_000
#: Postings merged at a time.
_MERGE_POSTINGS = 6_000_000


class IndexWriter:
    """Builds an index in bounded memory: sorted runs on disk, merged a range of terms at a time.

    Args:
        folder: Where the arrays are written; it must exist. Runs live there until `finish`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids: dict[str, int] = {}
        self._known: dict[str, int] = {}
        self._tokens: list[NDArray[np.int64]] = []
        self._waiting = 0
        self._lengths: list[int] = []
        self._run_document = 0
        self._spill: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._runs: list[tuple[int, int]] = []  # (first byte, postings)
        self._counts = np.zeros(0, np.int64)
        self._pairs: NDArray[np.int64] = np.zeros(0, np.int64)

    def add(self, text: str) -> None:
        """Add the next document."""
        words = split_words(text)
        found = list(map(self._known.get, words))
        if None in found:
            found = [
                self._number(word) if n is None else n for word, n in zip(words, found, strict=True)
            ]
        numbers = [n for n in found if n is not None and n >= 0]
        document = len(self._lengths)
        self._lengths.append(len(numbers))
        if numbers:
            keys = np.array(numbers, dtype=np.int64)
            keys <<= 32
            keys |= document
            self._tokens.append(keys)
            self._waiting += len(numbers)
            if self._waiting >= _RUN_TOKENS:
                self._write_run()

    def _number(self, word: str) -> int:
        """Return the number of a word's term, -1 for a stop word, and remember it."""
        term = term_of(word)
        number = -1 if term is None else self._ids.setdefault(term, len(self._ids))
        if len(self._known) >= _KNOWN_WORDS:
            self._known.clear()
        self._known[word] = number
        return number

    def _write_run(self) -> None:
        if not self._tokens:
            return
        keys, frequency = np.unique(np.concatenate(self._tokens), return_counts=True)
        self._tokens, self._waiting = [], 0
        first = self._run_document
        norms = np.array([bm25.encode_length(n) for n in self._lengths[first:]], dtype=np.int64)
        document = keys & 0xFFFFFFFF
        pairs = (frequency << 8) | norms[document - first]
        self._run_document = len(self._lengths)
        self._pairs = np.union1d(self._pairs, pairs)
        terms = keys >> 32
        counts = np.bincount(terms, minlength=len(self._ids))
        counts[: len(self._counts)] += self._counts
        self._counts = counts
        self._runs.append((self._spill.tell(), len(keys)))
        self._spill.write(keys.tobytes())
        self._spill.write(pairs.astype(np.int64).tobytes())

    def finish(self, order: NDArray[np.int32]) -> None:
        """Write the index's arrays.

        Args:
            order: The number of each document in the order of ids, [documents].
        """
        self._write_run()
        counts = np.zeros(len(self._ids), np.int64)
        counts[: len(self._counts)] = self._counts
        starts = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=starts[1:])
        code_of = self._write_tables(starts)
        self._merge(starts, code_of, order)
        self._spill.close()
        self._write_vocabulary()

    def _write_tables(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Write the saturation table; return each frequency-length pair's code."""
        lengths = np.array(self._lengths, dtype=np.int64)
        held = int((lengths > 0).sum())
        average = np.float32(float(lengths.sum()) / held) if held else np.float32(1.0)
        norms = bm25.inverse_norms(average)
        frequency = (self._pairs >> 8).astype(np.float32)
        saturation = frequency * norms[self._pairs & 255]
        table, code_of = np.unique(saturation, return_inverse=True)
        np.save(self._folder / "saturation.npy", table)
        np.save(self._folder / "starts.npy", starts)
        np.save(self._folder / "facts.npy", np.array([len(lengths), held], np.int64))
        return np.asarray(code_of, dtype=np.int64).reshape(-1)

    def _merge(
        self, starts: NDArray[np.int64], code_of: NDArray[np.int64], order: NDArray[np.int32]
    ) -> None:
        total = int(starts[-1])
        tops = np.zeros(len(starts) - 1, np.int64)  # each term's largest code
        small = len(code_of) <= 1 << 16
        make = np.lib.format.open_memmap
        if total == 0:
            np.save(self._folder / "documents.npy", np.zeros(0, np.int32))
            np.save(self._folder / "codes.npy", np.zeros(0, np.uint16))
            np.save(self._folder / "tops.npy", tops)
            return
        documents = make(self._folder / "documents.npy", "w+", np.int32, (total,))
        codes = make(self._folder / "codes.npy", "w+", np.uint16 if small else np.uint32, (total,))
        at = [0] * len(self._runs)
        first = 0
        while first < len(starts) - 1:
            budget = int(starts[first]) + _MERGE_POSTINGS
            last = max(first + 1, int(np.searchsorted(starts, budget, side="right")) - 1)
            keys, pairs = self._gather(at, last)
            ranked = (keys & ~0xFFFFFFFF) | order[keys & 0xFFFFFFFF]
            sort = np.argsort(ranked, kind="stable")
            here = slice(int(starts[first]), int(starts[last]))
            documents[here] = (ranked[sort] & 0xFFFFFFFF).astype(np.int32)
            code = code_of[np.searchsorted(self._pairs, pairs[sort])]
            codes[here] = code
            tops[first:last] = np.maximum.reduceat(code, starts[first:last] - starts[first])
            first = last
        documents.flush()
        codes.flush()
        np.save(self._folder / "tops.npy", tops)

    def _gather(self, at: list[int], last: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Read every run's postings of terms below ``last`` that were not read yet."""
        keys, pairs = [], []
        for number, (begin, size) in enumerate(self._runs):
            found = np.memmap(self._spill, np.int64, "r", offset=begin, shape=(2, size))
            stop = int(np.searchsorted(found[0], last << 32))
            keys.append(np.array(found[0, at[number] : stop]))
            pairs.append(np.array(found[1, at[number] : stop]))
            at[number] = stop
            del found
        return np.concatenate(keys), np.concatenate(pairs)

    def _write_vocabulary(self) -> None:
        order = write_sorted_keys(self._folder, "vocabulary", self._ids)
        np.save(self._folder / "vocabulary_id.npy", order)
