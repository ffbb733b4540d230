"""The original alfworld package behind this package's interface: slow, and the last word.

``gym.make("HiMAC-ALFWorld-Flat-v0", backend="textworld")`` plays with it, and ``make parity``
compares the two. It takes the extra ``reference`` (alfworld, TextWorld and their planner, built
from C++; Python 3.11 or 3.12; an environment of its own is best, see ``make parity``).
"""

from __future__ import annotations

import io
import json
import pickle
import sys
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from himac_envs.alfworld.dialect import DIALECTS, Dialect
from himac_envs.alfworld.engine import NOTHING_HAPPENS
from himac_envs.alfworld.rules import GOAL_PREFIX, read_rules
from himac_envs.errors import HiMACError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from himac_envs.alfworld.game import Game
    from himac_envs.alfworld.games import GameLibrary

_OLD_STRINGS = (
    ("You arrive at {r.name}.", "You arrive at {lend.name}."),
    ("move {o} to {r}", "put {o} in/on {r}"),
    ("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."),
)
"""What alfworld's own upgrade of its data changed, new form and old."""


def in_dialect(data: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Return a game file's content with the strings of another release.

    Args:
        data: The content of a ``game.tw-pddl``, of either release.
        dialect: One of the two official dialects.

    Raises:
        HiMACError: The file mixes dialects, or is to be given a mixture.
    """
    own = read_rules(data["pddl_domain"], data["grammar"]).dialect
    if own == dialect:
        return data
    if own.name not in DIALECTS or dialect.name not in DIALECTS:
        raise HiMACError("the original can only be given the dialects 2.1.1 and 2.1.2")
    grammar, domain = data["grammar"], data["pddl_domain"]
    if dialect.name == "2.1.2":
        raise HiMACError("the original cannot play a 2.1.1 file as 2.1.2: upgrade the file instead")
    for new, old in _OLD_STRINGS:
        grammar = grammar.replace(new, old)
    grammar = grammar.partition("\naction help {")[0] + "\n"
    # `help` is the domain's last action.
    domain = domain.partition("(:action help")[0] + ")"
    return {**data, "grammar": grammar, "pddl_domain": domain}


def with_goal_text(data: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a game file's content with another goal sentence."""
    own = read_rules(data["pddl_domain"], data["grammar"]).goal_text
    if own == text:
        return data
    if any(c in text for c in ';|"<>[]#{}\\'):
        raise HiMACError(f"the original's grammar cannot print the goal {text!r}")
    grammar = data["grammar"].replace(GOAL_PREFIX + own, GOAL_PREFIX + text)
    return {**data, "grammar": grammar}


class Original:
    """One game in the original engine, from alfworld's own environment classes.

    Args:
        facts: Ask for the facts too.

    Attributes:
        intro: What it prints at the start.
        won: Whether the goal holds.
        history: The commands so far.
    """

    def __init__(self, *, facts: bool = False) -> None:
        try:
            import textworld
            from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
            from textworld.envs.pddl.pddl import PddlEnv
        except ImportError as error:
            raise MissingDependencyError("alfworld", 'backend="textworld"', "reference") from error
        infos = textworld.EnvInfos(won=True, admissible_commands=True, facts=facts)
        self._env = AlfredDemangler(PddlEnv(infos))
        self._state: Any = None
        self.intro = ""
        self.won = False
        self.history: list[str] = []

    @classmethod
    def of(cls, library: GameLibrary, task_id: str, game: Game, *, facts: bool = False) -> Original:
        """The original playing a library's task.

        Args:
            library: Official or generated games.
            task_id: The task.
            game: The same task in the fast engine: its dialect and goal sentence are used.
            facts: Ask for the facts too.

        Raises:
            HiMACError: The original cannot play it so (numbers shuffled by us, mixed dialects).
        """
        original = cls(facts=facts)
        world = getattr(library, "world", None)
        if world is not None:
            from himac_envs.alfworld.generate.export import game_file

            data = game_file(world(task_id))
        else:
            data = json.loads(library.read(task_id))  # type: ignore[attr-defined]
        data = in_dialect(data, game.dialect)
        original.load(with_goal_text(data, game.goal_text))
        if original.intro != game.intro:
            raise HiMACError(
                'backend="textworld" cannot take domain_randomization: it draws its own'
            )
        return original

    def load(self, data: dict[str, Any]) -> None:
        """Begin a game, given as the content of a ``game.tw-pddl`` file."""
        with _left_alone():
            self._env.load(data)
        self.reset()

    def reset(self) -> None:
        """Begin the loaded game again."""
        with _left_alone():
            self._state = self._env.reset()
        self.intro = str(self._state.feedback)
        self.won = bool(self._state["won"])
        self.history = []

    def act(self, command: str) -> str | None:
        """Carry a command out; None where the original says that nothing happens."""
        with _left_alone():
            self._state, _, _ = self._env.step(command)
        self.history.append(command)
        self.won = bool(self._state["won"])
        text = str(self._state.feedback)
        return None if text == NOTHING_HAPPENS else text

    @property
    def score(self) -> Any:
        """The original's own score of the last step."""
        return self._state["score"]

    @property
    def done(self) -> Any:
        """The original's own end mark of the last step."""
        return self._state["done"]

    def admissible(self) -> list[str]:
        """The admissible commands."""
        return list(self._state["admissible_commands"])

    def facts(self) -> list[str]:
        """The facts, as the original writes them."""
        return sorted(map(str, self._state["facts"]))


@contextmanager
def _left_alone() -> Iterator[None]:
    """Keep the original's planner from overwriting ``sys.argv`` and printing."""
    arguments = sys.argv
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.argv = arguments


def remember_parses() -> None:
    """Let the original remember what its text parsers and its translator return.

    It parses every command template anew for every admissible command of every step, and
    translates each problem four times, which is nearly all of its time. These are functions of
    their text; parsed symbols are copied, since the original writes on them. Used by long
    comparisons, where part of the games runs without it.
    """
    import fast_downward  # type: ignore[import-not-found]
    from textworld.envs.pddl import textgen
    from textworld.logic import Rule

    parse = textgen._parse_and_convert
    parsed: dict[str, bytes] = {}

    def parse_once(text: str, *arguments: Any, **keywords: Any) -> Any:
        known = parsed.get(text)
        if known is None:
            known = parsed[text] = pickle.dumps(parse(text, *arguments, **keywords), -1)
        return pickle.loads(known)

    textgen._parse_and_convert = parse_once
    query = Rule.parse_conjunctive_query
    queries: dict[str, Any] = {}

    def query_once(expression: str) -> Any:
        if expression not in queries:
            queries[expression] = query(expression)
        return queries[expression]

    Rule.parse_conjunctive_query = query_once
    translate = fast_downward.pddl2sas
    translated: dict[tuple[str, str, bool], Any] = {}

    def translate_once(
        domain: str, problem: str, verbose: bool = False, optimize: bool = False
    ) -> Any:
        key = (domain, problem, optimize)
        if key not in translated:
            if len(translated) >= 2:  # the two translations of the game before
                translated.clear()
            translated[key] = translate(domain, problem, verbose=verbose, optimize=optimize)
        return translated[key]

    fast_downward.pddl2sas = translate_once
