"""Which goals belong to which split, in the ways that are in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import overload

from himac_envs.task import UnknownSplitError

#: Scheme -> split -> (first, end); an end of None is the last goal.
#:
#: "webshop": the benchmark's own. "verl-agent": its validation goals are the first 500, all others
#: are for training; "test" is the same as "valid". "ragen": the benchmark's ranges, and the
#: reset's seed is the goal's number in the split, counted round.
SCHEMES: Mapping[str, Mapping[str, tuple[int, int | None]]] = {
    "webshop": {"test": (0, 500), "valid": (500, 1500), "train": (1500, None), "all": (0, None)},
    "verl-agent": {"test": (0, 500), "valid": (0, 500), "train": (500, None), "all": (0, None)},
    "ragen": {"test": (0, 500), "valid": (500, 1500), "train": (1500, None), "all": (0, None)},
}
_OTHER_NAMES = {"eval": "valid", "val": "valid"}


class GoalIds(Sequence[str]):
    """The ids of a range of goals, made when they are asked for: there can be millions."""

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> GoalIds: ...
    def __getitem__(self, index: int | slice) -> str | GoalIds:
        if isinstance(index, slice):
            return GoalIds(self._numbers[index])
        return str(self._numbers[index])

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return map(str, self._numbers)

    def __contains__(self, item: object) -> bool:
        return (
            isinstance(item, str)
            and item.isascii()
            and item.isdecimal()
            and len(item) < 12
            and str(int(item)) == item
            and int(item) in self._numbers
        )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GoalIds):
            return self._numbers == other._numbers
        if isinstance(other, (list, tuple)):
            return list(self) == list(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._numbers)

    def __repr__(self) -> str:
        return f"GoalIds({self._numbers})"


def split_range(scheme: str, split: str, goals: int, where: str) -> range:
    """Return the indices of a split's goals.

    Args:
        scheme: A key of `SCHEMES`.
        split: A split's name.
        goals: How many goals there are.
        where: What an error message calls the data.

    Raises:
        ValueError: There is no such scheme.
        UnknownSplitError: There is no such split, or it holds no goals.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"splits={scheme!r}: choose one of {', '.join(map(repr, SCHEMES))}")
    table = {
        name: range(min(first, goals), goals if end is None else min(end, goals))
        for name, (first, end) in SCHEMES[scheme].items()
    }
    found = table.get(_OTHER_NAMES.get(split, split), range(0))
    if not found:
        raise UnknownSplitError(split, {name: len(r) for name, r in table.items()}, where)
    return found
