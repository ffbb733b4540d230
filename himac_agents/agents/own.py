"""Somebody's own agent, as plain code: a text and the admissible commands in, a command out."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

from himac_agents.agents.agent import Executor, HiMACAgent
from himac_agents.agents.conversation import Memory
from himac_agents.agents.expert import Expert
from himac_agents.policies.base import Completion, Role, Sampling
from himac_agents.prompts import ChatPrompts
from himac_envs.errors import HiMACError
from himac_envs.registry import import_named

#: One episode's agent: (text, admissible commands) -> command.
Act = Callable[[str, Sequence[str]], str]


#: What an agent is, in errors.
_AGENT = "an object with act(text, admissible), or a function of these two"


class NoAgentError(HiMACError, TypeError):
    """What was named as an agent is none, or does not answer with a command."""


class Own(Expert):
    """Stands in a policy's place and plays by somebody's code.

    Args:
        name: What it is called.
        make: Makes the agent of one episode: something with ``act(text, admissible)``, or a
            function of these two.
    """

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        super().__init__("random")
        self.name, self._make = name, make

    def answer(self, role: Role, memory: Memory) -> Completion:
        """What the agent does at this moment of an episode.

        Raises:
            NoAgentError: What was made is no agent, or its answer is no text.
        """
        act: Act | None = memory.expert.get(self)
        if act is None:
            made = self._make()
            act = memory.expert[self] = getattr(made, "act", made)
            if not callable(act):
                raise NoAgentError(f"{self.name} made {made!r}: make {_AGENT}")
            try:
                inspect.signature(act).bind(memory.text, [])
            except TypeError as error:
                raise NoAgentError(
                    f"{self.name} cannot be asked with a text and the admissible commands "
                    f"({error}): make {_AGENT}"
                ) from error
            except ValueError:  # something built in, which does not tell
                pass
        command = act(memory.text, list(memory.info["admissible"]))
        if not isinstance(command, str):
            raise NoAgentError(f"{self.name} answered {command!r}: a command must be a string")
        return Completion(command)


class _AsWritten(ChatPrompts):
    """Commands go to the environment as they are."""

    def read(self, answer: str, admissible: Collection[str] = ()) -> str:
        """The answer."""
        return answer


def is_own(name: str) -> bool:
    """Whether a name is that of somebody's own agent, "module:name"."""
    module, _, attribute = name.partition(":")
    return attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def own_agent(name: str) -> HiMACAgent:
    """The agent that "module:name" makes, for flat environments.

    Args:
        name: A module and a class, or a function without arguments, that makes the agent of an
            episode.

    Raises:
        ValueError: There is no such module or name, or it cannot be called without arguments.
    """
    module, _, attribute = name.partition(":")
    held = import_named(module, "agent", name)
    if not callable(make := getattr(held, attribute, None)):
        near = difflib.get_close_matches(attribute, vars(held), n=1)
        hint = f"; did you mean {module}:{near[0]}?" if near else ""
        raise ValueError(f"no agent {name!r}: {module} has no class or function of this name{hint}")
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise ValueError(
            f"{name} is called without arguments at the beginning of each episode, and makes the "
            f"agent that plays it: {_AGENT}"
        ) from error
    return HiMACAgent(None, Executor(Own(name, make), _AsWritten(), Sampling(0.0, 1), history=0))
