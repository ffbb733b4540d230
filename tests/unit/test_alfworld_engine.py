"""The oddities of the original that agents see, each on a small kitchen; and goals, compiled."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from kitchen import FACTS, PLACED, kitchen, play

from himac_envs.alfworld.dialect import HELP_TEXT
from himac_envs.alfworld.engine import State
from himac_envs.alfworld.errors import GameFileError, UnsolvableGameError
from himac_envs.alfworld.game import Game
from himac_envs.alfworld.names import bits, entity_names, listing
from himac_envs.alfworld.planner import solve
from himac_envs.alfworld.problem import parse_problem


@pytest.fixture
def state() -> State:
    return State(kitchen())


def test_names_count_down_and_lists_follow_the_ids(state: State) -> None:
    assert state.game.intro == (
        "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly "
        "around you, you see a cabinet 2, a cabinet 1, a fridge 1, a microwave 1, a shelf 1, and a "
        "sinkbasin 1.\n\nYour task is to: take a box."
    )
    assert play(state, "go to shelf 1") == (
        "You arrive at shelf 1. On the shelf 1, you see a apple 1, a box 1, a desklamp 1, a "
        "knife 1, a mug 2, and a mug 1."
    )
    assert entity_names(["agent1", "mug_bar_a", "mug_bar_b"])["agent1"] == "agent1 "
    assert listing([]) == "nothing"
    assert listing(["a x", "a y"]) == "a x, and a y"
    assert list(bits(0b1010)) == [1, 3]


def test_look_before_the_first_move_sees_nothing(state: State) -> None:
    assert play(state, "look") == (
        "You are in the middle of a room. Looking quickly around you, you see nothing."
    )


def test_receptacles_that_share_a_location(state: State) -> None:
    play(state, "go to cabinet 1")
    assert state.act("go to cabinet 2") is None
    assert "go to cabinet 2" not in state.admissible()
    assert (
        play(state, "look")
        == "You are facing the cabinet 2, and cabinet 1. Next to it, you see nothing."
    )
    assert play(state, "examine cabinet 2") == "The cabinet 2 is closed."
    play(state, "open cabinet 2", "take mug 3 from cabinet 1", "move mug 3 to cabinet 2")
    # It was taken out of cabinet 1 and lies at this location: "next to" cabinet 1.
    assert play(state, "look").endswith("Next to it, you see a mug 3.")
    assert play(state, "examine cabinet 2") == "The cabinet 2 is open. In it, you see a mug 3."


def test_only_held_objects_can_be_examined(state: State) -> None:
    play(state, "go to shelf 1")
    assert state.act("examine mug 1") is None
    assert play(state, "take mug 1 from shelf 1", "examine mug 1") == (
        "There's nothing special about mug 1."
    )
    assert play(state, "move mug 1 to shelf 1", "take box 1 from shelf 1", "examine box 1") == (
        "This is a normal box 1. In it, you see a knife 1."
    )


def test_tools_work_through_closed_doors_and_again(state: State) -> None:
    play(state, "go to shelf 1", "take apple 1 from shelf 1", "go to fridge 1")
    assert play(state, "cool apple 1 with fridge 1") == "You cool the apple 1 using the fridge 1."
    assert play(state, "examine apple 1") == "This is a cold apple 1."
    play(state, "go to sinkbasin 1", "clean apple 1 with sinkbasin 1")
    assert play(state, "examine apple 1") == "This is a cool and clean apple 1."
    play(
        state, "go to microwave 1", "heat apple 1 with microwave 1", "heat apple 1 with microwave 1"
    )
    assert play(state, "examine apple 1") == "This is a hot and clean apple 1."
    play(state, "go to shelf 1", "move apple 1 to shelf 1", "take knife 1 from shelf 1")
    assert play(state, "slice apple 1 with knife 1") == "You sliced the apple 1 with the knife 1."
    play(state, "move knife 1 to shelf 1", "take apple 1 from shelf 1")
    assert play(state, "examine apple 1") == "This is a hot and clean sliced apple 1."


def test_a_lamp_is_only_ever_turned_on(state: State) -> None:
    play(state, "go to shelf 1")
    assert play(state, "use desklamp 1", "use desklamp 1") == "You turn on the desklamp 1."


def test_what_may_be_put_where(state: State) -> None:
    play(state, "go to shelf 1", "take apple 1 from shelf 1", "go to fridge 1", "open fridge 1")
    assert state.act("move apple 1 to fridge 1") is None
    play(state, "go to cabinet 1")
    assert "move apple 1 to cabinet 2" not in state.admissible()  # closed
    assert play(state, "move apple 1 to cabinet 1") == "You move the apple 1 to the cabinet 1."


@pytest.mark.parametrize(
    "command",
    ["", "LOOK", "look around", "go  to shelf 1", "go to", "go to shelf", "go to mug 1", "\x00",
     "take", "take mug 1", "take mug 1 from", "open shelf 1", "close cabinet 2",
     "put mug 1 in/on shelf 1",
     "inventory 2", "use shelf 1", "slice apple 1 with mug 1", "examine", "examine nothing"],
)  # fmt: skip
def test_anything_else_changes_nothing(state: State, command: str) -> None:
    before = state.save()
    assert state.act(command) is None
    assert state.save() == before


def test_white_space_around_a_command_is_dropped(state: State) -> None:
    assert state.act("\n inventory \t") == "You are not carrying anything."
    assert state.act("help") == HELP_TEXT
    assert HELP_TEXT.startswith("Available commands:\n")
    assert HELP_TEXT.endswith("\n")


def test_admissible_commands_are_plainly_sorted_everywhere(state: State) -> None:
    rng = np.random.default_rng(0)
    for dialect in ("2.1.1", "2.1.2"):
        state = State(kitchen(dialect=dialect))
        for _ in range(400):
            commands = state.admissible()
            assert commands == sorted(set(commands))
            assert all(State.act(state.copy(), command) is not None for command in commands)
            state.act(commands[int(rng.integers(len(commands)))])


def test_the_list_handed_out_is_ones_own(state: State) -> None:
    state.admissible().clear()
    assert "look" in state.admissible()


def test_the_old_dialect() -> None:
    state = State(kitchen(dialect="2.1.1"))
    # Of six locations, shelf 1's is the last by id, so its number is 1.
    assert play(state, "go to shelf 1").startswith("You arrive at loc 1. On the shelf 1, you see")
    play(state, "take mug 1 from shelf 1")
    assert "help" not in state.admissible()
    assert state.act("help") is None
    assert state.act("move mug 1 to shelf 1") is None
    assert play(state, "put mug 1 in/on shelf 1") == "You put the mug 1 in/on the shelf 1."


def test_the_goal_can_cease_to_hold(state: State) -> None:
    play(state, "go to shelf 1", "take box 1 from shelf 1")
    assert state.won
    play(state, "move box 1 to shelf 1")
    assert not state.won


def test_an_object_in_two_receptacles_is_still_in_the_other(state: State) -> None:
    """Official problems list some objects in two receptacles of one location."""
    text = FACTS.replace("GOAL", PLACED.replace("FLAG", "")).replace(
        "(inreceptacle mug_bar_a cabinet_bar_b)",
        "(inreceptacle mug_bar_a cabinet_bar_b) (inreceptacle mug_bar_a cabinet_bar_a)",
    )
    twice = State(Game.from_problem(parse_problem(text), "x."))
    assert twice.won
    play(twice, "go to cabinet 1", "take mug 3 from cabinet 1")
    assert twice.won
    assert play(twice, "open cabinet 2") == (
        "You open the cabinet 2. The cabinet 2 is open. In it, you see a mug 3."
    )


def test_saving_copying_and_pickling(state: State) -> None:
    play(state, "go to shelf 1", "take mug 1 from shelf 1")
    saved = state.save()
    twin = state.copy()
    play(state, "move mug 1 to shelf 1", "use desklamp 1")
    assert twin.save() == saved != state.save()
    state.restore(saved)
    assert state.save() == saved
    assert state.admissible() == twin.admissible()
    assert hash(saved) == hash(twin.save())
    again: State = pickle.loads(pickle.dumps(state))
    assert again.save() == saved
    assert again.game.intro == state.game.intro
    assert copy.deepcopy(state).game is state.game
    state.reset()
    assert state.save() == State(state.game).save()


def test_other_names_and_sentences_for_the_same_game() -> None:
    first = kitchen()
    renamed = first.with_goal_text("hold it")
    assert renamed.intro.endswith("Your task is to: hold it")
    assert first.intro.endswith("take a box.")
    shuffled = first.renumbered(np.random.default_rng(1))
    assert sorted(shuffled.object_names) == sorted(first.object_names)
    assert sorted(shuffled.receptacle_names) == sorted(first.receptacle_names)
    assert [n.split()[0] for n in shuffled.object_names] == [
        n.split()[0] for n in first.object_names
    ]
    orders = {first.renumbered(np.random.default_rng(s)).object_names for s in range(20)}
    assert len(orders) > 2
    state = State(shuffled)
    name = shuffled.object_names[shuffled.object_types.index("boxtype")]
    play(state, "go to shelf 1", f"take {name} from shelf 1")
    assert state.won


def test_one_object_may_serve_two_goals() -> None:
    apple = PLACED.replace("mugtype", "appletype")
    both = f"(and {apple.replace('FLAG', '')} {apple.replace('FLAG', '(isclean ?o)')})"
    for begin in ([], ["go to shelf 1", "take apple 1 from shelf 1", "go to cabinet 1",
                       "move apple 1 to cabinet 1"]):  # fmt: skip
        state = State(kitchen(both))
        assert state.progress() == 0
        for command in begin:
            play(state, command)
        assert state.progress() == (0.5 if begin else 0)
        for command in solve(state):
            play(state, command)
        assert state.won
        assert state.progress() == 1


GOALS = {
    "a negation": "(not (exists (?o - object) (objecttype ?o mugtype)))",
    "a disjunction": "(or (exists (?o - object) (holds agent1 ?o)))",
    "for all": "(forall (?o - object) (objecttype ?o mugtype))",
    "an unknown predicate": "(exists (?o - object) (and (objecttype ?o mugtype) (shiny ?o)))",
    "two objects, perhaps the same": PLACED.replace(
        "FLAG", "(exists (?p - object) (and (objecttype ?p mugtype) (inreceptacle ?p ?r)))"
    ),
    "nothing": "(and)",
    "a word": "won",
}


@pytest.mark.parametrize("name", GOALS)
def test_goals_of_other_forms_are_refused(name: str) -> None:
    with pytest.raises(GameFileError, match="goal"):
        kitchen(GOALS[name])


def test_goals_that_can_never_hold() -> None:
    with pytest.raises(UnsolvableGameError, match="lacks"):
        kitchen(PLACED.replace("mugtype", "eggtype").replace("FLAG", ""))
    with pytest.raises(UnsolvableGameError, match="lacks"):
        kitchen(PLACED.replace("cabinettype", "safetype").replace("FLAG", ""))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(atlocation agent1 loc_bar_0)", "", "do not make a game"),
        ("(openable fridge_bar_a)", "(openable oven_bar_a)", "undeclared"),
        ("(receptacleatlocation fridge_bar_a loc_bar_2)",
         "(receptacleatlocation fridge_bar_a loc_bar_2)\n"
         "(receptacleatlocation fridge_bar_a loc_bar_3)",
         "two locations"),
        ("(cancontain cabinettype mugtype)", "(cancontain cabinettype)", "do not make a game"),
    ],
)  # fmt: skip
def test_facts_that_make_no_game_are_refused(old: str, new: str, message: str) -> None:
    text = FACTS.replace("GOAL", PLACED.replace("FLAG", "")).replace(old, new)
    with pytest.raises(GameFileError, match=message):
        Game.from_problem(parse_problem(text), "x.")
