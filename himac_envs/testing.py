"""Conformance checks for anyone's `TaskEnv`: ``check_task_env(env)`` raises on what it finds."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env

from himac_envs.blueprint import SUB_DONE, Blueprint
from himac_envs.conformance import ConformanceError, need, same
from himac_envs.contract import INFO, has_oracle
from himac_envs.hierarchy import (
    ExecutorView,
    HierarchicalEnv,
    OptionView,
    OracleExecutor,
    OraclePlanner,
    PlannerView,
)
from himac_envs.key_checks import check_state_keys
from himac_envs.task import Info, Observation, TaskEnv

__all__ = [
    "MALFORMED",
    "ConformanceError",
    "check_hierarchy",
    "check_info",
    "check_oracle",
    "check_state_keys",
    "check_task_env",
    "check_views",
    "same",
    "trace",
]

#: Commands that break careless parsers: each must be answered, cost a step and be invalid.
MALFORMED: tuple[Any, ...] = (
    "",
    " ",
    "\x00",
    "\ud800 lone surrogate",
    "xyzzy" * 4_000,
    "<action>look</action",
    SUB_DONE,
    "\n\n\n",
    "🙂" * 50,
    "[[[[((((",
    None,
    42,
    b"bytes",
    ["a", "list"],
)


def check_info(info: Info, where: str) -> None:
    """Check that ``info`` holds every key of the contract with its type."""
    for key, kind in INFO.items():
        need(key in info, f"{where}: info lacks {key!r}")
        need(
            type(info[key]) is kind,
            f"{where}: info[{key!r}] is {type(info[key]).__name__}, not {kind.__name__}",
        )
    need(0.0 <= info["score"] <= 1.0, f"{where}: info['score']={info['score']} is not in [0, 1]")
    need(all(type(c) is str for c in info["admissible"]), f"{where}: admissible holds a non-string")


def check_task_env(env: gym.Env[Any, Any], *, tasks: int = 3, seed: int = 0) -> None:
    """Check a flat environment, and the hierarchy over it, against the suite's contract.

    Gymnasium's own checker runs with warnings as errors; then the info contract, task ids,
    determinism, malformed actions, snapshots, pickling, state keys, the oracle, the oracle's
    blueprint played sub-goal by sub-goal, the three views and the bound on decisions. A task whose
    ``oracle`` or ``oracle_blueprint`` raises NotImplementedError has no expert: it is checked
    without one.

    Args:
        env: A `TaskEnv`, wrapped or not.
        tasks: How many tasks the oracle plays.
        seed: Chooses them.

    Raises:
        ConformanceError: The contract is broken.
        TypeError: ``env`` is no `TaskEnv`.
    """
    task = env.unwrapped
    if not isinstance(task, TaskEnv):
        raise TypeError(f"check_task_env needs a TaskEnv, not {type(task).__name__}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(task, skip_render_check=task.spec is None)
    ids = task.task_ids()
    need(len(ids) > 0, "task_ids() is empty")
    chosen = [ids[i] for i in np.random.default_rng(seed).integers(len(ids), size=tasks)]
    _check_determinism(task, seed)
    _check_malformed(task, chosen[0])
    _check_state(task, chosen[0])
    for task_id in chosen:
        for one in (task, HierarchicalEnv(task)):
            check_state_keys(one, task_id, seed)
    if has_oracle(HierarchicalEnv(task)):
        for task_id in chosen:
            check_oracle(task, task_id)
            check_hierarchy(HierarchicalEnv(task), task_id)
    check_views(HierarchicalEnv(task), chosen[0])


def trace(env: gym.Env[Any, Any], actions: Sequence[Any], task_id: str) -> list[Any]:
    """Return everything that an environment answers to a task and a list of actions."""
    observation, info = env.reset(options={"task_id": task_id})
    out: list[Any] = [(observation, info)]
    for action in actions:
        *rest, info = env.step(action)
        out.append((*rest, info))
        if rest[2] or rest[3]:
            break
    return out


def _check_determinism(task: TaskEnv, seed: int) -> None:
    first = task.reset(seed=seed)
    check_info(first[1], "reset")
    need(type(first[1].get("data")) is str, "reset: info['data'] must name the data set")
    again = task.reset(seed=seed)
    need(same(first, again), "reset(seed) twice gives two different episodes")
    moves = np.random.default_rng(seed)
    for _ in range(20):
        offered = first[1]["admissible"]
        command = offered[int(moves.integers(len(offered)))] if offered else "look"
        _, reward, terminated, truncated, info = task.step(command)
        check_info(info, "step")
        need(type(reward) is float, f"reward is {type(reward).__name__}, not float")
        need(type(terminated) is bool and type(truncated) is bool, "flags must be Python bools")
        need(not (terminated and truncated), "terminated and truncated are both true")
        if terminated or truncated:
            break
        first = (first[0], info)


def _check_malformed(task: TaskEnv, task_id: str) -> None:
    _, info = task.reset(options={"task_id": task_id})
    for n, action in enumerate(MALFORMED[: task.max_steps], 1):
        observation, _, _, _, info = task.step(action)
        need(info["invalid"], f"the malformed action {str(action)[:20]!r} is not marked invalid")
        need(info["step"] == n, f"the malformed action {str(action)[:20]!r} cost no step")
        need(task.observation_space.contains(observation), "an observation is outside its space")


def _check_state(task: TaskEnv, task_id: str) -> None:
    task.reset(options={"task_id": task_id})
    plan = _moves(task, 4)
    for command in plan[:2]:
        task.step(command)
    state = task.snapshot()
    copies = [copy.deepcopy(task), pickle.loads(pickle.dumps(task))]
    tail = [task.step(c) for c in plan[2:]]
    task.restore(state)
    need(same(tail, [task.step(c) for c in plan[2:]]), "restore(snapshot()) changes the episode")
    for other in copies:
        need(same(tail, [other.step(c) for c in plan[2:]]), "a copy in mid-episode differs")


def _moves(task: TaskEnv, n: int) -> list[str]:
    commands = list(task._admissible()) or ["look"]
    return [commands[i % len(commands)] for i in range(n)]


def check_oracle(task: TaskEnv, task_id: str) -> int:
    """Check that the oracle wins a task within ``max_steps``; return the steps that it took."""
    task.reset(options={"task_id": task_id})
    steps = 0
    for command in task.oracle():
        _check_blueprint(task, task_id, steps)
        _, _, terminated, truncated, info = task.step(command)
        steps += 1
        if terminated:
            need(info["won"], f"{task_id}: the oracle's episode ended without a win")
            return steps
        need(not truncated, f"{task_id}: the oracle needs more than {task.max_steps} steps")
    raise ConformanceError(f"{task_id}: the oracle stopped after {steps} steps without a win")


def _check_blueprint(task: TaskEnv, task_id: str, steps: int) -> None:
    """The planner may be asked again in mid-episode: as long as the task is not won."""
    where = f"{task_id}, after {steps} steps"
    try:
        blueprint = task.oracle_blueprint()
    except ValueError as error:
        raise ConformanceError(f"{where}: oracle_blueprint() finds no sub-goal: {error}") from error
    need(
        isinstance(blueprint, Blueprint) and len(blueprint) > 0,
        f"{where}: oracle_blueprint() is {blueprint!r}, not a Blueprint of what is left to do",
    )


def check_hierarchy(env: HierarchicalEnv, task_id: str) -> None:
    """Check that the oracle's blueprint, played sub-goal by sub-goal, wins and adds up."""
    observation, info = env.reset(options={"task_id": task_id})
    need(info["admissible"] == [], "admissible must be [] in phase plan")
    options: list[dict[str, Any]] = []
    executor = OracleExecutor(env)
    action = env.oracle_blueprint().render()
    total, terminated, truncated = 0.0, False, False
    while not (terminated or truncated):
        observation, reward, terminated, truncated, info = env.step(action)
        need(env.observation_space.contains(observation), "an observation is outside its space")
        check_info(info, "hierarchy")
        need(info["admissible"][-1:] == [SUB_DONE], "<sub_done> must be admissible, and last")
        total += reward
        if "option" in info:
            options.append(info["option"])
        action = "" if terminated or truncated else executor(observation, info)
    need(info["won"], f"{task_id}: the oracle's blueprint does not win")
    need(sum(o["steps"] for o in options) == info["step"], f"{task_id}: options' steps differ")
    close = abs(sum(o["reward"] for o in options) - total) < 1e-9
    need(close, f"{task_id}: the options' rewards do not sum to the return")


