"""BM25 exactly as Lucene 8.11 computes it, in its own float32 steps.

Sources: Lucene's BM25Similarity (scores), SmallFloat (document lengths in one byte) and the
defaults of the original's searcher: k1 = 0.9, b = 0.4.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

K1 = np.float32(0.9)
B = np.float32(0.4)
_ONE = np.float32(1.0)


def _to_int4(value: int) -> int:
    """SmallFloat.longToInt4: a float with four significant bits."""
    bits = value.bit_length()
    if bits < 4:
        return value
    shift = bits - 4
    return ((value >> shift) & 7) | ((shift + 1) << 3)


def _from_int4(code: int) -> int:
    shift = (code >> 3) - 1
    return code & 7 if shift < 0 else ((code & 7) | 8) << shift


#: Lengths up to this one are kept exactly; longer ones are rounded down.
_EXACT = 255 - _to_int4(2**31 - 1)


def encode_length(length: int) -> int:
    """Return the byte that Lucene keeps for a document of so many terms."""
    return length if length < _EXACT else _EXACT + _to_int4(length - _EXACT)


def decode_length(code: int) -> int:
    """Return the length that a byte of `encode_length` stands for."""
    return code if code < _EXACT else _EXACT + _from_int4(code - _EXACT)


LENGTHS = np.array([decode_length(code) for code in range(256)], dtype=np.float32)


def inverse_norms(average_length: np.float32) -> NDArray[np.float32]:
    """Return 1 / (k1 * (1 - b + b * length / average)) for every length byte, [256] float32."""
    norms: NDArray[np.float32] = _ONE / (K1 * ((_ONE - B) + B * LENGTHS / average_length))
    return norms


def idf(documents: int, holding: int) -> np.float32:
    """Return a term's inverse document frequency.

    Args:
        documents: Documents that hold any term.
        holding: Documents that hold this term.
    """
    return np.float32(math.log(1 + (documents - holding + 0.5) / (holding + 0.5)))


def term_scores(weight: np.float32, saturation: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a term's part of the score.

    Args:
        weight: The term's count in the query times its `idf`, float32.
        saturation: Frequency times `inverse_norms`, float32, any shape.
    """
    scores: NDArray[np.float32] = weight - weight / (_ONE + saturation)
    return scores
