"""Generated ALFWorld games: determinism, disjoint splits, solvability, controls, looks."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from statistics import mean

import pytest

from himac_envs.alfworld.engine import Game, State
from himac_envs.alfworld.generate import (
    DEFAULT,
    REAL,
    SPLITS,
    TASK_TYPES,
    Controls,
    GeneratedWorld,
    GenerationError,
    TaskIds,
    game_from_id,
    generate_game,
    generate_world,
    household,
    long_horizon,
    make_game,
    solution,
)
from himac_envs.alfworld.generate.dice import Dice, Shares
from himac_envs.alfworld.generate.distribution import (
    generated_games,
    measure,
    official_games,
    table,
)
from himac_envs.alfworld.generate.layout import split_of

DRAWS = [738, 895, 877, 798, 781, 522]
WORLD_0 = ("kitchen", 31, 41)
GOAL_0 = "cool some apple and put it in microwave."


def fingerprint(world: GeneratedWorld) -> str:
    problem = world.problem()
    return sha256(repr((dict(problem.objects), problem.init, problem.goal)).encode()).hexdigest()


# ---- draws -------------------------------------------------------------------------------------
def test_the_draws_are_fixed_for_ever() -> None:
    # These numbers may never change: every world would.
    dice = Dice(1, 2, 3)
    assert [dice.below(1000) for _ in range(6)] == DRAWS
    world = generate_world("train", 0)
    assert (world.room, len(world.receptacles), len(world.things)) == WORLD_0
    assert world.goal_text == GOAL_0


def test_draws_cover_their_range_evenly() -> None:
    dice = Dice(0)
    seen = Counter(dice.below(7) for _ in range(7000))
    assert sorted(seen) == list(range(7)) and min(seen.values()) > 850
    assert {dice.between(3, 5) for _ in range(100)} == {3, 4, 5}
    shares = Shares([("a", 1), ("never", 0), ("b", 3)])
    drawn = Counter(shares.draw(dice) for _ in range(4000))
    assert set(drawn) == {"a", "b"} and 2850 < drawn["b"] < 3150
    assert sorted(dice.shuffled(range(9))) == list(range(9))
    with pytest.raises(IndexError):
        Shares[str]([]).draw(dice)


def test_the_same_in_another_process_and_under_another_hash_seed() -> None:
    code = (
        "from himac_envs.alfworld.generate import generate_game, generate_world, long_horizon\n"
        "for i in range(6):\n"
        "    print(generate_game('valid', i).intro)\n"
        "    print(generate_world('train', i, controls=long_horizon(120)))\n"
    )
    outputs = set()
    for seed in ("0", "77"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": "", "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1 and len(outputs.pop()) > 5_000


def test_worlds_differ_and_pickle() -> None:
    worlds = [generate_world("train", i) for i in range(300)]
    assert len({fingerprint(world) for world in worlds}) == 300
    copy = pickle.loads(pickle.dumps(worlds[5]))
    assert copy == worlds[5] and fingerprint(copy) == fingerprint(worlds[5])


# ---- splits ------------------------------------------------------------------------------------
@pytest.mark.parametrize("controls", [DEFAULT, Controls(receptacles=(8, 9), objects=(8, 10))])
def test_no_room_is_in_two_splits(controls: Controls) -> None:
    rooms = {
        split: {
            (world.room, world.receptacles)
            for world in (generate_world(split, i, controls=controls) for i in range(250))
        }
        for split in SPLITS
    }
    for split, drawn in rooms.items():
        assert {split_of(name, layout) for name, layout in drawn} == {split}
    assert not rooms["train"] & (rooms["valid"] | rooms["test"])
    assert not rooms["valid"] & rooms["test"]


def test_ids_are_sorted_and_found_without_a_list() -> None:
    ids = TaskIds("train")
    assert len(ids) == 10_000 and ids[0] == "generated/train/000000"
    assert ids[-1] == "generated/train/009999" == list(ids)[-1]
    assert "generated/train/000123" in ids and "generated/train/010000" not in ids
    assert "generated/valid/000000" not in ids and 7 not in ids
    every = TaskIds("all")
    assert len(every) == 12_000 and list(every) == sorted(every)
    assert [every[i] for i in range(0, 12_000, 700)] == list(every)[::700] == every[::700]
    with pytest.raises(IndexError):
        ids[10_000]
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        TaskIds("dev")
    assert game_from_id(ids[42]).task_id == ids[42]
    with pytest.raises(ValueError, match="no generated task"):
        game_from_id("generated/train/42")


# ---- what a world is ---------------------------------------------------------------------------
@pytest.mark.parametrize("controls", [DEFAULT, REAL, long_horizon(40), long_horizon(200)])
@pytest.mark.parametrize("split", SPLITS)
def test_every_game_is_won_by_its_solution(split: str, controls: Controls) -> None:
    # make_game plays the solution in the engine and raises unless it wins.
    for i in range(60):
        world = generate_world(split, i, controls=controls)
        game = make_game(world, "2.1.2" if i % 2 else "2.1.1")
        assert len(solution(world)) <= controls.horizon
        assert not State(game).won


def shortest(game: Game, limit: int) -> int | None:
    """The fewest commands to win, by breadth-first search over the engine's states."""
    state = State(game)
    frontier, seen = [state.save()], {state.save()[:11]}
    for depth in range(1, limit + 1):
        following = []
        for saved in frontier:
            state.restore(saved)
            for command in state.admissible():
                if command.split()[0] in ("help", "inventory", "look", "examine", "close"):
                    continue
                state.restore(saved)
                state.act(command)
                if state.won:
                    return depth
                if state.save()[:11] not in seen:
                    seen.add(state.save()[:11])
                    following.append(state.save())
        frontier = following
    return None


