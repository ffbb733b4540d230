"""The catalogue: products, search postings and columns for goals, compiled once and shared.

A catalogue is a read-only, memory-mapped folder. Opening one reads a few kilobytes; every
environment of a process shares one `Catalogue`, and every process on a machine shares its pages.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from himac_envs.webshop.blobs import Blobs, BlobWriter, Rows, RowsWriter, mapped, save
from himac_envs.webshop.errors import CatalogueError
from himac_envs.webshop.index import Index
from himac_envs.webshop.indexing import IndexWriter
from himac_envs.webshop.json_stream import iterate_array, iterate_object
from himac_envs.webshop.nouns import stored_tagger
from himac_envs.webshop.products import Product, clean_products
from himac_envs.webshop.store import cache_root, compiled, fingerprint, key_of, read_manifest

#: Products in a result list, and queries and products remembered per process.
RESULTS = 50
_QUERIES = 4096
_PRODUCTS = 2048


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The published files of a catalogue.

    Attributes:
        products: ``items_shuffle*.json``.
        mined: ``items_ins_v2*.json``: attributes and synthetic instructions.
        human: ``items_human_ins.json``, or None: then there are no human goals.
    """

    products: Path
    mined: Path
    human: Path | None

    @classmethod
    def find(cls, folder: Path) -> SourceFiles:
        """Find the files in a folder, or in its folder ``webshop``.

        The full set is preferred to the one of 1,000 products.

        Raises:
            CatalogueError: A file is missing; the message names it and how to get it.
        """
        for place in (folder, folder / "webshop"):
            for suffix in ("", "_1000"):
                products = place / f"items_shuffle{suffix}.json"
                mined = place / f"items_ins_v2{suffix}.json"
                human = place / "items_human_ins.json"
                if products.is_file() and mined.is_file():
                    return cls(products, mined, human if human.is_file() else None)
        raise CatalogueError(
            f"no WebShop data in {folder}: expected items_shuffle.json and items_ins_v2.json (or "
            "items_shuffle_1000.json and items_ins_v2_1000.json); `himac data get webshop` "
            "fetches them"
        )

    def fingerprints(self) -> dict[str, str]:
        """Return each file's name and `fingerprint`."""
        files = [self.products, self.mined] + ([self.human] if self.human else [])
        return {path.name: fingerprint(path) for path in files}


@dataclass(frozen=True, slots=True)
class Card:
    """What a result list shows of a product."""

    asin: str
    title: str
    price_tag: str
    image: str


