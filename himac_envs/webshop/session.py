"""A shopping session: the pages as a state machine, with the original's routing.

Source: ``SimServer.receive`` and ``WebAgentTextEnv.step`` of the original's
``envs/web_agent_text_env.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from himac_envs.webshop import pages
from himac_envs.webshop.catalogue import Catalogue
from himac_envs.webshop.pages import Node

BASE_URL = "http://127.0.0.1:3000"
WINDOW = 10
_PAGE_NAMES = ("search_results", "item_page", "item_sub_page", "done")
_SUB_PAGES = {name.lower(): name for name in pages.SUB_PAGES}


def parse_action(action: str) -> tuple[str, str | None]:
    r"""Split "name[argument]"; the argument is None where the text has another form.

    The same as matching ``(.+)\[(.+)\]`` from the start, as the original does, but in linear
    time: the name is as long as can be, and what follows the last bracket of the first line is
    passed over. "a[b][c] d" gives "a[b]" and "c".
    """
    line = action.partition("\n")[0]
    closing = line.rfind("]")
    opening = line.rfind("[", 0, max(closing - 1, 0))
    if opening < 1:
        return action, None
    return line[:opening], line[opening + 1 : closing]


def page_name(url: str) -> str:
    """Return the page that an address means for the original's routing.

    It looks for the names anywhere in the address, so a query for "search_results" changes where
    ``< Prev`` leads.
    """
    return next((name for name in _PAGE_NAMES if name in url), "")


class ItemView(NamedTuple):
    """What is shown of a product, made once.

    Attributes:
        nodes: The page below the head.
        text: The same as text.
        clickables: What can be clicked, in the original's order.
        radios: Option value -> name of its option; the last option wins where two share a value.
    """

    nodes: list[Node]
    text: str
    clickables: tuple[str, ...]
    radios: dict[str, str]


class EntryView(NamedTuple):
    """A product in a result list: its nodes, the same as text, its id and the id as clicked."""

    nodes: list[Node]
    text: str
    asin: str
    link: str


class Shop:
    """The pages' parts over a catalogue; every session of a process shares them.

    Args:
        catalogue: The products.
        show_attributes: Whether products have the Attributes page.
    """

    def __init__(self, catalogue: Catalogue, show_attributes: bool = False) -> None:
        self.catalogue = catalogue
        self.show_attributes = show_attributes
        self.item = lru_cache(1024)(self._item)
        self.entry = lru_cache(4096)(self._entry)

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_shop, (self.catalogue, self.show_attributes)

    def __deepcopy__(self, memo: Any) -> Shop:
        return self

    def _item(self, row: int) -> ItemView:
        product = self.catalogue.product(row)
        page = pages.item_page(product, self.show_attributes)
        radios = {v: name.lower() for name, values in product.options.items() for v in values}
        buttons = ("Back to Search", "< Prev", *pages.item_buttons(self.show_attributes))
        # A value keeps the place of its first sight; it is not lower-cased again.
        values = (v for values in product.options.values() for v in values)
        click = tuple(dict.fromkeys((*pages.clickables(buttons), *values)))
        return ItemView(page, pages.plain_text(page), click, radios)

    def _entry(self, row: int) -> EntryView:
        card = self.catalogue.card(row)
        entry = pages.results_entry(card)
        return EntryView(entry, pages.plain_text(entry), card.asin, card.asin.lower())


_shops: dict[tuple[Catalogue, bool], Shop] = {}


def shared_shop(catalogue: Catalogue, show_attributes: bool) -> Shop:
    """Return the shop over a catalogue; one object per process."""
    key = (catalogue, show_attributes)
    if key not in _shops:
        while len(_shops) >= 8:
            _shops.pop(next(iter(_shops)))
        _shops[key] = Shop(catalogue, show_attributes)
    return _shops[key]


@dataclass(frozen=True, slots=True)
class State:
    """Where a session stands.

    Attributes:
        page: "index", "search_results", "item_page", "item_sub_page" or "done".
        keywords: The query, split at single blanks; None on the start page.
        number: The number of the result page.
        results: Rows of the products that the last search listed.
        row: The product that is open.
        options: The options chosen, in the order of choosing.
        visited: Ids of the products opened since the start page.
        sub: The sub-page's name.
        reward: The purchase's reward, on the last page.
    """

    page: str = "index"
    keywords: tuple[str, ...] | None = None
    number: int = 1
    results: tuple[int, ...] = ()
    row: int | None = None
    options: dict[str, str] = field(default_factory=dict)
    visited: frozenset[str] = frozenset()
    sub: str = ""
    reward: float = 0.0


class Session:
    """One shopper.

    Args:
        shop: The pages.
        instruction: What the pages show as the instruction.
        name: The session's id, part of every address.
        rng: Draws the products of the query ``<r>``.
    """

    def __init__(self, shop: Shop, instruction: str, name: str, rng: np.random.Generator) -> None:
        self.shop = shop
        self.name = name
        self._rng = rng
        self.instruction = instruction
        self._head = pages.head(instruction)
        self._head_text = pages.plain_text(self._head) + pages.SEPARATOR
        self.state = State()

    # ---- what can be done ------------------------------------------------------------------
    def clickables(self) -> tuple[str, ...]:
        """Return what can be clicked, in the original's order."""
        state = self.state
        if state.page == "item_page":
            return self._item().clickables
        if state.page == "search_results":
            back = ("< prev",) if state.number > 1 else ()
            entries = map(self.shop.entry, self._window())
            links = dict.fromkeys(entry.link for entry in entries)
            return ("back to search", *back, "next >", *links)
        if state.page == "item_sub_page":
            return ("back to search", "< prev")
        return ("search",) if state.page == "index" else ()

    @property
    def has_search_bar(self) -> bool:
        """Whether the page has the search bar. A search is accepted on every page all the same."""
        return self.state.page == "index"

    def act(self, action: str) -> bool:
        """Carry out an action.

        Returns:
            Whether it was understood; if not, nothing has changed. A purchase leads to the page
            "done" with a reward of 0.0 in its state: the caller sets it.
        """
        name, argument = parse_action(action)
        if argument is None:
            return False
        argument = argument.lower()
        if name == "search":
            # No check for the search bar, as in the original: a search works after the end, too.
            self._search(tuple(argument.split(" ")), 1)
            return True
        if name == "click" and argument != "search" and argument in self.clickables():
            self._click(argument)
            return True
        return False

    def _search(self, keywords: tuple[str, ...], number: int) -> None:
        results = self.shop.catalogue.search(list(keywords), self._rng)
        self.state = State(
            page="search_results",
            keywords=keywords,
            number=number,
            results=results,
            visited=self.state.visited,
        )

    def _click(self, what: str) -> None:
        state = self.state
        if what == "buy now":
            self.state = replace(state, page="done", reward=0.0)
        elif what == "back to search":
            self.state = State()
        elif what == "next >" and page_name(self.url) == "search_results":
            self._search(state.keywords or (), state.number + 1)
        elif what == "< prev" and page_name(self.url) == "search_results":
            self._search(state.keywords or (), state.number - 1)
        elif what == "< prev" and page_name(self.url) == "item_page":
            self._search(state.keywords or (), state.number)
        elif what == "< prev" and page_name(self.url) == "item_sub_page":
            self.state = replace(state, page="item_page", sub="")
        elif what in _SUB_PAGES:
            self.state = replace(state, page="item_sub_page", sub=_SUB_PAGES[what])
        else:
            self._open(what)

    def _open(self, what: str) -> None:
        """Open the product of a link, or choose an option of the open product."""
        state = self.state
        if state.page == "search_results":
            # Two products of one list cannot share an id; the later would win in the original.
            row = next(r for r in self._window() if self.shop.entry(r).link == what)
            visited = state.visited | {self.shop.entry(row).asin}
            self.state = replace(state, page="item_page", row=row, options={}, visited=visited)
        else:
            name = self._item().radios.get(what)
            options = state.options if name is None else {**state.options, name: what}
            self.state = replace(state, options=options)

    def _window(self) -> tuple[int, ...]:
        # A slice, as in the original: page 0 is empty, page -1 shows products from the list's end.
        number = self.state.number
        return self.state.results[(number - 1) * WINDOW : number * WINDOW]

    def _item(self) -> ItemView:
        assert self.state.row is not None
        return self.shop.item(self.state.row)

    # ---- what is seen ----------------------------------------------------------------------
    @property
    def url(self) -> str:
        """The address of the page."""
        state = self.state
        if state.page == "index":
            return f"{BASE_URL}/{self.name}"
        words = "+".join(state.keywords or ())
        if state.page == "search_results":
            return f"{BASE_URL}/search_results/{self.name}/{words}/{state.number}"
        assert state.row is not None
        asin = self.shop.entry(state.row).asin
        if state.page == "done":
            return f"{BASE_URL}/done/{self.name}/{asin}/{state.options}"
        place = f"{self.name}/{asin}/{words}/{state.number}"
        if state.page == "item_page":
            return f"{BASE_URL}/item_page/{place}/{json.dumps(state.options)}"
        return f"{BASE_URL}/item_sub_page/{place}/{state.sub}/{state.options}"

    def nodes(self) -> list[Node]:
        """Return the page's visible strings."""
        state, catalogue = self.state, self.shop.catalogue
        if state.page == "index":
            return pages.start_page(self.instruction)
        if state.page == "search_results":
            page = self._head + pages.results_top(state.number, len(state.results))
            for row in self._window():
                page = page + self.shop.entry(row).nodes
            return page
        assert state.row is not None
        if state.page == "item_page":
            return self._head + self._item().nodes
        product = catalogue.product(state.row)
        if state.page == "item_sub_page":
            return self._head + pages.sub_page(product, state.sub)
        return pages.done_page(product.asin, state.options, state.reward)

    def text(self) -> str:
        """Return the ``text`` observation."""
        state = self.state
        if state.page == "item_page":
            return self._head_text + self._item().text
        if state.page == "search_results":
            top = pages.plain_text(pages.results_top(state.number, len(state.results)))
            entries = (self.shop.entry(row).text for row in self._window())
            return self._head_text + pages.SEPARATOR.join((top, *entries))
        return pages.plain_text(self.nodes())

    def rich(self) -> str:
        """Return the ``text_rich`` observation."""
        return pages.rich_text(self.nodes(), self.url, self.state.visited)
