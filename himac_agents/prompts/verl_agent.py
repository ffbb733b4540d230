"""verl-agent's protocol: one prompt a decision, a memory of two steps, `<think>` then `<action>`.

A prompt (`himac_envs.adapters.verl_agent.prompt`) has the task, how many steps were taken, the last
two observations with what was done, the present observation, the admissible commands, and the form
of the answer. Commands are read in lower case, and an answer without both pairs of tags is invalid,
as it is there. Differences that remain: an invalid answer costs a step in Sokoban (there it costs
only the penalty), and its last 30 characters are not tried as a command.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from himac_agents.policies.base import Message
from himac_agents.prompts.chat import ChatPrompts
from himac_envs.adapters.verl_agent.prompt import write_prompt
from himac_envs.answers import lines, tagged
from himac_envs.blueprint import SUB_DONE
from himac_envs.reading import ACTION, MAX_ANSWER, MAX_COMMAND, is_done, tidy
from himac_envs.thoughts import visible
from himac_envs.wording import offered, wording


@dataclass(frozen=True, slots=True)
class VerlAgentPrompts(ChatPrompts):
    """See the module's text. On a hierarchical environment: chat prompts that ask for thoughts."""

    #: (observation, command) pairs that a prompt shows.
    memory: ClassVar[int] = 2
    think: bool = True

    def play(self, first: str, goal: str, info: dict[str, Any] | None = None) -> list[Message]:
        """See `Prompts.play`: the prompt of the first decision."""
        return self.recall(first, goal, (), first, info or {"step": 0, "admissible": []})

    def recall(
        self,
        first: str,
        goal: str,
        past: Sequence[tuple[str, str]],
        text: str,
        info: dict[str, Any],
    ) -> list[Message]:
        """See `Prompts.recall`."""
        listed = [c for c in offered(info) if c != "help"] if self.list_admissible else []
        shown = [(self._past(seen), command) for seen, command in past[-self.memory :]]
        world, step = wording(self.benchmark).world, int(info["step"])
        said = write_prompt(world, self._goal(goal), shown, self._seen(text), listed, step)
        return [Message("user", said)]

    def read(self, answer: str, admissible: Collection[str] = ()) -> str:
        """The text between `<action>` tags after a thought, in lower case; "" where a tag lacks.

        The tags are read as everywhere (see `read_command`); nothing else is mended.
        """
        if not isinstance(answer, str):
            return ""
        answer = answer[:MAX_ANSWER]
        said = visible(answer)
        low = answer.lower()
        thought = 0 <= low.find("<think>") < low.find("</think>")
        inner = tagged(said, ACTION, closed=True) if thought else None
        # A hierarchy's executor ends a sub-goal without a command.
        if is_done(said if inner is None else inner):
            return SUB_DONE
        if inner is None or low.find("<action") < low.find("<think>"):
            return ""
        return "\n".join(map(tidy, lines(inner.lower())))[:MAX_COMMAND].rstrip()

    def write_command(self, command: str) -> str:
        """The command in `<action>` tags after an empty thought; `<sub_done>` stands alone."""
        return command if command == SUB_DONE else f"<think></think><action>{command}</action>"
