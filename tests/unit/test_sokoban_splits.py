"""Held out means held out: no room of valid or test is among the training rooms."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

import himac_envs  # noqa: F401
from himac_envs.sokoban.generate import GenerationError, RoomGenerator
from himac_envs.sokoban.levels import parse_levels
from himac_envs.sokoban.splits import (
    NUMBERS,
    NotHeldOutWarning,
    canonical_plan,
    number_splits,
    plan_split,
)

ID = "HiMAC-Sokoban-Flat-v0"
SIZES = [((6, 6), 1), ((6, 6), 2), ((7, 7), 2), ((10, 10), 3)]


def canonical(rooms: NDArray[np.uint8]) -> list[bytes]:
    """The smallest of each room's eight symmetries; rooms of shape [rooms, side, side]."""
    forms = []
    for mirrored in (rooms, rooms[:, ::-1]):
        for turns in range(4):
            turned = np.ascontiguousarray(np.rot90(mirrored, turns, axes=(1, 2)))
            forms.append([room.tobytes() for room in turned])
    return [min(eight) for eight in zip(*forms, strict=True)]


def forms_of(env: Any, ids: Sequence[str]) -> tuple[set[bytes], set[bytes]]:
    """Canonical rooms (all pieces, the player too) and canonical floor plans of task ids."""
    source = env.unwrapped.source
    fixed, state = source.arrays([source.number(task_id) for task_id in ids])
    found = []
    for rooms in (state * np.uint8(8) + fixed, fixed):
        distinct = b"".join({room.tobytes() for room in rooms})
        shape = (-1, source.rows, source.cols)
        found.append(set(canonical(np.frombuffer(distinct, np.uint8).reshape(shape))))
    return found[0], found[1]


@pytest.mark.parametrize(("room", "boxes"), SIZES)
def test_no_room_that_is_held_out_is_a_training_room(room: tuple[int, int], boxes: int) -> None:
    env = gym.make(ID, room=room, boxes=boxes)
    found = {}
    for split, count in (("train", 20_000), ("valid", 5_000), ("test", 5_000)):
        ids = env.unwrapped.task_ids(split)[:count]
        assert len(ids) == count
        found[split] = forms_of(env, ids)
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        for kind in (0, 1):
            assert not found[one][kind] & found[other][kind], (one, other)
    # There is something to hold out: many different rooms in each split.
    print(room, boxes, {split: tuple(map(len, forms)) for split, forms in found.items()})
    assert len(found["train"][0]) > 4_000 and len(found["test"][0]) > 500


def test_a_room_belongs_to_its_numbers_split_however_it_is_asked_for() -> None:
    numbers = [0, 7, 999_999, 1_000_000, 1_004_999, 1_005_000, 1_009_999]
    splits = ["train"] * 3 + ["valid"] * 2 + ["test"] * 2
    assert [list(NUMBERS)[i] for i in number_splits(numbers)] == splits
    assert number_splits([1_010_000, 2**63 - 1]).tolist() == [-1, -1]
    for maker in (RoomGenerator(), RoomGenerator(rows=7, cols=9, num_boxes=2, min_solution=8)):
        assert [plan_split(room) for room in maker.rooms(numbers)] == splits
        assert [maker.room(n) for n in numbers] == maker.rooms(numbers)
    env = gym.make(ID, split="all").unwrapped
    for number, split in zip(numbers, splits, strict=True):
        env.reset(options={"task_id": f"fast:{number}"})
        assert plan_split(env.board) == split
    beyond = {plan_split(room) for room in RoomGenerator().rooms(range(2_000_000, 2_000_100))}
    assert beyond == {"train", "valid", "test"}


