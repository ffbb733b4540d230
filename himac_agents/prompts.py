"""What each level reads, and how its answer is understood.

The executor sees its segment only: the sub-goal and what happened since it began (the paper's
temporal mask). Two things carry over into a segment, because without them no sub-goal after the
first could be carried out: the scene as the first observation described it (in ALFWorld the
receptacles of the room), and the last observation of each sub-goal that has ended (which names what
the executor holds, and where it left what it held before). The task's instruction does not: what
the executor needs of it has to stand in the sub-goal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from himac_agents.policy import Message
from himac_envs.blueprint import SUB_DONE, Blueprint

_THINK = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_ACTION = re.compile(r"<action>([^<]*)", re.IGNORECASE)
#: Characters of a model's answer that are read as one command.
MAX_COMMAND = 512


class Prompts(Protocol):
    """The words around an environment's words."""

    def plan(self, first: str, goal: str) -> list[Message]:
        """What the planner reads: the first observation and the task's instruction."""
        ...

    def segment(self, first: str, subgoal: str, endings: Sequence[str]) -> list[Message]:
        """What the executor reads when a sub-goal begins.

        Args:
            first: The episode's first observation.
            subgoal: The sub-goal.
            endings: The last observation of each sub-goal that has ended, in order.
        """
        ...

    def play(self, first: str, goal: str) -> list[Message]:
        """What a flat agent reads at the episode's start."""
        ...

    def observe(self, text: str, task: str, info: dict[str, Any]) -> Message:
        """What an agent reads after each of its commands.

        Args:
            text: The observation.
            task: What it is after: the sub-goal, or on a flat environment the instruction.
            info: The environment's.
        """
        ...

    def write_blueprint(self, blueprint: Blueprint) -> str:
        """A blueprint as this style's planner is to write it (for demonstrations)."""
        ...

    def write_command(self, command: str) -> str:
        """A command as this style's executor is to write it (for demonstrations)."""
        ...


def read_blueprint(answer: object, goal: str) -> Blueprint:
    """Understands a planner's answer. Total: never raises; see `Blueprint.parse`."""
    if isinstance(answer, str):
        answer = _THINK.sub(" ", answer[:65_536])
    return Blueprint.parse(answer, fallback=goal)


def read_command(answer: object) -> str:
    """Understands an executor's answer as one command line or `<sub_done>`. Total.

    Text in `<action>` tags is taken where there is any, otherwise the first line that is not
    empty; `<think>` blocks are dropped. What no environment understands costs a step there.
    """
    if not isinstance(answer, str):
        return ""
    answer = _THINK.sub(" ", answer[:65_536])
    if SUB_DONE in answer:
        return SUB_DONE
    tagged = _ACTION.search(answer)
    if tagged:
        answer = tagged.group(1)
    for line in answer.splitlines():
        # A lone surrogate cannot be encoded, and a NUL ends strings elsewhere.
        line = line.encode("utf-8", "replace").decode("utf-8").replace("\x00", " ").strip()
        if line:
            return line[:MAX_COMMAND]
    return ""


_ALFWORLD = re.compile(
    r"Looking quickly around you, you see (?P<scene>.*?)\.\s*Your task is to: (?P<goal>.*?)\.?\s*$",
    re.DOTALL,
)
_NUMBERED = re.compile(r"an? (\S+) (\d+)")
_NAME = re.compile(r"\b([a-z]{2,}) (\d+)\b")
_WORDS = re.compile(r"[a-z]{2,}")


def scene(first: str) -> str:
    """The first observation without its instruction, shortened where its form is known.

    ALFWorld lists every receptacle ("a cabinet 3, a cabinet 2, a cabinet 1, ..."); numbers of a
    kind run from 1 to the highest, so the highest says it all: "cabinet 3". Other texts stay.
    """
    known = _ALFWORLD.search(first)
    if known is None:
        return first
    highest: dict[str, int] = {}
    for kind, number in _NUMBERED.findall(known["scene"]):
        highest[kind] = max(highest.get(kind, 0), int(number))
    return " ".join(f"{kind} {number}" for kind, number in highest.items())


def mark(text: str, task: str) -> str:
    """`text` with a star behind each numbered name whose word stands in `task`."""
    wanted = set(_WORDS.findall(task))
    return _NAME.sub(lambda m: f"{m[0]} *" if m[1] in wanted else m[0], text)


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
    """

    remind: bool = False
    mark: bool = True

    def plan(self, first: str, goal: str) -> list[Message]:
        """See `Prompts.plan`."""
        return [Message("user", f"<plan> {scene(first)}\n{goal}")]

    def segment(self, first: str, subgoal: str, endings: Sequence[str]) -> list[Message]:
        """See `Prompts.segment`."""
        past = [self._marked(ending, subgoal) for ending in endings]
        return [Message("user", "\n".join([f"<act> {scene(first)}", *past, subgoal]))]

    def play(self, first: str, goal: str) -> list[Message]:
        """See `Prompts.play`."""
        return [Message("user", f"<play> {scene(first)}\n{goal}")]

    def observe(self, text: str, task: str, info: dict[str, Any]) -> Message:
        """See `Prompts.observe`."""
        text = self._marked(text, task)
        return Message("user", f"{text}\n{task}" if self.remind else text)

    def _marked(self, text: str, task: str) -> str:
        return mark(text, task) if self.mark else text

    def write_blueprint(self, blueprint: Blueprint) -> str:
        """Bulleted lines."""
        return "\n".join(f"- {text}" for text in blueprint.texts())

    def write_command(self, command: str) -> str:
        """The command itself."""
        return command


@dataclass(frozen=True, slots=True)
class ChatPrompts:
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
