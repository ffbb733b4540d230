"""The prompt of verl-agent's protocol: one a decision, with a memory of the last steps.

The fields and their order are those of verl-agent's prompts, the words are ours. The same protocol
is spoken by GiGPO, HGPO and HiPER.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import NamedTuple

from himac_envs.adapters.errors import MissingStackError

#: What a prompt ends with; the tags are those that the protocol reads.
ASK = (
    "Choose your action. First reason step by step about the situation between <think> and "
    "</think>. Then give exactly one admissible action between <action> and </action>."
)
ASK_BLUEPRINT = (
    "Write a plan. First reason step by step about the task between <think> and </think>. Then "
    "give your sub-goals between <blueprint> and </blueprint>, numbered, one a line."
)


def write_prompt(
    world: str,
    goal: str,
    past: Sequence[tuple[str, str]],
    text: str,
    commands: Sequence[str],
    step: int,
    *,
    subgoal: str = "",
    ask: str = ASK,
) -> str:
    """Return what a model reads before one decision.

    Args:
        world: Where the agent is, in words.
        goal: The task's instruction.
        past: The last observations with the command that followed each, the oldest first.
        text: The present observation.
        commands: The admissible commands; none are listed where it is empty.
        step: Steps taken so far.
        subgoal: The current sub-goal, where there is one.
        ask: What to answer.
    """
    said = [f"You are an agent in {world}. Task: {goal}"]
    if past:
        said.append(f"Steps taken so far: {step}. The last {len(past)}, with what you did:")
        said += remembered(past, step)
    said.append(f"This is step {step + 1}. Your observation is: {text}")
    if subgoal:
        said.append(f"Your current sub-goal is: {subgoal}")
    if commands:
        listed = ",\n".join(f"'{command}'" for command in commands)
        said.append(f"The admissible actions now are: [{listed}].")
    return "\n".join([*said, ask])


def remembered(past: Sequence[tuple[str, str]], step: int) -> list[str]:
    """Return one line for each step that is remembered; the last of them has the number `step`."""
    return [
        f"[Observation {number}: '{seen}', Action: '{command}']"
        for number, (seen, command) in enumerate(past, step - len(past) + 1)
    ]


class Templates(NamedTuple):
    """Prompts as `str.format` templates, in verl-agent's fields.

    ``task_description``, ``current_observation``, ``admissible_actions`` (in WebShop also
    ``available_actions``), ``step_count``, ``history_length``, ``action_history`` and
    ``current_step``.

    Attributes:
        first: Of the first prompt, and of all where nothing is remembered.
        later: Of the others.
    """

    first: str
    later: str


def family_templates(benchmark: str) -> Templates:
    """Return the templates of the verl-agent checkout that can be imported.

    Args:
        benchmark: "alfworld", "webshop" or "sokoban".

    Raises:
        MissingStackError: There is no checkout on the path.
    """
    try:
        found = importlib.import_module("agent_system.environments.prompts")
    except ImportError as error:
        where = "put a checkout of verl-agent on PYTHONPATH"
        raise MissingStackError("verl_agent", where, error) from error
    name = benchmark.upper()
    return Templates(getattr(found, f"{name}_TEMPLATE_NO_HIS"), getattr(found, f"{name}_TEMPLATE"))
