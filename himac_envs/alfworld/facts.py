"""What the original's ``facts`` tell about a state, and other optional entries of ``info``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from himac_envs.alfworld.archive import TASK_TYPES
from himac_envs.alfworld.engine import State
from himac_envs.alfworld.game import Game
from himac_envs.alfworld.goals import CLEAN, COOL, HOT, Lit, Placed
from himac_envs.alfworld.names import bits
from himac_envs.alfworld.records import FRIDGE, MICROWAVE, SavedState

#: What stands between the thing and the receptacle in a command of either dialect.
_RECEPTACLE = re.compile(r" (?:from|to|in/on) ")
_STATES = ("clean", "hot", "cool", "sliced", "toggled")
_ABILITIES = ("pickupable", "cleanable", "heatable", "coolable", "toggleable", "sliceable")


def deeds(told: frozenset[str], before: SavedState, command: str, state: State) -> frozenset[str]:
    """What an episode's commands leave behind in the original's facts alone.

    That is: marks that nothing reads (``checked``), and explicit negations, which the
    original writes where an effect takes something away and drops where another gives it back;
    what never held has none. Nothing of the sort is there at the start.

    Args:
        told: These facts before the command.
        before: The state before it.
        command: An admissible command.
        state: The state after it.

    Returns:
        These facts after it.
    """
    game = state.game
    now = set(told)

    def change(fact: str, holds: bool) -> None:
        (now.discard if holds else now.add)(f"not_{fact}")

    verb, _, rest = command.strip().partition(" ")
    here = f"{game.location_names[state.location]}: location"
    if verb == "look":
        now.add(f"checked({here})")
    elif verb in ("inventory", "help"):
        now.add("checked(agent1 : agent)")
    elif verb == "examine":
        kind = "receptacle" if rest in game.receptacle_index else "object"
        now.add(f"checked({rest}: {kind})")
    elif verb == "go":
        change(_at(game, before.location), False)
        change(_at(game, state.location), True)
    elif verb in ("open", "close"):
        change(f"opened({rest}: receptacle)", verb == "open")
        if verb == "open":
            now.add(f"checked({rest}: receptacle)")
    elif verb in ("take", "move", "put"):
        o = max(state.held, before.held)
        thing = f"{game.object_names[o]}: object"
        # The command's own receptacle: a thing may lie in two at once, as some pans do, so that
        # putting it into the other changes nothing there.
        receptacle = _RECEPTACLE.split(rest, maxsplit=1)[-1]
        put = state.held < 0
        change(f"inreceptacle({thing}, {receptacle}: receptacle)", put)
        change(f"objectatlocation({thing}, {here})", put)
        change(f"holds(agent1 : agent, {thing})", not put)
        change("holdsany(agent1 : agent)", not put)
    elif verb in ("heat", "cool"):
        thing = f"{game.object_names[state.held]}: object"
        able = (game.coolable, game.heatable)[verb == "cool"] >> state.held & 1
        tool = (FRIDGE, MICROWAVE)[verb == "cool"] in game.tools
        change(f"is{'hot' if verb == 'heat' else 'cool'}({thing})", True)
        # Taken away is only what could ever have come about.
        if able and tool:
            change(f"is{'cool' if verb == 'heat' else 'hot'}({thing})", False)
    elif verb == "use":
        # Meant as a switch; but the original writes both branches of the effect, "off" last.
        now.add(f"not_ison({rest}: object)")
    return frozenset(now)


def facts(state: State, told: frozenset[str] = frozenset()) -> list[str]:
    """The facts that hold, written as the original writes them, sorted.

    For example ``"inreceptacle(mug 1: object, cabinet 2: receptacle)"``. Left out are only the
    helpers ``new-axiom@...`` that the original's translator may invent.

    Args:
        state: The present state.
        told: What this episode's commands left behind; see `deeds`.
    """
    return sorted({*_facts(state), *told})


def _at(game: Game, location: int) -> str:
    return f"atlocation(agent1 : agent, {game.location_names[location]}: location)"


def _facts(state: State) -> Iterator[str]:
    game = state.game
    objects = [f"{name}: object" for name in game.object_names]
    receptacles = [f"{name}: receptacle" for name in game.receptacle_names]
    locations = [f"{name}: location" for name in game.location_names]
    for kind, object_kind in game.permits:
        yield f"cancontain({kind} : rtype, {object_kind} : otype)"
    # The blank before the colon ends every name without a number.
    yield _at(game, state.location)
    if state.held >= 0:
        yield f"holds(agent1 : agent, {objects[state.held]})"
        yield "holdsany(agent1 : agent)"
    for r, receptacle in enumerate(receptacles):
        if game.location_of[r] >= 0:
            yield f"receptacleatlocation({receptacle}, {locations[game.location_of[r]]})"
        if game.receptacle_types[r]:
            yield f"receptacletype({receptacle}, {game.receptacle_types[r]} : rtype)"
        if game.openable >> r & 1:
            yield f"openable({receptacle})"
        if state.opened >> r & 1:
            yield f"opened({receptacle})"
        for o in bits(state.contents[r]):
            yield f"inreceptacle({objects[o]}, {receptacle})"
    for location, lying in enumerate(state.lying):
        for o in bits(lying):
            yield f"objectatlocation({objects[o]}, {locations[location]})"
    for o, thing in enumerate(objects):
        if game.object_types[o]:
            yield f"objecttype({thing}, {game.object_types[o]} : otype)"
        for name in _ABILITIES:
            if getattr(game, name) >> o & 1:
                yield f"{name}({thing})"
        if game.holders >> o & 1:
            yield f"isreceptacleobject({thing})"
        for name in _STATES:
            if getattr(state, name) >> o & 1:
                yield f"is{name}({thing})"
    for outer, inside in game.inner.items():
        for o in inside:
            yield f"inreceptacleobject({objects[o]}, {objects[outer]})"


def inventory(state: State) -> str:
    """What the command ``inventory`` prints."""
    return state.act("inventory") or ""


def task_type(game: Game) -> str:
    """Which of the six types a game's goal is of; ``"several"`` for a goal beyond them."""
    simple, light, clean, heat, cool, two = TASK_TYPES
    placed = [c for c in game.conditions if isinstance(c, Placed)]
    if len(game.conditions) == 2 and any(isinstance(c, Lit) for c in game.conditions):
        return light
    if len(game.conditions) != 1 or len(placed) != 1:
        return "several"
    wanted = placed[0].wanted
    if len(wanted) == 2 and not any(w.flags for w in wanted):
        return two
    if len(wanted) != 1:
        return "several"
    return {0: simple, CLEAN: clean, HOT: heat, COOL: cool}.get(wanted[0].flags, "several")
