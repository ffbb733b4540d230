"""Pages as HTML, for people, browsers and the ``html`` observation, and HTML back to strings.

The templates are our own; their visible strings, ids and classes are those on which agents of the
original select: ``#search_input``, ``#instruction-text``, ``.btn``, ``.product-link``,
``input[type=radio]``, ``#product-image``, ``#reward`` and others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from himac_envs.errors import MissingDependencyError
from himac_envs.webshop import pages
from himac_envs.webshop.goals import NO_LIMIT, Goal
from himac_envs.webshop.pages import Kind, Node, nodes
from himac_envs.webshop.products import RATING
from himac_envs.webshop.session import WINDOW, Session

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def templates() -> Environment:
    """Return the templates.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader
    except ImportError as error:
        raise MissingDependencyError("jinja2", "WebShop's pages", "webshop") from error
    # Line breaks around blocks stay: blanks without one would be strings of the page.
    return Environment(loader=PackageLoader("himac_envs.webshop"), autoescape=True)


def segment(text: str) -> str:
    """Return a text as one segment of a path.

    Servers decode a path before they split it, so slashes are escaped once more.
    """
    return quote(text.replace("%", "%25").replace("/", "%2F"), safe="", errors="surrogatepass")


def from_segment(text: str) -> str:
    """Return the text that `segment` was given, from the decoded segment."""
    return text.replace("%2F", "/").replace("%25", "%")


@dataclass(frozen=True)
class Links:
    """Addresses on the site, of the original's form: the whole state stands in the address.

    Attributes:
        name: The session's id.
        keywords: The query.
        number: The number of the result page.
        asin: The open product.
        options: The options chosen.
    """

    name: str
    keywords: tuple[str, ...] = ()
    number: int = 1
    asin: str = ""
    options: Mapping[str, str] | None = None

    @classmethod
    def of(cls, session: Session) -> Links:
        """Return the links of a session's page."""
        state = session.state
        asin = "" if state.row is None else session.shop.entry(state.row).asin
        return cls(session.name, state.keywords or (), state.number, asin, state.options)

    def _place(self, asin: str) -> str:
        words = segment(repr(list(self.keywords)))
        return f"{segment(self.name)}/{segment(asin)}/{words}/{self.number}"

    def index(self) -> str:
        """The start page."""
        return f"/{segment(self.name)}"

    def results(self, number: int) -> str:
        """A page of the result list."""
        words = segment(repr(list(self.keywords)))
        return f"/search_results/{segment(self.name)}/{words}/{number}"

    def item(self, asin: str) -> str:
        """A product without options chosen."""
        return f"/item_page/{self._place(asin)}/{segment('{}')}"

    def here(self) -> str:
        """The open product with its options."""
        return f"/item_page/{self._place(self.asin)}/{segment(repr(dict(self.options or {})))}"

    def option(self, name: str, value: str) -> str:
        """The open product with one more option."""
        options = {**(self.options or {}), name.lower(): value}
        return f"/item_page/{self._place(self.asin)}/{segment(repr(options))}"

    def sub(self, sub: str) -> str:
        """A sub-page of the open product."""
        options = segment(repr(dict(self.options or {})))
        return f"/item_sub_page/{self._place(self.asin)}/{segment(sub)}/{options}"

    def done(self) -> str:
        """The purchase of the open product."""
        options = segment(repr(dict(self.options or {})))
        return f"/done/{segment(self.name)}/{segment(self.asin)}/{options}"

    def of_state(self, session: Session) -> str:
        """The address of the page that a session shows."""
        state = session.state
        return {
            "index": self.index,
            "search_results": lambda: self.results(state.number),
            "item_page": self.here,
            "item_sub_page": lambda: self.sub(state.sub),
            "done": self.done,
        }[state.page]()


def picture(asin: str, image: str) -> str:
    """Return where a product's picture is: its own address, or a drawing by the site."""
    return image or f"/drawing/{segment(asin)}.svg"


def drawing(asin: str, word: str) -> str:
    """Return a placeholder picture as SVG: a letter on a colour that the id decides."""
    hue = int(hashlib.sha256(asin.encode("utf-8", "replace")).hexdigest()[:4], 16) % 360
    letter = next((c for c in word.upper() if c.isascii() and c.isalpha()), "?")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 200">'
        f'<rect width="200" height="200" rx="18" fill="hsl({hue} 46% 90%)"/>'
        f'<path d="M55 72h90l-9 84H64z" fill="hsl({hue} 42% 62%)"/>'
        f'<path d="M78 84V62a22 22 0 0 1 44 0v22" fill="none" stroke="hsl({hue} 42% 38%)" '
        'stroke-width="8" stroke-linecap="round"/>'
        f'<text x="100" y="136" font-family="sans-serif" font-size="46" font-weight="700" '
        f'text-anchor="middle" fill="#fff">{letter}</text></svg>'
    )


