"""The search index: built in a stream, kept as memory-mapped arrays, searched exactly.

A posting is a document number (4 bytes) and a code (2 bytes) into a small table of the values
that "frequency times inverse length norm" takes; a term's scores over that table are computed once
a query. Document numbers follow the documents' ids in ascending order, so Lucene's rule for equal
scores (the smaller id first) is the smaller number first.

Search is MaxScore, term at a time: rare terms first; once the terms that are left cannot lift a
new document into the top, only the documents seen so far are looked up in their lists. A bound is
dropped only where rounding to float32 cannot bring it back, so the result is that of scoring every
posting (`Index.search(..., prune=False)` does that; tests compare the two).
"""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from himac_envs.webshop import bm25
from himac_envs.webshop.analysis import analyze, term_of
from himac_envs.webshop.blobs import SortedKeys, mapped, write_sorted_keys
from himac_envs.webshop.words import split_words

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

#: Tokens gathered before a sorted run is written.
_RUN_TOKENS = 3_000_000
#: Words whose terms are remembered while building.
_KNOWN_WORDS = 1_000_000
#: Postings merged at a time.
_MERGE_POSTINGS = 6_000_000
#: Indexes of fewer documents are scored whole: pruning costs more than it saves.
_PRUNE_FROM = 20_000
#: Among so many documents the leaders are looked for, and so many leaders are scored to the end.
_SAMPLE = 20_000
_LEADERS = 200
#: A term's list is walked where it is not longer than so many times the documents left.
_SCAN = 24
#: Query words whose numbers are remembered.
_TERMS = 1 << 14
#: Lists of fewer documents are scored at once: a better threshold would cost more.
_WORTH = 4_000

ARRAYS = (
    "documents",
    "codes",
    "starts",
    "tops",
    "saturation",
    "vocabulary_id",
    "facts",
)


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