def test_solutions_are_as_short_as_can_be() -> None:
    controls = Controls(receptacles=(4, 6), objects=(4, 6))
    lengths = []
    for i in range(25):
        world = generate_world("valid", i, controls=controls)
        length = len(solution(world))
        if length <= 8:
            lengths.append((length, shortest(make_game(world), length)))
    assert len(lengths) > 15
    assert sum(a for a, _ in lengths) <= 1.05 * sum(b or 0 for _, b in lengths)


def test_the_default_worlds_are_no_toys() -> None:
    worlds = [generate_world("train", i) for i in range(400)]
    assert {world.task_type for world in worlds} == set(TASK_TYPES)
    assert {world.room for world in worlds} == set(household().rooms)
    assert min(len(world.receptacles) for world in worlds) >= 12
    assert min(len(world.things) for world in worlds) >= 15
    assert mean(len(solution(world)) for world in worlds) >= 8


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_a_task_type_can_be_asked_for(task_type: str) -> None:
    texts = set()
    for i in range(25):
        world = generate_world("test", i, task_type=task_type)
        assert [goal.task_type for goal in world.goals] == [task_type]
        texts.add(world.goal_text.split()[0])
    assert len(texts) == (2 if task_type != "pick_and_place_simple" else 1)


def test_worlds_keep_the_household_s_rules() -> None:
    facts = household()
    for i in range(150):
        world = generate_world("train", i, controls=REAL)
        room = facts.rooms[world.room]
        for thing in world.things:
            where = world.receptacles[thing.place].kind
            assert where in dict(room.objects[thing.kind].on), (thing, where)
            assert not thing.cold or (where == "Fridge" and thing.kind in facts.can["cool"])
        goal = world.goals[0]
        if not goal.light:
            assert goal.item in facts.holds[goal.target]
        assert goal.original
        for need in goal.needs:
            assert goal.item in facts.can[need]


def test_nothing_to_be_placed_lies_there_already() -> None:
    for i in range(200):
        world = generate_world("train", i)
        goal = world.goals[0]
        if not goal.needs and not goal.light:
            places = {world.receptacles[t.place].kind for t in world.things if t.kind == goal.item}
            assert goal.target not in places


def test_names_and_ids_look_as_in_the_official_games() -> None:
    world = generate_world("train", 3)
    game = make_game(world)
    assert set(world.receptacle_names) == set(game.receptacle_names)
    assert set(world.thing_names) == set(game.object_names)
    assert game.intro.startswith("-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of")
    assert game.intro.endswith(f"Your task is to: {world.goal_text}")
    basins = [name for name in game.receptacle_names if "basin" in name]
    assert basins and all(name.split()[0] in ("sinkbasin", "bathtubbasin") for name in basins)


# ---- controls ----------------------------------------------------------------------------------
def test_small_and_large_worlds() -> None:
    small = Controls(receptacles=(5, 7), objects=(3, 6), rooms=("kitchen",))
    large = Controls(receptacles=(70, 80), objects=(100, 120), rooms=("bedroom",))
    for i in range(30):
        world = generate_world("train", i, controls=small)
        assert 5 <= len(world.receptacles) <= 7 and len(world.things) <= 6
        make_game(world)
        world = generate_world("train", i, controls=large)
        assert 70 <= len(world.receptacles) <= 80 and 100 <= len(world.things) <= 120
        make_game(world)