def hash_as_numbers(plan: NDArray[np.uint8]) -> int:
    """The same hash as small plans are given it: by their symmetries as numbers."""
    from himac_envs.sokoban.kernels import generate as k

    flat, (rows, cols) = np.ascontiguousarray(plan).reshape(-1), plan.shape
    top, bottom, left, right = k._bounds(flat, rows, cols)
    height, width = bottom - top + 1, right - left + 1
    if height * width > k._MOST_DIGITS:
        return int(k.plan_hash(flat, rows, cols))
    forms = np.zeros(8, np.uint64)
    for cell in np.flatnonzero(flat):
        k._put(forms, flat[cell], cell, cols, top, bottom, left, right)
    return int(k._hash_of_forms(forms, height, width))


def test_the_kernels_hash_tells_the_canonical_forms_apart() -> None:
    from himac_envs.sokoban.kernels import generate as k

    seen: dict[int, tuple[tuple[int, ...], bytes]] = {}
    forms: dict[tuple[tuple[int, ...], bytes], int] = {}
    rng = np.random.default_rng(0)
    for rows, cols in ((4, 5), (5, 4), (6, 6), (7, 9), (9, 7)):
        level = RoomGenerator("fast", rows, cols, 1)
        for room in level.rooms(range(2_000_000, 2_000_150)):
            plan = room.room_fixed.astype(np.uint8)
            turned = np.rot90(plan, int(rng.integers(4)))
            turned = turned[::-1] if rng.integers(2) else turned
            turned = np.pad(turned, rng.integers(0, 3, (2, 2)).tolist())
            with np.errstate(over="ignore"):
                found = [
                    int(k.plan_hash(np.ascontiguousarray(p).reshape(-1), *p.shape))
                    for p in (plan, turned)
                ]
                found.append(hash_as_numbers(plan))
            form = canonical_plan(room)
            assert form.shape[0] <= form.shape[1]
            key = form.shape, form.tobytes()
            assert found == 3 * [found[0]] and found[0] == forms.setdefault(key, found[0])
            assert seen.setdefault(found[0], key) == key
    assert len(forms) > 400


def test_turned_mirrored_and_moved_levels_are_one_plan() -> None:
    level, turned, moved, other = parse_levels(
        "#####\n#@$.#\n##  #\n#####\n\n####\n# .#\n# $#\n##@#\n####\n\n"
        "######\n######\n#.$@##\n#  ###\n######\n\n#####\n#@.$#\n##  #\n#####\n"
    )
    assert np.array_equal(canonical_plan(level), canonical_plan(turned))
    assert np.array_equal(canonical_plan(level), canonical_plan(moved))
    assert not np.array_equal(canonical_plan(level), canonical_plan(other))


def test_rooms_too_small_to_be_split_say_so() -> None:
    with pytest.raises(GenerationError, match="too few plans to be split, choose a larger room"):
        RoomGenerator("fast", 4, 4, 1).room(NUMBERS["test"][0])


@pytest.mark.parametrize("generator", ["gym-sokoban", "verl-agent"])
@pytest.mark.parametrize("env_id", [ID, "HiMAC-Sokoban-Pixels-v0"])
def test_compatible_generators_warn(env_id: str, generator: str) -> None:
    for split in ("train", "valid", "test"):
        with pytest.warns(NotHeldOutWarning, match=f"'{generator}'.*'{split}'"):
            gym.make(env_id, generator=generator, split=split, room=(6, 6), boxes=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotHeldOutWarning)
        gym.make(env_id, generator=generator, split="all", room=(6, 6), boxes=1)
        gym.make(env_id, split="test")


def test_levels_that_no_folder_splits_warn(tmp_path: Path) -> None:
    level = "#####\n#@$.#\n#####\n"
    for split in ("valid", "test"):
        with pytest.warns(NotHeldOutWarning, match="every level is in every split"):
            gym.make(ID, data="puzzles", split=split)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "few.xsb").write_text(level)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotHeldOutWarning)
        gym.make(ID, data="puzzles")
        gym.make(ID, data="puzzles", split="all")
        gym.make(ID, data=str(tmp_path), split="test")
