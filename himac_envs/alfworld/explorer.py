"""An expert that searches as a person would: it knows only what has been seen.

The oracle walks straight to a mug in a closed cabinet. Demonstrations of that cannot be imitated
by an agent that does not see through doors: all it can learn from them is to guess. The explorer
looks into plausible receptacles, likeliest first, until it has seen what it needs; apart from the
search it acts as the oracle does.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from functools import lru_cache
from typing import Final

import numpy as np

from himac_envs.alfworld.aims import achieved, find_objects, find_receptacles, meant, referent
from himac_envs.alfworld.engine import State
from himac_envs.alfworld.expert import blueprint, plan_aim
from himac_envs.alfworld.game import Game
from himac_envs.alfworld.names import bits
from himac_envs.alfworld.planner import NoPlanError
from himac_envs.alfworld.records import FRIDGE, MICROWAVE, SINK
from himac_envs.alfworld.subgoals import Aim

_UNLIKELY: Final = 0.5
"""Share (in percent) given to a receptacle kind where the object was never counted."""


@lru_cache(maxsize=256)
def usual_places(kind: str) -> dict[str, float]:
    """Where an object kind usually lies: percent by receptacle kind, over the four rooms."""
    from himac_envs.alfworld.generate.tables import household  # read only when exploring

    places: defaultdict[str, float] = defaultdict(float)
    for room in household().rooms.values():
        for facts in room.objects.values():
            if facts.kind.lower() == kind:
                for place, share in facts.on:
                    places[place.lower()] += share
    return dict(places)


@lru_cache(maxsize=1)
def _doors() -> dict[str, float]:
    """How often a receptacle kind has doors, 0 to 1, over the four rooms."""
    from himac_envs.alfworld.generate.tables import household

    found: defaultdict[str, list[float]] = defaultdict(list)
    for room in household().rooms.values():
        for facts in room.receptacles:
            found[facts.kind.lower()].append(facts.openable / 100)
    return {kind: sum(values) / len(values) for kind, values in found.items()}


def _kind(type_: str) -> str:
    return type_.removesuffix("type")


def _number(name: str) -> int:
    digits = name.rpartition(" ")[2]
    return int(digits) if digits.isdigit() else 0


class Explorer:
    """Yields commands for sub-goals, knowing only what has been seen.

    Args:
        rng: Varies the order of the search.
        temperature: How much: 0 always looks in the likeliest place first.
    """

    def __init__(self, rng: np.random.Generator, temperature: float = 0.5) -> None:
        self.rng = rng
        self.temperature = temperature
        self._order: dict[tuple[str, ...], dict[str, float]] = {}

    def next(self, state: State, aim: Aim) -> str | None:
        """The next command for a sub-goal, None when it is achieved.

        Raises:
            NoPlanError: Everything has been seen, and it cannot be reached.
        """
        if achieved(state, aim):
            return None
        game = state.game
        sought = self._sought(state, aim)
        if sought and not self._seen_any(state, sought):
            places = find_receptacles(game, aim.receptacle) if aim.receptacle else ()
            narrow = places if aim.verb in ("find", "take") else ()
            return self._look_further(state, sought, narrow)
        if aim.verb in ("put", "clean", "heat", "cool", "go", "open", "close"):
            command = self._walk(state, aim)
            if command is not None:
                return command
        return plan_aim(state, aim, known=state.seen)[0]

    def choose(self, state: State, aim: Aim | None) -> str | None:
        """The next command for a sub-goal, or (None) for the whole task; None at the end."""
        if state.won:
            return None
        if aim is not None:
            return self.next(state, aim)
        return next((c for a in blueprint(state) if (c := self.next(state, a)) is not None), None)

    # --- what is known -----------------------------------------------------------------------

    def _sought(self, state: State, aim: Aim) -> int:
        """The objects of which one must be found before the sub-goal can be acted on."""
        objects = find_objects(state.game, aim.object) if aim.object else 0
        match aim.verb:
            case "find" | "take":
                return meant(state, aim)
            case "put" | "clean" | "heat" | "cool":
                return 0 if referent(state, aim) >= 0 else objects
            case "use":
                return objects & state.game.toggleable
            case "slice":
                held = state.held
                if held >= 0 and state.game.knives >> held & 1:
                    return objects
                if not self._seen_any(state, state.game.knives):
                    return state.game.knives
                return objects
        return 0

    def _seen_any(self, state: State, objects: int) -> bool:
        if state.held >= 0 and objects >> state.held & 1:
            return True
        return any(state.contents[r] & objects for r in bits(state.seen))

    # --- searching ---------------------------------------------------------------------------

    def _look_further(self, state: State, sought: int, narrow: tuple[int, ...]) -> str:
        """The command that leads to the contents of the next receptacle."""
        game = state.game
        unseen = [
            r
            for r in (narrow or range(len(game.receptacle_types)))
            if not state.seen >> r & 1 and game.location_of[r] >= 0
        ]
        if not unseen:
            raise NoPlanError("everything has been seen, and it is not there")
        closed_here = [
            r for r in unseen if game.location_of[r] == state.location and self._visited(state, r)
        ]
        if closed_here:
            r = min(closed_here, key=lambda r: _number(game.receptacle_names[r]))
            return f"open {game.receptacle_names[r]}"
        scores = self._scores(game, sought)
        r = min(
            unseen,
            key=lambda r: (
                -scores[_kind(game.receptacle_types[r])],
                _number(game.receptacle_names[r]),
            ),
        )
        if game.location_of[r] == state.location:
            # It shares the agent's location, so it cannot be gone to.
            return f"examine {game.receptacle_names[r]}"
        return f"go to {game.receptacle_names[r]}"

    def _visited(self, state: State, r: int) -> bool:
        """Whether the agent was told of this receptacle: unseen, it can only be closed."""
        return bool(state.visited >> r & 1)

    def _scores(self, game: Game, sought: int) -> dict[str, float]:
        """How promising each receptacle kind is: chance to find a thing, for each command."""
        kinds = tuple(sorted({_kind(game.object_types[o]) for o in bits(sought)}))
        scores = self._order.get((game.task_id, *kinds))
        if scores is not None:
            return scores
        counts = Counter(_kind(type_) for type_ in game.receptacle_types)
        places: defaultdict[str, float] = defaultdict(float)
        for kind in kinds:
            for place, share in usual_places(kind).items():
                places[place] += share
        doors = _doors()
        scores = {}
        for place in sorted(counts):
            chance = max(places[place], _UNLIKELY) / counts[place]
            noise = self.temperature * float(self.rng.gumbel())
            scores[place] = math.log(chance / (1 + doors.get(place, 0.0))) + noise
        self._order[(game.task_id, *kinds)] = scores
        return scores

    # --- walking -----------------------------------------------------------------------------

    def _walk(self, state: State, aim: Aim) -> str | None:
        """Go to the receptacle that the sub-goal is about, by what its name tells.

        The planner would prefer a target without doors, which nobody can know before going there.
        """
        game = state.game
        if aim.verb in ("clean", "heat", "cool"):
            if state.held < 0 or state.held != referent(state, aim):
                return None
            tool = {"clean": SINK, "heat": MICROWAVE, "cool": FRIDGE}[aim.verb]
            places = [r for r, kind in enumerate(game.tools) if kind == tool]
        else:
            if aim.verb == "put" and (state.held < 0 or state.held != referent(state, aim)):
                return None
            places = list(find_receptacles(game, aim.receptacle))
            if aim.verb == "put":
                places = [r for r in places if game.accepts[r] >> state.held & 1]
                if aim.same:
                    objects = find_objects(game, aim.object) & ~(1 << state.held)
                    near = [
                        r for r in places if state.seen >> r & 1 and state.contents[r] & objects
                    ]
                    places = near or places
        places = [r for r in places if game.location_of[r] >= 0]
        if not places or any(game.location_of[r] == state.location for r in places):
            return None
        r = min(places, key=lambda r: (not state.seen >> r & 1, _number(game.receptacle_names[r])))
        return f"go to {game.receptacle_names[r]}"
