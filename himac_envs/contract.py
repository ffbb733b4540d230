"""What an environment owes to those who play it, and a look at whether one keeps to it.

Agents need less than a `TaskEnv` has: tasks with ids, observations with a text, an ``info`` with
the keys below. What is looked at here are one reset and the names of methods; everything else, such
as determinism and snapshots, is checked by `himac_envs.testing.check_task_env`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import gymnasium as gym

from himac_envs.errors import HiMACError

#: What ``info`` holds after each reset and step.
INFO: dict[str, type] = {
    "task_id": str,
    "goal": str,
    "admissible": list,
    "won": bool,
    "score": float,
    "invalid": bool,
    "step": int,
}

TextKind: TypeAlias = Literal["flat", "hierarchical"]
ExpertName: TypeAlias = Literal["oracle", "explorer"]


class ContractError(HiMACError, ValueError):
    """An environment lacks what playing it needs; the message says what."""


def kind_of(env: gym.Env[Any, Any], name: str) -> TextKind:
    """Return what an environment is, having looked at it: wrappers and one reset included.

    Args:
        env: The environment, as it will be played.
        name: What the message calls it.

    Raises:
        ContractError: It cannot be played; the message lists all that is missing.
    """
    missing: list[str] = []
    task_id = _first_task(env, missing)
    options = None if task_id is None else {"task_id": task_id}
    hierarchical = False
    try:
        observation, info = env.reset(seed=0, options=options)
    except TypeError as error:
        missing.append(f"reset(seed=None, options={{'task_id': ...}}) ({error})")
    else:
        hierarchical = isinstance(observation, Mapping) and "phase" in observation
        missing += _lacks(observation, info, hierarchical)
        if "task_id" in info and task_id not in (None, info["task_id"]):
            missing.append(
                "reset(options={'task_id': ...}) that plays that task "
                f"(asked for {task_id!r} it plays {info['task_id']!r})"
            )
    if missing:
        raise ContractError(
            f"{name} cannot be played here. It lacks: {'; '.join(missing)}. Subclass "
            "himac_envs.TaskEnv, which brings all of it, and run "
            "himac_envs.testing.check_task_env(env), which checks the rest"
        )
    return "hierarchical" if hierarchical else "flat"


def _first_task(env: gym.Env[Any, Any], missing: list[str]) -> str | None:
    """The first task's id; None where there is none, which is told of."""
    listed = getattr(env.unwrapped, "task_ids", None)
    if not callable(listed):
        missing.append("task_ids(split), the ids of a split's tasks")
        return None
    ids = listed(_split(env))
    if not len(ids):
        missing.append("tasks: task_ids(split) is empty")
        return None
    return str(ids[0])


def _split(env: gym.Env[Any, Any]) -> str:
    return str(getattr(env.unwrapped, "split", "train"))


def _lacks(observation: Any, info: Mapping[str, Any], hierarchical: bool) -> list[str]:
    """What an answer of `reset` lacks, in words."""
    found = []
    if not (isinstance(observation, Mapping) and "text" in observation):
        shown = type(observation).__name__
        found.append(f"an observation that is a dict with a 'text' (it is a {shown})")
    if hierarchical:
        lacks = [key for key in ("subgoal", "subgoal_index") if key not in observation]
        found += [f"observation[{key!r}] beside 'phase'" for key in lacks]
    keys = [repr(key) for key in INFO if key not in info]
    if keys:
        found.append(f"info with {', '.join(keys)}")
    return found


def expert_of(env: gym.Env[Any, Any], wanted: ExpertName, name: str) -> ExpertName:
    """Return which expert plays where ``wanted`` is asked for: "oracle" or "explorer".

    An environment that has no explorer is played by its oracle. One that has no oracle lacks the
    method, or the method raises NotImplementedError.

    Args:
        env: The environment.
        wanted: "oracle" or "explorer".
        name: What the message calls it.

    Raises:
        ContractError: The environment has neither.
    """
    task: Any = env.unwrapped
    task = getattr(task, "task", task)
    if wanted == "explorer" and callable(getattr(task, "explorer", None)):
        return "explorer"
    if has_oracle(env):
        return "oracle"
    raise ContractError(
        f"{name} has no {wanted}: its task has no method oracle(subgoal), which yields an expert's "
        "commands. Write it, or let others play: random, a trained agent, api"
    )


def has_oracle(env: gym.Env[Any, Any]) -> bool:
    """Return whether a task has an expert; on a hierarchy, one that also plans.

    Args:
        env: The environment; its first task is begun.
    """
    task: Any = env.unwrapped
    task = getattr(task, "task", task)
    plans = "phase" in getattr(env.observation_space, "spaces", {})
    if not callable(getattr(task, "oracle", None)):
        return False
    if plans and not callable(getattr(task, "oracle_blueprint", None)):
        return False
    env.reset(options={"task_id": task.task_ids(_split(env))[0]})
    try:
        next(iter(task.oracle()), None)
        if plans:
            task.oracle_blueprint()
    except NotImplementedError:
        return False
    return True
