"""WebShop's pages in few words.

What every agent reads, flat or hierarchical, and what it does not:

- The instruction stands once, where the agent is told its task; on the pages it is left out, so
  that an executor knows no more of it than its sub-goal says.
- A result list names products by their place ("1" to "10"). Of a title it shows how many of the
  task's phrases stand in it ("none", "one", "two", ...), of a price whether it is below the limit
  that the task names: "cheap" or "dear" (a model whose words are tokens cannot compare numbers).
  Prices with a range are judged by their higher end.
- A product's page shows the same of the product, and of its options the values that the task names,
  each with its place among all that can be chosen: "* 3 ivory". Once something is chosen, the page
  only says what. Descriptions and features show how many of the task's phrases stand in them.
- The planner writes in shorthand; see `himac_agents.prompts.compact.shorthand`.
- A command is written as the page names it: "3" opens the third product or chooses the third value,
  "back", "next", "prev", "buy" press buttons. A search is written "search": its query is the
  sub-goal's ("search for QUERY") and for any other task the instruction's words, the one search
  that the environment lists as admissible. So what is searched for is the planner's choice; nobody
  invents queries while acting.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from himac_agents.prompts.compact.forms import Form, rewritten
from himac_agents.prompts.compact.shorthand import instruction
from himac_envs.blueprint import Blueprint

_SEPARATOR = " [SEP] "
_HEAD = "Instruction:"
_THANKS = f"Thank you for shopping with us!{_SEPARATOR}"
_PAGE = re.compile(r"Page (-?\d+) \(Total results: \d+\)")
_ASIN = re.compile(r"[A-Z0-9]{10}")
_DOLLARS = re.compile(r"\$([\d,]+(?:\.\d+)?)")
_LIMIT = re.compile(r"(?:under|for at most) \$(\d+(?:\.\d+)?)|lower than (\d+(?:\.\d+)?) dollars")
_WORDS = re.compile(r"[\w$]+(?:[.'/-]\w+)*")
_SEARCH = re.compile(r"search(?: for)? (.+)", re.IGNORECASE | re.DOTALL)
_CLICK = re.compile(r"click\[(.*)\]", re.DOTALL)
_CHOSEN = re.compile(r'"((?:[^"\\]|\\.)*)"\s*[,}]')
#: A title's words are compared with the task's in runs of at most so many.
_LONGEST_RUN = 6
_COUNTS = ("none", "one", "two", "three", "four", "many")
_BUTTONS = {
    "back to search": "back",
    "next >": "next",
    "< prev": "prev",
    "buy now": "buy",
    "description": "description",
    "features": "features",
    "reviews": "reviews",
    "attributes": "attributes",
}


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word


@lru_cache(16_384)
def _stems(text: str) -> tuple[str, ...]:
    return tuple(map(_stem, _words(text)))


@lru_cache(16_384)
def _pieces(text: str) -> tuple[tuple[str, ...], ...]:
    """The words between commas and the like; a shop shows the same titles again and again."""
    return tuple(map(_stems, re.split(r"[,;:|()\u2022]", text)))


class Wanted:
    """What a task asks for, ready to be compared with a page.

    Args:
        task: A sub-goal or an instruction.
    """

    def __init__(self, task: str) -> None:
        self._said = _words(task)
        stems = _stems(task)
        self._runs = {
            stems[i : i + n]: i
            for n in range(_LONGEST_RUN, 0, -1)
            for i in range(len(stems) - n + 1)
        }
        self._starts = set(stems)
        self._hits: dict[str, tuple[str, ...]] = {}
        limit = _LIMIT.search(task)
        self._limit = float(limit[1] or limit[2]) if limit else None

    def names(self, text: str) -> bool:
        """Whether the task holds a text, word for word and in one piece."""
        return _stems(text) in self._runs

    def hits(self, text: str) -> tuple[str, ...]:
        """The task's own words for what it shares with a text.

        Shared are runs of at least two words, and shorter ones that stand alone between commas.
        """
        kept = self._hits.get(text)
        if kept is None:
            found = dict.fromkeys(run for piece in _pieces(text) for run in self._shared(piece))
            kept = tuple(f for f in found if not any(f != g and f in g for g in found))
            self._hits[text] = kept
        return kept

    def count(self, text: str) -> str:
        """How many of the task's phrases stand in a text, as a word."""
        return _COUNTS[min(len(self.hits(text)), len(_COUNTS) - 1)]

    def _shared(self, words: tuple[str, ...]) -> Iterator[str]:
        i = 0
        while i < len(words):
            run = 0
            if words[i] in self._starts:
                longest = min(_LONGEST_RUN, len(words) - i)
                run = next(n for n in range(longest, 0, -1) if words[i : i + n] in self._runs)
            if run >= 2 or 0 < run == len(words):
                start = self._runs[words[i : i + run]]
                yield " ".join(self._said[start : start + run])
            i += max(1, run)

    def price(self, tag: str) -> list[str]:
        """How a price tag stands to the task's limit; nothing where it names none."""
        prices = [float(p.replace(",", "")) for p in _DOLLARS.findall(tag)]
        if self._limit is None or not prices:
            return []
        return ["cheap" if max(prices) <= self._limit else "dear"]


