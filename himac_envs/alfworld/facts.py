"""What the original's ``facts`` tell about a state, and other optional entries of ``info``."""

from __future__ import annotations

from collections.abc import Iterator

from himac_envs.alfworld.archive import TASK_TYPES
from himac_envs.alfworld.engine import State
from himac_envs.alfworld.game import Game
from himac_envs.alfworld.goals import CLEAN, COOL, HOT, Lit, Placed
from himac_envs.alfworld.names import bits

_STATES = ("clean", "hot", "cool", "sliced", "toggled")
_ABILITIES = ("pickupable", "cleanable", "heatable", "coolable", "toggleable", "sliceable")


def facts(state: State) -> list[str]:
    """The facts that hold, written as the original writes them, sorted.

    For example ``"inreceptacle(mug 1: object, cabinet 2: receptacle)"``. What the original has
    beyond these are explicit negations, its planner's helper axioms, the types' permissions
    (``cancontain``) and marks that nothing reads (``checked``, ``ison``).
    """
    return sorted(_facts(state))


def _facts(state: State) -> Iterator[str]:
    game = state.game
    objects = [f"{name}: object" for name in game.object_names]
    receptacles = [f"{name}: receptacle" for name in game.receptacle_names]
    locations = [f"{name}: location" for name in game.location_names]
    # The blank before the colon ends every name without a number.
    yield f"atlocation(agent1 : agent, {locations[state.location]})"
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
