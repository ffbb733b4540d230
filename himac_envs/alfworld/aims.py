"""What a sub-goal means in a game's state: which things it names, and whether it is achieved."""

from __future__ import annotations

from himac_envs.alfworld.engine import State
from himac_envs.alfworld.game import Game
from himac_envs.alfworld.names import bits
from himac_envs.alfworld.subgoals import Aim, parse_aim

_SHORTEST_PART = 3


def find_objects(game: Game, name: str) -> int:
    """The objects that a kind ("mug") or a name ("mug 2") can mean, as a mask (0: none).

    A kind that the game lacks may be part of one that it has: "lamp" of "desklamp".
    """
    if name[-1:].isdigit():
        o = game.object_index.get(name)
        return 0 if o is None else 1 << o
    return sum(1 << o for o in _of_kind(game.object_types, name))


def find_receptacles(game: Game, name: str) -> tuple[int, ...]:
    """The receptacles that a kind ("cabinet") or a name ("cabinet 3") can mean.

    As for objects, "sink" means the sinkbasin and "counter" the countertop.
    """
    if name[-1:].isdigit():
        r = game.receptacle_index.get(name)
        found = [] if r is None else [r]
    else:
        found = _of_kind(game.receptacle_types, name)
    return tuple(r for r in found if game.location_of[r] >= 0)


def _of_kind(types: tuple[str, ...], kind: str) -> list[int]:
    found = [i for i, type_ in enumerate(types) if type_ == f"{kind}type"]
    if found or len(kind) < _SHORTEST_PART:
        return found
    parts = [(i, type_.removesuffix("type")) for i, type_ in enumerate(types)]
    return [i for i, name in parts if name.startswith(kind) or name.endswith(kind)]


def understand(game: Game, text: str) -> Aim | None:
    """Parse a sub-goal; None where it is none, or names what the game lacks."""
    aim = parse_aim(text)
    if aim is None:
        return None
    if aim.object and not find_objects(game, aim.object):
        return None
    if aim.receptacle and not find_receptacles(game, aim.receptacle):
        return None
    return aim


def referent(state: State, aim: Aim) -> int:
    """The object that "the mug" means: the held one, else the one put down last; -1 for none."""
    objects = find_objects(state.game, aim.object)
    if state.held >= 0 and objects >> state.held & 1:
        return state.held
    for o in reversed(state.placed):
        if objects >> o & 1:
            return o
    return -1


def meant(state: State, aim: Aim) -> int:
    """The objects that "a mug" or "another mug" can mean, as a mask.

    Another one was not put down before; where all were, it is any but the one put down last.
    """
    objects = find_objects(state.game, aim.object) if aim.object else 0
    if not aim.another:
        return objects
    old = [1 << o for o in state.placed if objects >> o & 1]
    return (objects & ~sum(old)) or (objects & ~(old[-1] if old else 0)) or objects


def reachable_contents(state: State, r: int) -> int:
    """The objects that can be seen in a receptacle now, by somebody in front of it."""
    if state.game.openable >> r & 1 and not state.opened >> r & 1:
        return 0
    return state.contents[r]


def achieved(state: State, aim: Aim) -> bool:
    """Whether a sub-goal holds now (see :mod:`himac_envs.alfworld.subgoals` for the meanings)."""
    game = state.game
    objects = find_objects(game, aim.object) if aim.object else 0
    receptacles = find_receptacles(game, aim.receptacle) if aim.receptacle else ()
    here = game.at[state.location]
    match aim.verb:
        case "find" | "take":
            objects = meant(state, aim)
            if state.held >= 0 and objects >> state.held & 1:
                return True
            if aim.verb == "take":
                return False
            return any(reachable_contents(state, r) & objects for r in here)
        case "put":
            o = referent(state, aim)
            if o < 0 or o == state.held:
                return False
            for r in receptacles:
                others = state.contents[r] & objects & ~(1 << o)
                if state.contents[r] >> o & 1 and (others or not aim.same):
                    return True
            return False
        case "drop":
            o = referent(state, aim)
            return o >= 0 and o != state.held
        case "clean" | "heat" | "cool":
            o = referent(state, aim)
            done = {"clean": state.clean, "heat": state.hot, "cool": state.cool}[aim.verb]
            return o >= 0 and bool(done >> o & 1)
        case "slice":
            return bool(state.sliced & objects)
        case "use":
            lit = state.toggled & objects
            return any(state.contents[r] & lit for r in here)
        case "go":
            return any(r in here for r in receptacles)
        case "open":
            return any(r in here and state.opened >> r & 1 for r in receptacles)
        case "close":
            return any(
                r in here and game.openable >> r & 1 and not state.opened >> r & 1
                for r in receptacles
            )


def kind_of(game: Game, objects: int) -> str:
    """The kind of a mask's first object, without the "type"."""
    return game.object_types[next(bits(objects))].removesuffix("type")
