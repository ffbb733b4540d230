"""Which goals belong to which split, in the ways that are in use."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import overload

from himac_envs.errors import UnknownSplitError
from himac_envs.webshop.goals import Goals, without_limit

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
#: Generated shops of more products keep all goals: to read every one of them would take seconds.
_TOLD_APART = 20_000


class GoalIds(Sequence[str]):
    """The ids of goals by their numbers, made when they are asked for: there can be millions.

    Args:
        numbers: A range, or sorted numbers.
    """

    def __init__(self, numbers: range | tuple[int, ...]) -> None:
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
            and self._has(int(item))
        )

    def _has(self, number: int) -> bool:
        if isinstance(self._numbers, range):
            return number in self._numbers
        place = bisect_left(self._numbers, number)
        return place < len(self._numbers) and self._numbers[place] == number

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GoalIds):
            return len(self) == len(other) and all(map(int.__eq__, self._numbers, other._numbers))
        if isinstance(other, (list, tuple)):
            return list(self) == list(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash((len(self), *self._numbers[:1], *self._numbers[-1:]))

    def __repr__(self) -> str:
        if isinstance(self._numbers, range):
            return f"GoalIds({self._numbers})"
        return f"<{len(self)} goals, {self._numbers[0]} to {self._numbers[-1]}>"


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
    table = _ranges(scheme, goals)
    found = table.get(_OTHER_NAMES.get(split, split), range(0))
    if not found:
        raise UnknownSplitError(split, {name: len(r) for name, r in table.items()}, where)
    return found


def _ranges(scheme: str, goals: int) -> dict[str, range]:
    return {
        name: range(min(first, goals), goals if end is None else min(end, goals))
        for name, (first, end) in SCHEMES[scheme].items()
    }


def goal_ids(scheme: str, split: str, goals: Goals, where: str) -> GoalIds:
    """Return the ids of a split's goals; see `split_range`.

    Of a generated shop, in its own scheme, goals that are told in the words of a held-out one are
    left out (see `told_apart`). Published goals stay as their benchmark has them.
    """
    numbers = split_range(scheme, split, len(goals), where)
    name = _OTHER_NAMES.get(split, split)
    catalogue = goals.catalogue
    generated = catalogue.name.startswith("generated") and catalogue.size <= _TOLD_APART
    if scheme == "webshop" and name in ("valid", "train") and generated:
        kept = told_apart(goals)[name]
        return GoalIds(numbers if len(kept) == len(numbers) else kept)
    return GoalIds(numbers)


@lru_cache(maxsize=16)
def told_apart(goals: Goals) -> Mapping[str, tuple[int, ...]]:
    """Return each split's goals without those that an earlier split is told in the same words.

    Goals are combinations of options: products lie in all splits, and goals of two products that
    are alike may be told alike. "test" comes first and keeps all of its own; "valid" leaves out
    what "test" has, "train" what either has. A price limit does not tell goals apart.
    """
    seen: set[str] = set()
    found: dict[str, tuple[int, ...]] = {}
    ranges = _ranges("webshop", len(goals))
    for split in ("test", "valid", "train"):
        told = {n: without_limit(goals[n].instruction_text) for n in ranges[split]}
        found[split] = tuple(n for n, text in told.items() if text not in seen)
        seen.update(told.values())
    return found
