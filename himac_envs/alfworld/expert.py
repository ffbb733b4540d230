"""The oracle: an expert that knows the whole state, for a task or for one sub-goal of it.

It searches over the engine's state, never in a recorded walkthrough, so it works from any state.
Its blueprint, though, holds only what can be known when the plan is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from himac_envs.alfworld.aims import achieved, find_receptacles, kind_of, meant, referent
from himac_envs.alfworld.engine import State
from himac_envs.alfworld.game import Game
from himac_envs.alfworld.goals import CLEAN, COOL, HOT, SLICED, Held, Lit, Made, Placed, Wanted
from himac_envs.alfworld.names import bits
from himac_envs.alfworld.planner import (
    EVERYWHERE,
    NoPlanError,
    Planner,
    solve,
    witnesses,
)
from himac_envs.alfworld.subgoals import Aim, Verb

_PREPARATIONS: tuple[tuple[int, Verb], ...] = ((CLEAN, "clean"), (HOT, "heat"), (COOL, "cool"))
_FLAG_OF: dict[str, int] = {"clean": CLEAN, "heat": HOT, "cool": COOL}


# --- blueprint ------------------------------------------------------------------------------


def blueprint(state: State) -> list[Aim]:
    """The sub-goals that lead from here to the goal, without what the agent cannot know.

    What is known: the goal, the names of the receptacles, and the contents of those that were
    seen. At the start the list therefore follows from the goal alone; later, sub-goals that are
    known to be achieved are left out. There is always at least one.
    """
    game = state.game
    aims: list[Aim] = []
    # Kinds of which one was dealt with already: the next one is "another".
    conditions = game.conditions
    touched = _served(state)
    for condition in conditions:
        if isinstance(condition, Made) and not condition.met(state):
            aims += _make(game, condition, touched)
    held_used = False
    last: list[Aim] = []
    for condition in conditions:
        if isinstance(condition, Placed):
            # An object in hand serves the first condition that it fits.
            found, used = _bring(state, condition, touched, use_held=not held_used)
            held_used = held_used or used
            aims += found
            last = last or found[-1:] or _whole(game, condition)[-1:]
    held = next((c for c in conditions if isinstance(c, Held)), None)
    lit = next((c for c in conditions if isinstance(c, Lit)), None)
    if held is not None and (aims or not held.met(state)):
        aims += _take_and_prepare(state, held.wanted, touched, use_held=not aims)
    if lit is not None and (aims or not lit.met(state)):
        aims.append(Aim("use", kind_of(game, lit.lamps)))
    if aims:
        return aims
    # Everything holds: name the last thing done, so that there is a sub-goal to be in.
    if lit is not None:
        return [Aim("use", kind_of(game, lit.lamps))]
    if held is not None:
        return [Aim("take", kind_of(game, held.wanted.objects))]
    return last or [Aim("find", kind_of(game, (1 << len(game.object_types)) - 1))]


def _served(state: State) -> set[str]:
    """The kinds of which the agent has put one where the goal wants it."""
    placed = sum(1 << o for o in state.placed)
    served = 0
    for condition in state.game.conditions:
        if isinstance(condition, Placed):
            for wanted in condition.wanted:
                for r in condition.receptacles:
                    served |= state.contents[r] & wanted.objects & placed
    return {kind_of(state.game, 1 << o) for o in bits(served)}


def _whole(game: Game, condition: Placed) -> list[Aim]:
    wanted = condition.wanted[-1]
    receptacle = game.receptacle_types[condition.receptacles[0]].removesuffix("type")
    return [Aim("put", kind_of(game, wanted.objects), receptacle)]


def _make(game: Game, condition: Made, touched: set[str]) -> list[Aim]:
    kind = kind_of(game, condition.wanted.objects)
    flags = condition.wanted.flags
    aims = [Aim("slice", kind)] if flags & SLICED else []
    if flags & ~SLICED:
        aims.append(Aim("take", kind, another=kind in touched))
        aims += [Aim(verb, kind) for flag, verb in _PREPARATIONS if flags & flag]
        touched.add(kind)
    return aims


def _take_and_prepare(
    state: State, wanted: Wanted, touched: set[str], *, use_held: bool
) -> list[Aim]:
    """The sub-goals up to holding an object as wanted."""
    game, held = state.game, state.held
    kind = kind_of(game, wanted.objects)
    aims: list[Aim] = []
    done = 0
    if use_held and held >= 0 and wanted.objects >> held & 1:
        done = sum(
            flag
            for flag, mask in (
                (CLEAN, state.clean),
                (HOT, state.hot),
                (COOL, state.cool),
                (SLICED, state.sliced),
            )
            if mask >> held & 1
        )
        if wanted.flags & SLICED & ~done:
            aims += [Aim("drop", kind), Aim("slice", kind), Aim("take", kind)]
    else:
        if wanted.flags & SLICED:
            aims.append(Aim("slice", kind))
        aims.append(Aim("take", kind, another=kind in touched))
    touched.add(kind)
    return aims + [Aim(verb, kind) for flag, verb in _PREPARATIONS if wanted.flags & flag & ~done]


def _bring(
    state: State, condition: Placed, touched: set[str], *, use_held: bool
) -> tuple[list[Aim], bool]:
    """The sub-goals that make a condition hold, as far as it is known not to."""
    game = state.game
    missing = list(condition.wanted)
    for r in condition.receptacles:
        if state.seen >> r & 1:
            left, used = [], 0
            for wanted in condition.wanted:
                fit = wanted.ready(state) & state.contents[r] & ~used
                used |= fit & -fit
                if not fit:
                    left.append(wanted)
            if len(left) < len(missing):
                missing = left
    aims: list[Aim] = []
    used_held = False
    receptacle = game.receptacle_types[condition.receptacles[0]].removesuffix("type")
    together = len(missing) < len(condition.wanted)
    for wanted in missing:
        fits = state.held >= 0 and bool(wanted.objects >> state.held & 1)
        use = use_held and not used_held and fits
        used_held = used_held or use
        aims += _take_and_prepare(state, wanted, touched, use_held=use)
        aims.append(Aim("put", kind_of(game, wanted.objects), receptacle, same=together))
        together = True
    return aims, used_held


# --- plans for sub-goals --------------------------------------------------------------------


def plan_aim(state: State, aim: Aim, known: int = EVERYWHERE) -> list[str]:
    """Plan for one sub-goal by itself.

    Args:
        state: Where to start; not changed.
        aim: The sub-goal; all that it names exists in the game.
        known: Mask of the receptacles in which things may be looked for.

    Raises:
        NoPlanError: It cannot be reached from here, or not with what is known.
    """
    if achieved(state, aim):
        return []
    # Leave alone what other parts of the goal need, where that is possible.
    spare = 0
    for condition in state.game.conditions:
        if isinstance(condition, Placed) and condition.met(state):
            spare |= witnesses(state, condition)
    for reserved in (spare, 0) if spare else (0,):
        planner = Planner(state.copy(), known)
        try:
            _carry_out(planner, aim, reserved)
        except NoPlanError:
            if not reserved:
                raise
        else:
            return planner.commands
    raise AssertionError("unreachable")


def _carry_out(planner: Planner, aim: Aim, reserved: int) -> None:
    state = planner.state
    game = state.game
    objects = meant(state, aim)
    receptacles = find_receptacles(game, aim.receptacle) if aim.receptacle else ()
    if aim.verb in ("find", "take") and receptacles:
        planner.known &= sum(1 << r for r in receptacles)
    match aim.verb:
        case "find":
            planner.reach(planner.nearest_object(objects & ~reserved)[1])
        case "take":
            planner.fetch(objects & ~reserved)
        case "put":
            o = referent(state, aim)
            if o != state.held or o < 0:
                planner.fetch(1 << o if o >= 0 else objects & ~reserved)
            planner.put(_choose_target(planner, objects, receptacles, aim.same))
        case "drop":
            if state.held < 0 or not objects >> state.held & 1:
                raise NoPlanError(f"no {aim.object} is held")
            planner.drop()
        case "clean" | "heat" | "cool":
            o = referent(state, aim)
            wanted = 1 << o if o >= 0 else objects & ~reserved
            planner.fetch(wanted, flags=_FLAG_OF[aim.verb])
        case "slice":
            held = state.held
            if held >= 0 and objects >> held & 1:
                planner.drop()
            planner.slice(planner.nearest_object(objects & game.sliceable)[0])
        case "use":
            planner.light(objects & game.toggleable)
        case "go":
            planner.go(planner.nearest(receptacles))
        case "open":
            doors = [r for r in receptacles if game.openable >> r & 1]
            if not doors:
                raise NoPlanError(f"no {aim.receptacle} can be opened")
            planner.reach(min(doors, key=lambda r: (planner.way(r), r)))
        case "close":
            doors = [r for r in receptacles if game.openable >> r & 1]
            if not doors:
                raise NoPlanError(f"no {aim.receptacle} can be closed")
            r = min(doors, key=lambda r: (planner.way(r, open_needed=False), r))
            planner.go(r)
            if state.opened >> r & 1:
                planner.do(f"close {game.receptacle_names[r]}")


def _choose_target(planner: Planner, objects: int, receptacles: tuple[int, ...], same: bool) -> int:
    """The receptacle to put the held object into: nearest, and with its like where asked."""
    state = planner.state
    places = [r for r in receptacles if state.game.accepts[r] >> state.held & 1]
    if same:
        others = objects & ~(1 << state.held)
        places = [r for r in places if state.contents[r] & others] or places
    if not places:
        raise NoPlanError("the object may not be put there")
    return min(places, key=lambda r: (planner.way(r), r))


def plan_subgoal(state: State, aim: Aim) -> list[str]:
    """Plan for a sub-goal as a step of the whole task.

    Where the whole task's plan passes through the sub-goal without a detour, its beginning is the
    answer, so that the choice made (of one mug among many) is the one that serves the task.

    Raises:
        NoPlanError: The sub-goal cannot be reached from here.
    """
    if achieved(state, aim):
        return []
    alone: list[str] | None
    try:
        alone = plan_aim(state, aim)
    except NoPlanError:
        alone = None
    try:
        whole = solve(state)
    except NoPlanError:
        whole = []
    trial = state.copy()
    for number, command in enumerate(whole, 1):
        trial.act(command)
        if achieved(trial, aim):
            if alone is None or number <= len(alone) + 1:
                return whole[:number]
            break
    if alone is None:
        raise NoPlanError(f"{aim} cannot be reached from here")
    return alone


def follow(
    get_state: Callable[[], State],
    get_clock: Callable[[], int],
    choose: Callable[[State], str | None],
) -> Iterator[str]:
    """Yield commands one at a time, each chosen from the state as it then is.

    Where no step was taken since the last command, the next one is chosen as if that had been
    carried out: so ``list(...)`` gives the whole plan, and never runs on for ever.

    Args:
        get_state: Returns the state that the commands are carried out in.
        get_clock: Returns a number that changes with every step, also with one without effect.
        choose: Chooses a command, None at the end.
    """
    begun: tuple[int, object] | None = None
    ahead: State | None = None
    while True:
        now = (get_clock(), get_state().save())
        if ahead is None or now != begun:
            begun = now
            ahead = get_state().copy()
        command = choose(ahead)
        if command is None:
            return
        ahead.act(command)
        yield command


class Follower:
    """Chooses a plan's commands in turn, and plans anew when the state is not as expected.

    Args:
        plan: Plans from a state.
        done: Whether to stop.
    """

    def __init__(self, plan: Callable[[State], list[str]], done: Callable[[State], bool]) -> None:
        self.plan = plan
        self.done = done
        self._commands: list[str] = []
        self._expected: object = None

    def __call__(self, state: State) -> str | None:
        """The next command, None at the end."""
        if self.done(state):
            return None
        if not self._commands or state.save() != self._expected:
            self._commands = self.plan(state)
            if not self._commands:
                return None
        command, *self._commands = self._commands
        after = state.copy()
        after.act(command)
        self._expected = after.save()
        return command
