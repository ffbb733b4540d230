"""Recognise a game file's grammar and domain by their parsed rules.

The engine is a translation of rules: PDDL actions that say what may be done, and grammar rules that
say what is printed. A game file carries both in full, so before a file is played its rules are
parsed and each that can take part in play is compared, by digest, with the forms that the engine
was proven on. An unknown form is refused by name: the alternative is to play it wrongly in silence.

Nothing is searched for in the text, since comments and unused rules would match too. The goal's
sentence, which differs in every file, is one grammar rule ("task") and is taken out first.
"""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from himac_envs.alfworld.dialect import DIALECTS, Dialect
from himac_envs.alfworld.errors import GameFileError, UnknownRuleError
from himac_envs.alfworld.known_rules import KNOWN_RULES
from himac_envs.alfworld.problem import Expression, parse_expression

GOAL_PREFIX: Final = "Your task is to: "

# The grammar's file format (TextWorld's "twl2"): `action NAME { template :: "..."; ... }` and
# `grammar :: triple-quoted JSON;`, with comments from "#" to the end of the line.
_TOKEN: Final = re.compile(
    r'"""(?P<block>.*?)"""|"(?P<text>[^"]*)"|(?P<word>[\w/-]+)|(?P<mark>::|[{};])|(?P<note>#[^\n]*)'
    r"|(?P<space>\s+)",
    re.DOTALL,
)
_SYMBOL: Final = re.compile(r"#([^#]+)#")
_SYNTAX: Final = ("types", "predicates", "functions", "requirements", "action", "domain")


@dataclass(frozen=True)
class Rules:
    """What a file's rules mean for the engine.

    Attributes:
        dialect: The strings.
        sinks: Receptacle types in which an object can be cleaned.
        goal_text: The goal's sentence as printed, e.g. ``"put a mug in desk."``.
    """

    dialect: Dialect
    sinks: frozenset[str]
    goal_text: str


