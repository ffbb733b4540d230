"""The search index: kept as memory-mapped arrays, searched exactly.

`himac_envs.webshop.indexing` builds it. A posting is a document number (4 bytes) and a code (2
bytes) into a small table of the values that "frequency times inverse length norm" takes; a term's
scores over that table are computed once a query. Document numbers follow the documents' ids in
ascending order, so Lucene's rule for equal scores (the smaller id first) is the smaller number
first.

Search is MaxScore. With numba a document at a time (`himac_envs.webshop.top`). Else a term at a
time: rare terms first; once the terms that are left cannot lift a new document into the top, only
the documents seen so far are looked up in their lists. A bound is dropped only where rounding to
float32 cannot bring it back, so the result is that of scoring every posting (`Index.search(...,
prune=False)` does that; tests compare the three).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from himac_envs.webshop import bm25
from himac_envs.webshop.analysis import analyze
from himac_envs.webshop.blobs import SortedKeys, mapped

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

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
        if prune and have_numba():
            return self._compiled(terms, k)
        with self._lock:
            if self._scores is None:
                self._scores = np.zeros(self.size, np.float64)
            found, scores = self._pruned(terms, k) if prune else self._exhaustive(terms)
        rounded = scores.astype(np.float32)
        if len(found) > k:
            cut = np.partition(rounded, len(rounded) - k)[len(rounded) - k]
            keep = rounded >= cut
            found, rounded = found[keep], rounded[keep]
        return _in_order(found, rounded, k)

    def _compiled(self, terms: list[_Term], k: int) -> tuple[list[int], list[float]]:
        from himac_envs.webshop.top import top_documents

        terms.sort(key=lambda t: t.bound)
        scores, found = np.empty(k, np.float32), np.empty(k, np.int32)
        count = top_documents(
            self._documents, self._codes,
            np.array([t.start for t in terms]), np.array([t.stop for t in terms]),
            np.stack([t.table for t in terms]), np.cumsum([0.0, *(t.bound for t in terms)]),
            np.empty(1, np.float32), scores, found,
        )  # fmt: skip
        return _in_order(found[:count], scores[:count], k)

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
            terms.append(_Term(self._documents, self._codes, start, stop, table, bound))
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

    __slots__ = ("bound", "codes", "documents", "start", "stop", "table")

    def __init__(
        self,
        documents: Ints,
        codes: NDArray[np.uint16],
        start: int,
        stop: int,
        table: Floats,
        bound: float,
    ) -> None:
        self.start, self.stop = start, stop
        self.documents = documents[start:stop]
        self.codes = codes[start:stop]
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


def _in_order(found: Ints, scores: Floats, k: int) -> tuple[list[int], list[float]]:
    best = np.lexsort((found, -scores))[:k]
    return found[best].tolist(), scores[best].tolist()


@lru_cache(maxsize=1)
def have_numba() -> bool:
    """Return whether searches of large indexes are compiled."""
    from himac_envs.kernels import COMPILED

    return COMPILED
