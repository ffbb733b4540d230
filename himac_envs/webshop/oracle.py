"""An expert shopper: finds a purchase of full reward, and says its way in sub-goals.

The expert knows the goal's own product. It looks at the session before every command, so it goes on
from whatever state it finds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from himac_envs.blueprint import Blueprint, clean
from himac_envs.webshop.catalogue import Catalogue
from himac_envs.webshop.goals import NO_LIMIT, Goal
from himac_envs.webshop.products import Product
from himac_envs.webshop.reward import has_attribute, normalize_colour, similar
from himac_envs.webshop.session import WINDOW, Session, parse_action

_SEARCH = re.compile(r"search(?: for)? (.+)", re.IGNORECASE | re.DOTALL)
_OPEN = re.compile(
    r"open (?:a|an|the) (?:product|item|result)(?: with (?P<with>.+?))?"
    r"(?: (?:under|for at most) \$(?P<limit>\d+(?:\.\d+)?))?\.?",
    re.IGNORECASE | re.DOTALL,
)
_CHOOSE = re.compile(r"(?:choose|select) (.+)", re.IGNORECASE | re.DOTALL)
_BUY = re.compile(r"(?:buy|purchase)(?: (?:it|the (?:product|item)|now))?\.?", re.IGNORECASE)
_BRACKETS = re.compile(r"[\[\]\r\n]+")
#: Queries in a sub-goal are cut to so many characters: a sub-goal holds 256.
_QUERY_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """A purchase worth making.

    Attributes:
        row: The product.
        options: The option values to click, in order.
        query: A query that lists the product.
        reward: What the purchase gives.
    """

    row: int
    options: tuple[str, ...]
    query: str
    reward: float


def clickable_value(value: str) -> bool:
    """Return whether an option's value can be written as a click: some brackets cannot."""
    return parse_action(f"click[{value}]") == ("click", value) and value == value.lower()


def wanted_values(product: Product, goal: Goal) -> list[tuple[str, str]]:
    """Return (option name, value) pairs of a product that satisfy a goal's options.

    A pair of a synthetic goal is taken as it stands; a human goal names values only, and the first
    value like it is taken, exact ones first.
    """
    offered = [(name, v) for name, values in product.options.items() for v in values]
    offered = [(name, v) for name, v in offered if clickable_value(v)]
    if isinstance(goal.goal_options, Mapping):
        return [pair for pair in goal.goal_options.items() if pair in offered]
    chosen: dict[str, str] = {}
    for wanted in goal.goal_options:
        likely = [p for p in offered if p[1] == wanted.lower()]
        likely += [
            p
            for p in offered
            if similar(str(normalize_colour(p[1])), str(normalize_colour(wanted)))
        ]
        free = [p for p in likely if p[0] not in chosen]
        if free:
            chosen.setdefault(*free[0])
    return list(chosen.items())


def _provides(product: Product, wanted: str) -> bool:
    """Return whether a product is of a kind, has an attribute or a value of that name."""
    if wanted == product.query.lower() or has_attribute(product, wanted):
        return True
    offered = ((name, value) for name, values in product.options.items() for value in values)
    return any(wanted in (value, clean(value), clean(f"{name} {value}")) for name, value in offered)


def _tidy(text: str) -> str:
    return clean(_BRACKETS.sub(" ", text))[:_QUERY_LENGTH].strip()


def queries(goal: Goal) -> Iterator[str]:
    """Yield queries for a goal's product, the ones that its instruction suggests first."""
    words = " ".join(goal.attributes)
    options = " ".join(goal.option_values())
    yield _tidy(f"{goal.query} {words}")
    yield _tidy(f"{goal.query} {words} {options}")
    yield _tidy(goal.instruction_text.partition(", and price lower than")[0])
    yield _tidy(goal.name)
    yield _tidy(f"{goal.name} {options}")


