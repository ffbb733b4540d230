"""The rules: a game's changing state, what each command does to it and what it prints.

A translation of the original's PDDL domain and grammar (alfworld's ``alfred.pddl`` and
``alfred.twl2`` as they stand inside every game file) to plain Python on bit masks. Everything an
agent can see is reproduced, oddities included; each oddity has a comment that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from himac_envs.alfworld.commands import list_commands
from himac_envs.alfworld.dialect import HELP_TEXT
from himac_envs.alfworld.game import ROOM, Game
from himac_envs.alfworld.names import bits, listing
from himac_envs.alfworld.records import FRIDGE, MICROWAVE, SINK, SavedState, StateRecord

__all__ = ["NOTHING_HAPPENS", "Game", "SavedState", "State"]

NOTHING_HAPPENS: Final = "Nothing happens."
"""What the original prints for a command that is not admissible, whatever it says."""


class State(StateRecord):
    """One episode's state.

    Attributes:
        game: The fixed tables.
        won: Whether the goal holds now. It can cease to hold when play goes on.
    """

    __slots__ = ("_commands", "game", "won")

    game: Game

    def __init__(self, game: Game) -> None:
        self.game = game
        self.reset()

    def reset(self) -> None:
        """Go back to the game's start."""
        self.restore(self.game.start)

    def save(self) -> SavedState:
        """The state as a value: hashable, small, independent of what follows."""
        return SavedState(
            self.location,
            self.held,
            self.opened,
            tuple(self.contents),
            tuple(self.lying),
            tuple(self.left),
            self.clean,
            self.hot,
            self.cool,
            self.sliced,
            self.toggled,
            self.placed,
            self.seen,
            self.visited,
        )

    def essence(self) -> SavedState:
        """The state without what nothing that follows depends on.

        Left out are what was seen and visited, which only the experts ask for, and of `left` what
        `look` can never show: that an object was taken out of a receptacle shows where it lies in
        another one at the same place.
        """
        game = self.game
        left = [gone and gone & game.beside(r) for r, gone in enumerate(self.left)]
        return self.save()._replace(left=tuple(left), seen=0, visited=0)

    def restore(self, saved: SavedState) -> None:
        """Take the state of :meth:`save`, of this or another state of the same game."""
        (
            self.location,
            self.held,
            self.opened,
            contents,
            lying,
            left,
            self.clean,
            self.hot,
            self.cool,
            self.sliced,
            self.toggled,
            self.placed,
            self.seen,
            self.visited,
        ) = saved
        self.contents = list(contents)
        self.lying = list(lying)
        self.left = list(left)
        self._commands: list[str] | None = None
        self.won = self.goal_met()

    def copy(self) -> State:
        """An independent copy."""
        state = State.__new__(State)
        state.game = self.game
        state.restore(self.save())
        return state

    def goal_met(self) -> bool:
        """Whether every condition of the goal holds."""
        return all(condition.met(self) for condition in self.game.conditions)

    def progress(self) -> float:
        """The share of the goal's conditions that hold."""
        conditions = self.game.conditions
        return sum(condition.met(self) for condition in conditions) / len(conditions)

    # --- what is printed ---------------------------------------------------------------------

    def look(self) -> str:
        """What ``look`` prints."""
        game = self.game
        here = game.at[self.location]
        if not here:
            # The original's rule binds the location before it lists what is there, so before the
            # first move `look` finds nothing, although the introduction has just listed all.
            return f"{ROOM}nothing."
        floor: list[str] = []
        lying = self.lying[self.location]
        if lying:
            # An object taken from one receptacle and put into another at the same place counts
            # as lying "next to" the first: the original asks for objects at this location that
            # are known not to be in a receptacle here, once for each such receptacle.
            gone = 0
            for r in here:
                gone |= self.left[r]
            for o in bits(lying & gone):
                floor += [f"a {game.object_names[o]}" for r in here if self.left[r] >> o & 1]
        return f"{game.facing[self.location]}{listing(floor)}."

    def describe(self, r: int) -> str:
        """What arriving at, opening or examining receptacle ``r`` prints of it."""
        bit = 1 << r
        self.visited |= bit
        if not self.game.openable & bit or self.opened & bit:
            self.seen |= bit
        return self.game.describe(r, self.contents[r], self.opened)

    def describe_object(self, o: int) -> str:
        """What examining a held object prints."""
        game = self.game
        name = game.object_names[o]
        if game.holders >> o & 1:
            inside = listing([f"a {game.object_names[i]}" for i in game.inner.get(o, ())])
            return f"This is a normal {name}. In it, you see {inside}."
        clean, hot, cool = self.clean >> o & 1, self.hot >> o & 1, self.cool >> o & 1
        sliced = self.sliced >> o & 1
        kind = ""
        if sliced and (clean or hot or cool):
            if clean:
                kind = "hot and clean " if hot else "cool and clean " if cool else "clean "
            else:
                kind = "hot " if hot else "cool "
            return f"This is a {kind}sliced {name}."
        if clean and (hot or cool):
            return f"This is a {'hot' if hot else 'cool'} and clean {name}."
        if hot or clean or cool:
            # "cold", where every other text says "cool": the original's wording.
            return f"This is a {'hot' if hot else 'clean' if clean else 'cold'} {name}."
        if game.toggleable >> o & 1 and self.toggled >> o & 1:
            # Its counterpart, "is off", never shows: the original asks for an explicit negation
            # that no action ever makes.
            return f"This {name} is on."
        if game.sliceable >> o & 1 and sliced:
            return f"This is a sliced {name}."
        return f"There's nothing special about {name}."

    # --- what may be done --------------------------------------------------------------------

    def admissible(self) -> list[str]:
        """The admissible commands in the original's order, plain string sort. A new list."""
        if self._commands is None:
            self._commands = list_commands(self)
        return self._commands.copy()

    # --- doing it ----------------------------------------------------------------------------

    def act(self, command: str) -> str | None:
        """Carry a command out.

        Args:
            command: Compared exactly, apart from white space around it: case and inner blanks
                matter, as in the original.

        Returns:
            What is printed; None where the command is not admissible, and nothing has changed.
        """
        command = command.strip()
        verb, _, rest = command.partition(" ")
        handler = _HANDLERS.get(verb)
        return None if handler is None else handler(self, rest)

    def _changed(self) -> None:
        self._commands = None
        self.won = self.goal_met()

    def _is_here(self, r: int | None) -> bool:
        return r is not None and self.game.location_of[r] == self.location

    def _reachable(self, r: int) -> bool:
        return not self.game.openable >> r & 1 or bool(self.opened >> r & 1)

    def _go(self, rest: str) -> str | None:
        if rest[:3] != "to ":
            return None
        game = self.game
        name = rest[3:]
        r = game.receptacle_index.get(name)
        # A receptacle at the agent's own location cannot be gone to, not even when the agent
        # faces another one there: the original moves between locations, not receptacles.
        if r is None or game.location_of[r] in (self.location, -1):
            return None
        self.location = game.location_of[r]
        self._changed()
        if game.dialect.names_location:
            name = game.location_names[self.location]
        return f"You arrive at {name}. {self.describe(r)}"

    def _open(self, rest: str) -> str | None:
        r = self.game.receptacle_index.get(rest)
        if r is None or not self._is_here(r):
            return None
        if not self.game.openable >> r & 1 or self.opened >> r & 1:
            return None
        self.opened |= 1 << r
        self._changed()
        return f"You open the {rest}. {self.describe(r)}"

    def _close(self, rest: str) -> str | None:
        r = self.game.receptacle_index.get(rest)
        if r is None or not self._is_here(r):
            return None
        if not self.game.openable >> r & 1 or not self.opened >> r & 1:
            return None
        self.opened &= ~(1 << r)
        self._changed()
        return f"You close the {rest}."

    def _take(self, rest: str) -> str | None:
        game = self.game
        name, _, where = rest.partition(" from ")
        o = game.object_index.get(name)
        r = game.receptacle_index.get(where)
        if o is None or r is None or self.held >= 0 or not self._is_here(r):
            return None
        if not (game.pickupable & self.contents[r]) >> o & 1 or not self._reachable(r):
            return None
        bit = 1 << o
        self.contents[r] &= ~bit
        self.left[r] |= bit
        self.lying[self.location] &= ~bit
        self.held = o
        self._changed()
        return f"You pick up the {name} from the {where}."

    def _put(self, name: str, where: str) -> str | None:
        game = self.game
        o = game.object_index.get(name)
        r = game.receptacle_index.get(where)
        if o is None or r is None or o != self.held or not self._is_here(r):
            return None
        # There is no limit to what a receptacle holds.
        if not self._reachable(r) or not game.accepts[r] >> o & 1:
            return None
        bit = 1 << o
        self.contents[r] |= bit
        self.left[r] &= ~bit
        self.lying[self.location] |= bit
        self.held = -1
        self.placed = (*(p for p in self.placed if p != o), o)
        self._changed()
        if game.dialect.put_feedback:
            return f"You put the {name} in/on the {where}."
        return f"You move the {name} to the {where}."

    def _move_to(self, rest: str) -> str | None:
        if self.game.dialect.put_command:
            return None
        name, _, where = rest.partition(" to ")
        return self._put(name, where)

    def _put_in(self, rest: str) -> str | None:
        if not self.game.dialect.put_command:
            return None
        name, _, where = rest.partition(" in/on ")
        return self._put(name, where)

    def _use(self, rest: str) -> str | None:
        game = self.game
        o = game.object_index.get(rest)
        if o is None or not game.toggleable >> o & 1:
            return None
        # A lamp in a closed receptacle can be used too, and nothing need be held.
        if not any(self.contents[r] >> o & 1 for r in game.at[self.location]):
            return None
        # Always "on": the original never unsets isToggled.
        self.toggled |= 1 << o
        self._changed()
        return f"You turn on the {rest}."

    def _slice(self, rest: str) -> str | None:
        game = self.game
        name, _, knife = rest.partition(" with ")
        o = game.object_index.get(name)
        k = game.object_index.get(knife)
        if o is None or k is None or k != self.held or not game.knives >> k & 1:
            return None
        if not self.lying[self.location] & game.sliceable & 1 << o:
            return None
        self.sliced |= 1 << o
        self._changed()
        return f"You sliced the {name} with the {knife}."

    def _examine(self, rest: str) -> str | None:
        r = self.game.receptacle_index.get(rest)
        if r is not None:
            return self.describe(r) if self._is_here(r) else None
        o = self.game.object_index.get(rest)
        # Only a held object can be examined. The domain also means to allow visible ones, but
        # its "(exists (?l - location, ?r - receptacle)" has a comma that makes a type "location,"
        # of which there are no instances.
        return self.describe_object(o) if o is not None and o == self.held else None

    def _look(self, rest: str) -> str | None:
        return None if rest else self.look()

    def _inventory(self, rest: str) -> str | None:
        if rest:
            return None
        if self.held < 0:
            return "You are not carrying anything."
        return f"You are carrying: a {self.game.object_names[self.held]}."

    def _help(self, rest: str) -> str | None:
        return HELP_TEXT if self.game.dialect.has_help and not rest else None


