"""rLLM: a rollout that plays, an evaluator that scores, and an environment for its workflows.

Install: ``pip install "rllm @ git+https://github.com/rllm-org/rllm.git"``, and httpx. Use::

    import rllm
    from himac_envs.adapters.rllm import play, rows, score

    solver, evaluator = rllm.rollout(play), rllm.evaluator(score)
    train = rows("HiMAC-ALFWorld-v0", split="train", count=1_000)  # for rLLM's data set registry

and ``AgentTrainer(agent_flow=solver, evaluator=evaluator, ...)``, or `HiMACEnv` where rLLM asks for
an ``env_class``.

- Blueprint, sub-goals, ``<sub_done>``: on a hierarchical id the first answer is the blueprint, in
  the same conversation.
- Rewards: ``score`` gives the episode's return, of whatever reward the rows ask for, and whether
  the task was solved. `HiMACEnv` gives each step's.
- Admissible commands: below each observation with ``rows(..., list_admissible=True)``.
- Invalid text: thoughts, tags and quotes are taken off; what is still no command is answered as the
  benchmark does, and costs a step. How many there were is in the artifacts, as ``invalid``.
- After the end: `HiMACEnv.step` raises `EpisodeOverError`.
- Pictures: not shown.
- Groups: rLLM repeats a row; each row has its ``task_id``.
- Time limits: ``max_steps`` in the row's ``env_kwargs``.
- Many at once: each episode has an environment of its own; `HiMACEnv` may be used from threads.
- Closing: with the episode, also where it fails; ``HiMACEnv.close()``.

What was checked: ``play`` against an OpenAI-compatible server, which is what rLLM's gateway is, and
its answer and ``score``'s against what ``rllm.rollout`` and ``rllm.evaluator`` take, in the source
of rLLM's repository; `HiMACEnv` against the methods of its `BaseEnv`. rLLM itself was not run: it
is not published as a package, and its trainers need more than a CPU.
"""

from __future__ import annotations

from typing import Any

from himac_envs.adapters.errors import MissingStackError
from himac_envs.adapters.rows import choose_tasks, instructions
from himac_envs.adapters.session import Session
from himac_envs.registry import find_id

Row = dict[str, Any]


def rows(
    env_id: str, *, split: str = "train", count: int | None = None, seed: int = 0, **kwargs: Any
) -> list[Row]:
    """Return a data set's rows, plain values only.

    Args:
        env_id: The environment.
        split: Of its tasks.
        count: How many, drawn without repetition; None: all, in their order.
        seed: Of the draw.
        **kwargs: For the environment and its `Session`.
    """
    env_id = find_id(env_id)
    kwargs = {**kwargs, "split": split}
    ids = choose_tasks(env_id, count=count, seed=seed, **kwargs)
    return [{"env_id": env_id, "task_id": task_id, "env_kwargs": kwargs} for task_id in ids]


def _row(task: Any) -> Row:
    """The row of a task, in whichever of rLLM's forms it comes."""
    if isinstance(task, dict):
        return task
    found = getattr(task, "metadata", None) or getattr(task, "data", None)
    if not found:
        raise ValueError(
            f"a task without a row ({task!r}): himac_envs.adapters.rllm.rows makes them"
        )
    return dict(found)


async def play(task: Any, config: Any) -> dict[str, Any]:
    """Play a task with the model at ``config.base_url``; for ``rllm.rollout``.

    Args:
        task: rLLM's, or a row.
        config: rLLM's: ``base_url`` and ``model``.

    Returns:
        The episode's artifacts: ``answer``, ``return``, ``won``, ``score``, ``steps``, ``invalid``.

    Raises:
        UnknownTaskError: The data does not hold the row's task.
        httpx.HTTPStatusError: The model's address refuses.
    """
    try:
        import httpx
    except ImportError as error:
        raise MissingStackError("rllm", "pip install httpx", error) from error
    row = _row(task)
    invalid, answer = 0, ""
    with Session(row["env_id"], **row.get("env_kwargs", {})) as session:
        told = instructions(session.env_id, hierarchical=session.hierarchical)
        session.reset(row["task_id"])
        messages = [{"role": "system", "content": told}]
        async with httpx.AsyncClient(timeout=None) as client:
            while not session.done:
                messages.append({"role": "user", "content": session.text})
                found = await client.post(
                    f"{config.base_url.rstrip('/')}/chat/completions",
                    headers={"authorization": "Bearer EMPTY"},
                    json={"model": config.model, "messages": messages},
                )
                found.raise_for_status()
                answer = found.json()["choices"][0]["message"]["content"] or ""
                messages.append({"role": "assistant", "content": answer})
                planning = session.planning
                session.step(answer)
                invalid += session.invalid and not planning
        return {
            "answer": answer,
            "return": session.episode_return,
            "won": session.won,
            "score": session.score,
            "steps": int(session.info["step"]),
            "invalid": invalid,
        }


def score(task: Any, episode: Any) -> tuple[float, bool]:
    """Return an episode's return and whether its task was solved; for ``rllm.evaluator``."""
    found = episode.artifacts
    return float(found["return"]), bool(found["won"])


class HiMACEnv:
    """An environment for rLLM's workflows and its execution engine, as its `BaseEnv` has it.

    Args:
        row: One of `rows`.
    """

    idx: Any = None

    def __init__(self, row: Row) -> None:
        self._row = row
        self.session = Session(row["env_id"], **row.get("env_kwargs", {}))

    @staticmethod
    def from_dict(info: Row) -> HiMACEnv:
        """Return the environment of a row."""
        return HiMACEnv(info)

    @staticmethod
    def is_multithread_safe() -> bool:
        """Whether several may be used from several threads: they may."""
        return True

    def reset(self, task: Any = None) -> tuple[str, dict[str, Any]]:
        """Begin the row's episode, or another task's of the same environment."""
        if task is not None:
            self._row = {**self._row, **_row(task)}
        return self.session.reset(self._row["task_id"]), self.session.info

    def step(self, action: Any) -> tuple[str, float, bool, dict[str, Any]]:
        """Give one answer: a text, or rLLM's action around it.

        Raises:
            EpisodeOverError: The episode is over.
        """
        said = getattr(action, "action", action)
        self.session.step(said)
        return self.session.text, self.session.reward, self.session.done, self.session.info

    def close(self) -> None:
        """Close the environment."""
        self.session.close()
