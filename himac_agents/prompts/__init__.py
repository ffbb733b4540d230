"""What each level reads, and how its answer is understood.

The executor sees its segment only: the sub-goal and what happened since it began (the paper's
temporal mask). Two things carry over into a segment, because without them no sub-goal after the
first could be carried out: the scene as the first observation described it (in ALFWorld the
receptacles of the room), and the last observation of each sub-goal that has ended (which names what
the executor holds, and where it left what it held before). The task's instruction does not: what
the executor needs of it has to stand in the sub-goal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from himac_agents.config import TrainConfig
from himac_agents.prompts.base import Prompts
from himac_agents.prompts.chat import ChatPrompts
from himac_agents.prompts.compact.style import CompactPrompts
from himac_agents.prompts.scene import mark, scene
from himac_agents.prompts.verl_agent import VerlAgentPrompts
from himac_agents.register import Register
from himac_envs.reading import MAX_COMMAND, finished, read_blueprint, read_command, visible
from himac_envs.registry import benchmark_of

__all__ = [
    "MAX_COMMAND",
    "STYLES",
    "About",
    "ChatPrompts",
    "CompactPrompts",
    "Prompts",
    "VerlAgentPrompts",
    "benchmark_of",
    "finished",
    "make",
    "make_prompts",
    "mark",
    "read_blueprint",
    "read_command",
    "register_prompts",
    "resolve",
    "scene",
    "visible",
]


@dataclass(frozen=True, slots=True)
class About:
    """What a style of prompts is made for.

    Attributes:
        env_id: The environment's id ("" where it is not known).
        benchmark: Whose words it speaks: "alfworld", "webshop", "sokoban", or "" for any other.
        think: Ask for reasoning in `<think>` tags (verl-agent's always does).
        pixels: The model sees pictures instead of the text that draws them.
        sub_done: The executor ends its sub-goals itself.
    """

    env_id: str = ""
    benchmark: str = ""
    think: bool = False
    pixels: bool = False
    sub_done: bool = True


#: The styles by name. "auto", which is none of them, is compact for tiny models and chat for all
#: others.
STYLES: Register[Callable[[About], Prompts]] = Register(
    "style of prompts",
    "himac.prompts",
    {
        "compact": lambda about: CompactPrompts(),
        "compact-gather": lambda about: CompactPrompts(gather=True),
        "chat": lambda about: ChatPrompts(
            benchmark=about.benchmark,
            think=about.think,
            pixels=about.pixels,
            sub_done=about.sub_done,
        ),
        "verl-agent": lambda about: VerlAgentPrompts(
            benchmark=about.benchmark, pixels=about.pixels
        ),
    },
)


def register_prompts(name: str, make: Callable[[About], Prompts], *, replace: bool = False) -> None:
    """Makes a style of prompts available by name: `prompt = NAME` in settings and commands.

    The same by a package's entry point: `[project.entry-points."himac.prompts"]`.

    Args:
        name: The style's name.
        make: Makes the style for an environment.
        replace: Take the place of a style that has the name.

    Raises:
        ValueError: The name is taken, or no word.
    """
    if name == "auto":
        raise ValueError('"auto" stands for compact or chat: choose another name')
    STYLES.add(name, make, replace=replace)


def resolve(style: str, *, tiny: bool = False) -> str:
    """The style that a name stands for: "auto" is compact for tiny models, chat for all others.

    Raises:
        ValueError: There is no such style.
    """
    if style == "auto":
        return "compact" if tiny else "chat"
    STYLES.find(style)
    return style


def make(
    style: str,
    env_id: str = "",
    *,
    tiny: bool = False,
    think: bool = False,
    pixels: bool = False,
    sub_done: bool = True,
) -> Prompts:
    """Prompts of a style ("auto": by `tiny`) for an environment; see `About` for the rest.

    Raises:
        ValueError: There is no such style.
    """
    about = About(env_id, benchmark_of(env_id), think, pixels, sub_done)
    return STYLES.find(resolve(style, tiny=tiny))(about)


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