class Catalogue:
    """An opened catalogue.

    Args:
        folder: A compiled folder.

    Attributes:
        folder: Where it lies.
        name: What ``info["data"]`` says.
        size: The number of products.
        nouns_from: Where the nouns of titles that it stores came from, or None: it stores none.
    """

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        self.folder = folder
        self.name = str(manifest["facts"]["name"])
        self.nouns_from: str | None = manifest["facts"].get("nouns")
        self.index = Index(folder)
        self._records = Blobs(folder, "products")
        self._cards = Blobs(folder, "cards")
        self._nouns = Blobs(folder, "nouns") if self.nouns_from else None
        self.size = len(self._records)
        self._asins = mapped(folder / "asins.npy")
        self._row_of_document: NDArray[np.int32] = mapped(folder / "row_of_document.npy")
        self._by_category = Rows(folder, "category")
        self._by_query = Rows(folder, "query")
        self._by_attribute = Rows(folder, "attribute")
        self.columns: dict[str, NDArray[Any]] = {
            name: mapped(folder / f"{name}.npy") for name in COLUMNS
        }
        self.product = lru_cache(_PRODUCTS)(self._product)
        self.card = lru_cache(_PRODUCTS)(self._card)
        self.ranked = lru_cache(_QUERIES)(self._ranked)

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens the same folder: nothing of the data travels in a pickle.
        return open_catalogue, (self.folder,)

    def __deepcopy__(self, memo: Any) -> Catalogue:
        return self  # read-only and shared

    def _product(self, row: int) -> Product:
        """Return a product by its row in the product file's order."""
        try:
            return Product.from_json(self._records[row])
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            raise CatalogueError(
                f"{self.folder / 'products.bin'}: product {row} is damaged ({error}); delete the "
                "folder: it is compiled anew from its data"
            ) from error

    def _card(self, row: int) -> Card:
        return Card(*json.loads(self._cards[row]))

    def nouns(self, row: int) -> tuple[str, ...] | None:
        """Return the stored nouns of a product's title; None where none are stored."""
        return None if self._nouns is None else tuple(json.loads(self._nouns[row]))

    def row_of(self, asin: str) -> int | None:
        """Return a product's row by its id."""
        wanted = asin.encode("utf-8", "surrogatepass")
        if len(wanted) > self._asins.dtype.itemsize:
            return None
        place = int(np.searchsorted(self._asins, wanted))
        if place < self.size and self._asins[place] == wanted:
            return int(self._row_of_document[place])
        return None

    def _ranked(self, query: str) -> tuple[int, ...]:
        """Return the rows of the best products for a query, best first."""
        return tuple(self._row_of_document[self.index.search(query, RESULTS)].tolist())

    def search(self, keywords: list[str], rng: np.random.Generator) -> tuple[int, ...]:
        """Return the rows of the products that a search lists, in order.

        Args:
            keywords: The query, split at blanks. A first word ``<r>`` asks for 50 random
                products, ``<c>`` for a category, ``<q>`` for a query of the collection, ``<a>``
                for an attribute. The original's text environment crashes on ``<a>``; here it
                does what the original's site does.
            rng: Draws the random products.
        """
        if keywords[0] == "<r>":
            drawn = rng.choice(self.size, min(RESULTS, self.size), replace=False)
            return tuple(drawn.tolist())
        words = " ".join(keywords[1:]).strip()
        if keywords[0] == "<c>":
            # Only the second word counts; the original crashes where there is none.
            return tuple(self._by_category[keywords[1].strip()]) if len(keywords) > 1 else ()
        if keywords[0] == "<q>":
            return tuple(self._by_query[words])
        if keywords[0] == "<a>":
            return tuple(self._by_attribute[words])
        return self.ranked(" ".join(keywords))


#: Columns of a catalogue that goals are made from: the first and second price of each product (not
#: a number: only one), its synthetic goals, its attributes' numbers, and the crowd's instructions.
COLUMNS = (
    "price_low",
    "price_high",
    "goal_count",
    "goal_attributes",
    "goal_attributes_at",
    "human_row",
    "human_part",
)


class _Columns:
    """Gathers what goals are made from."""

    def __init__(self) -> None:
        self._low, self._high, self._count = array("d"), array("d"), array("q")
        self._attributes, self._at = array("i"), array("q", [0])
        self._human_row, self._human_part = array("i"), array("i")
        self._ids: dict[str, int] = {}

    def add(self, row: int, product: Product) -> None:
        self._low.append(product.prices[0])
        self._high.append(product.prices[1] if len(product.prices) > 1 else float("nan"))
        named = product.instruction_attributes if product.instruction is not None else ()
        self._count.append(product.combinations() if named else 0)
        for attribute in named:
            self._attributes.append(self._ids.setdefault(attribute, len(self._ids)))
        self._at.append(len(self._attributes))
        for part, instruction in enumerate(product.instructions):
            if instruction.attributes:
                self._human_row.append(row)
                self._human_part.append(part)

    def finish(self, folder: Path) -> None:
        save(
            folder,
            price_low=self._low,
            price_high=self._high,
            goal_count=self._count,
            goal_attributes=np.frombuffer(self._attributes or array("i"), np.int32),
            goal_attributes_at=self._at,
            human_row=np.frombuffer(self._human_row or array("i"), np.int32),
            human_part=np.frombuffer(self._human_part or array("i"), np.int32),
        )


