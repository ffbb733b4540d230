"""What each level reads, and how its answer is understood.

The executor sees its segment only: the sub-goal and what happened since it began (the paper's
temporal mask). Two things carry over into a segment, because without them no sub-goal after the
first could be carried out: the scene as the first observation described it (in ALFWorld the
receptacles of the room), and the last observation of each sub-goal that has ended (which names what
the executor holds, and where it left what it held before). The task's instruction does not: what
the executor needs of it has to stand in the sub-goal.
"""

from __future__ import annotations

from himac_agents.prompts.chat import ChatPrompts
from himac_agents.prompts.compact import CompactPrompts
from himac_agents.prompts.protocol import Prompts
from himac_agents.prompts.reading import MAX_COMMAND, read_blueprint, read_command, visible
from himac_agents.prompts.scene import mark, scene
from himac_agents.prompts.verl_agent import VerlAgentPrompts
from himac_agents.prompts.wording import benchmark_of

__all__ = [
    "MAX_COMMAND",
    "ChatPrompts",
    "CompactPrompts",
    "Prompts",
    "VerlAgentPrompts",
    "benchmark_of",
    "mark",
    "read_blueprint",
    "read_command",
    "scene",
    "visible",
]
