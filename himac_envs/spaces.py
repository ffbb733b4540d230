"""The space of texts that environments say and hear."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import CustomSpaceError
from gymnasium.spaces.utils import flatdim, flatten, flatten_space, unflatten
from gymnasium.vector.utils import create_shared_memory

MAX_TEXT = 65_536


class FreeText(spaces.Text):
    """Any string of at most ``max_length`` characters, whatever its alphabet.

    ``spaces.Text`` accepts only the characters that it was given and cannot hold what games and
    language models write. ``sample`` draws short lower-case words, so that a sampled action is
    ordinary (and usually meaningless) text.
    """

    def __init__(
        self, max_length: int = MAX_TEXT, seed: int | np.random.Generator | None = None
    ) -> None:
        super().__init__(max_length, min_length=0, charset="abcdefghijklmnopqrstuvwxyz ", seed=seed)

    def contains(self, x: Any) -> bool:
        """Return whether ``x`` is a string no longer than ``max_length``."""
        return isinstance(x, str) and len(x) <= self.max_length

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Draw 1 to 32 lower-case letters and blanks (at most ``max_length``)."""
        if mask is None and probability is None:
            n = int(self.np_random.integers(1, min(32, self.max_length) + 1))
            mask = (n, None)
        return str(super().sample(mask=mask, probability=probability))

    @property
    def is_np_flattenable(self) -> bool:
        """Free text has no fixed-size array form."""
        return False

    def __repr__(self) -> str:
        return f"FreeText({self.max_length})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FreeText) and self.max_length == other.max_length

    __hash__ = None  # type: ignore[assignment]


@create_shared_memory.register(FreeText)
def _refuse_shared_memory(space: FreeText, n: int = 1, ctx: Any = None) -> Any:
    # Gymnasium's own handler for Text answers constant filler from AsyncVectorEnv without a
    # word; an error at construction is the only safe answer.
    raise CustomSpaceError(
        "FreeText cannot be kept in shared memory: pass shared_memory=False to AsyncVectorEnv "
        "(gym.make_vec(..., vectorization_mode='async', "
        "vector_kwargs={'shared_memory': False})), or use himac_envs.vector.make()"
    )


def _refuse_flattening(space: FreeText, *_: Any) -> Any:
    # Gymnasium's own handlers for Text make 65,536 numbers of it, and then fail on the first
    # character that is no letter with a bare KeyError.
    raise CustomSpaceError(
        "FreeText cannot be flattened: text has no form as an array of fixed size. Take "
        "himac_envs.TextOnly(env) for plain strings; for arrays take the picture alone "
        "(gymnasium.wrappers.FilterObservation(env, ['image']) with image=True), or "
        "HiMAC-Sokoban-Pixels-v0"
    )


for _form in (flatdim, flatten_space, flatten, unflatten):
    _form.register(FreeText)(_refuse_flattening)
