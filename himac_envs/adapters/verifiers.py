"""verifiers (and prime-rl): the tasks as a taskset, and how one or two agents play them.

Install: ``pip install himac verifiers`` (release 0.4). verifiers finds a taskset by the name of a
module that can be imported, so that the user's code is a module of one's own, ``himac_tasks.py``::

    from himac_envs.adapters.verifiers import ChatHarness, HiMACEnv, HiMACTaskset

    __all__ = ["ChatHarness", "HiMACEnv", "HiMACTaskset"]

and then ``vf-eval himac_tasks --env.taskset.env-id HiMAC-ALFWorld-Flat-v0 -r 8``, or the same names
in prime-rl's ``[env]``.

- Blueprint, sub-goals, ``<sub_done>``: on a hierarchical id the seat ``planner`` writes the
  blueprint, and the seat ``executor`` carries it out in a conversation of its own, ``<sub_done>``
  included. With ``--env.single True`` the executor writes the blueprint too, in one conversation.
  On a flat id the executor plays alone.
- Rewards: each trace gets ``return``, the episode's return, of whatever reward the environment was
  made with (``--env.taskset.env-kwargs '{"reward": "verl-agent"}'``), and the metrics ``success``,
  ``score``, ``steps`` and ``invalid`` (answers that were no command).
- Admissible commands: below each observation with ``env_kwargs={"list_admissible": True}``.
- Invalid text: thoughts, tags and quotes are taken off; what is still no command is answered as the
  benchmark does, and costs a step.
- Pictures: not shown; the conversation is text.
- Groups: all rollouts of a task (``-r 8``, a group of prime-rl) play its ``task_id``.
- Time limits: ``max_steps`` in ``env_kwargs`` ends an episode; a seat's ``max_turns`` leaves it,
  with what it has earned.
- Many at once: each episode has an environment of its own; they share their data.
- Closing: with the episode, also where it fails. An unknown task fails its episode, with the error
  in ``episode.errors``.

The seats talk through `ChatHarness`, which asks the model in this process: verifiers' own chat
harness starts a program for each answer. Any other harness that can be resumed will do as well.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from himac_envs.adapters.errors import MissingStackError
from himac_envs.adapters.rows import choose_tasks, instructions
from himac_envs.adapters.session import Session
from himac_envs.registry import benchmark_of, find_env
from himac_envs.wording import wording

try:
    import httpx
    import verifiers.v1 as vf
    from verifiers.v1.dialects.chat import message_to_wire
    from verifiers.v1.errors import MODEL_TRANSPORT_ERROR_EXIT_CODE
except ImportError as error:
    raise MissingStackError("verifiers", "pip install himac verifiers", error) from error

__all__ = ["ChatHarness", "HiMACEnv", "HiMACTaskset"]


# ---- tasks -------------------------------------------------------------------------------------
class HiMACConfig(vf.TasksetConfig):
    """Which tasks: ``--env.taskset.*``."""

    env_id: str = "HiMAC-ALFWorld-Flat-v0"
    """The environment."""
    split: str = "train"
    """Of its tasks."""
    count: int | None = None
    """How many, drawn without repetition; None: all, in their order."""
    seed: int = 0
    """Of the draw."""
    env_kwargs: dict[str, Any] = {}  # noqa: RUF012  # pydantic copies it
    """For the environment and its `Session`: data, max_steps, reward, list_admissible and so on."""


class HiMACData(vf.TaskData):
    """A task on the wire; the first observation is not in it, so that loading plays nothing."""

    env_id: str
    task_id: str
    env_kwargs: dict[str, Any]


class HiMACTask(vf.Task[HiMACData, vf.State, vf.TaskConfig]):
    """One task. Its episodes are scored by `HiMACEnv`, which has played them."""

    @property
    def key(self) -> str:
        """The same for the same task, whatever its place in a draw."""
        return f"{self.data.env_id}/{self.data.task_id}"


class HiMACTaskset(vf.Taskset[HiMACTask, HiMACConfig]):
    """The tasks of a split."""

    def load(self) -> Iterator[HiMACTask]:
        """Yield the tasks."""
        c = self.config
        kwargs = {**c.env_kwargs, "split": c.split}
        told = instructions(c.env_id, hierarchical=find_env(c.env_id, **_made(kwargs)).hierarchical)
        for task_id in choose_tasks(c.env_id, count=c.count, seed=c.seed, **kwargs):
            data = HiMACData(
                id=task_id,
                name=task_id,
                system_prompt=told,
                env_id=c.env_id,
                task_id=task_id,
                env_kwargs=kwargs,
            )
            yield HiMACTask(data, c.task)


def _made(kwargs: dict[str, Any]) -> dict[str, Any]:
    """What of a session's settings is the environment's."""
    own = ("verbatim", "list_admissible", "plan_hint")
    return {key: value for key, value in kwargs.items() if key not in own}


# ---- agents ------------------------------------------------------------------------------------
#: Nothing that a model writes is run, so that its box is a folder of this machine.
_HERE = vf.AgentConfig(runtime=vf.SubprocessConfig())


class HiMACEnvConfig(vf.EnvConfig):
    """The seats and how they are used: ``--env.*``."""

    planner: vf.AgentConfig = _HERE
    """Writes blueprints. It has nothing to do on a flat id, and with `single`."""
    executor: vf.AgentConfig = _HERE
    """Acts."""
    single: bool = False
    """The executor writes the blueprint too."""


class HiMACEnv(vf.Env[HiMACEnvConfig]):
    """An episode: the seats talk, the environment answers."""

    async def run(self, task: HiMACTask, agents: Any) -> None:
        """Play the task."""
        with Session(task.data.env_id, **task.data.env_kwargs) as session:
            session.reset(task.data.task_id)
            if session.hierarchical and not self.config.single:
                traces = await _play_both(session, task, agents)
            else:
                traces = await _play_alone(session, task, agents.executor)
            for trace, invalid in traces:
                trace.record_reward("return", session.episode_return)
                trace.record_metrics(
                    {
                        "success": float(session.won),
                        "score": session.score,
                        "steps": float(session.info["step"]),
                        "invalid": float(invalid),
                    }
                )


async def _play_alone(session: Session, task: HiMACTask, agent: Any) -> list[tuple[Any, int]]:
    """One conversation; return its trace and how many answers were no command."""
    invalid = 0
    async with agent.interaction(task) as talk:
        segment = await talk.turn(session.text)
        while not segment.terminated:
            session.step(segment.last_reply)
            invalid += session.invalid
            if session.done:
                break
            segment = await talk.turn(session.text)
    return [(talk.trace, invalid)]


async def _play_both(session: Session, task: HiMACTask, agents: Any) -> list[tuple[Any, int]]:
    """Two conversations, each with its own side of the episode; return both as above."""
    words = wording(benchmark_of(session.env_id))
    plans = task.with_system_prompt(
        f"You are in {words.world}. You plan and another acts. Answer with a blueprint: sub-goals "
        f"for the task, numbered, one a line. {words.subgoals}"
    )
    acts = task.with_system_prompt(
        f"You are in {words.world}. A command is {words.commands}. Carry out the current sub-goal, "
        "one command an answer, between <action> and </action>. Answer <sub_done> when it is "
        "achieved: the next one begins."
    )
    invalid = 0
    async with (
        agents.planner.interaction(plans) as planner,
        agents.executor.interaction(acts) as executor,
    ):
        while not session.done:
            planning = session.planning
            segment = await (planner if planning else executor).turn(session.text)
            if segment.terminated:
                break
            session.step(segment.last_reply)
            invalid += session.invalid and not planning
    return [(planner.trace, 0), (executor.trace, invalid)]


@lru_cache(maxsize=1)
def _trusted() -> ssl.SSLContext:
    """Whom to trust: reading that anew for each answer takes longer than many an answer."""
    return ssl.create_default_context()


class ChatHarness(vf.Harness[vf.HarnessConfig]):
    """Asks the model once a turn, from this process; no program is started, no tool offered."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Send the conversation to verifiers' interception, which asks the model and records it."""
        system, prompt = self.resolve_prompt(data)
        messages = [] if system is None else [{"role": "system", "content": system}]
        if isinstance(prompt, str):
            messages.append({"role": "user", "content": prompt})
        else:
            messages += [message_to_wire(message) for message in prompt or ()]
        try:
            # How long an answer may take is the seat's time-out.
            async with httpx.AsyncClient(timeout=None, verify=_trusted()) as client:
                answer = await client.post(
                    f"{endpoint}/chat/completions",
                    headers={"authorization": f"Bearer {secret}"},
                    json={"model": ctx.model, "messages": messages},
                )
        except httpx.TransportError as error:
            return vf.ProgramResult(MODEL_TRANSPORT_ERROR_EXIT_CODE, "", str(error))
        return vf.ProgramResult(0 if answer.is_success else 1, "", answer.text)
