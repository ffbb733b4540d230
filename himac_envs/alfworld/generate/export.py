"""Writing a generated game as the original's files, so that the original ALFWorld plays it.

A game file holds the planning domain and the grammar beside the problem. Those two are the
original's own and are not part of this package: they are taken from an installed ``alfworld``, from
a folder that holds them, or from any official game file.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from himac_envs.alfworld.generate.controls import DEFAULT, Controls
from himac_envs.alfworld.generate.games import generate_world, make_game, parse_id, solution
from himac_envs.alfworld.generate.world import GeneratedWorld
from himac_envs.alfworld.problem import Expression, Problem
from himac_envs.errors import HiMACError, MissingDependencyError

DOMAIN_FILE, GRAMMAR_FILE = "alfred.pddl", "alfred.twl2"
SPLIT_FOLDERS = {"train": "train", "valid": "valid_seen", "test": "valid_unseen"}
"""The official archives' folder for each split, so that an export is a data folder too."""

_PLACEHOLDER = "UNKNOWN GOAL"
_TASK = re.compile(r'(?<="Your task is to: )[^"]*(?=")')
# One number for each room kind, from the range that the official scenes of this kind have.
_SCENE = {"kitchen": 1, "livingroom": 201, "bedroom": 301, "bathroom": 401}


class ExportError(HiMACError, ValueError):
    """The original's domain or grammar is not where it was looked for."""


@dataclass(frozen=True)
class Logic:
    """The original's planning domain and its grammar, the goal's place marked in the latter."""

    domain: str
    grammar: str


def find_logic(source: Path | str | None = None) -> Logic:
    """Read the original's domain and grammar.

    Args:
        source: A folder with ``alfred.pddl`` and ``alfred.twl2`` (the original keeps one in
            ``$ALFWORLD_DATA/logic``), or an official ``game.tw-pddl``; None: the installed
            ``alfworld``, which is not imported.

    Raises:
        MissingDependencyError: No source was given and ``alfworld`` is not installed.
        ExportError: The source lacks the files, or is no game file.
    """
    if source is None:
        spec = importlib.util.find_spec("alfworld")
        if spec is None or not spec.submodule_search_locations:
            raise MissingDependencyError(
                "the package alfworld (or `logic`, a folder with its alfred.pddl and alfred.twl2)",
                "writing games for the original",
                "reference",
            )
        return find_logic(Path(spec.submodule_search_locations[0]) / "data")
    path = Path(source)
    if path.is_file():
        return _logic_of_game(path)
    for folder in (path, path / "logic"):
        if (folder / DOMAIN_FILE).is_file() and (folder / GRAMMAR_FILE).is_file():
            domain = (folder / DOMAIN_FILE).read_text(encoding="utf-8")
            grammar = (folder / GRAMMAR_FILE).read_text(encoding="utf-8")
            if _PLACEHOLDER not in grammar:
                raise ExportError(
                    f"{folder / GRAMMAR_FILE} has no place for the goal ({_PLACEHOLDER!r}): "
                    "expected the grammar as alfworld ships it"
                )
            return Logic(domain, grammar)
    raise ExportError(
        f"{path} holds no {DOMAIN_FILE} and {GRAMMAR_FILE}: give the folder that "
        "`alfworld-download` wrote them to ($ALFWORLD_DATA/logic), or an official game.tw-pddl"
    )


def _logic_of_game(path: Path) -> Logic:
    try:
        game = json.loads(path.read_text(encoding="utf-8"))
        domain, grammar = str(game["pddl_domain"]), str(game["grammar"])
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path} is no game file (JSON with pddl_domain and grammar)") from error
    grammar, found = _TASK.subn(f"{_PLACEHOLDER}.", grammar)
    if found != 1:
        raise ExportError(f"{path}: its grammar has {found} task sentences, expected one")
    return Logic(domain, grammar)


def export_game(
    game: GeneratedWorld | str,
    folder: Path | str,
    *,
    controls: Controls = DEFAULT,
    logic: Logic | Path | str | None = None,
) -> Path:
    """Write one game into a folder laid out as the official archives.

    Args:
        game: A world, or a task id such as ``generated/train/000123``.
        folder: The data folder; ``<split>/<task>/<trial>/`` is made in it.
        controls: The difficulty that the task id refers to.
        logic: The original's domain and grammar, or where to find them (see `find_logic`).

    Returns:
        The path of the ``game.tw-pddl``; its ``traj_data.json`` lies beside it.
    """
    if isinstance(game, str):
        split, index = parse_id(game)
        game = generate_world(split, index, controls=controls)
    content = game_file(game, logic)
    target = Path(folder) / SPLIT_FOLDERS[game.split] / _task_folder(game) / _trial(game)
    target.mkdir(parents=True, exist_ok=True)
    _write_json(target / "traj_data.json", traj_data(game))
    path = target / "game.tw-pddl"
    _write_json(path, content)
    return path


def game_file(world: GeneratedWorld, logic: Logic | Path | str | None = None) -> dict[str, Any]:
    """Return the content of a world's ``game.tw-pddl``; see `export_game`."""
    rules = logic if isinstance(logic, Logic) else find_logic(logic)
    make_game(world)  # proves that it is solvable, which the file asserts
    return {
        "pddl_domain": rules.domain,
        "grammar": rules.grammar.replace(f"{_PLACEHOLDER}.", world.goal_text),
        "pddl_problem": pddl_text(world.problem()),
        "solvable": True,
        "walkthrough": solution(world),
    }


def traj_data(world: GeneratedWorld) -> dict[str, Any]:
    """Return what the original's loaders and experts read of an ALFRED trajectory.

    The task type and its parameters are the first goal's: the format knows only one.
    """
    goal = world.goals[0]
    sentence = world.goal_text
    return {
        "task_id": _trial(world),
        "task_type": goal.task_type,
        "pddl_params": {
            "mrecep_target": "",
            "object_sliced": False,
            "object_target": goal.item,
            "parent_target": "" if goal.light else goal.target,
            "toggle_target": goal.target if goal.light else "",
        },
        "turk_annotations": {
            "anns": [
                {
                    "assignment_id": "generated",
                    "high_descs": list(world.sentences),
                    "task_desc": sentence,
                    "votes": [],
                }
            ]
        },
        "scene": {
            "floor_plan": f"generated-{world.room}",
            "scene_num": _SCENE[world.room],
            "random_seed": world.index,
        },
    }


def pddl_text(problem: Problem) -> str:
    """Return a problem as PDDL text; `parse_problem` reads it back to an equal problem."""
    kinds: dict[str, list[str]] = {}
    for ident, kind in problem.objects.items():
        kinds.setdefault(kind, []).append(ident)
    lines = [f"(define (problem {problem.name})", "(:domain alfred)", "(:objects"]
    lines += [f"    {ident} - {kind}" for kind in sorted(kinds) for ident in kinds[kind]]
    lines += [")", "(:init"]
    lines += [f"    ({' '.join(fact)})" for fact in problem.init]
    lines += [")", f"(:goal {_expression(problem.goal)})", ")", ""]
    return "\n".join(lines)


def _expression(part: Expression) -> str:
    return part if isinstance(part, str) else f"({' '.join(_expression(row) for row in part)})"


def _trial(world: GeneratedWorld) -> str:
    return f"trial_{world.task_id.replace('/', '_')}"


def _task_folder(world: GeneratedWorld) -> str:
    goal = world.goals[0]
    return f"{goal.task_type}-{goal.item}-None-{goal.target}-{_SCENE[world.room]}"


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(content), encoding="utf-8")
    os.replace(beside, path)
