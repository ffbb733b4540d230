"""Random numbers that belong to what is asked, not to who is asked or when.

The noise of a sampled token is a function of (run seed, task, episode number, decision, place in
the answer) and of nothing else. So the same episodes come out whatever plays beside them, in any
order and on any number of processes, and nothing about sampling has to be saved to resume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def key(*parts: str | int) -> int:
    """A 64-bit key for anything named by texts and numbers: equal parts, equal key.

    Args:
        *parts: What the key stands for. Their order and their types count.
    """
    told = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = str(part).encode("utf-8", "surrogatepass")
        told.update(f"{type(part).__name__}:{len(text)}:".encode() + text)
    return int.from_bytes(told.digest(), "little")


def uniforms(keys: Sequence[int], places: Sequence[int]) -> NDArray[np.float64]:
    """One number in [0, 1) for each (key, place), 53 bits of it random.

    The mixing function is the finaliser of splitmix64 (Steele, Lea and Flood, 2014), applied
    twice, so that neighbouring places of one key have nothing in common.

    Args:
        keys: [n] 64-bit keys.
        places: [n] places in the answers.
    """
    with np.errstate(over="ignore"):
        state = np.asarray(keys, dtype=np.uint64)
        state = state + np.asarray(places, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = _mix(_mix(state) + np.uint64(0x9E3779B97F4A7C15))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(*parts: str | int) -> np.random.Generator:
    """A generator for what is named by `parts`, where more than single numbers are wanted."""
    return np.random.default_rng(key(*parts))


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
