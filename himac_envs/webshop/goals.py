"""Goals: what the shopper is asked for, drawn and shuffled as the original does.

Sources: ``get_goals`` of the original's ``engine/goal.py``, ``generate_product_prices`` of its
``engine/engine.py`` and ``SimServer`` of its text environment. The original draws prices and price
limits from Python's global generator *before* it seeds it for the shuffle, so two of its loads
differ; here ``load_seed`` fixes them, and equals an original load whose generator was seeded with
the same number right before.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from himac_envs.data import writable
from himac_envs.webshop.blobs import mapped, save
from himac_envs.webshop.catalogue import Catalogue
from himac_envs.webshop.errors import CatalogueError
from himac_envs.webshop.store import cache_root, compiled, key_of

GoalKind = Literal["synthetic", "human"]
#: Stands for "no price limit".
NO_LIMIT = 1_000_000
_LIMIT = ", and price lower than "
#: The seed of the original's fixed shuffle.
SHUFFLE_SEED = 233
_LIMITS = [10.0 * i for i in range(1, 100)]
#: Catalogues of more products keep their goals on disk; below, drawing them takes milliseconds.
_KEEP_FROM = 20_000


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal.

    Attributes:
        index: Its place in the shuffled list, which is also its task id.
        asin: The product that it was made from.
        category: That product's department.
        query: That product's query.
        name: That product's title.
        product_category: That product's path in the shop's tree.
        instruction_text: What the shopper is told.
        attributes: What the product must have.
        price_upper: What it may cost at most; `NO_LIMIT` where nothing is said.
        goal_options: Wanted options: name -> value (synthetic) or values (human).
        weight: Its weight when goals are drawn at random.
    """

    index: int
    asin: str
    category: str
    query: str
    name: str
    product_category: str
    instruction_text: str
    attributes: tuple[str, ...]
    price_upper: float
    goal_options: Mapping[str, str] | tuple[str, ...]
    weight: float

    def option_values(self) -> tuple[str, ...]:
        """Return the wanted values."""
        options = self.goal_options
        return tuple(options.values()) if isinstance(options, Mapping) else options


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The columns of a list of goals, shuffled, and the price of every product."""

    prices: NDArray[np.float64]
    row: NDArray[np.int32]
    part: NDArray[np.int64]
    upper: NDArray[np.float64]
    weight: NDArray[np.float64]


def _draw_prices(catalogue: Catalogue, rng: random.Random) -> NDArray[np.float64]:
    low, high = catalogue.columns["price_low"], catalogue.columns["price_high"]
    prices = np.array(low)
    for row in np.flatnonzero(~np.isnan(high)):
        prices[row] = rng.uniform(float(low[row]), float(high[row]))
    return prices


def _draw_limit(price: float, rng: random.Random) -> float:
    """Draw a price limit: the larger of two of the four next multiples of ten."""
    above = bisect.bisect_right(_LIMITS, price)
    near = _LIMITS[above : above + 4]
    if len(near) < 2:
        return NO_LIMIT
    return max(rng.sample(near, 2))


def _draw_synthetic(catalogue: Catalogue, rng: random.Random) -> _Drawn:
    """Every combination of options of every product with an instruction."""
    columns = catalogue.columns
    prices = _draw_prices(catalogue, rng)
    count = np.array(columns["goal_count"])
    at, numbers = np.array(columns["goal_attributes_at"]), np.array(columns["goal_attributes"])
    # A product's limit is drawn even where an empty option leaves it without a goal.
    limits = np.zeros(len(count))
    for named in np.flatnonzero(np.diff(at) > 0).tolist():
        limits[named] = _draw_limit(float(prices[named]), rng)
    uses = np.bincount(numbers, weights=np.repeat(count, np.diff(at)).astype(np.float64))
    share = [0.0] * len(count)
    for asked in np.flatnonzero(count).tolist():
        mine = numbers[at[asked] : at[asked + 1]].tolist()
        share[asked] = sum(1.0 / float(uses[number]) for number in mine) / len(mine)
    row = np.repeat(np.arange(len(count), dtype=np.int32), count)
    first = np.cumsum(count) - count
    part = np.arange(len(row), dtype=np.int64) - np.repeat(first, count)
    return _Drawn(prices, row, part, limits[row], np.array(share)[row])


def _draw_human(catalogue: Catalogue, rng: random.Random) -> _Drawn:
    """Every crowd instruction that names an attribute."""
    prices = _draw_prices(catalogue, rng)
    row = np.array(catalogue.columns["human_row"])
    part = np.array(catalogue.columns["human_part"], dtype=np.int64)
    upper = np.array([_draw_limit(float(prices[r]), rng) for r in row], dtype=np.float64)
    return _Drawn(prices, row, part, upper, np.ones(len(row)))


_DRAW: dict[str, Callable[[Catalogue, random.Random], _Drawn]] = {
    "synthetic": _draw_synthetic,
    "human": _draw_human,
}


class Goals(Sequence[Goal]):
    """A list of goals over a catalogue; a goal is made when it is asked for.

    Args:
        catalogue: The products.
        kind: "synthetic" (an instruction for every combination of options) or "human" (crowd
            workers' instructions).
        load_seed: Fixes prices and price limits.
        shuffle_seed: Fixes the order.
        accept: Keeps the goals for which it returns True, as the original's ``filter_goals``;
            called with the index in the whole list and the goal.
        limit: So many goals are drawn by weight, without repeats, as the original's
            ``limit_goals`` (-1: all).
    """

    def __init__(
        self,
        catalogue: Catalogue,
        kind: GoalKind = "synthetic",
        *,
        load_seed: int = 0,
        shuffle_seed: int = SHUFFLE_SEED,
        accept: Callable[[int, Goal], bool] | None = None,
        limit: int = -1,
    ) -> None:
        if kind not in _DRAW:
            raise ValueError(f"goals={kind!r}: choose 'synthetic' or 'human'")
        self.catalogue = catalogue
        self.kind = kind
        self._seeds = (int(load_seed), int(shuffle_seed))
        drawn = self._kept() if catalogue.size >= _KEEP_FROM else self._draw()
        self.prices = drawn.prices
        self._row, self._part, self._upper = drawn.row, drawn.part, drawn.upper
        self.weights = drawn.weight
        if accept is not None:
            self._take([goal.index for goal in self if accept(goal.index, goal)])
        if limit != -1 and limit < len(self):
            self._take(self._limited(limit))
        self._cumulative: NDArray[np.float64] | None = None
        self._made_with = (accept, limit)

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self.catalogue, self.kind, *self._seeds, *self._made_with)

    def __deepcopy__(self, memo: Any) -> Goals:
        return self  # read-only and shared

    def _draw(self) -> _Drawn:
        load_seed, _ = self._seeds
        drawn = _DRAW[self.kind](self.catalogue, random.Random(load_seed))
        if len(drawn.row) == 0:
            return drawn
        order = np.array(self._shuffled(len(drawn.row))[0], dtype=np.int64)
        return _Drawn(
            drawn.prices,
            drawn.row[order],
            drawn.part[order],
            drawn.upper[order],
            drawn.weight[order],
        )

    def _shuffled(self, count: int) -> tuple[list[int], random.Random]:
        """Return the order of the goals and the generator in its state after the shuffle."""
        rng = random.Random(self._seeds[1])
        order = list(range(count))
        rng.shuffle(order)
        return order, rng

    def _kept(self) -> _Drawn:
        """Return the goals from the disk, drawing them first where they are not there yet."""
        facts = {
            "name": "goals",
            "catalogue": self.catalogue.folder.name,
            "kind": self.kind,
            "seeds": list(self._seeds),
        }
        beside = self.catalogue.folder.parent
        root = beside if writable(beside) else cache_root()

        def build(folder: Path) -> None:
            drawn = self._draw()
            save(
                folder,
                prices=drawn.prices,
                row=drawn.row,
                part=drawn.part,
                upper=drawn.upper,
                weight=drawn.weight,
            )

        folder = compiled(root / f"goals-{key_of(facts)}", facts, build)
        names = ("prices", "row", "part", "upper", "weight")
        return _Drawn(*(mapped(folder / f"{name}.npy") for name in names))

    def _take(self, indices: Sequence[int]) -> None:
        chosen = np.array(indices, dtype=np.int64)
        self._row, self._part = self._row[chosen], self._part[chosen]
        self._upper, self.weights = self._upper[chosen], self.weights[chosen]

    def _limited(self, limit: int) -> list[int]:
        # The original draws with the generator that has just shuffled.
        _, rng = self._shuffled(len(self._row))
        cumulative = [0.0, *np.cumsum(self.weights).tolist()]
        drawn: dict[int, None] = {}
        while len(drawn) < limit:
            place = bisect.bisect(cumulative, rng.uniform(0, cumulative[-1]))
            drawn[min(place, len(cumulative) - 2)] = None
        return list(drawn)

    def draw(self, rng: np.random.Generator) -> int:
        """Draw a goal's index by weight, as the original does for a session without a number."""
        if self._cumulative is None:
            self._cumulative = np.cumsum(self.weights)
        place = np.searchsorted(
            self._cumulative, rng.uniform(0, self._cumulative[-1]), side="right"
        )
        return int(min(place, len(self) - 1))

    def price(self, row: int) -> float:
        """Return what a product costs in this load."""
        return float(self.prices[row])

    def row(self, index: int) -> int:
        """Return the row of a goal's product."""
        return int(self._row[index])

    def __len__(self) -> int:
        return len(self._row)

    def __iter__(self) -> Iterator[Goal]:
        return map(self.__getitem__, range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Goal: ...
    @overload
    def __getitem__(self, index: slice) -> list[Goal]: ...
    def __getitem__(self, index: int | slice) -> Goal | list[Goal]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"goal {index} of {len(self)}")
        index %= len(self)
        product = self.catalogue.product(int(self._row[index]))
        part, upper = int(self._part[index]), float(self._upper[index])
        limit = "" if upper == NO_LIMIT else f"{_LIMIT}{upper:.2f} dollars"
        options: Mapping[str, str] | tuple[str, ...]
        if self.kind == "human":
            told = product.instructions[part]
            text, attributes, options = told.text.strip("."), told.attributes, told.options
        else:
            text, attributes = str(product.instruction), product.instruction_attributes
            options = _combination(product.options, part)
            if options:
                text += " with " + ", and ".join(f"{k}: {v}" for k, v in options.items())
        return Goal(
            index=index,
            asin=product.asin,
            category=product.category,
            query=product.query,
            name=product.title,
            product_category=product.product_category,
            instruction_text=text + limit,
            attributes=attributes,
            price_upper=upper,
            goal_options=options,
            weight=float(self.weights[index]),
        )


def without_limit(instruction: str) -> str:
    """Return an instruction without its price limit."""
    return instruction.partition(_LIMIT)[0]


def _combination(options: Mapping[str, tuple[str, ...]], number: int) -> dict[str, str]:
    """Return the ``number``-th way to choose a value of every option.

    Names are sorted and the last one runs fastest, as in `itertools.product`.
    """
    chosen: list[tuple[str, str]] = []
    for name in sorted(options, reverse=True):
        number, place = divmod(number, len(options[name]))
        chosen.append((name, options[name][place]))
    return dict(reversed(chosen))


def _remade(
    catalogue: Catalogue,
    kind: GoalKind,
    load_seed: int,
    shuffle_seed: int,
    accept: Callable[[int, Goal], bool] | None,
    limit: int,
) -> Goals:
    if accept is None and limit == -1:
        return shared_goals(catalogue, kind, load_seed, shuffle_seed)
    return Goals(
        catalogue, kind, load_seed=load_seed, shuffle_seed=shuffle_seed, accept=accept, limit=limit
    )


_lists: dict[tuple[Any, ...], Goals] = {}


def shared_goals(catalogue: Catalogue, kind: GoalKind, load_seed: int, shuffle_seed: int) -> Goals:
    """Return a list of goals; environments with the same settings share one.

    Raises:
        CatalogueError: The catalogue has no goals of this kind.
    """
    key = (catalogue, kind, load_seed, shuffle_seed)
    if key not in _lists:
        goals = Goals(catalogue, kind, load_seed=load_seed, shuffle_seed=shuffle_seed)
        if len(goals) == 0:
            missing = "items_human_ins.json" if kind == "human" else "synthetic instructions"
            raise CatalogueError(
                f"{catalogue.name} at {catalogue.folder} has no {kind} goals: its data came "
                f"without {missing}"
            )
        while len(_lists) >= 16:
            _lists.pop(next(iter(_lists)))
        _lists[key] = goals
    return _lists[key]