def test_hidden_objects_start_behind_doors() -> None:
    def share(percent: int) -> float:
        controls = replace(REAL, hidden=percent, rooms=("kitchen",), copies=(0, 0))
        behind = []
        for i in range(120):
            world = generate_world("train", i, controls=controls)
            item = world.goals[0].item
            behind += [world.receptacles[t.place].door for t in world.things if t.kind == item]
        return mean(behind)

    # Not all: the only closed receptacle for an object may be where it is to be placed.
    assert share(100) > 0.9 > 0.5 > share(0)


def test_chained_needs() -> None:
    controls = Controls(chained=100, rooms=("kitchen",))
    needs = Counter()
    for i in range(120):
        world = generate_world("train", i, controls=controls)
        goal = world.goals[0]
        needs[goal.task_type, goal.needs] += 1
        if len(goal.needs) == 2:
            assert f"{goal.needs[0]} and {goal.needs[1]}" in world.goal_text or (
                "clean and hot" in world.goal_text or "clean and cool" in world.goal_text
            )
            assert len(solution(world)) >= 7
        make_game(world)
    assert needs["pick_heat_then_place_in_recep", ("clean", "heat")] > 3
    assert needs["pick_cool_then_place_in_recep", ("clean", "cool")] > 3
    assert not any({"heat", "cool"} <= set(chain) for _, chain in needs)


def test_several_goals() -> None:
    controls = long_horizon(160)
    for i in range(40):
        world = generate_world("valid", i, controls=controls)
        assert 7 <= len(world.goals) <= 8 and len(world.sentences) == len(world.goals)
        assert len({goal.item for goal in world.goals}) == len(world.goals)
        assert sum(goal.light for goal in world.goals) <= 1
        assert world.goal_text.count(".") == len(world.goals)
        assert all(sentence in world.goal_text for sentence in world.sentences)
        assert 8 * len(world.goals) > len(solution(world)) / 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rooms": ("cellar",)}, "rooms: unknown 'cellar'; choose among kitchen"),
        ({"rooms": ()}, "rooms: empty"),
        ({"task_types": ("fly",)}, "task_types: unknown 'fly'"),
        ({"weights": (1, 2)}, "expected 6 numbers"),
        ({"weights": (0,) * 6}, "not all 0"),
        ({"shortest": (1,)}, "expected 6 numbers"),
        ({"receptacles": (9, 3)}, "expected 2 <= first <= second"),
        ({"objects": (0, 3)}, "expected 1 <= first <= second"),
        ({"goals": (1, 20)}, "at most 8 goals"),
        ({"hidden": 101}, "expected a percentage"),
        ({"horizon": 3}, "fewer than 4 commands"),
    ],
)
def test_bad_controls_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Controls(**settings)  # type: ignore[arg-type]


def test_what_cannot_be_is_an_error_that_says_why() -> None:
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        generate_world("dev", 0)
    with pytest.raises(ValueError, match="index=-1"):
        generate_world("train", -1)
    with pytest.raises(ValueError, match="unknown task type 'fly'"):
        generate_world("train", 0, task_type="fly")
    bathroom = Controls(rooms=("bathroom",))
    with pytest.raises(GenerationError, match="bathroom have no task among pick_heat"):
        generate_world("train", 0, task_type="pick_heat_then_place_in_recep", controls=bathroom)
    tight = Controls(horizon=5, shortest=(6,) * 6)
    with pytest.raises(GenerationError, match="Widen `receptacles`"):
        generate_world("train", 0, controls=tight)
    with pytest.raises(ValueError, match="20 to 200"):
        long_horizon(10)


def test_controls_read_from_a_file_are_equal() -> None:
    again = Controls(**json.loads(json.dumps(DEFAULT.__dict__)))
    assert again == DEFAULT and hash(again) == hash(DEFAULT)
    assert generate_game("train", 1, controls=again).intro == generate_game("train", 1).intro


# ---- against the official games -----------------------------------------------------------------
def test_generated_games_look_like_the_official_ones(real_data: Path) -> None:
    official = [measure(game) for game in official_games(real_data / "alfworld", 150)]
    generated = [measure(game) for game in generated_games(150, REAL)]
    for name in ("receptacles", "objects", "solution", "doors", "behind", "shared"):
        ours = mean(getattr(sample, name) for sample in generated)
        theirs = mean(getattr(sample, name) for sample in official)
        bound = 1.6 if name == "shared" else 1.33
        assert 1 / bound < ours / theirs < bound, (name, ours, theirs)
    text = table([("official", official), ("generated", generated)])
    print(text)
    assert text.count("\n") >= 2 * len(TASK_TYPES)