def write_catalogue(
    folder: Path,
    products: Iterable[Product],
    tagger: Callable[[str], Iterable[str]] | None = None,
    *,
    source: str = "the product file",
) -> None:
    """Write the files of a catalogue in one pass over its products, in bounded memory.

    Args:
        folder: An empty folder.
        products: The products, in the product file's order.
        tagger: Gives the nouns of a title, to be stored; None stores none.
        source: What an error message names.

    Raises:
        CatalogueError: There is no product.
    """
    index = IndexWriter(folder)
    records, cards = BlobWriter(folder, "products"), BlobWriter(folder, "cards")
    nouns = BlobWriter(folder, "nouns") if tagger else None
    groups = {n: RowsWriter(folder, n) for n in ("category", "query", "attribute")}
    columns = _Columns()
    asins: list[bytes] = []
    for row, product in enumerate(products):
        asins.append(product.asin.encode("utf-8", "surrogatepass"))
        records.add(product.to_json())
        shown = [product.asin, product.title, product.price_tag, product.image]
        cards.add(json.dumps(shown).encode("ascii"))
        if nouns is not None and tagger is not None:
            nouns.add(json.dumps(list(tagger(product.title))).encode("ascii"))
        groups["category"].add(product.category, row)
        groups["query"].add(product.query, row)
        for attribute in dict.fromkeys(product.attributes):
            groups["attribute"].add(attribute, row)
        columns.add(row, product)
        index.add(product.document())
    if not asins:
        raise CatalogueError(f"{source} holds no product")
    ids = np.array(asins)
    row_of_document = np.argsort(ids, kind="stable").astype(np.int32)
    order = np.empty(len(ids), np.int32)
    order[row_of_document] = np.arange(len(ids), dtype=np.int32)
    save(folder, asins=ids[row_of_document], row_of_document=row_of_document)
    index.finish(order)
    for blobs in (records, cards, *([nouns] if nouns else [])):
        blobs.finish()
    for group in groups.values():
        group.finish()
    columns.finish(folder)


class _Spooled:
    """A JSON object's entries on disk, found by key: the attribute file is too large for a dict."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._values = folder / "spool.tmp"
        self._at: dict[str, tuple[int, int]] = {}
        end = 0
        with self._values.open("wb") as file:
            for key, value in iterate_object(path):
                blob = json.dumps(value).encode("ascii")
                file.write(blob)
                self._at[key] = (end, len(blob))
                end += len(blob)
        self._file = self._values.open("rb")

    def get(self, key: str) -> Any:
        if key not in self._at:
            return None
        start, size = self._at[key]
        self._file.seek(start)
        return json.loads(self._file.read(size))

    def close(self) -> None:
        self._file.close()
        self._values.unlink()


def compile_catalogue(
    files: SourceFiles, *, num_products: int | None = None, root: Path | None = None
) -> Path:
    """Compile published files into a catalogue, or find it compiled already.

    Args:
        files: The files.
        num_products: Only the first so many rows (None: all).
        root: Where compiled folders go (None: `cache_root`).

    Returns:
        The compiled folder.
    """
    nouns = stored_tagger()
    facts: dict[str, Any] = {
        "name": "webshop" if num_products is None else f"webshop-{num_products}",
        "inputs": files.fingerprints(),
        "num_products": num_products,
        "nouns": nouns.name if nouns else None,
    }

    def build(folder: Path) -> None:
        mined = _Spooled(files.mined, folder)
        human = dict(iterate_object(files.human)) if files.human else {}
        source = str(files.products)
        rows: Iterator[Mapping[str, Any]] = iterate_array(files.products)
        products = clean_products(rows, mined, human, limit=num_products, source=source)
        write_catalogue(folder, products, nouns.tag if nouns else None, source=source)
        mined.close()

    place = root if root is not None else cache_root(files.products.parent)
    return compiled(place / f"catalogue-{key_of(facts)}", facts, build)


@lru_cache(maxsize=8)
def _opened(folder: Path, stamp: int) -> Catalogue:
    return Catalogue(folder)


def open_catalogue(folder: Path) -> Catalogue:
    """Return the catalogue in a compiled folder; one object per folder and process.

    Raises:
        CatalogueError: The folder is not a whole catalogue of this version.
    """
    folder = Path(folder).resolve()
    manifest = folder / "manifest.json"
    stamp = manifest.stat().st_mtime_ns if manifest.is_file() else 0
    return _opened(folder, stamp)
