"""A small kitchen with something of everything, for tests of ALFWorld's engine."""

from __future__ import annotations

from himac_envs.alfworld.engine import State
from himac_envs.alfworld.game import Game
from himac_envs.alfworld.problem import parse_problem

FACTS = """
(define (problem kitchen) (:domain alfred)
(:objects agent1 - agent
  mug_bar_a mug_bar_b mug_bar_c apple_bar_a knife_bar_a box_bar_a desklamp_bar_a - object
  cabinet_bar_a cabinet_bar_b fridge_bar_a microwave_bar_a sink_bar_a_bar_sinkbasin
  shelf_bar_a - receptacle
  loc_bar_0 loc_bar_1 loc_bar_2 loc_bar_3 loc_bar_4 loc_bar_5 - location
  mugtype appletype knifetype boxtype desklamptype - otype
  cabinettype fridgetype microwavetype sinkbasintype shelftype - rtype)
(:init (atlocation agent1 loc_bar_0)
  (receptacleatlocation cabinet_bar_a loc_bar_1) (receptacleatlocation cabinet_bar_b loc_bar_1)
  (receptacleatlocation fridge_bar_a loc_bar_2) (receptacleatlocation microwave_bar_a loc_bar_3)
  (receptacleatlocation sink_bar_a_bar_sinkbasin loc_bar_4)
  (receptacleatlocation shelf_bar_a loc_bar_5)
  (receptacletype cabinet_bar_a cabinettype) (receptacletype cabinet_bar_b cabinettype)
  (receptacletype fridge_bar_a fridgetype) (receptacletype microwave_bar_a microwavetype)
  (receptacletype sink_bar_a_bar_sinkbasin sinkbasintype) (receptacletype shelf_bar_a shelftype)
  (objecttype mug_bar_a mugtype) (objecttype mug_bar_b mugtype) (objecttype mug_bar_c mugtype)
  (objecttype apple_bar_a appletype) (objecttype knife_bar_a knifetype)
  (objecttype box_bar_a boxtype) (objecttype desklamp_bar_a desklamptype)
  (cancontain cabinettype mugtype) (cancontain cabinettype appletype)
  (cancontain fridgetype mugtype) (cancontain shelftype mugtype)
  (cancontain shelftype appletype) (cancontain shelftype knifetype) (cancontain shelftype boxtype)
  (openable cabinet_bar_a) (openable fridge_bar_a) (openable microwave_bar_a)
  (pickupable mug_bar_a) (pickupable mug_bar_b) (pickupable mug_bar_c) (pickupable apple_bar_a)
  (pickupable knife_bar_a) (pickupable box_bar_a)
  (cleanable mug_bar_b) (cleanable apple_bar_a) (heatable apple_bar_a) (coolable apple_bar_a)
  (sliceable apple_bar_a) (toggleable desklamp_bar_a) (isreceptacleobject box_bar_a)
  (inreceptacleobject knife_bar_a box_bar_a)
  (inreceptacle mug_bar_a cabinet_bar_b) (objectatlocation mug_bar_a loc_bar_1)
  (inreceptacle mug_bar_b shelf_bar_a) (objectatlocation mug_bar_b loc_bar_5)
  (inreceptacle mug_bar_c shelf_bar_a) (objectatlocation mug_bar_c loc_bar_5)
  (inreceptacle apple_bar_a shelf_bar_a) (objectatlocation apple_bar_a loc_bar_5)
  (inreceptacle knife_bar_a shelf_bar_a) (objectatlocation knife_bar_a loc_bar_5)
  (inreceptacle box_bar_a shelf_bar_a) (objectatlocation box_bar_a loc_bar_5)
  (inreceptacle desklamp_bar_a shelf_bar_a) (objectatlocation desklamp_bar_a loc_bar_5))
(:goal GOAL))
"""
PLACED = """(exists (?r - receptacle) (exists (?o - object) (and (objecttype ?o mugtype)
  (receptacletype ?r cabinettype) (inreceptacle ?o ?r) FLAG)))"""


HELD = "(exists (?a - agent ?o - object) (and (objecttype ?o boxtype) (holds ?a ?o)))"


def kitchen(goal: str = HELD, dialect: str = "2.1.2") -> Game:
    """The kitchen's game with a goal."""
    problem = parse_problem(FACTS.replace("GOAL", goal))
    return Game.from_problem(problem, "take a box.", dialect)  # type: ignore[arg-type]


def play(state: State, *commands: str) -> str:
    """Carry admissible commands out; returns the last one's text."""
    for command in commands:
        assert command in state.admissible(), command
        text = state.act(command)
        assert text is not None, command
    return text
