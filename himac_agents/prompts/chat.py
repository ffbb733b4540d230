"""For instruction-tuned models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from himac_agents.policy import Message
from himac_agents.prompts.protocol import PlainCommands
from himac_agents.prompts.scene import scene
from himac_envs.blueprint import SUB_DONE, Blueprint


@dataclass(frozen=True, slots=True)
class ChatPrompts(PlainCommands):
    """For instruction-tuned models: the rules in a system message, admissible commands listed.

    Attributes:
        list_admissible: Whether each observation ends with the commands that are possible now.
        max_subgoals: The most sub-goals the planner is asked for.
    """

    list_admissible: bool = True
    max_subgoals: int = 8

    def plan(self, first: str, goal: str) -> list[Message]:
        """See `Prompts.plan`."""
        rules = (
            "You plan for an agent that acts in a text environment. Write a blueprint: at most "
            f"{self.max_subgoals} short sub-goals in the order they are to be done, one numbered "
            "line each, between <blueprint> and </blueprint>. Another agent carries them out and "
            "sees one sub-goal at a time, so each must make sense by itself."
        )
        return [
            Message("system", rules),
            Message("user", f"Observation:\n{first}\n\nTask: {goal}\n\nWrite the blueprint."),
        ]

    def segment(self, first: str, subgoal: str, endings: Sequence[str]) -> list[Message]:
        """See `Prompts.segment`."""
        rules = (
            "You act in a text environment to achieve one sub-goal. Answer with exactly one "
            f"command between <action> and </action>, or with {SUB_DONE} alone as soon as the "
            "sub-goal is achieved."
        )
        past = "\n".join(endings)
        now = f"\n\nHow the sub-goals before ended:\n{past}" if endings else ""
        return [
            Message("system", rules),
            Message("user", f"Scene:\n{scene(first)}\n\nSub-goal: {subgoal}{now}"),
        ]

    def play(self, first: str, goal: str) -> list[Message]:
        """See `Prompts.play`."""
        rules = (
            "You act in a text environment to solve a task. Answer with exactly one command "
            "between <action> and </action>."
        )
        return [Message("system", rules), Message("user", f"{first}\n\nTask: {goal}")]

    def observe(self, text: str, task: str, info: dict[str, Any]) -> Message:
        """See `Prompts.observe`."""
        if not self.list_admissible:
            return Message("user", text)
        listed = "\n".join(info.get("admissible", ()))
        return Message("user", f"{text}\n\nPossible commands:\n{listed}")

    def write_blueprint(self, blueprint: Blueprint) -> str:
        """Numbered lines in `<blueprint>` tags."""
        return f"<blueprint>\n{blueprint.render()}\n</blueprint>"

    def write_command(self, command: str) -> str:
        """The command in `<action>` tags; `<sub_done>` stands alone."""
        return command if command == SUB_DONE else f"<action>{command}</action>"
