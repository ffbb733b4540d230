"""AgentGym (and AgentGym-RL): an environment client that needs no environment server.

Install: AgentGym's ``agentenv`` from its repository (the package of that name on PyPI is another).
Use::

    from agentenv.controller import BaseTask
    from himac_envs.adapters.agentgym import HiMACEnvClient

    class HiMACTask(BaseTask):
        env_client_cls = HiMACEnvClient
        env_name = "HiMAC"

    task = HiMACTask({"env_id": "HiMAC-ALFWorld-Flat-v0", "split": "train"})

- Blueprint, sub-goals, ``<sub_done>``: on a hierarchical id the first answer is the blueprint, in
  the same conversation.
- Rewards: ``StepOutput.reward`` is the benchmark's score so far: AgentGym takes an episode's last
  one for the episode's. The environment's own is ``client.session.reward``.
- Admissible commands: below each observation, as AgentGym's own clients have them.
- Invalid text: the command after "Action:" is read, or one in tags or quotes; what is no command is
  answered as the benchmark does, and costs a step.
- After the end: ``done`` again, with a text that says so.
- Pictures: not shown.
- Groups: ``reset(idx)`` is the split's task of this number: the same for all.
- Time limits: ``max_steps``, and AgentGym's ``max_rounds``.
- Many at once: one client each; they share their data.
- Closing: ``close()``.

What was checked: the methods and attributes that AgentGym's `BaseTask`, `Agent` and evaluators call
on a client, in the source of its repository. AgentGym itself was not run: it is not published as a
package, and its controller imports torch. The client is no subclass of its `BaseEnvClient`, which
none of them asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from himac_envs.adapters.rows import instructions
from himac_envs.adapters.session import Session

#: What stands before the command in ReAct's form, which AgentGym's models write.
ACTION = "Action:"


@dataclass
class StepOutput:
    """What AgentGym reads of a step."""

    state: str
    reward: float
    done: bool


class HiMACEnvClient:
    """One environment, as AgentGym's tasks and evaluators use a client.

    Args:
        env_id: A registered id, or another name of `himac_envs.registry.find_id`.
        split: Whose tasks are numbered.
        action_format: AgentGym's; "react" is the one that is read.
        **kwargs: For `Session` and the environment. AgentGym's ``env_server_base`` and ``data_len``
            may be among them, and mean nothing here.
    """

    def __init__(
        self, env_id: str, split: str = "train", action_format: str = "react", **kwargs: Any
    ) -> None:
        for unused in ("env_server_base", "data_len", "timeout"):
            kwargs.pop(unused, None)
        if action_format != "react":
            raise ValueError(f"action_format={action_format!r}: these tasks are played in 'react'")
        self.action_format = action_format
        self.session = Session(env_id, split=split, **{"list_admissible": True, **kwargs})
        self._ids = self.session.task_ids(split)
        told = instructions(self.session.env_id, hierarchical=self.session.hierarchical)
        self.conversation_start = (
            {"from": "human", "loss": None, "value": told},
            {"from": "gpt", "loss": False, "value": "OK."},
        )

    def __len__(self) -> int:
        return len(self._ids)

    def reset(self, idx: int) -> dict[str, Any]:
        """Begin the split's task of this number.

        Raises:
            IndexError: The split has no such task.
        """
        if not 0 <= idx < len(self._ids):
            raise IndexError(f"there is no task {idx}: the split has 0 to {len(self._ids) - 1}")
        return {"observation": self.session.reset(self._ids[idx])}

    def observe(self) -> str:
        """Return what is seen now."""
        return self.session.text

    def step(self, action: str) -> StepOutput:
        """Give one answer."""
        session = self.session
        if session.done:
            return StepOutput(
                "The episode is over: reset(idx) begins another.", session.score, True
            )
        said = action.removesuffix("</s>")
        session.step(said if session.planning else said.rpartition(ACTION)[2])
        return StepOutput(session.text, session.score, session.done)

    def close(self) -> dict[str, Any]:
        """Close the environment."""
        self.session.close()
        return {"closed": True}