class Expert:
    """Plans for one goal.

    Args:
        catalogue: The products.
        goal: The goal.
        row: The goal's product.
        reward_of: Row and chosen options -> reward.
        price_of: Row -> what it costs.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        goal: Goal,
        row: int,
        reward_of: Callable[[int, Mapping[str, str]], float],
        price_of: Callable[[int], float],
    ) -> None:
        self._catalogue = catalogue
        self._goal = goal
        self._row = row
        self._reward_of = reward_of
        self._price_of = price_of
        self._instruction = clean(goal.instruction_text)
        values = (value.lower() for value in goal.option_values())
        self._wanted = (*goal.attributes, *values, *([goal.query] if goal.query else []))
        self.plan = lru_cache(1)(self._plan)

    def _plan(self) -> Plan:
        """Return the best purchase found.

        The goal's own product comes first. Where it does not give the full reward (a few goals of
        the real data contradict themselves), so do the products that its queries list.
        """
        best = self._purchase(self._row)
        if best.reward < 1.0:
            others = dict.fromkeys(
                row for q in queries(self._goal) for row in self._catalogue.ranked(q.lower())
            )
            for row in others:
                best = max(best, self._purchase(row), key=lambda p: p.reward)
                if best.reward == 1.0:
                    break
        return Plan(best.row, best.options, self._query(best.row), best.reward)

    def _purchase(self, row: int) -> Plan:
        pairs = wanted_values(self._catalogue.product(row), self._goal)
        values = tuple(value for _, value in pairs)
        return Plan(row, values, "", self._reward_of(row, dict(pairs)))

    def _query(self, row: int) -> str:
        """Return the first query with the product on the first page, else on any page."""
        candidates = [*queries(self._goal), _tidy(self._catalogue.product(row).title)]
        for depth in (WINDOW, None):
            for query in candidates:
                if query and row in self._catalogue.ranked(query.lower())[:depth]:
                    return query
        raise ValueError(f"no query found that lists the product of goal {self._goal.index}")

    # ---- sub-goals in words ----------------------------------------------------------------
    def blueprint(self, session: Session) -> Blueprint:
        """Return the sub-goals that are left, at least one."""
        plan = self.plan()
        product = self._catalogue.product(plan.row)
        names = {v: name for name, values in product.options.items() for v in values}
        steps = [
            f"search for {plan.query}",
            self._opening(plan),
            *(f"choose {names[value]} {value}" for value in plan.options),
        ]
        # A search or a product that is there already need not be looked for again.
        if session.state.row == plan.row and session.state.page in ("item_page", "item_sub_page"):
            steps = steps[2:]
        elif session.state.page == "search_results" and plan.row in session.state.results:
            steps = steps[1:]
        left = [step for step in steps if not self.achieved(step, session, bought=False)]
        return Blueprint.of([*left, "buy the product"])

    def _opening(self, plan: Plan) -> str:
        """Return the sub-goal of opening a product, in words that the plan's product meets.

        It names the options too: whoever opens products has to know which ones to leave again.
        """
        goal = self._goal
        limit = "" if goal.price_upper == NO_LIMIT else f" under ${goal.price_upper:.2f}"
        for wanted in ((*goal.attributes, *plan.options), goal.attributes):
            having = f" with {', '.join(wanted)}" if wanted else ""
            text = f"open a product{having}{limit}"
            match = _OPEN.fullmatch(clean(text))
            if clean(text) == text and match and self._fits(plan.row, match):
                break
        return text

    def achieved(self, subgoal: str, session: Session, bought: bool) -> bool | None:
        """Return whether a sub-goal holds; None where it is not understood.

        Args:
            subgoal: The sub-goal.
            session: The session.
            bought: Whether something was bought in this episode.
        """
        text = clean(subgoal)
        state = session.state
        if _BUY.fullmatch(text) or text == self._instruction:
            return bought
        if match := _CHOOSE.fullmatch(text):
            return any(
                match[1].lower() in (clean(f"{name} {value}"), clean(value))
                for name, value in state.options.items()
            )
        if match := _OPEN.fullmatch(text):
            return state.row is not None and self._fits(state.row, match)
        if match := _SEARCH.fullmatch(text):
            return state.keywords is not None and similar(
                " ".join(state.keywords), match[1].lower()
            )
        return None

    def _fits(self, row: int, match: re.Match[str]) -> bool:
        product = self._catalogue.product(row)
        if match["limit"] and self._price_of(row) > float(match["limit"]):
            return False
        # What is wanted may itself hold a comma, so the goal's own is looked for as it stands.
        rest, named = match["with"] or "", []
        for wanted in sorted(self._wanted, key=len, reverse=True):
            if clean(wanted) in rest:
                rest = rest.replace(clean(wanted), "", 1)
                named.append(wanted)
        named += [part for part in re.split(r",| and ", rest) if part.strip()]
        return all(_provides(product, part.strip().lower()) for part in named)

    # ---- commands --------------------------------------------------------------------------
    def commands(
        self, subgoal: str | None, session: Session, bought: Callable[[], bool]
    ) -> Iterator[str]:
        """Yield commands until a sub-goal holds (None: until something is bought).

        Raises:
            ValueError: The sub-goal is not understood, or cannot be reached.
        """
        text = self._instruction if subgoal is None else clean(subgoal)
        if self.achieved(text, session, bought()) is None:
            raise ValueError(
                f"sub-goal not understood: {subgoal!r}. Known are 'search for QUERY', 'open a "
                "product with ATTRIBUTE, ATTRIBUTE under $PRICE', 'choose OPTION VALUE' and 'buy "
                "the product'"
            )
        while not self.achieved(text, session, bought()):
            yield self._next(text, session)

    def _next(self, text: str, session: Session) -> str:
        if match := _SEARCH.fullmatch(text):
            query = _BRACKETS.sub(" ", match[1]).strip()
            if not query or not similar(query.lower(), match[1].lower()):
                raise ValueError(f"cannot be typed as a query: {match[1]!r}")
            return self._search(query, session)
        plan = self.plan()
        if match := _OPEN.fullmatch(text):
            if not self._fits(plan.row, match):
                raise ValueError(f"the goal's product does not fit {text!r}")
            return self._open(plan, session)
        if match := _CHOOSE.fullmatch(text):
            return self._choose(match[1], plan, session)
        if session.state.row != plan.row or session.state.page == "done":
            return self._open(plan, session)
        missing = [v for v in plan.options if v not in session.state.options.values()]
        # In phase "buy" the sub-goals before it have chosen; what they left out is made up for.
        return self._on_item(session, missing[0] if missing else "buy now")

    def _choose(self, wanted: str, plan: Plan, session: Session) -> str:
        for row in dict.fromkeys((session.state.row, plan.row)):
            if row is None:
                continue
            for name, values in self._catalogue.product(row).options.items():
                for value in values:
                    said = (clean(f"{name} {value}"), clean(value))
                    if wanted.lower() in said and clickable_value(value):
                        if row == session.state.row:
                            return self._on_item(session, value)
                        return self._open(plan, session)
        raise ValueError(f"no option {wanted!r} in the open product, nor in the goal's")

    def _on_item(self, session: Session, value: str) -> str:
        return "click[< prev]" if session.state.page == "item_sub_page" else f"click[{value}]"

    def _open(self, plan: Plan, session: Session) -> str:
        """Return the next command on the way to the plan's product."""
        state = session.state
        if state.page == "search_results" and plan.row in state.results:
            place = state.results.index(plan.row)
            page = place // WINDOW + 1
            if page == state.number:
                return f"click[{session.shop.entry(plan.row).link}]"
            return "click[next >]" if page > state.number else "click[< prev]"
        return self._search(plan.query, session)

    def _search(self, query: str, session: Session) -> str:
        # A search is accepted on every page; an expert uses the search bar as a person does.
        if session.state.page in ("index", "done"):
            return f"search[{query}]"
        return "click[back to search]"
