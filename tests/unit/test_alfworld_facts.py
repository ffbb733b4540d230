"""The facts in ``info``: what holds, and what the original's commands leave behind in them."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
from kitchen import FACTS, HELD, kitchen

from himac_envs.alfworld.engine import State
from himac_envs.alfworld.facts import deeds, facts
from himac_envs.alfworld.game import Game
from himac_envs.alfworld.problem import parse_problem


def told_after(*commands: str) -> set[str]:
    state, told = State(kitchen()), frozenset[str]()
    for command in commands:
        before = state.save()
        assert state.act(command) is not None, command
        told = deeds(told, before, command, state)
    assert told <= set(facts(state, told))
    return set(told)


AGENT = "agent1 : agent"


def test_what_holds_at_the_start() -> None:
    state = State(kitchen())
    found = facts(state)
    assert found == sorted(set(found))
    for fact in (
        f"atlocation({AGENT}, loc 6: location)",
        "cancontain(cabinettype : rtype, mugtype : otype)",
        "inreceptacle(mug 3: object, cabinet 1: receptacle)",
        "objectatlocation(mug 3: object, loc 5: location)",
        "inreceptacleobject(knife 1: object, box 1: object)",
        "openable(cabinet 2: receptacle)",
        "objecttype(apple 1: object, appletype : otype)",
    ):
        assert fact in found
    assert not any(fact.startswith(("not_", "checked(", "ison(")) for fact in found)


def test_going_about_denies_where_one_was() -> None:
    first = f"not_atlocation({AGENT}, loc 6: location)"
    second = f"not_atlocation({AGENT}, loc 5: location)"
    assert told_after("go to cabinet 1") == {first}
    assert told_after("go to cabinet 1", "go to shelf 1") == {first, second}
    assert told_after("go to cabinet 1", "go to shelf 1", "go to cabinet 2") == {
        first,
        f"not_atlocation({AGENT}, loc 1: location)",
    }


def test_marks_of_looking() -> None:
    assert told_after("look", "inventory", "help") == {
        "checked(loc 6: location)",
        f"checked({AGENT})",
    }
    begin = ("go to shelf 1", "take mug 1 from shelf 1")
    more = told_after(*begin, "examine shelf 1", "examine mug 1") - told_after(*begin)
    assert more == {"checked(shelf 1: receptacle)", "checked(mug 1: object)"}


def test_doors_hands_heat_and_lamps() -> None:
    here = told_after("go to cabinet 1")
    opened = told_after("go to cabinet 1", "open cabinet 2")
    assert opened - here == {"checked(cabinet 2: receptacle)"}
    shut = told_after("go to cabinet 1", "open cabinet 2", "close cabinet 2")
    assert shut - opened == {"not_opened(cabinet 2: receptacle)"}

    shelf = told_after("go to shelf 1")
    took = told_after("go to shelf 1", "take apple 1 from shelf 1")
    assert took - shelf == {
        "not_inreceptacle(apple 1: object, shelf 1: receptacle)",
        "not_objectatlocation(apple 1: object, loc 1: location)",
    }
    back = told_after("go to shelf 1", "take apple 1 from shelf 1", "move apple 1 to shelf 1")
    assert back - shelf == {f"not_holds({AGENT}, apple 1: object)", f"not_holdsany({AGENT})"}

    there = ("go to shelf 1", "take apple 1 from shelf 1", "go to microwave 1")
    hot = told_after(*there, "heat apple 1 with microwave 1")
    assert hot - told_after(*there) == {"not_iscool(apple 1: object)"}
    cold = told_after(*there, "heat apple 1 with microwave 1", "go to fridge 1",
                      "cool apple 1 with fridge 1")  # fmt: skip
    assert "not_ishot(apple 1: object)" in cold and "not_iscool(apple 1: object)" not in cold

    lit = {"not_ison(desklamp 1: object)"}
    assert told_after("go to shelf 1", "use desklamp 1") - shelf == lit
    assert told_after("go to shelf 1", "use desklamp 1", "use desklamp 1") - shelf == lit


def test_they_are_kept_in_snapshots_and_copies() -> None:
    env: Any = gym.make("HiMAC-ALFWorld-Flat-v0", data="generated", extra=("facts",)).unwrapped
    _, info = env.reset(seed=0)
    *_, info = env.step(next(c for c in info["admissible"] if c.startswith("go ")))
    assert any(fact.startswith("not_atlocation(") for fact in info["facts"])
    saved, twin = env.snapshot(), copy.deepcopy(env)
    *_, after = env.step("look")
    assert set(after["facts"]) - set(info["facts"])
    env.restore(saved)
    assert env.step("look")[4]["facts"] == after["facts"] == twin.step("look")[4]["facts"]
    *_, broken = env.step("dance")
    assert broken["facts"] == after["facts"]
    _, again = env.reset(options={"task_id": info["task_id"]})
    assert not any(fact.startswith(("not_", "checked(")) for fact in again["facts"])


def test_a_thing_that_lies_in_two_places_at_once() -> None:
    """As some pans of the official games do: put into the other place, it was there already."""
    also = FACTS.replace("GOAL", HELD).replace(
        "(objectatlocation mug_bar_b loc_bar_5)",
        "(objectatlocation mug_bar_b loc_bar_5) (inreceptacle mug_bar_b fridge_bar_a)",
    )
    state = State(Game.from_problem(parse_problem(also), "take a box.", "2.1.2"))
    told = frozenset[str]()
    for command in (
        "go to shelf 1", "take mug 2 from shelf 1", "go to fridge 1", "open fridge 1",
        "move mug 2 to fridge 1",
    ):  # fmt: skip
        before = state.save()
        assert state.act(command) is not None, command
        told = deeds(told, before, command, state)
    assert "not_inreceptacle(mug 2: object, shelf 1: receptacle)" in told
    assert "inreceptacle(mug 2: object, fridge 1: receptacle)" in facts(state, told)
    assert "not_inreceptacle(mug 2: object, fridge 1: receptacle)" not in told
