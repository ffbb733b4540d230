"""Inspect: the three benchmarks as evaluation tasks for any model that Inspect can ask.

Install: ``pip install himac inspect-ai``. Use, with the path of this file or of one's own that
imports from it::

    from himac_envs.adapters.inspect_ai import alfworld, sokoban, webshop

and then ``inspect eval mine.py@alfworld --model openai/gpt-5 -T split=valid_unseen -T count=50``.
Any other text environment: ``himac(env_id="module:Id-v0")``.

- Blueprint, sub-goals, ``<sub_done>``: with ``-T hierarchical=true`` the first answer is the
  blueprint, in the same conversation; ``<sub_done>`` begins the next sub-goal. The model role
  "planner" may be another model: ``--model-role planner=...``.
- Rewards: the scorer has ``success``, ``score`` (the benchmark's own, in [0, 1]), ``return`` (of
  the reward that ``-T reward=`` chooses), ``steps`` and ``invalid`` (answers that were no command),
  each with its mean, and its standard error for the first two.
- Admissible commands: below each observation with ``-T list_admissible=true``.
- Invalid text: thoughts, tags and quotes are taken off; what is still no command is answered as the
  benchmark does, and costs a step.
- Pictures: not shown; the conversation is text.
- Groups: ``--epochs 8`` plays each task eight times; a sample's id is its task's.
- Time limits: ``-T max_steps=``; Inspect's ``--message-limit``, ``--token-limit`` and
  ``--time-limit`` leave an episode earlier: it is scored as it stands.
- Many at once: as Inspect schedules its samples; each has an environment of its own.
- Closing: with the sample, also where it fails. An unknown task, split or environment is an error
  before the first sample.
"""

from __future__ import annotations

from typing import Any

from himac_envs.adapters.errors import MissingStackError
from himac_envs.adapters.rows import choose_tasks, instructions
from himac_envs.adapters.session import Session
from himac_envs.registry import find_env

try:
    from inspect_ai import Task, task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, get_model
    from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
    from inspect_ai.solver import Generate, Solver, TaskState, solver
except ImportError as error:
    raise MissingStackError("inspect_ai", "pip install himac inspect-ai", error) from error

#: Where a sample's store keeps how its episode stands.
KEY = "himac"


@solver
def play() -> Solver:
    """Play a sample's task, the model's answers in, the environment's texts out."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        about = state.metadata
        planner = get_model(role="planner")
        invalid = 0
        with Session(about["env_id"], **about["env_kwargs"]) as session:
            session.reset(about["task_id"])
            while True:
                # Written down each time: a limit of Inspect's may end the sample at any answer.
                state.store.set(KEY, {**session.summary(), "invalid": invalid})
                if session.done:
                    break
                state.messages.append(ChatMessageUser(content=session.text))
                planning = session.planning
                if planning:
                    state.output = await planner.generate(state.messages)
                    state.messages.append(state.output.message)
                else:
                    state = await generate(state)
                session.step(state.output.completion)
                invalid += session.invalid and not planning
            state.messages.append(ChatMessageUser(content=session.text))
        state.completed = True
        return state

    return solve


@scorer(
    metrics={
        "success": [mean(), stderr()],
        "score": [mean(), stderr()],
        "return": [mean()],
        "steps": [mean()],
        "invalid": [mean()],
    }
)
def episode() -> Scorer:
    """Score an episode by what the environment says of it."""

    async def score(state: TaskState, target: Target) -> Score:
        found = state.store.get(KEY)
        return Score(
            value={
                "success": float(found["won"]),
                "score": found["score"],
                "return": found["episode_return"],
                "steps": found["step"],
                "invalid": found["invalid"],
            },
            metadata={"truncated": found["truncated"]},
        )

    return score


@task
def himac(
    env_id: str,
    split: str = "test",
    count: int | None = None,
    seed: int = 0,
    **env_kwargs: Any,
) -> Task:
    """The tasks of an environment.

    Args:
        env_id: A registered id, or another name of `himac_envs.registry.find_id`.
        split: Of its tasks.
        count: How many, drawn without repetition; None: all, in their order.
        seed: Of the draw.
        **env_kwargs: For `Session` and the environment: ``data``, ``max_steps``, ``reward``,
            ``list_admissible`` and so on.
    """
    kwargs = {key: value for key, value in env_kwargs.items() if value is not None}
    kwargs["split"] = split
    with Session(env_id, **kwargs) as session:
        told = instructions(session.env_id, hierarchical=session.hierarchical)
    samples = [
        Sample(
            id=task_id,
            input=[ChatMessageSystem(content=told)],
            metadata={"env_id": env_id, "task_id": task_id, "env_kwargs": kwargs},
        )
        for task_id in choose_tasks(env_id, count=count, seed=seed, **kwargs)
    ]
    return Task(dataset=MemoryDataset(samples, name=env_id), solver=play(), scorer=episode())


def _benchmark(name: str, hierarchical: bool, **settings: Any) -> Task:
    return himac(find_env(name, flat=not hierarchical).id, **settings)


@task
def alfworld(
    split: str = "test",
    count: int | None = None,
    seed: int = 0,
    hierarchical: bool = False,
    data: str | None = None,
    max_steps: int | None = None,
    reward: str | None = None,
    list_admissible: bool = False,
) -> Task:
    """ALFWorld; see `himac`. The benchmark's own splits are valid_seen and valid_unseen."""
    return _benchmark("alfworld", **locals())


@task
def webshop(
    split: str = "test",
    count: int | None = None,
    seed: int = 0,
    hierarchical: bool = False,
    data: str | None = None,
    max_steps: int | None = None,
    reward: str | None = None,
    list_admissible: bool = False,
) -> Task:
    """WebShop; see `himac`."""
    return _benchmark("webshop", **locals())


@task
def sokoban(
    split: str = "test",
    count: int | None = None,
    seed: int = 0,
    hierarchical: bool = False,
    data: str | None = None,
    max_steps: int | None = None,
    reward: str | None = None,
    list_admissible: bool = False,
) -> Task:
    """Sokoban; see `himac`."""
    return _benchmark("sokoban", **locals())