class Index:
    """A built index, memory-mapped: opening it reads next to nothing.

    Searches of several threads wait for one another: they share the score accumulator.
    """

    def __init__(self, folder: Path) -> None:
        load = {name: mapped(folder / f"{name}.npy") for name in ARRAYS}
        self._documents: Ints = load["documents"]
        self._codes: NDArray[np.uint16] = load["codes"]
        self._starts: NDArray[np.int64] = load["starts"]
        self._tops: NDArray[np.int64] = load["tops"]
        self._saturation: Floats = np.array(load["saturation"])
        self._vocabulary = SortedKeys(folder, "vocabulary")
        self._vocabulary_id: Ints = load["vocabulary_id"]
        self.size, self._held = (int(n) for n in load["facts"])
        self._term = lru_cache(_TERMS)(self._find_term)
        self._scores: NDArray[np.float64] | None = None
        self._lock = threading.Lock()

    def _find_term(self, term: str) -> int | None:
        place = self._vocabulary.find(term)
        return None if place is None else int(self._vocabulary_id[place])

    def search(self, query: str, k: int = 50, *, prune: bool | None = None) -> list[int]:
        """Return the best documents' numbers, best first, ties by number.

        Args:
            query: Any text; unknown words are passed over.
            k: How many documents at most.
            prune: Whether to skip what cannot matter (None: from 20,000 documents on). The answer
                is the same.
        """
        numbers, _ = self.search_scores(query, k, prune=prune)
        return numbers

    def search_scores(
        self, query: str, k: int = 50, *, prune: bool | None = None
    ) -> tuple[list[int], list[float]]:
        """Return the best documents' numbers and their scores (float32 values)."""
        terms = self._query_terms(analyze(query))
        if not terms or k < 1:
            return [], []
        prune = self.size >= _PRUNE_FROM if prune is None else prune
        with self._lock:
            if self._scores is None:
                self._scores = np.zeros(self.size, np.float64)
            found, scores = self._pruned(terms, k) if prune else self._exhaustive(terms)
        rounded = scores.astype(np.float32)
        if len(found) > k:
            cut = np.partition(rounded, len(rounded) - k)[len(rounded) - k]
            keep = rounded >= cut
            found, rounded = found[keep], rounded[keep]
        best = np.lexsort((found, -rounded))[:k]
        return found[best].tolist(), rounded[best].tolist()

    def _query_terms(self, words: Iterable[str]) -> list[_Term]:
        terms = []
        for word, count in Counter(words).items():
            number = self._term(word)
            if number is None:
                continue
            start, stop = int(self._starts[number]), int(self._starts[number + 1])
            weight = np.float32(count) * bm25.idf(self._held, stop - start)
            table = bm25.term_scores(weight, self._saturation)
            # The table is sorted by saturation, and a score rises with saturation.
            bound = float(table[self._tops[number]])
            documents, codes = self._documents[start:stop], self._codes[start:stop]
            terms.append(_Term(documents, codes, table, bound))
        return terms

    def _exhaustive(self, terms: Sequence[_Term]) -> tuple[Ints, NDArray[np.float64]]:
        scores = self._scores
        assert scores is not None
        for term in terms:
            scores[term.documents] += term.scores()
        if 4 * sum(len(t.documents) for t in terms) < len(scores):
            found = np.unique(np.concatenate([t.documents for t in terms]))
        else:
            found = np.flatnonzero(scores).astype(np.int32)
        result = scores[found]
        for term in terms:
            scores[term.documents] = 0.0
        return found, result

    def _pruned(self, terms: list[_Term], k: int) -> tuple[Ints, NDArray[np.float64]]:
        scores = self._scores
        assert scores is not None
        terms.sort(key=lambda t: -t.bound)
        rest = [sum(t.bound for t in terms[i:]) for i in range(len(terms) + 1)]
        threshold = np.float32(0.0)
        found: list[Ints] = []
        at = 0
        while at < len(terms) and not np.float32(rest[at]) < threshold:
            term = terms[at]
            before = scores[term.documents]
            scores[term.documents] = before + term.scores()
            found.append(term.documents[before == 0.0])
            at += 1
            if at < len(terms) and len(terms[at].documents) > _WORTH:
                threshold = max(threshold, self._floor(found, terms[at:], k))
        seen = np.concatenate(found)
        seen, partial = self._keep(seen, scores[seen], rest[at], threshold, k)
        order = np.argsort(seen)
        seen, partial = seen[order], partial[order]
        for number in range(at, len(terms)):
            term = terms[number]
            if _SCAN * len(seen) < len(term.documents):
                term.add_to(partial, seen)
                scores[seen] = partial
            else:  # so many documents are left that walking the term's list costs less
                hit = scores[term.documents] != 0.0
                scores[term.documents[hit]] += term.table[term.codes[hit]]
                partial = scores[seen]
            seen, partial = self._keep(seen, partial, rest[number + 1], threshold, k)
        scores[seen] = 0.0
        return seen, partial

    def _keep(
        self,
        seen: Ints,
        partial: NDArray[np.float64],
        rest: float,
        threshold: np.float32,
        k: int,
    ) -> tuple[Ints, NDArray[np.float64]]:
        """Drop the documents that cannot reach the top k any more."""
        if len(seen) <= k:
            return seen, partial
        threshold = max(threshold, _kth(partial, k))
        keep = (partial + rest).astype(np.float32) >= threshold
        assert self._scores is not None
        self._scores[seen[~keep]] = 0.0
        return seen[keep], partial[keep]

    def _floor(self, found: list[Ints], left: list[_Term], k: int) -> np.float32:
        """Return a score that the k-th best document reaches at least.

        Any k documents' scores bound it from below. The ones that lead so far are scored to the
        end; those of the rare terms, which come first, are the most likely to lead.
        """
        scores = self._scores
        assert scores is not None
        seen = np.concatenate(found)[:_SAMPLE]
        if len(seen) < k:
            return np.float32(0.0)
        partial = scores[seen]
        most = max(_LEADERS, k)
        if len(seen) > most:
            seen = seen[np.argpartition(partial, len(seen) - most)[-most:]]
        seen = np.sort(seen)
        partial = scores[seen]
        for term in left:
            term.add_to(partial, seen)
        return _kth(partial, k)


class _Term:
    """One query term's postings and its score for every code."""

    __slots__ = ("bound", "codes", "documents", "table")

    def __init__(
        self, documents: Ints, codes: NDArray[np.uint16], table: Floats, bound: float
    ) -> None:
        self.documents = documents
        self.codes = codes
        self.table = table
        self.bound = bound

    def add_to(self, partial: NDArray[np.float64], seen: Ints) -> None:
        """Add the term's scores to those of ascending documents."""
        place = np.searchsorted(self.documents, seen)
        place[place == len(self.documents)] = 0
        hit = self.documents[place] == seen
        partial[hit] += self.table[self.codes[place[hit]]]

    def scores(self) -> Floats:
        scores: Floats = self.table[self.codes]
        return scores


def _kth(scores: NDArray[np.float64], k: int) -> np.float32:
    """Return the k-th largest score, rounded as Lucene rounds."""
    return np.float32(np.partition(scores, len(scores) - k)[len(scores) - k])
