"""A shopper who knows only what the pages have shown: demonstrations that can be imitated.

The oracle knows the goal's own product and opens it at once, wherever it stands in the list:
whoever sees only the page can learn nothing from that choice. The explorer opens what the shop
lists from the top, leaves out what costs too much, and goes back where a wanted option is not on
offer. It trusts the search engine on attributes that no title shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from himac_envs.blueprint import clean
from himac_envs.webshop.goals import Goal
from himac_envs.webshop.oracle import clickable_value, wanted_values
from himac_envs.webshop.session import WINDOW, Session

_PRICE = re.compile(r"\$([\d,]+(?:\.\d+)?)")
_WHOLE = ("buy", "purchase")


def dearest(price_tag: str) -> float:
    """Return the highest price that a price tag names ("$5.00 to $9.50": 9.5); 0 without one."""
    return max((float(found.replace(",", "")) for found in _PRICE.findall(price_tag)), default=0.0)


def query_of(goal: str, subgoal: str | None = None) -> str:
    """Return what a plain reader types: the sub-goal's query, else the instruction's words."""
    words = clean(subgoal or "")
    if words.lower().startswith("search "):
        words = words[7:].removeprefix("for ")
    else:
        words = goal.partition(", and price lower than")[0]
    return "".join(c for c in words if c not in "[]").strip() or "product"


class Explorer:
    """One honest shopper on one sub-goal, or on the whole task.

    Args:
        goal: The goal; of it only what its instruction says is used.
        session: The session.
        bought: Whether something was bought in this episode.
    """

    def __init__(self, goal: Goal, session: Session, bought: Callable[[], bool]) -> None:
        self._goal, self._session, self._bought = goal, session, bought
        self._left: set[int] = set()

    def commands(self, subgoal: str | None) -> Iterator[str]:
        """Yield commands until the shopper believes that the sub-goal holds.

        Raises:
            ValueError: The sub-goal cannot be reached from what the pages show.
        """
        text = clean(subgoal or "").lower()
        if text.startswith("search"):
            return self._search(query_of(self._goal.instruction_text, subgoal))
        if text.startswith("open"):
            return self._open()
        if text.startswith(("choose", "select")):
            return self._choose(text.split(maxsplit=1)[-1])
        if subgoal is None or text.startswith(_WHOLE):
            return self._buy(whole=subgoal is None)
        raise ValueError(f"sub-goal not understood: {subgoal!r}")

    # ---- sub-goals -------------------------------------------------------------------------
    def _search(self, query: str) -> Iterator[str]:
        wanted = tuple(query.lower().split(" "))
        while self._session.state.keywords != wanted:
            at_bar = self._session.has_search_bar
            yield f"search[{query}]" if at_bar else "click[back to search]"

    def _open(self) -> Iterator[str]:
        while not self._suits():
            yield self._look_on()

    def _choose(self, what: str) -> Iterator[str]:
        while True:
            state = self._session.state
            offered = self._offered() if state.row is not None else []
            values = [v for n, v in offered if what in (clean(f"{n} {v}"), clean(v))]
            if not values or not clickable_value(values[0]):
                raise ValueError(f"there is no option {what!r} here")
            if values[0] in state.options.values():
                return
            yield self._on_item(values[0])

    def _buy(self, whole: bool) -> Iterator[str]:
        while not self._bought():
            state = self._session.state
            if state.row is None or (whole and not self._suits()):
                yield self._look_on()
                continue
            chosen = state.options.values()
            missing = [v for v in self._wanted() if whole and v not in chosen]
            yield self._on_item(missing[0] if missing else "buy now")

    # ---- steps -----------------------------------------------------------------------------
    def _offered(self) -> list[tuple[str, str]]:
        row = self._session.state.row
        assert row is not None
        options = self._session.shop.catalogue.product(row).options
        return [(name, value) for name, values in options.items() for value in values]

    def _wanted(self) -> Sequence[str]:
        row = self._session.state.row
        assert row is not None
        product = self._session.shop.catalogue.product(row)
        return [value for _, value in wanted_values(product, self._goal)]

    def _suits(self) -> bool:
        """Whether the open product has every wanted option and costs no more than allowed."""
        state = self._session.state
        if state.page not in ("item_page", "item_sub_page") or state.row is None:
            return False
        return len(self._wanted()) == len(self._goal.goal_options) and self._cheap(state.row)

    def _cheap(self, row: int) -> bool:
        return dearest(self._session.shop.catalogue.card(row).price_tag) <= self._goal.price_upper

    def _look_on(self) -> str:
        """Return the next command of the search for a product."""
        session = self._session
        state = session.state
        if session.has_search_bar or state.page == "done":
            return f"search[{query_of(self._goal.instruction_text)}]"
        if state.row is not None:
            self._left.add(state.row)
            return "click[< prev]"
        shown = state.results[max(0, state.number - 1) * WINDOW : state.number * WINDOW]
        for row in shown:
            if row not in self._left and self._cheap(row):
                return f"click[{session.shop.entry(row).link}]"
        return "click[next >]" if shown else "click[back to search]"

    def _on_item(self, what: str) -> str:
        return "click[< prev]" if self._session.state.page == "item_sub_page" else f"click[{what}]"
