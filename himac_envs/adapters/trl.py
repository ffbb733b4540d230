"""TRL: the environments as tools of `GRPOTrainer`.

Install: ``pip install himac 'trl>=1.16' 'transformers>=5.2' jmespath`` (TRL reads tool calls with
jmespath).

Use::

    from trl import GRPOTrainer
    from himac_envs.adapters.trl import dataset, environment

    trainer = GRPOTrainer(
        model="Qwen/Qwen2.5-1.5B-Instruct",
        train_dataset=dataset("HiMAC-ALFWorld-v0", count=1_000),
        environment_factory=environment("HiMAC-ALFWorld-v0"),
    )
    trainer.train()

- Blueprint, sub-goals, ``<sub_done>``: on a hierarchical id the model has the tools ``blueprint``,
  ``act`` and ``sub_done``; on a flat one ``act`` alone. Each answer names the current sub-goal. A
  command before any blueprint plays on the task's goal as the only sub-goal.
- Rewards: ``get_reward`` is the episode's return so far, of whatever ``reward=`` the environment
  was made with; it is logged under the class's name. An episode that the model leaves keeps what it
  has earned. Further ``reward_funcs`` see the environments (``environments=``).
- Admissible commands: listed below each observation with ``list_admissible=True``.
- Invalid text: an invalid command is answered as the benchmark does and costs a step. A call that
  is no tool's, or broken JSON, is TRL's to answer; it costs no step.
- After the end: a call raises, and TRL tells the model ``{"error": "the episode is over..."}``.
- Pictures: not shown; TRL's tools return text here.
- Groups: each row of `dataset` has a ``task_id``, TRL repeats the row for all members, so that they
  share their task. A row without ``task_id`` (or ``seed``) is refused, since its group would not.
- Time limits: the environment's ``max_steps`` ends the episode. TRL ends the conversation at
  ``max_completion_length`` tokens or after ``max_tool_calling_iterations`` calls: give the latter
  at least as many as the session's ``max_decisions``.
- Many at once: TRL makes one environment a completion and resets it again and again; they share
  their data.
- Closing: TRL closes nothing, and there is nothing to close: no process, no file, no socket.

The classes need neither TRL nor torch; `dataset` needs ``datasets``.
"""

from __future__ import annotations

from typing import Any

from himac_envs.adapters.errors import MissingStackError, NoTaskError
from himac_envs.adapters.rows import choose_tasks, instructions
from himac_envs.adapters.session import Session
from himac_envs.registry import bare, find_env, find_id

INSTALL = "pip install 'trl>=1.16' 'transformers>=5.2' jmespath"
_PLAN_HINT = "Call blueprint with your sub-goals, in order."


class FlatEnvironment:
    """What TRL makes one of for each completion; its public methods are the model's tools.

    Args:
        env_id: A flat id.
        **kwargs: For `Session`.
    """

    def __init__(self, env_id: str, **kwargs: Any) -> None:
        self._session = Session(env_id, plan_hint=_PLAN_HINT, **kwargs)

    def reset(self, task_id: str | None = None, seed: int | None = None, **row: Any) -> str:
        """Begin the row's episode.

        Args:
            task_id: The row's task.
            seed: Draws the task, where the row names none.
            **row: The row's other columns.

        Raises:
            NoTaskError: The row has neither.
            UnknownTaskError: The data does not hold the task.
        """
        if task_id is None and seed is None:
            raise NoTaskError("himac_envs.adapters.trl.dataset")
        return self._session.reset(task_id, seed)

    def get_reward(self) -> float:
        """Return what the episode has earned."""
        return self._session.episode_return

    def act(self, command: str) -> str:
        """Does one thing in the environment and tells what is seen then.

        Args:
            command: One command.

        Returns:
            What is seen.
        """
        return self._session.act(command)


class HierarchicalEnvironment(FlatEnvironment):
    """The same for a hierarchical id: with the tools ``blueprint`` and ``sub_done``."""

    def blueprint(self, subgoals: list[str]) -> str:
        """Writes the plan. It is called once, before anything else.

        Args:
            subgoals: The sub-goals, in the order in which they are carried out.

        Returns:
            What is seen, and the first sub-goal.
        """
        return self._session.write_blueprint(subgoals)

    def sub_done(self) -> str:
        """Says that the current sub-goal is achieved, so that the next one begins.

        Returns:
            What is seen, and the next sub-goal.
        """
        return self._session.sub_done()


def environment(env_id: str, **kwargs: Any) -> type[FlatEnvironment]:
    """Return the class that `GRPOTrainer` takes as its ``environment_factory``.

    Args:
        env_id: A flat or a hierarchical id, or another name of `himac_envs.registry.find_id`.
        **kwargs: For `Session` and the environment: ``data``, ``max_steps``, ``reward``,
            ``list_admissible`` and so on.

    Raises:
        UnknownEnvError: There is no such environment.
        NotTextError: It is not played in text.
    """
    env_id = find_id(env_id)
    with Session(env_id, **kwargs) as session:
        base = HierarchicalEnvironment if session.hierarchical else FlatEnvironment

    class Environment(base):  # type: ignore[misc, valid-type]  # which of two is known here only
        def __init__(self) -> None:
            super().__init__(env_id, **kwargs)

    # TRL logs the reward under the class's name.
    Environment.__name__ = Environment.__qualname__ = bare(env_id)
    return Environment


def dataset(
    env_id: str, *, split: str = "train", count: int | None = None, seed: int = 0, **kwargs: Any
) -> Any:
    """Return a `datasets.Dataset` with one row a task: ``prompt`` and ``task_id``.

    TRL adds the first observation, with the task's instruction, to the prompt.

    Args:
        env_id: As for `environment`.
        split: Of the tasks.
        count: How many, drawn without repetition; None is all, in their order.
        seed: Of the draw.
        **kwargs: For the environment, ``data`` above all; as for `environment`.

    Raises:
        MissingStackError: ``datasets`` is not installed.
    """
    try:
        from datasets import Dataset
    except ImportError as error:
        raise MissingStackError("trl", INSTALL, error) from error
    hierarchical = find_env(env_id, **kwargs).hierarchical
    tools = ("blueprint", "act", "sub_done") if hierarchical else ("act",)
    words = instructions(env_id, hierarchical=hierarchical, tools=tools)
    prompt = [{"role": "system", "content": words}, {"role": "user", "content": ""}]
    ids = choose_tasks(env_id, split=split, count=count, seed=seed, **kwargs)
    return Dataset.from_list([{"prompt": prompt, "task_id": task_id} for task_id in ids])
