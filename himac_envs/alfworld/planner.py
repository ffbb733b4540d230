"""Plans that reach a goal from any state, found by search over the engine's own state.

Every location is one step from every other, so a plan's cost is counted, not searched for: a few
commands for each object that is fetched, prepared and brought. The search is over the choices that
matter (which objects, which target, which tool), each priced exactly, and the cheapest is then
carried out on a copy of the state, so that a plan returned is a plan that works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from himac_envs.alfworld.engine import State
from himac_envs.alfworld.goals import CLEAN, COOL, HOT, SLICED, Held, Lit, Made, Placed, Wanted
from himac_envs.alfworld.names import bits
from himac_envs.alfworld.records import FRIDGE, MICROWAVE, SINK

EVERYWHERE = -1
"""As ``known``: the contents of all receptacles are known."""


class NoPlanError(ValueError):
    """What is wanted cannot be reached from this state (or not with what is known)."""


@dataclass
class Planner:
    """Makes a plan by doing it on a copy of the state.

    Attributes:
        state: The copy; changes as the plan grows.
        known: Mask of the receptacles in which things may be looked for, ``EVERYWHERE`` for all.
        commands: The plan so far.
    """

    state: State
    known: int = EVERYWHERE
    commands: list[str] = field(default_factory=list)

    # --- single steps ------------------------------------------------------------------------

    def do(self, command: str) -> None:
        """Append a command."""
        if self.state.act(command) is None:
            raise NoPlanError(f"{command!r} is not admissible")
        self.commands.append(command)

    def go(self, r: int) -> None:
        """Go to a receptacle, unless the agent is there."""
        game = self.state.game
        if game.location_of[r] != self.state.location:
            self.do(f"go to {game.receptacle_names[r]}")

    def reach(self, r: int) -> None:
        """Go to a receptacle and open it where it is closed."""
        self.go(r)
        if self.state.game.openable >> r & 1 and not self.state.opened >> r & 1:
            self.do(f"open {self.state.game.receptacle_names[r]}")

    def take(self, o: int, r: int) -> None:
        """Take an object out of a receptacle."""
        game = self.state.game
        self.reach(r)
        self.do(f"take {game.object_names[o]} from {game.receptacle_names[r]}")

    def put(self, r: int) -> None:
        """Put the held object into or onto a receptacle."""
        game = self.state.game
        self.reach(r)
        name, where = game.object_names[self.state.held], game.receptacle_names[r]
        put = f"put {name} in/on {where}"
        self.do(put if game.dialect.put_command else f"move {name} to {where}")

    def drop(self, near: Iterable[int] = ()) -> None:
        """Put the held object down where it costs least, best at one of ``near``'s locations."""
        game, held = self.state.game, self.state.held
        if held < 0:
            return
        wanted = {game.location_of[r] for r in near}
        places = [
            (self.way(r) - (game.location_of[r] in wanted), self.way(r), r)
            for r in range(len(game.accepts))
            if game.accepts[r] >> held & 1 and game.location_of[r] >= 0
        ]
        if not places:
            raise NoPlanError("nothing takes the held object")
        self.put(min(places)[2])

    def use_tool(self, tool: int, verb: str) -> None:
        """Clean, heat or cool the held object at the nearest tool."""
        game = self.state.game
        r = self.nearest(r for r, kind in enumerate(game.tools) if kind == tool)
        self.go(r)
        name = game.object_names[self.state.held]
        self.do(f"{verb} {name} with {game.receptacle_names[r]}")

    def prepare(self, flags: int) -> None:
        """Give the held object these flags (``SLICED`` not among them)."""
        bit = 1 << self.state.held
        if flags & CLEAN and not self.state.clean & bit:
            self.use_tool(SINK, "clean")
        if flags & HOT and not self.state.hot & bit:
            self.use_tool(MICROWAVE, "heat")
        if flags & COOL and not self.state.cool & bit:
            self.use_tool(FRIDGE, "cool")

    def slice(self, o: int) -> None:
        """Slice an object where it lies, and put the knife down again."""
        game = self.state.game
        if self.state.held < 0 or not game.knives >> self.state.held & 1:
            self.drop()
            self.take(*self.nearest_object(game.knives & ~(1 << o)))
        _, r = self.nearest_object(1 << o)
        self.go(r)
        name, knife = game.object_names[o], game.object_names[self.state.held]
        self.do(f"slice {name} with {knife}")
        self.drop(near=[r])

    def light(self, lamps: int) -> None:
        """Go to a lamp and turn it on, unless it is."""
        o, r = self.nearest_object(lamps, open_needed=False)
        self.go(r)
        if not self.state.toggled >> o & 1:
            self.do(f"use {self.state.game.object_names[o]}")

    # --- prices ------------------------------------------------------------------------------

    def way(self, r: int, *, open_needed: bool = True) -> int:
        """Commands that it takes to stand before a receptacle (with its door open)."""
        game = self.state.game
        cost = int(game.location_of[r] != self.state.location)
        if open_needed and game.openable >> r & 1 and not self.state.opened >> r & 1:
            cost += 1
        return cost

    def nearest(self, receptacles: Iterable[int]) -> int:
        """The receptacle with the shortest way that need not be opened; ties by number."""
        places = [
            (self.way(r, open_needed=False), r)
            for r in receptacles
            if self.state.game.location_of[r] >= 0
        ]
        if not places:
            raise NoPlanError("the game has no receptacle of this kind")
        return min(places)[1]

    def sources(self, objects: int) -> Iterator[tuple[int, int]]:
        """Where objects stand, as far as known: object and receptacle."""
        game = self.state.game
        for r, contents in enumerate(self.state.contents):
            if contents & objects and self.known >> r & 1 and game.location_of[r] >= 0:
                for o in bits(contents & objects):
                    yield o, r

    def nearest_object(self, objects: int, *, open_needed: bool = True) -> tuple[int, int]:
        """The object of a mask, and its receptacle, that is reached with the fewest commands."""
        places = [(self.way(r, open_needed=open_needed), o, r) for o, r in self.sources(objects)]
        if not places:
            raise NoPlanError("no such object can be reached")
        _, o, r = min(places)
        return o, r

    def attempt(self, act: Callable[[Planner], None]) -> Planner | None:
        """A copy of this planner in which ``act`` was carried out; None where it cannot be."""
        trial = Planner(self.state.copy(), self.known, [])
        try:
            act(trial)
        except NoPlanError:
            return None
        return trial

    def adopt(self, trials: Iterable[Planner | None]) -> None:
        """Carry out the shortest of some attempts.

        Raises:
            NoPlanError: None of them works.
        """
        working = [trial for trial in trials if trial is not None]
        if not working:
            raise NoPlanError("it cannot be reached from here")
        best = min(working, key=lambda trial: len(trial.commands))
        self.commands += best.commands
        self.state = best.state

    # --- conditions --------------------------------------------------------------------------

    def fetch(self, objects: int, *, flags: int = 0) -> None:
        """Hold one of these objects, with these flags, at the least cost."""
        trials: list[Planner | None] = []
        held = self.state.held
        if held >= 0 and objects >> held & 1 and not flags & SLICED & ~self._sliced(held):
            trials.append(self.attempt(lambda trial: trial.prepare(flags)))
        else:
            for o, r in self._cheap_sources(objects, flags):
                trials.append(self.attempt(lambda trial, o=o, r=r: trial._fetch(o, r, flags)))  # type: ignore[misc]
        self.adopt(trials)

    def _sliced(self, o: int) -> int:
        return SLICED if self.state.sliced >> o & 1 else 0

    def _fetch(self, o: int, r: int, flags: int) -> None:
        if flags & SLICED and not self.state.sliced >> o & 1:
            if self.state.held == o:
                self.drop()
            self.slice(o)
            o, r = self.nearest_object(1 << o)
        if self.state.held != o:
            self.drop(near=[r])
            self.take(o, r)
        self.prepare(flags)

    def _cheap_sources(self, objects: int, flags: int) -> list[tuple[int, int]]:
        """The sources of objects that can be the cheapest: one for each price and location."""
        state, game = self.state, self.state.game
        seen: dict[tuple[int, int, int], tuple[int, int]] = {}
        for o, r in self.sources(objects & game.pickupable):
            missing = sum(
                1
                for flag, mask in (
                    (CLEAN, state.clean),
                    (HOT, state.hot),
                    (COOL, state.cool),
                    (SLICED, state.sliced),
                )
                if flags & flag and not mask >> o & 1
            )
            seen.setdefault((self.way(r), game.location_of[r], missing), (o, r))
        held = state.held
        if held >= 0 and objects >> held & 1:
            return [(held, -1), *seen.values()]
        return list(seen.values())

    def place(self, condition: Placed, spare: int = 0) -> None:
        """Make a :class:`Placed` condition hold, without touching the objects of ``spare``."""
        if condition.met(self.state):
            return
        self.adopt(
            self.attempt(lambda trial, r=r: trial._fill(condition, r, spare))  # type: ignore[misc]
            for r in self._targets(condition)
        )

    def _targets(self, condition: Placed) -> list[int]:
        """The target receptacles that can be the best: the like ones are tried once."""
        state, game = self.state, self.state.game
        relevant = 0
        for wanted in condition.wanted:
            relevant |= wanted.objects
        shared = {game.location_of[r] for _, r in self.sources(relevant)}
        shared |= {game.location_of[r] for r, tool in enumerate(game.tools) if tool}
        shared.add(state.location)
        targets: dict[tuple[int, int, int, int], int] = {}
        for r in condition.receptacles:
            location = game.location_of[r]
            if location < 0:
                continue
            key = (
                location if location in shared else -1,
                self.way(r),
                state.contents[r] & relevant,
                game.accepts[r] & relevant,
            )
            targets.setdefault(key, r)
        return list(targets.values())

    def _fill(self, condition: Placed, r: int, spare: int) -> None:
        """Bring what is missing to target ``r``."""
        while True:
            missing = self._missing(condition, r)
            if missing is None:
                return
            wanted, there = missing
            usable = wanted.objects & ~there & ~spare & self.state.game.accepts[r]
            self._bring(Wanted(usable, wanted.flags), r)

    def _missing(self, condition: Placed, r: int) -> tuple[Wanted, int] | None:
        """The next wanted entry without an object in ``r``, and the objects that serve others."""
        used = 0
        for wanted in condition.wanted:
            fit = wanted.ready(self.state) & self.state.contents[r] & ~used
            if not fit:
                return wanted, used
            used |= fit & -fit
        return None

    def _bring(self, wanted: Wanted, r: int) -> None:
        state = self.state
        held = state.held
        trials: list[Planner | None] = []
        if held >= 0 and wanted.objects >> held & 1:
            trials.append(self.attempt(lambda trial: trial._deliver(held, -1, wanted.flags, r)))
        else:
            for o, source in self._cheap_sources(wanted.objects, wanted.flags):
                trials.append(
                    self.attempt(
                        lambda trial, o=o, source=source: trial._deliver(  # type: ignore[misc]
                            o, source, wanted.flags, r
                        )
                    )
                )
        self.adopt(trials)

    def _deliver(self, o: int, source: int, flags: int, r: int) -> None:
        self._fetch(o, source, flags)
        self.put(r)

    def examine(self, lit: Lit | None, held: Held | None, spare: int = 0) -> None:
        """Hold what ``held`` wants, then stand by a lamp of ``lit`` that is on."""
        if held is not None and not held.met(self.state):
            self.fetch(held.wanted.objects & ~spare, flags=held.wanted.flags)
        if lit is not None and not lit.met(self.state):
            self.light(lit.lamps)

    def make(self, condition: Made) -> None:
        """Make an object as wanted exist."""
        if not condition.met(self.state):
            if condition.wanted.flags == SLICED:
                o, _ = self.nearest_object(condition.wanted.objects)
                self.slice(o)
            else:
                self.fetch(condition.wanted.objects, flags=condition.wanted.flags)


