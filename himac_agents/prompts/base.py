"""What a style of prompts is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from himac_agents.policies.base import Message
from himac_envs.blueprint import Blueprint
from himac_envs.reading import read_blueprint, read_command


class Prompts(Protocol):
    """The words around an environment's words.

    What has a body here is how styles write that write alike everywhere, and offer what the
    environment offers.
    """

    __slots__ = ()

    def plan(self, first: str, goal: str) -> list[Message]:
        """What the planner reads: the first observation and the task's instruction."""
        ...

    def segment(
        self,
        first: str,
        subgoal: str,
        endings: Sequence[str],
        info: dict[str, Any] | None = None,
    ) -> list[Message]:
        """What the executor reads when a sub-goal begins.

        Args:
            first: The episode's first observation.
            subgoal: The sub-goal.
            endings: The last observation of each sub-goal that has ended, in order.
            info: The environment's, for styles that list the commands that are possible.
        """
        ...

    def proceed(self, text: str, subgoal: str, info: dict[str, Any]) -> Message:
        """What an executor that remembers the whole episode reads when the next sub-goal begins.

        Args:
            text: The observation.
            subgoal: The next sub-goal.
            info: The environment's.
        """
        ...

    def play(self, first: str, goal: str, info: dict[str, Any] | None = None) -> list[Message]:
        """What a flat agent reads at the episode's start."""
        ...

    def recall(
        self,
        first: str,
        goal: str,
        past: Sequence[tuple[str, str]],
        text: str,
        info: dict[str, Any],
    ) -> list[Message]:
        """All that a flat agent with a short memory reads at one decision.

        Args:
            first: The episode's first observation.
            goal: The instruction.
            past: The (observation, command) pairs that it remembers, the oldest first.
            text: The present observation.
            info: The environment's; `info["step"]` tells how many steps were taken.
        """
        ...

    def observe(self, text: str, task: str, info: dict[str, Any]) -> Message:
        """What an agent reads after each of its commands.

        Args:
            text: The observation.
            task: What it is after: the sub-goal, or on a flat environment the instruction.
            info: The environment's.
        """
        ...

    def read(self, answer: str, admissible: Collection[str] = ()) -> str:
        """The command in an executor's answer, or `<sub_done>`. Total: never raises.

        Unless a style says otherwise: the text in `<action>` tags, else the first line.

        Args:
            answer: What the model wrote.
            admissible: The commands that are possible now, where that is known.
        """
        return read_command(answer, admissible)

    def write_blueprint(self, blueprint: Blueprint) -> str:
        """A blueprint as this style's planner is to write it (for demonstrations)."""
        return "\n".join(f"- {text}" for text in blueprint.texts())

    def write_command(self, command: str) -> str:
        """A command as this style's executor is to write it (for demonstrations)."""
        return command

    def draft(self, blueprint: Blueprint, first: str, goal: str) -> str:
        """A blueprint as it is written for this very instruction; see `write_blueprint`."""
        return self.write_blueprint(blueprint)

    def read_plan(self, answer: str, first: str, goal: str) -> Blueprint:
        """The blueprint in a planner's answer. Total: never raises."""
        return read_blueprint(answer, goal)

    def commands(self, task: str, info: dict[str, Any]) -> Sequence[str]:
        """The commands that may be chosen now, for an agent that is after `task`."""
        found: Sequence[str] = info.get("admissible", ())
        return found

    def phrase(self, command: str, info: dict[str, Any]) -> str:
        """A command as it is written in this very place; see `write_command`."""
        return self.write_command(command)

    def words(self, first: str) -> list[str]:
        """Words that the style itself writes, for a tokenizer.

        Args:
            first: The first observation of an episode: it tells the environment.
        """
        return [" *"]
