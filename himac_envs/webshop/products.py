"""Products: the cleaning rules of the original's loader, and the record kept in a catalogue.

Source: ``load_products`` of the original's ``web_agent_site/engine/engine.py``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

from himac_envs.webshop.errors import CatalogueError

_NOT_NUMERIC = re.compile(r"[^\d.]")
_NO_ATTRIBUTES = ("DUMMY_ATTR",)
RATING = "N.A."  # the original's release never loads reviews or ratings


class Lookup(Protocol):
    """What is looked up by product id: a dictionary, or something larger than memory."""

    def get(self, key: str, /) -> Any:
        """Return the entry, or None."""


@dataclass(frozen=True, slots=True)
class HumanInstruction:
    """A crowd worker's instruction for a product.

    Attributes:
        text: The sentence.
        attributes: Attributes that it names.
        options: Option values that it names.
    """

    text: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """One product, cleaned.

    Attributes:
        asin: Its id.
        title: Its name.
        description: Free text, may be "".
        bullets: The lines of the Features page.
        price_tag: What the pages show, e.g. "$16.99 to $26.99".
        prices: None, one or two prices in dollars; the price to pay is drawn between two.
        options: Option name (lower case) -> values (lower case).
        option_images: Option value -> image address or None.
        attributes: Its attributes, as mined by the benchmark's authors.
        image: The main image's address.
        query: The query that the product was collected with, lower case.
        category: One of the five departments.
        product_category: The path in the shop's tree, parts joined by "›".
        instruction: The synthetic instruction's text, or None.
        instruction_attributes: Attributes that the synthetic instruction names.
        instructions: Crowd instructions.
    """

    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    price_tag: str
    prices: tuple[float, ...]
    options: Mapping[str, tuple[str, ...]]
    option_images: Mapping[str, str | None]
    attributes: tuple[str, ...]
    image: str
    query: str
    category: str
    product_category: str
    instruction: str | None
    instruction_attributes: tuple[str, ...]
    instructions: tuple[HumanInstruction, ...]

    def document(self) -> str:
        """Return the text that is indexed for search: lower case, the first bullet only."""
        options = ", and ".join(f"{k}: {', '.join(v)}" for k, v in self.options.items())
        first = self.bullets[0] if self.bullets else ""
        return " ".join([self.title, self.description, first, options]).lower()

    def combinations(self) -> int:
        """Return the number of ways to choose one value of every option."""
        return math.prod(map(len, self.options.values()))

    def to_json(self) -> bytes:
        """Return the record kept in a catalogue."""
        record = [
            self.asin,
            self.title,
            self.description,
            self.bullets,
            self.price_tag,
            self.prices,
            self.options,
            {k: v for k, v in self.option_images.items() if v},
            self.attributes,
            self.image,
            self.query,
            self.category,
            self.product_category,
            self.instruction,
            self.instruction_attributes,
            [(i.text, i.attributes, i.options) for i in self.instructions],
        ]
        return json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_json(cls, record: bytes) -> Product:
        """Read back what `to_json` wrote."""
        f = json.loads(record)
        return cls(
            f[0],
            f[1],
            f[2],
            tuple(f[3]),
            f[4],
            tuple(f[5]),
            {k: tuple(v) for k, v in f[6].items()},
            f[7],
            tuple(f[8]),
            f[9],
            f[10],
            f[11],
            f[12],
            f[13],
            tuple(f[14]),
            tuple(HumanInstruction(t, tuple(a), tuple(o)) for t, a, o in f[15]),
        )


def parse_prices(pricing: str | None) -> tuple[tuple[float, ...], str]:
    """Return a product's prices (one or two) and its price tag.

    Raises:
        ValueError: The text holds no price.
    """
    if not pricing:
        return (100.0,), "$100.0"
    try:
        prices = [float(Decimal(_NOT_NUMERIC.sub("", part))) for part in pricing.split("$")[1:]]
    except InvalidOperation as error:
        raise ValueError(f"pricing {pricing!r} is not a price") from error
    if not prices:
        raise ValueError(f"pricing {pricing!r} holds no '$'")
    if len(prices) == 1:
        return (prices[0],), f"${prices[0]}"
    return (prices[0], prices[1]), f"${prices[0]} to ${prices[1]}"


def parse_options(
    customization: Any,
) -> tuple[dict[str, tuple[str, ...]], dict[str, str | None]]:
    """Return a product's options and the images of their values."""
    options: dict[str, tuple[str, ...]] = {}
    images: dict[str, str | None] = {}
    for name, contents in (customization or {}).items():
        if contents is None:
            continue
        values = []
        for content in contents:
            value = content["value"].strip().replace("/", " | ").lower()
            images[value] = content.get("image")
            values.append(value)
        options[name.lower()] = tuple(values)
    return options, images


def clean_product(
    row: Mapping[str, Any], mined: Mapping[str, Any], instructions: Iterable[Mapping[str, Any]]
) -> Product:
    """Make a product of a row of the product file.

    Args:
        row: The row.
        mined: Its entry in the attribute file ("attributes", "instruction",
            "instruction_attributes"), or {}.
        instructions: Its entries in the file of human instructions.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: The row is not as published.
    """
    prices, tag = parse_prices(row.get("pricing"))
    options, images = parse_options(row["customization_options"])
    bullets = row["small_description"]
    pictures = row["images"]
    return Product(
        asin=row["asin"],
        title=row["name"],
        description=row["full_description"] or "",
        bullets=tuple(bullets) if isinstance(bullets, list) else (bullets,),
        price_tag=tag,
        prices=prices,
        options=options,
        option_images=images,
        attributes=tuple(mined["attributes"]) if "attributes" in mined else _NO_ATTRIBUTES,
        image=pictures[0] if pictures else "",
        query=row["query"].lower().strip(),
        category=row["category"],
        product_category=row["product_category"],
        instruction=mined.get("instruction"),
        instruction_attributes=tuple(mined.get("instruction_attributes") or ()),
        instructions=tuple(
            HumanInstruction(
                i["instruction"],
                tuple(i["instruction_attributes"]),
                tuple(i["instruction_options"]),
            )
            for i in instructions
        ),
    )


def clean_products(
    rows: Iterable[Mapping[str, Any]],
    mined: Lookup,
    human: Lookup,
    *,
    limit: int | None = None,
    source: str = "the product file",
) -> Iterator[Product]:
    """Yield the shop's products: no "nan", no id of over ten characters, no id twice.

    Args:
        rows: The product file's rows.
        mined: Product id -> entry of the attribute file; looked up with ``get``.
        human: Product id -> crowd instructions; looked up with ``get``.
        limit: Only the first so many rows are looked at, kept or not, as in the original.
        source: What an error message names.

    Raises:
        CatalogueError: A row is not as published.
    """
    seen: set[str] = set()
    for number, row in enumerate(rows):
        if limit is not None and number >= limit:
            return
        try:
            asin = row["asin"]
            if asin == "nan" or len(asin) > 10 or asin in seen:
                continue
            seen.add(asin)
            product = clean_product(row, mined.get(asin) or {}, human.get(asin) or ())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CatalogueError(
                f"{source}: row {number} is not a product of the published form "
                f"({type(error).__name__}: {error})"
            ) from error
        yield product
