"""Level files: XSB, SOK, Boxoban's layout."""

from __future__ import annotations

import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import himac_envs  # noqa: F401
from himac_envs.sokoban.generate import RoomGenerator
from himac_envs.sokoban.levels import (
    LevelFolder,
    NumberedIds,
    format_xsb,
    parse_levels,
    read_levels,
)
from himac_envs.sokoban.rules import LevelError
from himac_envs.testing import check_oracle

TWO = """Some collection

; 0
  ####
###  ####
#     $ #
# #  #$ #
# . .#@ #
#########

; 1
#####
#+$ #
#####
Title: the end
"""


def test_titles_comments_and_outside() -> None:
    first, second = parse_levels(TWO, "two")
    assert (first.name, second.name) == ("two:0", "two:1")
    assert (first.rows, first.cols) == (6, 9)
    assert first.room_fixed[0, 0] == 0 and first.room_fixed[1, 3] == 1
    assert second.room_fixed[1, 1] == 2 and second.room_state[1, 1] == 5
    assert format_xsb(second) == "#####\n#+$ #\n#####"


def test_writing_and_reading_again() -> None:
    for level in RoomGenerator("verl-agent", 7, 7, 2).rooms(range(50)):
        again = parse_levels(format_xsb(level))[0]
        assert (again.fixed, again.state) == (level.fixed, level.state)


def test_run_lengths_and_other_letters() -> None:
    plain = parse_levels("######\n#@ $.#\n#  *-#\n######")[0]
    packed = parse_levels("6#|#p_bo#|#2-B1-#|6#")[0]
    assert (plain.fixed, plain.state) == (packed.fixed, packed.state)
    grouped = parse_levels("4#|2(#@$.#|)4#".replace("2(#@$.#|)", "#@$.#|"))[0]
    assert grouped.num_boxes == 1


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(LevelError, match=r"line 5: doubled:1: .*exactly one player, found 2"):
        parse_levels("#####\n#@$.#\n#####\n\n######\n#@@$.#\n######\n", "doubled")
    with pytest.raises(FileNotFoundError, match="no level files"):
        LevelFolder(tmp_path)
    bad = tmp_path / "bad.xsb"
    bad.write_text("#####\n#@$.#\n#####\n\n####\n#$.#\n####\n")
    with pytest.raises(LevelError, match="bad:1"):
        gym.make("HiMAC-Sokoban-Flat-v0", data=str(bad)).reset(seed=0)
    with pytest.raises(ValueError, match="boxes"):
        gym.make("HiMAC-Sokoban-Flat-v0", data=str(bad), boxes=2)


def test_unsplit_collections_are_in_every_split(tmp_path: Path) -> None:
    (tmp_path / "b10.xsb").write_text(TWO)
    (tmp_path / "b9.xsb").write_text(TWO)
    env = gym.make("HiMAC-Sokoban-Flat-v0", data=str(tmp_path), image=True).unwrapped
    assert list(env.task_ids()) == ["b9:0", "b9:1", "b10:0", "b10:1"]
    assert env.observation_space["image"].shape == (6 * 16, 9 * 16, 3)
    for task_id in env.task_ids():
        observation, info = env.reset(options={"task_id": task_id})
        assert info["task_id"] == task_id and observation in env.observation_space
    with pytest.raises(ValueError, match="Did you mean"):
        env.reset(options={"task_id": "b9:7"})
    with pytest.raises(LevelError, match="larger room"):
        gym.make("HiMAC-Sokoban-Flat-v0", data=str(tmp_path), room=(5, 5)).reset(
            options={"task_id": "b9:0"}
        )


def test_boxoban(real_data: Path) -> None:
    folder = LevelFolder(real_data / "boxoban")
    assert folder.splits() == [
        "train", "valid", "hard", "medium/train", "medium/valid", "unfiltered/train",
        "unfiltered/valid", "all",
    ]  # fmt: skip
    assert len(folder.ids("train")) == 2000 and len(folder.ids("all")) == 6000
    assert folder.ids("train") == folder.ids("unfiltered/train")
    assert folder.ids("train")[1000] == "unfiltered/train/001:0"
    with pytest.raises(ValueError, match=r"'train': 2000 tasks.*'hard': 1000 tasks"):
        gym.make("HiMAC-Sokoban-Flat-v0", data=str(real_data / "boxoban"), split="test")
    env = gym.make(
        "HiMAC-Sokoban-Pixels-v0", data=str(real_data / "boxoban"), split="hard", max_steps=120
    )
    frame, info = env.reset(seed=0)
    assert frame.shape == (160, 160, 3) and info["task_id"].startswith("hard/000:")
    level = folder.level("unfiltered/train/000:0")
    assert format_xsb(level).split("\n")[1:3] == ["#@ #######", "#.$#######"]
    # Rooms that the player cannot enter stay floor, as gym-sokoban reads them.
    assert folder.level("unfiltered/train/000:2").room_fixed[1, 6] == 1


def test_the_puzzles_that_come_with_the_package() -> None:
    from himac_envs.registry import read
    from himac_envs.sokoban.solver import solve

    env = gym.make("HiMAC-Sokoban-Flat-v0", data="puzzles", max_steps=500).unwrapped
    ids = env.task_ids()
    card = read("worlds", "sokoban")
    assert (ids[0], ids[-1]) == ("puzzles:0", "puzzles:199")
    assert env.reset(seed=0)[1]["data"] == card["name"] == "puzzles"
    assert len(ids) == 200 == len(card["moves"]) == len(card["pushes"])
    levels = [env.source.folder.level(i) for i in ids]
    assert len({(x.fixed, x.state) for x in levels}) == 200
    assert levels[0].num_boxes == 1 and levels[-1].num_boxes >= 4
    sizes = [x.rows * x.cols for x in levels]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    for k in range(0, 200, 10):
        assert solve(levels[k]).pushes == card["pushes"][k]