@dataclass(frozen=True, slots=True)
class _Treatment:
    """What ``clean``, ``heat`` and ``cool`` do with the held object; called as a handler.

    Attributes:
        verb: The command's first word.
        tool: Which kind of receptacle it takes; whether its door is open does not matter.
        able: The game's mask of the objects that it works on.
        sets: The state's mask that it adds the object to.
        unsets: The state's mask that it takes the object from, if any.
    """

    verb: str
    tool: int
    able: str
    sets: str
    unsets: str | None

    def __call__(self, state: State, rest: str) -> str | None:
        game = state.game
        name, _, where = rest.partition(" with ")
        o = game.object_index.get(name)
        r = game.receptacle_index.get(where)
        if o is None or r is None or o != state.held or not getattr(game, self.able) >> o & 1:
            return None
        if game.tools[r] != self.tool or not state._is_here(r):
            return None
        setattr(state, self.sets, getattr(state, self.sets) | 1 << o)
        if self.unsets:
            setattr(state, self.unsets, getattr(state, self.unsets) & ~(1 << o))
        state._changed()
        return f"You {self.verb} the {name} using the {where}."


_HANDLERS: Final[dict[str, Callable[[State, str], str | None]]] = {
    "go": State._go,
    "open": State._open,
    "close": State._close,
    "take": State._take,
    "move": State._move_to,
    "put": State._put_in,
    "clean": _Treatment("clean", SINK, "cleanable", "clean", None),
    "heat": _Treatment("heat", MICROWAVE, "heatable", "hot", "cool"),
    "cool": _Treatment("cool", FRIDGE, "coolable", "cool", "hot"),
    "use": State._use,
    "slice": State._slice,
    "examine": State._examine,
    "look": State._look,
    "inventory": State._inventory,
    "help": State._help,
}
