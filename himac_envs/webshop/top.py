"""The best documents for a query in one compiled pass: MaxScore, a document at a time.

Every list of postings is walked in the order of documents. Once ``k`` documents are known, the
terms whose scores together cannot lift a document above the worst of them are no longer walked,
only looked up, best term first, and only as long as the document can still get in.
"""

from __future__ import annotations

from typing import Any

from himac_envs.kernels import I32, I64, kernel

__all__ = ["top_documents"]


@kernel
def _sink(scores: Any, documents: I32, count: int, at: int) -> None:
    """Restore the heap below ``at``: the worst on top, of equals the one found last."""
    score, document = scores[at], documents[at]
    while True:
        child = 2 * at + 1
        if child >= count:
            break
        other = child + 1
        if other < count and (
            scores[other] < scores[child]
            or (scores[other] == scores[child] and documents[other] > documents[child])
        ):
            child = other
        if scores[child] > score or (scores[child] == score and documents[child] <= document):
            break
        scores[at], documents[at] = scores[child], documents[child]
        at = child
    scores[at], documents[at] = score, document


@kernel
def _seek(documents: I32, at: int, stop: int, wanted: int) -> int:
    """The first place from ``at`` on that holds ``wanted`` or more: by strides, then by halves."""
    stride = 1
    low = at
    while at < stop and documents[at] < wanted:
        low = at + 1
        at += stride
        stride *= 2
    high = min(at, stop)
    while low < high:
        middle = (low + high) >> 1
        if documents[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def top_documents(
    documents: I32,
    codes: Any,
    at: I64,
    stops: I64,
    tables: Any,
    bounds: Any,
    rounded: Any,
    best_scores: Any,
    best_documents: I32,
) -> int:
    """Find the best documents.

    Sums of scores are exact in float64 (they are of few float32 values of like size), so their
    order does not matter; they are rounded to float32 before they are compared, as Lucene does.

    Args:
        documents: int32, every list of postings, each ascending.
        codes: uint16 or uint32, what each posting scores, by number.
        at: int64, where each term's list begins; moved. Terms ascend by bound.
        stops: int64, where each term's list ends.
        tables: float32, shape (terms, codes): the scores.
        bounds: float64, shape (terms + 1,): the most that the first so many terms can score.
        rounded: float32, shape (1,): a scratch, to round in.
        best_scores: float32 output, shape (k,), in no order.
        best_documents: int32 output, shape (k,).

    Returns:
        How many were found, at most k.
    """
    terms, k = at.shape[0], best_scores.shape[0]
    end = 1 << 62
    count = 0
    first = 0  # the terms before are only looked up
    while first < terms:
        document = end
        for t in range(first, terms):
            if at[t] < stops[t] and documents[at[t]] < document:
                document = documents[at[t]]
        if document == end:
            break
        score = 0.0
        for t in range(first, terms):
            if at[t] < stops[t] and documents[at[t]] == document:
                score += tables[t, codes[at[t]]]
                at[t] += 1
        hopeful = True
        for t in range(first - 1, -1, -1):
            rounded[0] = score + bounds[t + 1]
            # Of equals the first counts, and documents come in order.
            if rounded[0] <= best_scores[0]:
                hopeful = False
                break
            at[t] = _seek(documents, at[t], stops[t], document)
            if at[t] < stops[t] and documents[at[t]] == document:
                score += tables[t, codes[at[t]]]
                at[t] += 1
        if not hopeful:
            continue
        rounded[0] = score
        if count < k:
            best_scores[count], best_documents[count] = rounded[0], document
            count += 1
            if count < k:
                continue
            for i in range(k // 2 - 1, -1, -1):
                _sink(best_scores, best_documents, k, i)
        elif rounded[0] > best_scores[0]:
            best_scores[0], best_documents[0] = rounded[0], document
            _sink(best_scores, best_documents, k, 0)
        else:
            continue
        while first < terms:
            rounded[0] = bounds[first + 1]
            if rounded[0] > best_scores[0]:
                break
            first += 1
    return count