def digest(name: str, rule: object) -> str:
    """Digest of a parsed rule: the first 16 hex digits of SHA-256 over its canonical JSON."""
    text = json.dumps([name, rule], separators=(",", ":"), ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_grammar(text: str) -> tuple[dict[str, dict[str, str]], dict[str, Any]]:
    """Parse a grammar file.

    Args:
        text: The ``grammar`` entry of a game file.

    Returns:
        Actions (lower-case name to ``template`` and ``feedback``), and grammar rules (name to the
        list of ``{"condition", "rhs"}``); a later definition replaces an earlier one.

    Raises:
        GameFileError: The text is not in the grammar's file format.
    """
    actions: dict[str, dict[str, str]] = {}
    rules: dict[str, Any] = {}
    tokens: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise GameFileError(f"grammar: cannot read {text[position : position + 40]!r}")
        position = match.end()
        kind = match.lastgroup or ""
        if kind not in ("note", "space"):
            tokens.append((kind, match.group(kind)))
    stream = iter(tokens)

    def expect(kind: str, value: str | None = None) -> str:
        found = next(stream, ("end", ""))
        if found[0] != kind or (value is not None and found[1] != value):
            raise GameFileError(f"grammar: expected {value or kind}, found {found[1][:40]!r}")
        return found[1]

    def read_rules(block: str) -> None:
        try:
            found = json.loads(block)
        except ValueError as error:
            raise GameFileError(f"grammar: a block is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise GameFileError("grammar: a block is not a JSON object of rules")
        rules.update(found)

    for kind, value in stream:
        if (kind, value) == ("word", "grammar"):
            expect("mark", "::")
            read_rules(expect("block"))
            expect("mark", ";")
        elif (kind, value) == ("word", "action"):
            action = actions.setdefault(expect("word").lower(), {})
            action.clear()
            expect("mark", "{")
            for entry_kind, entry in stream:
                if (entry_kind, entry) == ("mark", "}"):
                    break
                expect("mark", "::")
                if entry in ("template", "feedback"):
                    action[entry] = expect("text")
                elif entry == "grammar":
                    # Here, and only here, the original drops lines that begin with "#".
                    lines = textwrap.dedent(expect("block")).split("\n")
                    read_rules("\n".join(x for x in lines if not x.lstrip().startswith("#")))
                elif entry == "pddl":
                    expect("block")
                else:
                    raise GameFileError(f"grammar: unknown entry {entry[:40]!r} of an action")
                expect("mark", ";")
        else:
            raise GameFileError(f"grammar: expected 'action' or 'grammar', found {value[:40]!r}")
    return actions, rules


def _canonical(rule: Any) -> object:
    """A grammar rule as condition and text pairs, its extra keys kept."""
    return [
        sorted((key, value) for key, value in variant.items()) if isinstance(variant, dict) else 0
        for variant in (rule if isinstance(rule, list) else [rule])
    ]


def _reachable(
    actions: dict[str, dict[str, str]], rules: dict[str, Any], played: frozenset[str]
) -> list[str]:
    """Grammar rules that can be used when only the domain's actions are played, sorted."""
    waiting = ["intro"]
    for name in played:
        waiting += _SYMBOL.findall(" ".join(actions[name].values()))
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in found or name == "task":
            continue
        found.add(name)
        if name not in rules:
            raise GameFileError(f"grammar: the rule {name!r} is used but not defined")
        for variant in rules[name] if isinstance(rules[name], list) else ():
            # What is no rule at all has no known digest, and is refused by name.
            text = str(variant.get("rhs", "")) if isinstance(variant, dict) else ""
            waiting += _SYMBOL.findall(text)
            if "[" in text:
                # The original writes every list with these three rules.
                waiting += ["list_empty", "list_separator", "list_last_separator"]
    return sorted(found)


def _known(kind: str, name: str, rule: object) -> str:
    """The meaning of a rule's form, ``""`` for the form that all releases share.

    Raises:
        UnknownRuleError: The form is not known.
    """
    forms = KNOWN_RULES.get(f"{kind} {name}", {})
    meaning = forms.get(digest(f"{kind} {name}", rule))
    if meaning is None:
        why = "its form is not one of the known ones" if forms else "no known release has it"
        raise UnknownRuleError(
            f"the {kind} {name!r} cannot be played: {why}. The engine plays only rules it was "
            "proven on; to play this file with the original package instead, install it "
            "(pip install 'himac[reference]') and pass backend=\"textworld\""
        )
    return meaning


@lru_cache(maxsize=64)
def read_domain(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Check a PDDL domain.

    Args:
        text: The ``pddl_domain`` entry of a game file.

    Returns:
        The names of its actions, and the meanings of those of its forms that differ by release.

    Raises:
        GameFileError: Not a PDDL domain.
        UnknownRuleError: An action, the types, or a section that no known release has.
    """
    parsed = parse_expression(text)
    if len(parsed) != 1 or not isinstance(parsed[0], tuple) or parsed[0][:1] != ("define",):
        raise GameFileError("pddl_domain: expected one '(define (domain ...) ...)'")
    names: set[str] = set()
    meanings: set[str] = set()
    for section in parsed[0][1:]:
        head = section[0].lstrip(":") if section and isinstance(section[0], str) else ""
        if head not in _SYNTAX:
            raise UnknownRuleError(
                f"the domain's section {head!r} cannot be played: no known release has it. "
                'Pass backend="textworld" to play this file with the original package'
            )
        if head == "types":
            meanings.add(_known("types", "types", _plain(section)))
        elif head == "action":
            name = str(section[1])
            names.add(name)
            meanings.add(_known("domain action", name, _plain(section)))
    return frozenset(names), frozenset(meanings - {""})


def _plain(expression: Expression) -> object:
    """An s-expression as nested lists, for a digest."""
    return expression if isinstance(expression, str) else [_plain(part) for part in expression]


def read_rules(domain: str, grammar: str) -> Rules:
    """Recognise a game file's rules.

    Args:
        domain: Its ``pddl_domain`` entry.
        grammar: Its ``grammar`` entry.

    Returns:
        What they mean for the engine.

    Raises:
        GameFileError: One of them is not in its file format.
        UnknownRuleError: A rule that can take part in play has an unknown form.
    """
    played, domain_meanings = read_domain(domain)
    actions, rules = parse_grammar(grammar)
    missing = sorted(played - actions.keys())
    if missing:
        raise GameFileError(f"grammar: no strings for the domain's action {', '.join(missing)}")
    meanings = set(domain_meanings)
    for name in sorted(played):
        meanings.add(_known("grammar action", name, sorted(actions[name].items())))
    for name in _reachable(actions, rules, played):
        meanings.add(_known("grammar rule", name, _canonical(rules[name])))
    dialect = Dialect(
        name="mixed",
        put_command="put command" in meanings,
        put_feedback="put feedback" in meanings,
        names_location="names location" in meanings,
        has_help="help" in played,
    )
    for official in DIALECTS.values():
        if dialect == Dialect(**{**official.__dict__, "name": "mixed"}):
            dialect = official
    sinks = {"sinkbasintype", "sinktype"} if "sink type" in meanings else {"sinkbasintype"}
    return Rules(dialect, frozenset(sinks), _goal_text(rules))


def _goal_text(rules: dict[str, Any]) -> str:
    """The goal's sentence, from the one rule that differs in every file."""
    try:
        (variant,) = rules["task"]
        text = variant["rhs"]
    except (KeyError, ValueError, TypeError):
        raise GameFileError("grammar: expected one rule 'task' with one text") from None
    if not isinstance(text, str) or not text.startswith(GOAL_PREFIX) or "condition" in variant:
        raise GameFileError(f"grammar: the rule 'task' does not begin with {GOAL_PREFIX!r}")
    goal = text[len(GOAL_PREFIX) :]
    if re.search(r'[;|"<>\[\]#{}]', goal):
        # These characters have a meaning in the grammar; no official goal holds one.
        raise GameFileError(f"grammar: the goal {goal!r} holds a character of the grammar's own")
    return goal
