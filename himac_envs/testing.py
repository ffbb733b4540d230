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
from himac_envs.contract import INFO
from himac_envs.hierarchy import (
    ExecutorView,
    HierarchicalEnv,
    OptionView,
    OracleExecutor,
    OraclePlanner,
    PlannerView,
)
from himac_envs.task import Info, Observation, TaskEnv

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


class ConformanceError(AssertionError):
    """An environment breaks the contract; the message says which rule and how."""


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ConformanceError(message)


def check_info(info: Info, where: str) -> None:
    """Check that ``info`` holds every key of the contract with its type."""
    for key, kind in INFO.items():
        _need(key in info, f"{where}: info lacks {key!r}")
        _need(
            type(info[key]) is kind,
            f"{where}: info[{key!r}] is {type(info[key]).__name__}, not {kind.__name__}",
        )
    _need(0.0 <= info["score"] <= 1.0, f"{where}: info['score']={info['score']} is not in [0, 1]")
    _need(
        all(type(c) is str for c in info["admissible"]), f"{where}: admissible holds a non-string"
    )


def check_task_env(env: gym.Env[Any, Any], *, tasks: int = 3, seed: int = 0) -> None:
    """Check a flat environment, and the hierarchy over it, against the suite's contract.

    Gymnasium's own checker runs with warnings as errors; then the info contract, task ids,
    determinism, malformed actions, snapshots, pickling, state keys, the oracle, the oracle's
    blueprint played sub-goal by sub-goal, the three views and the bound on decisions.

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
    _need(len(ids) > 0, "task_ids() is empty")
    chosen = [ids[i] for i in np.random.default_rng(seed).integers(len(ids), size=tasks)]
    _check_determinism(task, seed)
    _check_malformed(task, chosen[0])
    _check_state(task, chosen[0])
    for task_id in chosen:
        for one in (task, HierarchicalEnv(task)):
            check_state_keys(one, task_id, seed)
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


def same(left: Any, right: Any) -> bool:
    """Return whether two answers are equal, arrays included."""
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return bool(np.array_equal(left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def _check_determinism(task: TaskEnv, seed: int) -> None:
    first = task.reset(seed=seed)
    check_info(first[1], "reset")
    _need(type(first[1].get("data")) is str, "reset: info['data'] must name the data set")
    again = task.reset(seed=seed)
    _need(same(first, again), "reset(seed) twice gives two different episodes")
    moves = np.random.default_rng(seed)
    for _ in range(20):
        offered = first[1]["admissible"]
        command = offered[int(moves.integers(len(offered)))] if offered else "look"
        _, reward, terminated, truncated, info = task.step(command)
        check_info(info, "step")
        _need(type(reward) is float, f"reward is {type(reward).__name__}, not float")
        _need(type(terminated) is bool and type(truncated) is bool, "flags must be Python bools")
        _need(not (terminated and truncated), "terminated and truncated are both true")
        if terminated or truncated:
            break
        first = (first[0], info)


def _check_malformed(task: TaskEnv, task_id: str) -> None:
    _, info = task.reset(options={"task_id": task_id})
    for n, action in enumerate(MALFORMED[: task.max_steps], 1):
        observation, _, _, _, info = task.step(action)
        _need(info["invalid"], f"the malformed action {str(action)[:20]!r} is not marked invalid")
        _need(info["step"] == n, f"the malformed action {str(action)[:20]!r} cost no step")
        _need(task.observation_space.contains(observation), "an observation is outside its space")


def _check_state(task: TaskEnv, task_id: str) -> None:
    task.reset(options={"task_id": task_id})
    plan = _moves(task, 4)
    for command in plan[:2]:
        task.step(command)
    state = task.snapshot()
    copies = [copy.deepcopy(task), pickle.loads(pickle.dumps(task))]
    tail = [task.step(c) for c in plan[2:]]
    task.restore(state)
    _need(same(tail, [task.step(c) for c in plan[2:]]), "restore(snapshot()) changes the episode")
    for other in copies:
        _need(same(tail, [other.step(c) for c in plan[2:]]), "a copy in mid-episode differs")


def check_state_keys(
    env: Any, task_id: str, seed: int = 0, *, walks: int = 3, steps: int = 16
) -> int:
    """Check that states of one key have one future, and that a state keeps its key.

    Random walks over a task (under a blueprint, on the hierarchy) note the states that they come
    to. Whenever one has the key of an earlier one, both are restored and told the same commands.

    Args:
        env: A `TaskEnv` or a `HierarchicalEnv`.
        task_id: The task.
        seed: Chooses the commands.
        walks: Episodes.
        steps: Decisions in each.

    Returns:
        How many pairs of states were compared.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    pairs = 0
    for _ in range(walks):
        _, info = env.reset(options={"task_id": task_id})
        goals = env.oracle_blueprint()
        if isinstance(env, HierarchicalEnv):
            *_, info = env.step(goals.render())
        for _ in range(steps):
            state, key = env.snapshot(), env.state_key()
            offered = info["admissible"] or ["look"]
            tail = [str(c) for c in rng.choice([*offered, "no such command"], 4)]
            if key in found:
                first, second = (_future(env, s, tail, goals) for s in (found[key], state))
                known = min(len(first), len(second))
                _need(
                    same(first[:known], second[:known]),
                    f"{task_id}: two states with the state_key() {key} answer {tail} differently",
                )
                pairs += 1
            found.setdefault(key, state)
            env.restore(state)
            _need(env.state_key() == key, f"{task_id}: restore(snapshot()) changes state_key()")
            *_, terminated, truncated, info = env.step(tail[0])
            if terminated or truncated:
                break
    same_key = pickle.loads(pickle.dumps(env)).state_key() == env.state_key()
    _need(same_key, f"{task_id}: a copy of a state has another state_key()")
    return pairs


