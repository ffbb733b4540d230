"""Few words, for small models trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from himac_agents.policy import Message
from himac_agents.prompts.reading import read_command
from himac_agents.prompts.scene import gather, mark, scene
from himac_envs.blueprint import Blueprint


@dataclass(frozen=True, slots=True)
class CompactPrompts:
    """Few words, for small models trained from scratch: a role token, the scene, the sub-goal.

    Attributes:
        remind: Repeat the sub-goal (flat: the instruction) after each observation, as a help for
            models that lose sight of it.
        mark: Put a star behind each numbered name in an observation ("mug 2 *") whose word stands
            in the sub-goal (flat: in the instruction) too. This is the exact-match feature of
            reading comprehension: a model of 0.2M parameters takes very long to learn by itself
            that two words are the same.
        gather: Instead of the stars, repeat those names behind the observation. Less text, and
            learned with far fewer demonstrations.
    """

    remind: bool = False
    mark: bool = True
    gather: bool = False

    def plan(self, first: str, goal: str) -> list[Message]:
        """See `Prompts.plan`."""
        return [Message("user", f"<plan> {scene(first)}\n{goal}")]

    def segment(
        self,
        first: str,
        subgoal: str,
        endings: Sequence[str],
        info: dict[str, Any] | None = None,
    ) -> list[Message]:
        """See `Prompts.segment`."""
        past = [self._marked(ending, subgoal) for ending in endings]
        return [Message("user", "\n".join([f"<act> {scene(first)}", *past, subgoal]))]

    def proceed(self, text: str, subgoal: str, info: dict[str, Any]) -> Message:
        """See `Prompts.proceed`."""
        return Message("user", f"{self._marked(text, subgoal)}\n<act> {subgoal}")

    def play(self, first: str, goal: str, info: dict[str, Any] | None = None) -> list[Message]:
        """See `Prompts.play`."""
        return [Message("user", f"<play> {scene(first)}\n{goal}")]

    def recall(
        self,
        first: str,
        goal: str,
        past: Sequence[tuple[str, str]],
        text: str,
        info: dict[str, Any],
    ) -> list[Message]:
        """See `Prompts.recall`."""
        lines = [f"<play> {scene(first)}", goal]
        for seen, command in past:
            lines += [self._marked(seen, goal) if seen != first else "", f"> {command}"]
        if past:
            lines.append(self._marked(text, goal))
        return [Message("user", "\n".join(line for line in lines if line))]

    def observe(self, text: str, task: str, info: dict[str, Any]) -> Message:
        """See `Prompts.observe`."""
        text = self._marked(text, task)
        return Message("user", f"{text}\n{task}" if self.remind else text)

    def _marked(self, text: str, task: str) -> str:
        if self.gather:
            return gather(text, task)
        return mark(text, task) if self.mark else text

    def read(self, answer: str) -> str:
        """The first line; see `read_command`."""
        return read_command(answer)

    def write_blueprint(self, blueprint: Blueprint) -> str:
        """Bulleted lines."""
        return "\n".join(f"- {text}" for text in blueprint.texts())

    def write_command(self, command: str) -> str:
        """The command itself."""
        return command
