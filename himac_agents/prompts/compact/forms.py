"""How each environment's words are made few: one form an environment, recognised by its text.

A form decides what of a page a small model reads and how it writes commands. What it leaves out, it
leaves out for every agent alike, flat or hierarchical.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from himac_agents.prompts.scene import gather, mark, scene
from himac_envs.blueprint import Blueprint, Subgoal


def rewritten(blueprint: Blueprint, rule: Callable[[str], str]) -> Blueprint:
    """A blueprint with each sub-goal rewritten; one that would become empty stays as it is."""
    subgoals = tuple(Subgoal(rule(text)) for text in blueprint.texts())
    kept = [new if new.text else old for new, old in zip(subgoals, blueprint.subgoals, strict=True)]
    return Blueprint(tuple(kept), blueprint.valid, blueprint.dropped)


class Form:
    """The short words of one environment. All functions are total: odd text comes out as it is.

    This one is for any text, and ALFWorld's: names of what the task names are marked with a star.

    Args:
        gathers: Repeat those names behind the text instead of marking them where they stand.
    """

    def __init__(self, gathers: bool = False) -> None:
        self._mark = gather if gathers else mark

    def knows(self, text: str) -> bool:
        """Whether an observation is of this environment."""
        return True

    def task(self, goal: str) -> str:
        """The instruction."""
        return goal

    def aim(self, subgoal: str) -> str:
        """A sub-goal, for its executor."""
        return subgoal

    def brief(self, goal: str) -> str:
        """The instruction for a planner, with what came before it where it is asked again."""
        return goal

    def shorten(self, blueprint: Blueprint, goal: str) -> Blueprint:
        """A blueprint as a small planner writes it for this instruction."""
        return blueprint

    def expand(self, blueprint: Blueprint, goal: str) -> Blueprint:
        """A blueprint that a small planner has written, in full. Undoes `shorten`."""
        return blueprint

    def scene(self, first: str) -> str:
        """What the first observation shows, the instruction left out."""
        return scene(first)

    def observation(self, text: str, task: str, info: dict[str, Any]) -> str:
        """An observation, for an agent that is after `task` (a sub-goal or the instruction)."""
        return self._mark(text, task)

    def opening(
        self, first: str, task: str, endings: Sequence[str], info: dict[str, Any]
    ) -> list[str]:
        """What the executor knows when a sub-goal begins, in lines: the scene, and how it stands.

        Here that is every ending: what is held was said by one of them.

        Args:
            first: The episode's first observation.
            task: The sub-goal.
            endings: The last observation of each sub-goal that has ended.
            info: The environment's.
        """
        return [self.scene(first), *(self._mark(ending, task) for ending in endings)]

    def commands(self, task: str, info: dict[str, Any]) -> Sequence[str]:
        """The commands that may be chosen."""
        found: Sequence[str] = info.get("admissible", ())
        return found

    def phrase(self, command: str, info: dict[str, Any]) -> str:
        """How a command is written here."""
        return command

    def words(self) -> list[str]:
        """Words that only this form writes, for a tokenizer."""
        return [" *"]
