"""Export of generated games: the files say what the world says, and errors say what to do."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from himac_envs.alfworld.engine import State
from himac_envs.alfworld.games import load_game
from himac_envs.alfworld.generate import export as export_module
from himac_envs.alfworld.generate import generate_world, long_horizon, make_game, solution
from himac_envs.alfworld.generate.export import (
    ExportError,
    Logic,
    export_game,
    find_logic,
    pddl_text,
)
from himac_envs.alfworld.problem import parse_problem
from himac_envs.errors import MissingDependencyError

LOGIC = Logic("(define (domain alfred))", '"rhs": "Your task is to: UNKNOWN GOAL."')


def test_the_pddl_text_reads_back_to_the_same_problem() -> None:
    for i in range(40):
        controls = long_horizon(100) if i % 2 else long_horizon(20)
        problem = generate_world("valid", i, controls=controls).problem()
        assert parse_problem(pddl_text(problem)) == problem


def test_the_files_of_a_game(tmp_path: Path) -> None:
    world = generate_world("valid", 3, task_type="look_at_obj_in_light")
    path = export_game(world, tmp_path, logic=LOGIC)
    goal = world.goals[0]
    split, task, trial, name = path.relative_to(tmp_path).parts
    assert (split, trial, name) == ("valid_seen", "trial_generated_valid_000003", "game.tw-pddl")
    assert task.startswith(f"look_at_obj_in_light-{goal.item}-None-{goal.target}-")
    assert "movable" not in str(task) and "Sliced" not in task  # the original skips those
    game = json.loads(path.read_text())
    assert game["solvable"] is True and game["walkthrough"] == solution(world)
    assert game["grammar"] == f'"rhs": "Your task is to: {world.goal_text}"'
    assert parse_problem(game["pddl_problem"]) == world.problem()
    traj = json.loads((path.parent / "traj_data.json").read_text())
    assert traj["task_type"] == "look_at_obj_in_light"
    assert traj["pddl_params"]["object_target"] == goal.item
    assert traj["pddl_params"]["toggle_target"] == goal.target
    assert sorted(p.name for p in path.parent.iterdir()) == ["game.tw-pddl", "traj_data.json"]


def test_an_id_is_exported_under_its_controls(tmp_path: Path) -> None:
    controls = long_horizon(60)
    path = export_game("generated/test/000005", tmp_path, controls=controls, logic=LOGIC)
    world = generate_world("test", 5, controls=controls)
    assert world.goal_text in json.loads(path.read_text())["grammar"]


def test_an_official_game_lends_its_rules(real_data: Path, tmp_path: Path) -> None:
    archive = real_data / "alfworld" / "json_2.1.2_tw-pddl.zip"
    with zipfile.ZipFile(archive) as file:
        name = next(n for n in file.namelist() if n.endswith("game.tw-pddl"))
        official = tmp_path / "official.tw-pddl"
        official.write_bytes(file.read(name))
    for i in range(5):
        world = generate_world("train", i)
        path = export_game(world, tmp_path / "out", logic=official)
        played = load_game(path.read_bytes(), world.task_id)
        direct = make_game(world)
        assert played.intro == direct.intro and played.goal_text == world.goal_text
        one, two = State(played), State(direct)
        for command in solution(world):
            assert one.act(command) == two.act(command)
            assert one.admissible() == two.admissible()
        assert one.won and two.won


def test_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match=r"holds no alfred.pddl and alfred.twl2"):
        find_logic(tmp_path)
    (tmp_path / "alfred.pddl").write_text("x")
    (tmp_path / "alfred.twl2").write_text("no place")
    with pytest.raises(ExportError, match="no place for the goal"):
        find_logic(tmp_path)
    (tmp_path / "alfred.twl2").write_text("UNKNOWN GOAL.")
    assert find_logic(tmp_path) == Logic("x", "UNKNOWN GOAL.")
    (tmp_path / "x.tw-pddl").write_text("{}")
    with pytest.raises(ExportError, match="is no game file"):
        find_logic(tmp_path / "x.tw-pddl")
    (tmp_path / "y.tw-pddl").write_text(json.dumps({"pddl_domain": "", "grammar": ""}))
    with pytest.raises(ExportError, match="0 task sentences"):
        find_logic(tmp_path / "y.tw-pddl")
    monkeypatch.setattr(export_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'himac\[reference\]'"):
        find_logic()