def _future(env: Any, state: Any, commands: Sequence[str], goals: Blueprint) -> list[Any]:
    """What a restored state answers, as far as its key has to tell."""
    env.restore(state)
    told: list[Any] = []
    for command in commands:
        observation, reward, terminated, truncated, info = env.step(command)
        kept = {k: info[k] for k in INFO if k != "step"}
        kept |= {k: info[k] for k in ("blueprint_done",) if k in info}
        kept["option"] = {
            k: v for k, v in info.get("option", {}).items() if k not in ("steps", "reward")
        }
        if truncated:  # how many steps were left is not in the key
            break
        if terminated:
            told.append((reward, terminated, kept))
            break
        if kept["option"].get("reason") == "done":  # the last observation, shown again: it is past
            observation = {k: v for k, v in observation.items() if k not in ("text", "image")}
        told.append((observation, reward, kept, [env.achieved(g) for g in goals.texts()]))
    return told


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
            _need(info["won"], f"{task_id}: the oracle's episode ended without a win")
            return steps
        _need(not truncated, f"{task_id}: the oracle needs more than {task.max_steps} steps")
    raise ConformanceError(f"{task_id}: the oracle stopped after {steps} steps without a win")


def _check_blueprint(task: TaskEnv, task_id: str, steps: int) -> None:
    """The planner may be asked again in mid-episode: as long as the task is not won."""
    where = f"{task_id}, after {steps} steps"
    try:
        blueprint = task.oracle_blueprint()
    except ValueError as error:
        raise ConformanceError(f"{where}: oracle_blueprint() finds no sub-goal: {error}") from error
    _need(
        isinstance(blueprint, Blueprint) and len(blueprint) > 0,
        f"{where}: oracle_blueprint() is {blueprint!r}, not a Blueprint of what is left to do",
    )


def check_hierarchy(env: HierarchicalEnv, task_id: str) -> None:
    """Check that the oracle's blueprint, played sub-goal by sub-goal, wins and adds up."""
    observation, info = env.reset(options={"task_id": task_id})
    _need(info["admissible"] == [], "admissible must be [] in phase plan")
    options: list[dict[str, Any]] = []
    executor = OracleExecutor(env)
    action = env.oracle_blueprint().render()
    total, terminated, truncated = 0.0, False, False
    while not (terminated or truncated):
        observation, reward, terminated, truncated, info = env.step(action)
        _need(env.observation_space.contains(observation), "an observation is outside its space")
        check_info(info, "hierarchy")
        _need(info["admissible"][-1:] == [SUB_DONE], "<sub_done> must be admissible, and last")
        total += reward
        if "option" in info:
            options.append(info["option"])
        action = "" if terminated or truncated else executor(observation, info)
    _need(info["won"], f"{task_id}: the oracle's blueprint does not win")
    _need(sum(o["steps"] for o in options) == info["step"], f"{task_id}: options' steps differ")
    close = abs(sum(o["reward"] for o in options) - total) < 1e-9
    _need(close, f"{task_id}: the options' rewards do not sum to the return")


def _stubborn(word: str) -> Any:
    def act(observation: Observation, info: Info) -> str:
        return word

    return act


def check_views(env: HierarchicalEnv, task_id: str) -> None:
    """Check the views by Gymnasium's checker and the bound on an episode's decisions."""
    planner, executor = OraclePlanner(env), OracleExecutor(env)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for view in (
            PlannerView(env, executor),
            ExecutorView(env, planner),
            OptionView(env, executor),
        ):
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
