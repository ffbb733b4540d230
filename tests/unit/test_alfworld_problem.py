"""The PDDL problem reader, against hand-written text."""

from __future__ import annotations

import pickle

import pytest

from himac_envs.alfworld.errors import GameFileError
from himac_envs.alfworld.problem import parse_expression, parse_problem, parse_typed_list

PROBLEM = """
(define (problem plan_Small)
(:domain alfred)
(:objects agent1 - agent  Mug_bar_1 Mug_bar_2 - object
   MugType - otype loc_bar_1 - location)
(:init
   (objectType Mug_bar_1 MugType) ; a comment (with a parenthesis
   (= (total-cost) 0)
   (= (distance loc_bar_1 loc_bar_1) 0)
   (atLocation agent1 loc_bar_1)
)
(:goal (and (exists (?o - object) (objectType ?o MugType))))
)
"""


def test_a_problem_is_read_in_lower_case_without_metric_facts() -> None:
    problem = parse_problem(PROBLEM)
    assert problem.name == "plan_small"
    assert dict(problem.objects) == {
        "agent1": "agent",
        "mug_bar_1": "object",
        "mug_bar_2": "object",
        "mugtype": "otype",
        "loc_bar_1": "location",
    }
    assert problem.init == (
        ("objecttype", "mug_bar_1", "mugtype"),
        ("atlocation", "agent1", "loc_bar_1"),
    )
    assert problem.goal == (
        "and",
        ("exists", ("?o", "-", "object"), ("objecttype", "?o", "mugtype")),
    )


def test_a_problem_pickles_and_cannot_be_changed() -> None:
    problem = parse_problem(PROBLEM)
    assert pickle.loads(pickle.dumps(problem)) == problem
    with pytest.raises(TypeError):
        problem.objects["new"] = "object"  # type: ignore[index]


def test_typed_lists() -> None:
    assert parse_typed_list(("a", "b", "-", "t", "c")) == {"a": "t", "b": "t", "c": "object"}
    with pytest.raises(GameFileError, match="dash"):
        parse_typed_list(("a", "-"))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("", "define"),
        (PROBLEM.replace("(:init", "(:start"), "no section init"),
        (PROBLEM.replace("(atLocation agent1", "(not (atLocation agent1"), "ground facts"),
        (PROBLEM.replace("MugType)))", "MugType)"), "never closed"),
    ],
)
def test_broken_problems_are_refused(broken: str, message: str) -> None:
    with pytest.raises(GameFileError, match=message):
        parse_problem(broken)


@pytest.mark.parametrize("text", ["(a", "(a))"])
def test_unbalanced_expressions_are_refused(text: str) -> None:
    with pytest.raises(GameFileError, match="parenthes"):
        parse_expression(text)
