"""A generated shop: plausible products, drawn from the tables of ``registry/worlds/webshop.toml``.

It needs no download, is the same on every machine for the same seed, and goes through the same
cleaning and compilation as the published files. Its goals are graded: one to three attributes and
up to three options have to be right. Every goal can be met with reward 1.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from himac_envs import registry
from himac_envs.webshop.catalogue import write_catalogue
from himac_envs.webshop.products import Product, clean_product
from himac_envs.webshop.store import cache_root, compiled, key_of

#: Raised whenever the same tables and seed would give other products.
_REVISION = 1
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: Coined words: logarithm of how many there are.
_LOG_RANKS = math.log(400_000)


@lru_cache(maxsize=1)
def _card() -> tuple[Mapping[str, Any], str]:
    """Return the world's card and a hash of it; reading TOML costs tens of milliseconds."""
    card = registry.read("worlds", "webshop")
    return card, key_of(card)


class ShopGenerator:
    """Draws products.

    Args:
        tables: The world's card; None reads ``registry/worlds/webshop.toml``.
        seed: Fixes every product: product ``n`` is the same whatever their number.
    """

    def __init__(self, tables: Mapping[str, Any] | None = None, seed: int | None = None) -> None:
        self._tables = _card()[0] if tables is None else tables
        shop = self._tables["shop"]
        self._shop: Mapping[str, Any] = shop
        words = self._tables["words"]
        self._syllables: list[str] = words["brand_first"] + words["brand_middle"]
        self.seed = int(shop["seed"] if seed is None else seed)
        self.default_size = int(shop["products"])
        self._kinds: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = [
            (department, kind)
            for department in self._tables["department"]
            for kind in department["kind"]
        ]

    def products(self, count: int, words: int = 0) -> Iterator[Product]:
        """Yield the first ``count`` products.

        Args:
            count: How many.
            words: So many coined words are added to each description, rare ones among them: the
                long tail of names and numbers that a real catalogue of a million products has.
        """
        for number in range(count):
            row, mined = self.row(number, words)
            yield clean_product(row, mined, ())

    def row(self, number: int, words: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a product's row and attribute entry, in the form of the published files."""
        rng = random.Random(f"{self.seed}:{number}")
        department, kind = self._kinds[number % len(self._kinds)]
        vocabulary = self._tables["words"]
        brand, line = self._brand(rng), rng.choice(vocabulary["line"])
        model = f"{rng.choice(_DIGITS[10:])}{rng.choice(_DIGITS[10:])}{rng.randrange(10, 1000)}"
        attributes = rng.sample(kind["attributes"], min(len(kind["attributes"]), rng.randint(4, 6)))
        wanted = rng.sample(attributes, self._weighted(rng, "attributes_wanted"))
        title_words = ", ".join(a.title() for a in attributes[:3])
        options = self._options(rng, kind)
        query = kind["query"]
        row = {
            "asin": _asin(self.seed, number),
            "name": f"{brand} {line} {kind['noun']} {model}, {title_words}",
            "full_description": self._description(rng, brand, kind, attributes, words),
            "pricing": self._pricing(rng, kind["price"]),
            "images": [],
            "product_category": f"{department['path']} › {kind['path']}",
            "small_description": self._features(rng, department, kind, attributes),
            "customization_options": options,
            "category": department["name"],
            "query": query,
        }
        mined = {
            "attributes": attributes,
            "instruction": f"Find me {', '.join(wanted)} {query}",
            "instruction_attributes": wanted,
        }
        return row, mined

    def _weighted(self, rng: random.Random, name: str) -> int:
        values, weights = zip(*self._shop[name], strict=True)
        return int(rng.choices(values, weights)[0])

    def _brand(self, rng: random.Random) -> str:
        words = self._tables["words"]
        middle = rng.choice(words["brand_middle"]) if rng.random() < 0.6 else ""
        return (
            f"{rng.choice(words['brand_first'])}{middle}{rng.choice(words['brand_last'])}".title()
        )

    def _options(self, rng: random.Random, kind: Mapping[str, Any]) -> dict[str, Any]:
        low, high = self._shop["values_kept"]
        names = sorted(kind["options"])
        kept = rng.sample(names, min(len(names), self._weighted(rng, "options_kept")))
        options: dict[str, Any] = {}
        for name in kept:
            pool: Sequence[str] = self._tables["option_pools"][kind["options"][name]]
            chosen = set(rng.sample(pool, min(len(pool), rng.randint(low, high))))
            options[name] = [{"value": value} for value in pool if value in chosen]
        return options

    def _pricing(self, rng: random.Random, bounds: Sequence[float]) -> str:
        low, high = bounds
        # Cheap things are commoner than dear ones: uniform on a logarithmic scale.
        price = math.exp(rng.uniform(math.log(low), math.log(high)))
        price = round(price) - rng.choice((0.01, 0.05, 0.51))
        if rng.random() < self._shop["price_range_share"]:
            return f"${price:,.2f} - ${price * rng.uniform(1.2, 1.9):,.2f}"
        return f"${price:,.2f}"

    def _features(
        self,
        rng: random.Random,
        department: Mapping[str, Any],
        kind: Mapping[str, Any],
        attributes: Sequence[str],
    ) -> list[str]:
        lines = [f"{', '.join(attributes[:2])} {kind['noun'].lower()}"]
        lines += rng.sample(department["features"], 3)
        lines.append(f"{attributes[-1]}: {rng.choice(self._tables['words']['closing'])}")
        return [line[0].upper() + line[1:] for line in lines]

    def _description(
        self,
        rng: random.Random,
        brand: str,
        kind: Mapping[str, Any],
        attributes: Sequence[str],
        words: int,
    ) -> str:
        closing = rng.choice(self._tables["words"]["closing"])
        texts = [
            f"The {kind['noun'].lower()} by {brand} is {closing}.",
            f"What sets it apart: {', '.join(attributes)}.",
            f"Every order holds {rng.randint(1, 6)} part(s), weighs {rng.randint(2, 80)} ounces "
            f"and measures {rng.randint(2, 60)} by {rng.randint(2, 40)} inches.",
        ]
        if words:
            texts.append(" ".join(self._coined(rng) for _ in range(words)) + ".")
        return " ".join(texts)

    def _coined(self, rng: random.Random) -> str:
        """Return a made-up word; a few are common, most are rare."""
        syllables, count = self._syllables, len(self._syllables)
        rank = int(math.exp(_LOG_RANKS * rng.random())) + count
        word = ""
        while rank:
            rank, place = divmod(rank, count)
            word += syllables[place]
        return word


def _asin(seed: int, number: int) -> str:
    """Return an id of ten characters: distinct for distinct numbers, in no telling order."""
    scattered = (number * 2_654_435_761 + seed * 40_503 + 97) % (1 << 32)
    letters = ""
    for _ in range(7):
        scattered, digit = divmod(scattered, 36)
        letters = _DIGITS[digit] + letters
    return f"B0G{letters}"


def compile_generated(
    count: int | None = None,
    *,
    seed: int | None = None,
    words: int = 0,
    root: Path | None = None,
) -> Path:
    """Compile a generated shop, or find it compiled already.

    Args:
        count: Its number of products (None: the card's, 2,000).
        seed: Fixes them (None: the card's).
        words: Coined words per description; see `ShopGenerator.products`.
        root: Where compiled folders go (None: `cache_root`).

    Returns:
        The compiled folder.
    """
    generator = ShopGenerator(seed=seed)
    count = generator.default_size if count is None else int(count)
    if count < 1:
        raise ValueError(f"num_products={count}: a shop needs at least one product")
    facts = {
        "name": "generated" if count == generator.default_size else f"generated-{count}",
        "revision": _REVISION,
        "tables": _card()[1],
        "seed": generator.seed,
        "count": count,
        "words": words,
    }

    def build(folder: Path) -> None:
        write_catalogue(folder, generator.products(count, words), source="the generated shop")

    place = root if root is not None else cache_root()
    return compiled(place / f"generated-{key_of(facts)}", facts, build)