def test_numbered_ids() -> None:
    ids = NumberedIds([("a", range(3)), ("b", range(10, 12)), ("c", range(0))])
    assert list(ids) == ["a:0", "a:1", "a:2", "b:10", "b:11"]
    assert ids[-1] == "b:11" and ids[1:4] == ["a:1", "a:2", "b:10"]
    assert "b:10" in ids and "b:12" not in ids and "a:01" not in ids and 3 not in ids
    assert ids == ["a:0", "a:1", "a:2", "b:10", "b:11"]
    with pytest.raises(IndexError):
        ids[5]
    assert len(NumberedIds([])) == 0
    many = NumberedIds([("fast", range(10**9))])
    assert many[np.int64(123_456_789)] == "fast:123456789"


def test_folders_behind_links_and_capital_endings(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    (real / "deep").mkdir(parents=True)
    (real / "deep" / "mine.XSB").write_text(TWO)
    (real / "one.Txt").write_text(TWO)
    folder = tmp_path / "levels"
    folder.mkdir()
    (folder / "linked").symlink_to(real, target_is_directory=True)
    (real / "deep" / "back").symlink_to(folder, target_is_directory=True)  # round in a circle
    (folder / "file.xsb").symlink_to(real / "one.Txt")
    (folder / "gone.xsb").symlink_to(tmp_path / "nowhere")
    found = LevelFolder(folder)
    assert list(found.files) == ["file", "linked/deep/mine", "linked/one"]
    env = gym.make("HiMAC-Sokoban-Flat-v0", data=str(folder), split="all")
    assert env.reset(options={"task_id": "linked/deep/mine:1"})[1]["task_id"].endswith("mine:1")
    link = tmp_path / "link"
    link.symlink_to(folder, target_is_directory=True)
    assert list(LevelFolder(link).files) == list(found.files)


@pytest.mark.parametrize("name", ["levels.xsb", "levels.txt"])
@pytest.mark.parametrize(
    ("row", "column", "character"),
    [("#@x$.#", 3, "'x'"), ("#@$.\t#", 5, r"'\t'"), ("# @Q$.#", 4, "'Q'"), ("#@$O.#", 4, "'O'")],
)
def test_a_bad_character_is_named_by_file_line_and_column(
    tmp_path: Path, name: str, row: str, column: int, character: str
) -> None:
    file = tmp_path / name
    good = "#####\n#@$.#\n#####"
    file.write_text(f"Level 1 #\n{good}\n\n; 2\n#######\n#     #\n{row}\n#######\n")
    message = (
        f"{re.escape(str(file))}, line 9, column {column}: {re.escape(character)} is not a Sokoban"
    )
    with pytest.raises(LevelError, match=message):
        read_levels(file)
    with pytest.raises(LevelError, match=message):
        env = gym.make("HiMAC-Sokoban-Flat-v0", data=str(file))
        env.reset(options={"task_id": "levels:1"})
    with pytest.raises(LevelError, match=f"line 9, column {column}"):
        parse_levels(file.read_text())


def test_other_faults_name_the_file_too(tmp_path: Path) -> None:
    file = tmp_path / "bad.txt"
    for text, why in (("\n####\n#@$.\n####", "do not close"), ("\n#####\n#@@$#\n#####", "player")):
        file.write_text(text)
        with pytest.raises(LevelError, match=f"{re.escape(str(file))}, line 2: .*{why}"):
            read_levels(file)


def test_titles_stay_titles() -> None:
    first, second = parse_levels("#####\n#@$.#\n#####\n# Level two #\n#####\n#@$.#\n#####\n")
    assert first.state == second.state


def test_step_limits_follow_the_levels(tmp_path: Path) -> None:
    for env_id in ("HiMAC-Sokoban-Flat-v0", "HiMAC-Sokoban-v0", "HiMAC-Sokoban-Pixels-v0"):
        assert gym.make(env_id, data="puzzles").unwrapped.max_steps == 200
        assert gym.make(env_id, data="puzzles", max_steps=40).unwrapped.max_steps == 40
    assert gym.make("HiMAC-Sokoban-Flat-v0").unwrapped.max_steps == 15
    wide = tmp_path / "wide.xsb"
    wide.write_text("\n".join(["#" * 40, "#@$." + " " * 35 + "#", *["#" * 40] * 4]))
    for env_id in ("HiMAC-Sokoban-Flat-v0", "HiMAC-Sokoban-Pixels-v0"):
        assert gym.make(env_id, data=str(wide)).unwrapped.max_steps == 2 * 6 * 40
    env = gym.make("HiMAC-Sokoban-Flat-v0", data="puzzles").unwrapped
    for task_id in env.task_ids()[::7]:
        check_oracle(env, task_id)


def test_the_oracle_solves_boxoban_as_it_comes(real_data: Path) -> None:
    for split in ("train", "medium/valid", "hard"):
        env = gym.make(
            "HiMAC-Sokoban-Flat-v0", data=str(real_data / "boxoban"), split=split
        ).unwrapped
        for task_id in env.task_ids()[:3]:
            check_oracle(env, task_id)
