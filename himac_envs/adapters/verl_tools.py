"""verl, the tool form: the environments as tools of its own tool agent.

Everything that is not said here is as in `himac_envs.adapters.verl`. Use, beside a data set of
`tool_rows`: a file ``tools.yaml`` for ``actor_rollout_ref.rollout.multi_turn.tool_config_path``::

    tools:
      - {class_name: himac_envs.adapters.verl_tools.Act, config: {type: native}}
      - {class_name: himac_envs.adapters.verl_tools.BlueprintTool, config: {type: native}}
      - {class_name: himac_envs.adapters.verl_tools.SubDone, config: {type: native}}

and for the rewards ``reward.custom_reward_function.path=pkg://himac_envs.adapters.verl_tools
reward.custom_reward_function.name=compute_score``. A flat id has the first tool only.

- The first observation stands in the row's prompt, since verl asks no tool before the model.
- Rewards: each call's is a tool reward; `compute_score` adds them up.
- After the end: a call raises, and verl tells the model ``Error executing tool``.
- The episode belongs to verl's record of the conversation, and goes when that goes.
- Long observations are cut at ``multi_turn.max_tool_response_length``: set it high.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from himac_envs.adapters.errors import MissingStackError, NoTaskError
from himac_envs.adapters.rows import Row, instructions
from himac_envs.adapters.session import Session
from himac_envs.adapters.verl import INSTALL, add_observation, open_session, rows
from himac_envs.registry import find_env

try:
    from verl.tools.base_tool import BaseTool
    from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse
except ImportError as error:
    raise MissingStackError("verl_tools", INSTALL, error) from error

_PLAN_HINT = "Call blueprint with your sub-goals, in order."
#: The episode of each conversation that is going on: tools are shared by all of them.
_SESSIONS: WeakKeyDictionary[Any, Session] = WeakKeyDictionary()


def session_of(conversation: Any) -> Session:
    """Return the episode of a conversation; its first call begins it.

    Args:
        conversation: verl's `AgentData`, whose ``tools_kwargs["himac"]`` is the row's task.

    Raises:
        NoTaskError: The row names none.
    """
    if conversation not in _SESSIONS:
        row = conversation.tools_kwargs.get("himac")
        if not row:
            raise NoTaskError("himac_envs.adapters.verl_tools.tool_rows")
        _SESSIONS[conversation] = open_session(row, plan_hint=_PLAN_HINT)
    return _SESSIONS[conversation]


class SessionTool(BaseTool, ABC):
    """What the three tools share. A call is never interrupted by another: it awaits nothing."""

    about: ClassVar[dict[str, Any]]

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        tool_schema: OpenAIFunctionToolSchema | None = None,
    ) -> None:
        super().__init__(dict(config or {}), tool_schema)

    def get_openai_tool_schema(self) -> OpenAIFunctionToolSchema:
        """Return what the model is told of the tool."""
        return OpenAIFunctionToolSchema.model_validate({"type": "function", "function": self.about})

    @abstractmethod
    def call(self, session: Session, parameters: Mapping[str, Any]) -> str:
        """Do what the tool does and return what is seen."""

    async def execute(
        self, instance_id: str, parameters: dict[str, Any], **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        """Carry out one call.

        Returns:
            What is seen, the reward, and the episode's plain values.

        Raises:
            EpisodeOverError: The episode is over; verl tells the model.
        """
        session = session_of(kwargs["agent_data"])
        told = parameters if isinstance(parameters, Mapping) else {}
        text = self.call(session, told)
        return ToolResponse(text=text), session.reward, session.summary()


class Act(SessionTool):
    """``act``: one command."""

    about: ClassVar[dict[str, Any]] = {
        "name": "act",
        "description": "Does one thing in the environment and tells what is seen then.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string", "description": "One command."}},
            "required": ["command"],
        },
    }

    def call(self, session: Session, parameters: Mapping[str, Any]) -> str:
        """Carry out the command."""
        return session.act(parameters.get("command"))


class BlueprintTool(SessionTool):
    """``blueprint``: the sub-goals, once, before anything else."""

    about: ClassVar[dict[str, Any]] = {
        "name": "blueprint",
        "description": "Writes the plan. It is called once, before anything else.",
        "parameters": {
            "type": "object",
            "properties": {
                "subgoals": {
                    "type": "array",
                    "description": "The sub-goals, in the order in which they are carried out.",
                }
            },
            "required": ["subgoals"],
        },
    }

    def call(self, session: Session, parameters: Mapping[str, Any]) -> str:
        """Write the blueprint."""
        return session.write_blueprint(parameters.get("subgoals"))


class SubDone(SessionTool):
    """``sub_done``: the current sub-goal is achieved."""

    about: ClassVar[dict[str, Any]] = {
        "name": "sub_done",
        "description": "Says that the current sub-goal is achieved, so that the next one begins.",
        "parameters": {"type": "object", "properties": {}, "required": []},
    }

    def call(self, session: Session, parameters: Mapping[str, Any]) -> str:
        """End the sub-goal."""
        return session.sub_done()


def compute_score(
    data_source: Any = None,
    solution_str: str = "",
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    **_: Any,
) -> float:
    """Return an episode's return: the sum of the rewards that its calls brought.

    Args:
        data_source: Not used, as `solution_str` and `ground_truth`: verl hands them on.
        solution_str: Not used.
        ground_truth: Not used.
        extra_info: verl's; ``tool_rewards`` is what the tools returned.
    """
    return float(sum((extra_info or {}).get("tool_rewards") or ()))


def tool_rows(env_id: str, **settings: Any) -> list[Row]:
    """Return rows of a verl data set for its tool agent; arguments as for `rows`.

    Each task is begun once, for the first observation.
    """
    found = rows(env_id, **settings)
    kwargs = {k: v for k, v in settings.items() if k not in ("split", "count", "seed")}
    hierarchical = find_env(env_id, **kwargs).hierarchical
    tools = ("act", "blueprint", "sub_done") if hierarchical else ("act",)
    words = instructions(env_id, hierarchical=hierarchical, tools=tools)
    made = []
    with Session(env_id, **{"plan_hint": _PLAN_HINT, **kwargs}) as session:
        for row in found:
            text = session.reset(row["task_id"])
            task = {key: row[key] for key in ("env_id", "env_kwargs", "task_id")}
            about = {**row["extra_info"], "tool_selection": list(tools), "need_tools_kwargs": True}
            made.append(
                {
                    **row,
                    "agent_name": "tool_agent",
                    "prompt": add_observation([{"role": "system", "content": words}], text),
                    "extra_info": {**about, "tools_kwargs": {"himac": task}},
                }
            )
    return made