@dataclass(frozen=True)
class Person:
    """What a person's shop shows beside the original's pages: which instruction, and how it went.

    Attributes:
        number: The instruction's number, from 0.
        count: How many there are.
        goal: The goal; None before a purchase.
        parts: The reward's parts; None before a purchase.
    """

    number: int
    count: int
    goal: Goal | None = None
    parts: Mapping[str, Any] | None = None

    @property
    def following(self) -> int:
        """The number of the next instruction; after the last one the first."""
        return (self.number + 1) % self.count

    def compared(self, session: Session) -> list[tuple[str, str, str]]:
        """What was bought beside what was asked for: what, asked, bought."""
        if self.goal is None or session.state.row is None:
            return []
        product = session.shop.catalogue.product(session.state.row)
        chosen = session.state.options
        wanted = self.goal.goal_options
        asked = ", ".join(wanted.values() if isinstance(wanted, Mapping) else wanted)
        limit = self.goal.price_upper
        return [
            ("product", self.goal.name, product.title),
            ("attributes", ", ".join(self.goal.attributes), ", ".join(product.attributes)),
            ("options", asked, ", ".join(chosen.values())),
            ("price", f"at most {limit:.2f}" if limit < NO_LIMIT else "any", _price(self.parts)),
            ("kind", self.goal.product_category, product.product_category),
        ]


def _price(parts: Mapping[str, Any] | None) -> str:
    met = (parts or {}).get("r_price")
    return "" if met is None else "within it" if met else "above it"


def render(session: Session, person: Person | None = None, remote: bool = True) -> str:
    """Return the page that a session shows.

    Args:
        session: The session.
        person: What a person is shown besides; None: the page as an agent reads it.
        remote: Whether products' own pictures are shown, which lie on their owner's servers; else
            drawn ones.
    """
    state, shop = session.state, session.shop
    values: dict[str, Any] = {
        "links": Links.of(session),
        "instruction": session.instruction,
        "number": state.number,
        "person": person,
        "picture": lambda asin, image: picture(asin, image if remote else ""),
    }
    if state.page == "search_results":
        window = state.results[(state.number - 1) * WINDOW : state.number * WINDOW]
        values["cards"] = [shop.catalogue.card(row) for row in window]
        values["total"] = len(state.results)
    elif state.page != "index":
        assert state.row is not None
        product = shop.catalogue.product(state.row)
        values["product"] = product
    if state.page == "item_page":
        chosen = [product.option_images.get(v) for v in state.options.values()]
        image = next((i for i in reversed(chosen) if i), product.image)
        values["image"] = picture(product.asin, image if remote else "")
        values["options"] = state.options
        values["rating"] = RATING
        values["sub_pages"] = pages.item_buttons(shop.show_attributes)[:-1]
    elif state.page == "item_sub_page":
        values["sub"] = state.sub
    elif state.page == "done":
        values |= {
            "asin": product.asin,
            "options": pages.options_json(state.options),
            "reward": state.reward,
            "compared": [] if person is None else person.compared(session),
        }
    name = "bought" if person is not None and state.page == "done" else state.page
    return templates().get_template(f"{name}.html").render(values)


class _Reader(HTMLParser):
    """Collects what BeautifulSoup's parser calls visible strings, with what they stand in."""

    _HIDDEN = frozenset({"style", "script", "head", "title", "meta", ""})
    _VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Node] = []
        self.search_bar = False
        self.buttons: list[str] = []
        self.links: list[str] = []
        self.radios: list[str] = []
        self._open: list[tuple[str, tuple[str, ...]]] = []
        self._text = ""

    def _flush(self) -> None:
        text, self._text = self._text, ""
        tag, classes = self._open[-1] if self._open else ("", ())
        if tag in self._HIDDEN or any(t == "head" for t, _ in self._open):
            return
        kind = {"button": Kind.BUTTON, "label": Kind.LABEL}.get(tag, Kind.TEXT)
        if classes == ("product-link",):
            kind = Kind.LINK
            self.links.append(text)
        if "btn" in classes:
            self.buttons.append(text)
        self.found += nodes(text, kind=kind)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._flush()
        given = dict(attrs)
        if given.get("id") == "search_input":
            self.search_bar = True
        if tag == "input" and given.get("type") == "radio":
            self.radios.append(given.get("value") or "")
        if tag not in self._VOID:
            self._open.append((tag, tuple((given.get("class") or "").split())))

    def handle_endtag(self, tag: str) -> None:
        self._flush()
        while self._open and any(t == tag for t, _ in self._open):
            if self._open.pop()[0] == tag:
                return

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_comment(self, data: str) -> None:
        self._flush()


@dataclass(frozen=True)
class ReadPage:
    """What an agent takes from a page's HTML.

    Attributes:
        nodes: Its visible strings.
        has_search_bar: Whether it has the search bar.
        clickables: What can be clicked, in the original's order.
    """

    nodes: list[Node]
    has_search_bar: bool
    clickables: list[str]


def read_page(html: str) -> ReadPage:
    """Read a page's HTML as the original's text environment does."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    click = pages.clickables(reader.buttons, reader.links)
    return ReadPage(reader.found, reader.search_bar, list(dict.fromkeys([*click, *reader.radios])))