def witnesses(state: State, condition: Placed) -> int:
    """The objects by which a condition that holds is met, as a mask (0 where it does not)."""
    for r in condition.receptacles:
        used = 0
        for wanted in condition.wanted:
            fit = wanted.ready(state) & state.contents[r] & ~used
            if not fit:
                break
            used |= fit & -fit
        else:
            return used
    return 0


def solve(state: State) -> list[str]:
    """Plan for the whole goal.

    Args:
        state: Where to start; not changed.

    Returns:
        Commands that win, empty where the goal holds. One goal is reached in the fewest commands
        or nearly so; several are reached one after the other, those with a lamp or something to
        hold last.

    Raises:
        NoPlanError: The goal cannot be reached from here.
    """
    planner = Planner(state.copy())
    for careful in (True, False):
        for _ in range(len(state.game.conditions) + 1):
            if planner.state.won:
                return planner.commands
            try:
                _serve_all(planner, careful)
            except NoPlanError:
                if not careful:
                    raise
                break
    if not planner.state.won:
        raise NoPlanError("the goals get in each other's way")
    return planner.commands


def _serve_all(planner: Planner, careful: bool) -> None:
    """Serve every condition once; careful: with no object that another condition rests on."""
    conditions = planner.state.game.conditions
    placed = [c for c in conditions if isinstance(c, Placed)]
    for made in conditions:
        if isinstance(made, Made):
            planner.make(made)
    spare = 0
    if careful:
        for condition in placed:
            spare |= witnesses(planner.state, condition)
    for condition in placed:
        if not condition.met(planner.state):
            planner.place(condition, spare)
            if careful:
                spare |= witnesses(planner.state, condition)
    lit = next((c for c in conditions if isinstance(c, Lit)), None)
    held = next((c for c in conditions if isinstance(c, Held)), None)
    planner.examine(lit, held, spare)