def _stubborn(word: str) -> Any:
    def act(observation: Observation, info: Info) -> str:
        return word

    return act


def check_views(env: HierarchicalEnv, task_id: str) -> None:
    """Check the views by Gymnasium's checker and the bound on an episode's decisions."""
    planner, executor = _stubborn("the task"), _stubborn(SUB_DONE)
    views: list[gym.Env[Any, Any]] = []
    if has_oracle(env):  # only an executor that wins can keep a planner's step from a truncation
        planner, executor = OraclePlanner(env), OracleExecutor(env)
        views.append(PlannerView(env, executor))
    views += ExecutorView(env, planner), OptionView(env, executor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for view in views:
            check_env(view, skip_render_check=True)
    for word in (SUB_DONE, "no such command"):
        everyone: tuple[gym.Env[Any, Any], ...] = (
            env,
            PlannerView(env, _stubborn(word)),
            ExecutorView(env, planner),
            OptionView(env, _stubborn(word)),
        )
        for one in everyone:
            _check_bound(one, env, task_id, word)


def _check_bound(view: gym.Env[Any, Any], env: HierarchicalEnv, task_id: str, word: str) -> None:
    bound = env.max_decisions
    view.reset(options={"task_id": task_id})
    for _ in range(bound):
        _, _, terminated, truncated, _ = view.step(word)
        if terminated or truncated:
            return
    name = type(view).__name__
    raise ConformanceError(f"{name}: more than {bound} decisions when told only {word!r}")