wanted = lru_cache(4096)(Wanted)


def _numbered(info: dict[str, Any]) -> list[str]:
    """What a page lets click beside its buttons: products, or values of options."""
    clickable = info.get("available_actions", {}).get("clickables", ())
    return [what for what in clickable if what not in _BUTTONS and what != "search"]


class ShopForm(Form):
    """See the module's text."""

    def knows(self, text: str) -> bool:
        """Pages of the text observation."""
        return text.startswith((f"WebShop{_SEPARATOR}{_HEAD}", f"{_HEAD}{_SEPARATOR}", _THANKS))

    def task(self, goal: str) -> str:
        """The instruction in the words that sub-goals use."""
        return instruction(goal).plain()

    def brief(self, goal: str) -> str:
        """The instruction in numbered pieces; see `himac_agents.prompts.compact.shorthand`."""
        *before, goal = goal.split("\n")
        pages = [self.observation(page, goal, {}) for page in before]
        return "\n".join([*pages, instruction(goal).numbered()])

    def shorten(self, blueprint: Blueprint, goal: str) -> Blueprint:
        """In shorthand."""
        return rewritten(blueprint, instruction(goal).shorten)

    def expand(self, blueprint: Blueprint, goal: str) -> Blueprint:
        """Out of shorthand."""
        return rewritten(blueprint, instruction(goal).expand)

    def scene(self, first: str) -> str:
        """The page."""
        return self.observation(first, "", {})

    def observation(self, text: str, task: str, info: dict[str, Any]) -> str:
        """The page, in the words that concern the task."""
        parts = text.split(_SEPARATOR)
        aim = wanted(task)
        if not self.knows(text):
            return text
        if parts[0] == "WebShop":
            return "start"
        if text.startswith(_THANKS):
            return "bought"
        body = parts[3:]
        if body and (page := _PAGE.fullmatch(body[0])):
            # Who was only to search has done so, whatever was found.
            return "results" if _SEARCH.fullmatch(task) else self._results(page[1], body, aim)
        if "Buy Now" in body:
            return self._item(body, aim, info)
        return f"text {aim.count(', '.join(body))}"

    def opening(
        self, first: str, task: str, endings: Sequence[str], info: dict[str, Any]
    ) -> list[str]:
        """The page that is open: it is all that the shop remembers."""
        now = {k: v for k, v in info.items() if k != "url"}  # what is chosen already is not said
        return [self.observation(endings[-1] if endings else first, task, now)]

    def commands(self, task: str, info: dict[str, Any]) -> list[str]:
        """The admissible ones, with the search for the sub-goal's words where it asks for one."""
        asked = _SEARCH.fullmatch(task)
        query = "" if asked is None else re.sub(r"[\[\]\s]+", " ", asked[1]).strip()
        return [
            f"search[{query}]" if query and command.startswith("search[") else command
            for command in info.get("admissible", ())
        ]

    def phrase(self, command: str, info: dict[str, Any]) -> str:
        """See the module's text."""
        if command.startswith("search["):
            return "search"
        click = _CLICK.fullmatch(command)
        if click is None:
            return command
        what = click[1]
        if what in _BUTTONS:
            return _BUTTONS[what]
        numbered = _numbered(info)
        return str(numbered.index(what) + 1) if what in numbered else what

    def words(self) -> list[str]:
        """The words of the pages and of the buttons."""
        said = "start bought results page item text chosen cheap dear search"
        listed = ["- search 1", "- open 1 under", "- choose 1", "- buy"]
        return [" *", *said.split(), *_COUNTS, *listed, *_BUTTONS.values()]

    # ---- pages -----------------------------------------------------------------------------
    def _results(self, number: str, body: list[str], aim: Wanted) -> str:
        found = ["results"] if number == "1" else ["results", "page", number]
        starts = [i for i, part in enumerate(body) if _ASIN.fullmatch(part)]
        for place, start in enumerate(starts, start=1):
            end = starts[place] if place < len(starts) else len(body)
            entry = body[start + 1 : end]
            tag = entry.pop() if entry and entry[-1].startswith("$") else ""
            found += [str(place), aim.count(", ".join(entry)), *aim.price(tag)]
        return " ".join(found)

    def _item(self, body: list[str], aim: Wanted, info: dict[str, Any]) -> str:
        url = str(info.get("url", ""))
        chosen = _CHOSEN.findall(url) if "/item_page/" in url else []
        if chosen:
            return " ".join(["chosen", *chosen])
        numbered = _numbered(info)
        priced = next((i for i, part in enumerate(body) if part.startswith("Price: ")), len(body))
        options, title = body[1 : max(1, priced - 1)], body[max(1, priced - 1) : priced]
        found = ["item", aim.count(", ".join(title))]
        found += aim.price(body[priced] if priced < len(body) else "")
        for part in dict.fromkeys(options):
            # In "color ivory" it is ivory that is wanted: a name is nothing to choose.
            if aim.names(part) and (part in numbered or not numbered):
                place = [str(numbered.index(part) + 1)] if numbered else []
                found += ["*", *place, part.lower()]
        return " ".join(found)
