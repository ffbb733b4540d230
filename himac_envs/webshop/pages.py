"""What a page shows, as a list of its visible strings, and the observations made from it.

The original renders HTML with jinja2 and parses it with BeautifulSoup to get its text back. What
the agent reads is decided by the visible strings, their kind and BeautifulSoup's rule for blanks,
so pages are written here as such strings, without any HTML.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from himac_envs.webshop.catalogue import Card
from himac_envs.webshop.products import RATING, Product

SEPARATOR = " [SEP] "
#: The white space that BeautifulSoup collapses (other blanks, such as NBSP, it keeps).
_BLANKS = " \n\t\f\r"
SUB_PAGES = ("Description", "Features", "Reviews", "Attributes")


class Kind(Enum):
    """What a visible string stands in."""

    TEXT = "text"
    BUTTON = "button"
    LABEL = "label"  # an option's value
    LINK = "link"  # a product's id in a result list


class Node(NamedTuple):
    """One visible string."""

    text: str
    kind: Kind = Kind.TEXT


def nodes(*texts: str, kind: Kind = Kind.TEXT) -> list[Node]:
    """Return the nodes of some texts, without those that the original's parser drops.

    A string of blanks only becomes a line break where it holds one, and is then dropped, else a
    single blank, which stays: an empty bullet is an empty segment of the text.
    """
    found = []
    for text in texts:
        if not text:
            continue
        if not text.strip(_BLANKS):
            if "\n" in text:
                continue
            text = " "
        found.append(Node(text, kind))
    return found


def button(text: str) -> list[Node]:
    """Return a button's node."""
    return [Node(text, Kind.BUTTON)]


def plain_text(page: Iterable[Node]) -> str:
    """Return the ``text`` observation."""
    return SEPARATOR.join(node.text.strip() for node in page)


def rich_text(page: Iterable[Node], url: str, visited: frozenset[str]) -> str:
    """Return the ``text_rich`` observation.

    Args:
        page: The page.
        url: Its address. An option counts as clicked where its value stands in the address in
            double quotes, so a quoted word of the query marks an option too, and a value that
            JSON escapes is never marked: both as in the original.
        visited: Ids of the products opened since the last start page.
    """
    lines: list[str] = []
    for text, kind in page:
        if kind is Kind.BUTTON:
            line = f"[button] {text} [button_]"
        elif kind is Kind.LABEL and f'"{text}"' in url:
            line = f"  [clicked button] {text} [clicked button_]"
            lines.insert(0, f"You have clicked {text}.\n")
        elif kind is Kind.LABEL:
            line = f"  [button] {text} [button_]"
        elif kind is Kind.LINK and text in visited:
            line = f"\n[clicked button] {text} [clicked button_]"
        elif kind is Kind.LINK:
            line = f"\n[button] {text} [button_]"
        else:
            line = text
        lines.append(line + "\n")
    return "".join(lines)


def start_page(instruction: str) -> list[Node]:
    """Return the page with the search bar."""
    return [*nodes("WebShop", "Instruction: ", instruction), *button("Search")]


def head(instruction: str) -> list[Node]:
    """Return what every page but the first and the last begins with."""
    return [*nodes("Instruction:", instruction), *button("Back to Search")]


def results_top(page: int, total: int) -> list[Node]:
    """Return the line above a result list. ``Next >`` is shown on every page, past the last too."""
    back = button("< Prev") if page > 1 else []
    return [*nodes(f"Page {page} (Total results: {total})"), *back, *button("Next >")]


def results_entry(card: Card) -> list[Node]:
    """Return one product of a result list."""
    return [*nodes(card.asin, kind=Kind.LINK), *nodes(card.title, card.price_tag)]


def item_page(product: Product, show_attributes: bool) -> list[Node]:
    """Return a product's page, without its head."""
    page = button("< Prev")
    for name, values in product.options.items():
        page += nodes(name)
        page += nodes(*values, kind=Kind.LABEL)
    page += nodes(product.title, f"Price: {product.price_tag}", f"Rating: {RATING}")
    for name in item_buttons(show_attributes):
        page += button(name)
    return page


def item_buttons(show_attributes: bool) -> tuple[str, ...]:
    """Return the buttons below a product."""
    return (*(SUB_PAGES if show_attributes else SUB_PAGES[:3]), "Buy Now")


def sub_page(product: Product, name: str) -> list[Node]:
    """Return one of a product's sub-pages, without its head. Reviews are always empty."""
    page = button("< Prev")
    if name == "Description":
        page += nodes(product.description)
    elif name == "Features":
        page += nodes(*(f" {bullet}" for bullet in product.bullets))
    elif name == "Attributes":
        page += nodes(*(f" {attribute}" for attribute in product.attributes))
        page += nodes(product.category, product.query, product.product_category)
    return page


def options_json(options: Mapping[str, str]) -> str:
    """Return options as Flask's ``tojson`` writes them: sorted, and safe inside HTML."""
    text = json.dumps(options, sort_keys=True)
    for mark in "<>&'":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def done_page(asin: str, options: Mapping[str, str], reward: float) -> list[Node]:
    """Return the last page. Most of its fields are never filled in by the text environment."""
    none = "None"
    return nodes(
        "Thank you for shopping with us!",
        "Your code: ",
        none,
        " (Paste it in your MTurk interface.)",
        "Purchased",
        *("asin", asin, "options", options_json(options), "attrs", none, "category", none),
        *("query", none, "product category", none),
        "Target",
        *("asin", "options", "attrs", "price upper", "instuction text"),  # the original's spelling
        *("category", "product category", "query"),
        *("Goal ", none),
        "Reward",
        *("Your score (min 0.0, max 1.0)", str(reward)),
        *("Reward Details ", none),
    )


def clickables(buttons: Sequence[str], links: Sequence[str] = ()) -> list[str]:
    """Return texts as they are clicked: lower case, each once, in the order of first sight."""
    return list(dict.fromkeys(text.lower() for text in (*buttons, *links)))
