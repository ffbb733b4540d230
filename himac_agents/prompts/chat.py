"""For instruction-tuned models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from himac_agents.policies.base import Message
from himac_agents.prompts.base import Prompts
from himac_agents.prompts.scene import in_words
from himac_envs.blueprint import SUB_DONE, Blueprint
from himac_envs.wording import offered, wording

_THINK = "First think briefly between <think> and </think>. Then answer. "


@dataclass(frozen=True, slots=True)
class ChatPrompts(Prompts):
    """For instruction-tuned models: the rules in a system message, admissible commands listed.

    The rules say how the environment's commands are written, and in which forms its sub-goals are
    understood.

    Attributes:
        list_admissible: Whether each observation ends with the commands that are possible now.
        max_subgoals: The most sub-goals the planner is asked for.
        benchmark: "alfworld", "webshop" or "sokoban", for their own wording; "" for any other.
        think: Ask for reasoning in `<think>` tags before each answer.
        pixels: The model sees pictures: the text of an observation, which draws the same in
            characters, is left out (Sokoban).
        sub_done: The executor ends its sub-goals itself, and is told how.
    """

    list_admissible: bool = True
    max_subgoals: int = 8
    benchmark: str = ""
    think: bool = False
    pixels: bool = False
    sub_done: bool = True

    def plan(self, first: str, goal: str) -> list[Message]:
        """See `Prompts.plan`."""
        words = wording(self.benchmark)
        rules = (
            f"You plan for an agent that acts in {words.world}. {self._think}Write a blueprint: at "
            f"most {self.max_subgoals} short sub-goals in the order they are to be done, one "
            "numbered line each, between <blueprint> and </blueprint>. Another agent carries them "
            f"out and sees one sub-goal at a time. {words.subgoals}"
        )
        seen = f"Observation:\n{self._seen(first)}\n\nTask: {self._goal(goal)}"
        return [Message("system", rules), Message("user", f"{seen}\n\nWrite the blueprint.")]

    def segment(
        self,
        first: str,
        subgoal: str,
        endings: Sequence[str],
        info: dict[str, Any] | None = None,
    ) -> list[Message]:
        """See `Prompts.segment`."""
        words = wording(self.benchmark)
        rules = (
            f"You act in {words.world}. Achieve the sub-goal that you are given. {self._think}"
            "Answer with exactly one command between <action> and </action>: "
            f"{words.commands}."
        )
        if self.sub_done:
            rules += f" Answer with {SUB_DONE} alone as soon as the sub-goal is achieved."
        parts = [f"Sub-goal: {self._goal(subgoal)}"]
        if words.scene:
            parts.insert(0, f"Scene:\n{in_words(first)}")
            past = list(endings if words.endings is None else endings[-words.endings :])
            if past:
                parts.append("How the sub-goals before ended:\n" + "\n".join(past))
        else:
            parts.insert(0, f"Observation:\n{self._seen(endings[-1] if endings else first)}")
        return [
            Message("system", rules),
            Message("user", "\n\n".join(parts) + self._possible(info)),
        ]

    def proceed(self, text: str, subgoal: str, info: dict[str, Any]) -> Message:
        """See `Prompts.proceed`."""
        following = f"Next sub-goal: {self._goal(subgoal)}"
        return Message("user", f"{self._seen(text)}\n\n{following}{self._possible(info)}")

    def play(self, first: str, goal: str, info: dict[str, Any] | None = None) -> list[Message]:
        """See `Prompts.play`."""
        return [
            Message("system", self._rules_of_play()),
            Message(
                "user", f"{self._seen(first)}\n\nTask: {self._goal(goal)}{self._possible(info)}"
            ),
        ]

    def recall(
        self,
        first: str,
        goal: str,
        past: Sequence[tuple[str, str]],
        text: str,
        info: dict[str, Any],
    ) -> list[Message]:
        """See `Prompts.recall`."""
        parts = [f"Task: {self._goal(goal)}"]
        if past:
            if wording(self.benchmark).scene:
                parts.append(f"Scene:\n{in_words(first)}")
            steps = [f"{self._past(seen)}\n> {command}" for seen, command in past]
            parts.append(f"The last steps, of {info['step']}:\n" + "\n".join(steps))
        parts.append(f"Now:\n{self._seen(text)}")
        return [
            Message("system", self._rules_of_play()),
            Message("user", "\n\n".join(parts) + self._possible(info)),
        ]

    def observe(self, text: str, task: str, info: dict[str, Any]) -> Message:
        """See `Prompts.observe`."""
        return Message("user", self._seen(text) + self._possible(info))

    def write_blueprint(self, blueprint: Blueprint) -> str:
        """Numbered lines in `<blueprint>` tags."""
        return f"<blueprint>\n{blueprint.render()}\n</blueprint>"

    def write_command(self, command: str) -> str:
        """The command in `<action>` tags; `<sub_done>` stands alone."""
        return command if command == SUB_DONE else f"<action>{command}</action>"

    # -- parts -----------------------------------------------------------------------------------

    @property
    def _think(self) -> str:
        return _THINK if self.think else ""

    def _rules_of_play(self) -> str:
        words = wording(self.benchmark)
        return (
            f"You act in {words.world}. Solve the task. {self._think}Answer with exactly one "
            f"command between <action> and </action>: {words.commands}."
        )

    def _seen(self, text: str) -> str:
        return "The picture shows the room as it is now." if self.pixels else text

    def _past(self, text: str) -> str:
        return "(an earlier picture)" if self.pixels else text

    def _goal(self, goal: str) -> str:
        # Sokoban's instruction ends with the grid's legend, which a picture does not need.
        return goal.partition(" In the grid:")[0] if self.pixels else goal

    def _possible(self, info: dict[str, Any] | None) -> str:
        listed = offered(info) if self.list_admissible else ()
        return "\n\nPossible commands:\n" + "\n".join(listed) if listed else ""
