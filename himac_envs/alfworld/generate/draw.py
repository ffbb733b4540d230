"""Drawing a world: task, room, goals, objects, in this order, until all fits together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from himac_envs.alfworld.generate.controls import Controls
from himac_envs.alfworld.generate.dice import Dice, Shares
from himac_envs.alfworld.generate.goals import (
    APPLIANCE,
    NEEDS,
    Goal,
    original_needs,
)
from himac_envs.alfworld.generate.layout import SPLITS, Receptacle, draw_layout, split_of
from himac_envs.alfworld.generate.plan import solve
from himac_envs.alfworld.generate.tables import Household, RoomFacts, household
from himac_envs.alfworld.generate.world import GeneratedWorld, Thing

_STREAM = 0x414C4657  # keeps these draws apart from other uses of the same small integers
_TRIES = 3_000


class GenerationError(ValueError):
    """No world fits these controls."""


def draw_world(split: str, index: int, controls: Controls, task_type: str | None) -> GeneratedWorld:
    """Draw the world of this split and number; see `generate_world`."""
    facts = household()
    dice = Dice(_STREAM, SPLITS.index(split), index)
    kind, room = _draw_task(dice, facts, controls, task_type)
    for _ in range(_TRIES):
        world = _attempt(dice, facts, controls, split, index, kind, room)
        if world is not None:
            return world
    raise GenerationError(
        f"no {split} world with the task {kind} in a {room.name} fits {controls}: after {_TRIES} "
        "tries something the task needs was always missing. Widen `receptacles`, `objects` or "
        "`horizon`, lower `shortest`, or ask for fewer `goals`"
    )


def _draw_task(
    dice: Dice, facts: Household, controls: Controls, task_type: str | None
) -> tuple[str, RoomFacts]:
    rooms = [facts.rooms[name] for name in controls.rooms]
    weights = controls.weights
    shares: list[tuple[str, int]] = []
    for i, kind in enumerate(controls.task_types):
        found = sum(room.tasks[kind].share for room in rooms if kind in room.tasks)
        if task_type is None or kind == task_type:
            shares.append((kind, found if weights is None else weights[i] if found else 0))
    kinds = Shares(shares)
    if not kinds:
        asked = task_type if task_type is not None else ", ".join(controls.task_types)
        raise GenerationError(
            f"the rooms {', '.join(controls.rooms)} have no task among {asked}"
            + (
                ""
                if task_type is None or task_type in controls.task_types
                else f" (task_types allows only {', '.join(controls.task_types)})"
            )
        )
    kind = kinds.draw(dice)
    where = Shares([(room, room.tasks[kind].share) for room in rooms if kind in room.tasks])
    return kind, where.draw(dice)


def _attempt(
    dice: Dice,
    facts: Household,
    controls: Controls,
    split: str,
    index: int,
    kind: str,
    room: RoomFacts,
) -> GeneratedWorld | None:
    needed = [APPLIANCE[need] for need in original_needs(kind)]
    layout = draw_layout(dice, room, controls, needed)
    if split_of(room.name, layout) != split:
        return None
    goals = _draw_goals(dice, facts, controls, room, layout, kind)
    if goals is None:
        return None
    things = _draw_things(dice, facts, controls, room, layout, goals)
    if things is None:
        return None
    sentences = tuple(goal.sentence(facts.sentences, dice.below(2)) for goal in goals)
    world = GeneratedWorld(split, index, room.name, layout, things, goals, sentences)
    solution = solve(world, facts)
    if solution is None or not _least(controls, goals) <= len(solution) <= controls.horizon:
        return None
    return world


def _least(controls: Controls, goals: Sequence[Goal]) -> int:
    """Return the fewest commands that a solution must take."""
    if controls.shortest is None or len(goals) != 1:
        return 0
    return controls.shortest[controls.task_types.index(goals[0].task_type)]


# ---- goals -------------------------------------------------------------------------------------
def _draw_goals(
    dice: Dice,
    facts: Household,
    controls: Controls,
    room: RoomFacts,
    layout: Sequence[Receptacle],
    first: str,
) -> tuple[Goal, ...] | None:
    number = dice.between(*controls.goals)
    weights = dict(zip(controls.task_types, controls.weights or (), strict=False))
    others = Shares(
        [
            (kind, weights.get(kind, task.share))
            for kind, task in room.tasks.items()
            if kind in controls.task_types
        ]
    )
    present: dict[str, bool] = {}  # kinds, and whether one of a kind has a door
    for row in layout:
        present[row.kind] = present.get(row.kind, False) or row.door
    goals: list[Goal] = []
    kind = first
    for _ in range(8 * number):
        goal = _draw_goal(dice, facts, controls, room, present, kind)
        # Goals about different kinds of object never get into each other's way, except that only
        # one object can be in hand at the end.
        if (
            goal is not None
            and all(goal.item != other.item for other in goals)
            and not (goal.light and any(other.light for other in goals))
        ):
            goals.append(goal)
            if len(goals) == number:
                return tuple(goals)
        elif not goals:
            return None
        kind = others.draw(dice)
    return tuple(goals) if len(goals) >= controls.goals[0] else None


def _draw_goal(
    dice: Dice,
    facts: Household,
    controls: Controls,
    room: RoomFacts,
    present: Mapping[str, bool],
    kind: str,
) -> Goal | None:
    task = room.tasks[kind]
    needs = original_needs(kind)
    if any(APPLIANCE[need] not in present for need in needs):
        return None
    item = Shares(task.objects).draw(dice)
    light = kind == "look_at_obj_in_light"
    target = Shares(
        [
            (name, share)
            for name, share in task.targets
            if light or (name in present and item in facts.holds.get(name, ()))
        ]
    )
    if not target:
        return None
    if not light and dice.percent(controls.hidden):
        shut = Shares([(k, n) for k, n in target.pairs() if present[k]])
        target = shut or target
    goal = Goal(kind, item, target.draw(dice), needs)
    chainable = bool(needs) or goal.number == 2
    if controls.chained and chainable and dice.percent(controls.chained):
        more = [
            need
            for need in NEEDS
            if need not in needs
            and item in facts.can[need]
            and APPLIANCE[need] in present
            and not {"heat", "cool"} <= {*needs, need}
            and goal.target != APPLIANCE[need]
        ]
        if more:
            chain = {*needs, dice.choice(more)}
            goal = Goal(kind, item, goal.target, tuple(need for need in NEEDS if need in chain))
    return goal


# ---- objects -----------------------------------------------------------------------------------
def _draw_things(
    dice: Dice,
    facts: Household,
    controls: Controls,
    room: RoomFacts,
    layout: Sequence[Receptacle],
    goals: Sequence[Goal],
) -> tuple[Thing, ...] | None:
    members: dict[str, list[int]] = {}
    for i, row in enumerate(layout):
        members.setdefault(row.kind, []).append(i)
    goal_of = {goal.item: goal for goal in goals}
    lamps = {goal.target for goal in goals if goal.light}
    homes: dict[str, Shares[str]] = {}
    for kind, lying in room.objects.items():
        # As in the official games, nothing that is to be placed lies there already; what is to
        # be prepared first may.
        goal = goal_of.get(kind)
        barred = goal.target if goal is not None and not goal.needs else None
        homes[kind] = Shares([(k, n) for k, n in lying.on if k in members and k != barred])
    if any(not homes[kind] for kind in (*goal_of, *lamps)):
        return None
    counts = _draw_numbers(dice, controls, room, homes, goal_of, lamps)
    hidden = {kind for kind in goal_of if controls.hidden and dice.percent(controls.hidden)}
    out: list[Thing] = []
    for kind in sorted(counts):
        shut: list[int] = []
        if kind in hidden:
            shut = _behind_doors(facts, layout, goal_of[kind])
        coolable = kind in facts.can["cool"]
        for number in range(1, counts[kind] + 1):
            place = dice.choice(shut) if shut else dice.choice(members[homes[kind].draw(dice)])
            cold = (
                coolable and layout[place].kind == "Fridge" and dice.percent(facts.cold_in_fridge)
            )
            out.append(Thing(kind, number, place, cold))
    return tuple(out)


def _behind_doors(facts: Household, layout: Sequence[Receptacle], goal: Goal) -> list[int]:
    """Return the closed receptacles in which the goal's object may start.

    The appliance of a preparation is left out where there is another: the way to it would be saved.
    """
    shut = [
        i
        for i, row in enumerate(layout)
        if row.door
        and goal.item in facts.holds.get(row.kind, ())
        and (row.kind != goal.target or goal.needs)
    ]
    tools = {APPLIANCE[need] for need in goal.needs}
    return [i for i in shut if layout[i].kind not in tools] or shut


def _draw_numbers(
    dice: Dice,
    controls: Controls,
    room: RoomFacts,
    homes: dict[str, Shares[str]],
    goal_of: dict[str, Goal],
    lamps: set[str],
) -> dict[str, int]:
    """Draw how many objects of each kind there are, within the bounds on their total."""
    counts: dict[str, int] = {}
    fixed: set[str] = set(lamps)
    for kind, row in room.objects.items():
        if kind in goal_of:
            counts[kind] = goal_of[kind].number + dice.between(*controls.copies)
            fixed.add(kind)
        elif homes[kind]:
            counts[kind] = max(dice.choice(row.counts), int(kind in lamps))
    low, high = controls.objects
    total = sum(counts.values())
    while total > high:
        spare = [kind for kind in counts if kind not in fixed for _ in range(counts[kind])]
        if not spare:
            break
        counts[dice.choice(spare)] -= 1
        total -= 1
    several = [kind for kind in counts if kind not in fixed and max(room.objects[kind].counts) > 1]
    while total < low and several:
        counts[dice.choice(several)] += 1
        total += 1
    return counts
