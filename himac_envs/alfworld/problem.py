"""The planning problem inside a game file, as plain data.

A ``game.tw-pddl`` file holds a PDDL problem: objects with their types, the facts that hold at the
start, and the goal. :func:`parse_problem` reads the dialect that the official files use (typed
object list, ground facts, one goal expression) into a :class:`Problem`; everything else in the
package, generated games included, starts from a :class:`Problem`.

PDDL is case-insensitive, and the original lower-cases while it translates, so every name here is
lower case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from himac_envs.alfworld.errors import GameFileError

Fact: TypeAlias = tuple[str, ...]
"""A ground fact, predicate first: ``("inreceptacle", "mug_bar_1", "shelf_bar_2")``."""

Expression: TypeAlias = "str | tuple[Expression, ...]"
"""An s-expression: a token, or a tuple of expressions."""

_COMMENT = re.compile(r";[^\n]*")
_TOKEN = re.compile(r"[()]|[^\s()]+")
_SECTION = re.compile(r"\(\s*:(objects|init|goal)\b")
_METRIC = re.compile(r"\(\s*=\s*(?:\([^()]*\)|[^\s()]+)\s*(?:\([^()]*\)|[^\s()]+)\s*\)")
_GROUND = re.compile(r"\(([^()]+)\)")
_NAME = re.compile(r"\(\s*define\s*\(\s*problem\s+([^\s()]+)")


@dataclass(frozen=True)
class Problem:
    """One planning problem.

    Attributes:
        name: The problem's name (in official files ``plan_`` and the trial).
        objects: Type of every declared id (``agent``, ``object``, ``receptacle``, ``location``,
            ``otype``, ``rtype``).
        init: Facts that hold at the start, predicate first, without metric facts. Their order
            carries no meaning; duplicates may occur.
        goal: The goal as a nested tuple, e.g. ``("exists", ("?o", "-", "object"), ("and", ...))``.
    """

    name: str
    objects: Mapping[str, str]
    init: tuple[Fact, ...]
    goal: Expression

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by value: a read-only mapping does not pickle by itself."""
        return (_rebuild, (self.name, dict(self.objects), self.init, self.goal))


def _rebuild(
    name: str, objects: dict[str, str], init: tuple[Fact, ...], goal: Expression
) -> Problem:
    return Problem(name, MappingProxyType(objects), init, goal)


def parse_expression(text: str) -> tuple[Expression, ...]:
    """Parse s-expressions.

    Args:
        text: Any number of s-expressions; ``;`` starts a comment that ends with the line.

    Returns:
        The top-level expressions, lower case.

    Raises:
        GameFileError: The parentheses do not match.
    """
    stack: list[list[Expression]] = [[]]
    for token in _TOKEN.findall(_COMMENT.sub("", text).lower()):
        if token == "(":
            stack.append([])
        elif token == ")":
            if len(stack) == 1:
                raise GameFileError("PDDL: a closing parenthesis too many")
            done = tuple(stack.pop())
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    if len(stack) != 1:
        raise GameFileError(f"PDDL: {len(stack) - 1} parentheses are never closed")
    return tuple(stack[0])


def parse_typed_list(tokens: tuple[Expression, ...]) -> dict[str, str]:
    """Read ``a b - type c - other`` into ``{"a": "type", "b": "type", "c": "other"}``.

    Names without a type are of type ``object``, as PDDL has it.

    Raises:
        GameFileError: The list is not flat, or ends in a dash.
    """
    types: dict[str, str] = {}
    waiting: list[str] = []
    words = iter(tokens)
    for word in words:
        if not isinstance(word, str):
            raise GameFileError(f"PDDL: a typed list holds the expression {word!r}")
        if word == "-":
            kind = next(words, None)
            if not isinstance(kind, str):
                raise GameFileError("PDDL: a typed list ends in a dash, or has a compound type")
            types.update(dict.fromkeys(waiting, kind))
            waiting.clear()
        else:
            waiting.append(word)
    types.update(dict.fromkeys(waiting, "object"))
    return types


def _section_end(text: str, start: int) -> int:
    """Index behind the parenthesis that closes the one at ``start``."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match.group() == "(" else -1
        if depth == 0:
            return match.end()
    raise GameFileError("PDDL: a section's parenthesis is never closed")


def parse_problem(text: str) -> Problem:
    """Parse a PDDL problem, the ``pddl_problem`` entry of a game file.

    Facts are read by regular expression, since a game has some hundreds of them and a file is
    parsed at every first load; the goal is parsed in full.

    Args:
        text: The problem.

    Returns:
        The problem, all names in lower case, metric facts (``=``) dropped.

    Raises:
        GameFileError: The text is not a PDDL problem with objects, init and goal, or uses a form
            that the official files do not (negated or nested facts).
    """
    if ";" in text:
        text = _COMMENT.sub("", text)
    text = text.lower()
    name = _NAME.search(text)
    if name is None:
        raise GameFileError("PDDL: no '(define (problem NAME' at the start")
    bounds: dict[str, tuple[int, int]] = {}
    position = name.end()
    while match := _SECTION.search(text, position):
        kind = match.group(1)
        if kind == "goal":
            end = _section_end(text, match.start())
        else:
            following = _SECTION.search(text, match.end())
            end = following.start() if following else _section_end(text, match.start())
        bounds[kind] = (match.end(), end)
        position = end
    missing = [kind for kind in ("objects", "init", "goal") if kind not in bounds]
    if missing:
        raise GameFileError(f"PDDL: the problem has no section {', '.join(missing)}")

    objects_text = text[slice(*bounds["objects"])].strip()
    if not objects_text.endswith(")") or "(" in objects_text:
        raise GameFileError("PDDL: ':objects' is not a flat typed list")
    objects = parse_typed_list(tuple(objects_text[:-1].split()))

    init_text = text[slice(*bounds["init"])].strip()
    if "=" in init_text:
        init_text = _METRIC.sub("", init_text)
    init = tuple(tuple(body.split()) for body in _GROUND.findall(init_text))
    rest = _GROUND.sub("", init_text).strip()
    if rest != ")":
        raise GameFileError(f"PDDL: ':init' holds more than ground facts: {rest[:80]!r}")

    start, end = bounds["goal"]
    goal = parse_expression(text[start : end - 1])
    if len(goal) != 1:
        raise GameFileError(f"PDDL: ':goal' holds {len(goal)} expressions, expected one")
    return Problem(name.group(1), MappingProxyType(objects), init, goal[0])
