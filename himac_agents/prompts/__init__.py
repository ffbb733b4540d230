"""What each level reads, and how its answer is understood.

The executor sees its segment only: the sub-goal and what happened since it began (the paper's
temporal mask). Two things carry over into a segment, because without them no sub-goal after the
first could be carried out: the scene as the first observation described it (in ALFWorld the
receptacles of the room), and the last observation of each sub-goal that has ended (which names what
the executor holds, and where it left what it held before). The task's instruction does not: what
the executor needs of it has to stand in the sub-goal.
"""

from __future__ import annotations

from typing import Literal

from himac_agents.config import TrainConfig
from himac_agents.prompts.base import Prompts
from himac_agents.prompts.chat import ChatPrompts
from himac_agents.prompts.compact.style import CompactPrompts
from himac_agents.prompts.parsing import MAX_COMMAND, read_blueprint, read_command, visible
from himac_agents.prompts.scene import mark, scene
from himac_agents.prompts.verl_agent import VerlAgentPrompts
from himac_agents.prompts.wording import benchmark_of

__all__ = [
    "MAX_COMMAND",
    "STYLES",
    "ChatPrompts",
    "CompactPrompts",
    "Prompts",
    "Style",
    "VerlAgentPrompts",
    "benchmark_of",
    "make",
    "mark",
    "read_blueprint",
    "read_command",
    "resolve",
    "scene",
    "visible",
]

#: The styles by name; "auto" is compact for tiny models and chat for all others.
Style = Literal["auto", "compact", "compact-gather", "chat", "verl-agent"]
STYLES: tuple[str, ...] = ("auto", "compact", "compact-gather", "chat", "verl-agent")


def resolve(style: str, *, tiny: bool = False) -> str:
    """The style that a name stands for: "auto" is compact for tiny models, chat for all others.

    Raises:
        ValueError: There is no such style.
    """
    if style not in STYLES:
        raise ValueError(f"prompt={style!r}: choose one of {', '.join(STYLES)}")
    return ("compact" if tiny else "chat") if style == "auto" else style


def make(
    style: str,
    env_id: str = "",
    *,
    tiny: bool = False,
    think: bool = False,
    pixels: bool = False,
    sub_done: bool = True,
) -> Prompts:
    """Prompts of a style for an environment.

    Args:
        style: One of `STYLES`.
        env_id: A registered id, for the environment's own wording.
        tiny: What "auto" stands for.
        think: Ask for reasoning in `<think>` tags (verl-agent's always does).
        pixels: The model sees pictures instead of the text that draws them.
        sub_done: The executor ends its sub-goals itself.

    Raises:
        ValueError: There is no such style.
    """
    style = resolve(style, tiny=tiny)
    if style == "compact-gather":
        return CompactPrompts(gather=True)
    if style == "compact":
        return CompactPrompts()
    benchmark = benchmark_of(env_id)
    if style == "verl-agent":
        return VerlAgentPrompts(benchmark=benchmark, pixels=pixels)
    return ChatPrompts(benchmark=benchmark, think=think, pixels=pixels, sub_done=sub_done)


def make_prompts(config: TrainConfig, *, sub_done: bool = True) -> Prompts:
    """The style of prompts that a run's model reads."""
    return make(
        config.prompt,
        config.env or config.flat_env,
        tiny=config.policy == "tiny",
        think=config.think,
        pixels=bool(config.env_kwargs.get("image")),
        sub_done=sub_done,
    )
