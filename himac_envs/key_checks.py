"""Whether states of one key have one future: what `check_task_env` asks of ``state_key``.

Wrong keys show where a task is well under way: where something was heated, placed or bought. Drawn
commands seldom get there, so the expert leads, where there is one.
"""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from himac_envs.blueprint import SUB_DONE, Blueprint
from himac_envs.conformance import need, same
from himac_envs.contract import INFO
from himac_envs.hierarchy import PLAN, HierarchicalEnv

T = TypeVar("T")

#: What an expert raises that is not there, or knows no way from here.
NO_EXPERT = (NotImplementedError, ValueError)
#: How often a walk does what the expert says, and what is drawn then is ``<sub_done>``.
_LED, _HASTY = 0.6, 0.5
#: So many drawn commands are told to two states of one key.
_TAIL = 4
#: So many of the expert's commands, while a key is that of few pairs: planning takes its time.
_LEAD, _FEW = 10, 2
_WORD = re.compile(r"\w*")


def check_state_keys(
    env: Any, task_id: str, seed: int = 0, *, walks: int = 3, steps: int = 16
) -> int:
    """Check that states of one key have one future, and that a state keeps its key.

    The expert's way through a task is taken (on the hierarchy: under its blueprint, and under a
    part of it), and walks leave it here and there, partly led by the expert. Whenever a state has
    the key of an earlier one, both are asked what is admissible and achieved, and both are told the
    same commands: drawn ones, and the expert's from either of them. Where there is no expert, all
    commands are drawn.

    Args:
        env: A `TaskEnv` or a `HierarchicalEnv`.
        task_id: The task.
        seed: Chooses the commands.
        walks: How many walks.
        steps: Decisions in each.

    Returns:
        How many pairs of states were compared.

    Raises:
        ConformanceError: Two states of one key differ, or one state has two keys.
    """
    rng = np.random.default_rng(seed)
    _, info = env.reset(options={"task_id": task_id})
    try:
        goals = env.oracle_blueprint().texts()
    except NO_EXPERT:
        goals = []
    goals = goals or Blueprint.of([str(info["goal"])]).texts()
    search = _Search(env, task_id, goals, rng)
    blueprints = [Blueprint.of(goals)]
    if isinstance(env, HierarchicalEnv):  # a short one is soon at its end
        first = int(rng.integers(len(goals)))
        blueprints.append(Blueprint.of(goals[first : first + int(rng.integers(1, 3))]))
    ways = [search.way(blueprint) for blueprint in blueprints]
    for n in range(walks):
        way = ways[n % len(ways)]
        search.walk(way, way[0] if n < len(ways) else _any(rng, way), steps)
    same_key = pickle.loads(pickle.dumps(env)).state_key() == env.state_key()
    need(same_key, f"{task_id}: a copy of a state has another state_key()")
    return search.pairs.total()


@dataclass(slots=True)
class _Search:
    """States of a task, by key.

    Attributes:
        env: Where.
        task_id: The task.
        goals: Sub-goals that may be achieved.
        rng: Draws.
        found: The first state of each key.
        pairs: How many others were compared with it.
    """

    env: Any
    task_id: str
    goals: Sequence[str]
    rng: np.random.Generator
    found: dict[str, Any] = field(default_factory=dict)
    pairs: Counter[str] = field(default_factory=Counter)

    def way(self, blueprint: Blueprint) -> list[Any]:
        """The states on the expert's way from the start, the last decision's left out."""
        env = self.env
        env.reset(options={"task_id": self.task_id})
        if isinstance(env, HierarchicalEnv):
            env.step(blueprint.render())
        states = [self._visit()]
        for command in led(env):
            *_, terminated, truncated, _ = env.step(command)
            if terminated or truncated:
                break
            states.append(self._visit())
        return states

    def walk(self, way: Sequence[Any], state: Any, steps: int) -> None:
        """Go on from a state, now as the expert says and now as is drawn.

        Args:
            way: States to go on from where an episode has ended.
            state: The first.
            steps: Decisions.
        """
        env = self.env
        env.restore(state)
        for _ in range(steps):
            self._visit()
            *_, terminated, truncated, _ = env.step(self._next())
            if terminated or truncated:
                env.restore(_any(self.rng, way))

    def _next(self) -> str:
        command = next(led(self.env), None) if self.rng.random() < _LED else None
        if command is not None:
            return command
        offered = _offered(self.env)
        if offered[-1:] == [SUB_DONE] and self.rng.random() < _HASTY:
            return SUB_DONE
        return self._drawn(offered)

    def _drawn(self, offered: Sequence[str]) -> str:
        """A command, each first word equally likely: few go to a fridge, but many to a place."""
        kinds: dict[str, list[str]] = {}
        for command in (*offered, "no such command"):
            kinds.setdefault(_WORD.match(command)[0], []).append(command)  # type: ignore[index]
        return _any(self.rng, _any(self.rng, [*kinds.values()]))

    def _visit(self) -> Any:
        """Note the present state, and compare it with the first one of its key."""
        env = self.env
        state, key = env.snapshot(), env.state_key()
        first = self.found.setdefault(key, state)
        if first is not state:
            self.pairs[key] += 1
            self._compare(first, state, key)
        env.restore(state)
        need(env.state_key() == key, f"{self.task_id}: restore(snapshot()) changes state_key()")
        return state

    def _compare(self, first: Any, second: Any, key: str) -> None:
        where = f"{self.task_id}: two states with the state_key() {key}"
        now, other = (_now(self.env, state, self.goals) for state in (first, second))
        for what, value in now.items():
            need(same(value, other[what]), f"{where} differ in {what}")
        offered = _offered(self.env)
        told = [tuple(self._drawn(offered) for _ in range(_TAIL))]
        if self.pairs[key] <= _FEW:
            told += [self._plan(state) for state in (first, second)]
        for commands in dict.fromkeys(told):
            answers, others = (self._answers(state, commands) for state in (first, second))
            known = min(len(answers), len(others))
            need(
                same(answers[:known], others[:known]),
                f"{where} answer {list(commands)} differently",
            )

    def _plan(self, state: Any) -> tuple[str, ...]:
        """The expert's next decisions from a state on."""
        self.env.restore(state)
        commands = []
        for command in islice(led(self.env), _LEAD):
            commands.append(command)
            *_, terminated, truncated, _ = self.env.step(command)
            if terminated or truncated:
                break
        return tuple(commands)

    def _answers(self, state: Any, commands: Sequence[str]) -> list[Any]:
        """What a restored state answers, as far as its key has to tell."""
        env = self.env
        env.restore(state)
        told: list[Any] = []
        for command in commands:
            before = _steps(env)
            observation, reward, terminated, truncated, info = env.step(command)
            if truncated:  # how many steps were left is not in the key
                return told
            kept = {k: info[k] for k in (*INFO, "blueprint_done") if k in info and k != "step"}
            option = info.get("option", {})
            kept["option"] = {k: v for k, v in option.items() if k not in ("steps", "reward")}
            if terminated:
                return [*told, (reward, terminated, kept)]
            if _steps(env) == before:
                # The task did not move, and its last answer is shown again: it is past.
                observation = {k: v for k, v in observation.items() if k not in ("text", "image")}
                kept = {k: v for k, v in kept.items() if k not in ("won", "score")}
            told.append((observation, reward, kept))
        return [*told, [env.achieved(goal) for goal in self.goals]]


def _any(rng: np.random.Generator, values: Sequence[T]) -> T:
    return values[int(rng.integers(len(values)))]


def led(env: Any) -> Iterator[str]:
    """The expert's decisions from here on; none where there is no expert, or it knows no way.

    Each is asked for when the one before has been carried out.
    """
    try:
        if isinstance(env, HierarchicalEnv):
            yield from _led_by_goals(env)
        else:
            yield from env.oracle()
    except NO_EXPERT:
        return


def _led_by_goals(env: HierarchicalEnv) -> Iterator[str]:
    while True:
        if env.phase == PLAN:
            yield env.oracle_blueprint().render()
            continue
        begun = env.options_begun
        for command in _led_in_goal(env):
            yield command
            if env.phase == PLAN or env.options_begun != begun:
                break
        else:
            return


def _led_in_goal(env: HierarchicalEnv) -> Iterator[str]:
    if not env.blueprint_done and not env.achieved(env.subgoal):
        yield from env.oracle(env.subgoal)
    if env.sub_done and not env.blueprint_done:
        yield SUB_DONE
    else:  # no word ends this sub-goal: the task goes on under it
        yield from env.oracle()


def _now(env: Any, state: Any, goals: Sequence[str]) -> dict[str, Any]:
    """What a restored state says of itself before any command, as far as its key has to tell."""
    env.restore(state)
    told = {"what is admissible": _offered(env), "what is achieved": [*map(env.achieved, goals)]}
    if isinstance(env, HierarchicalEnv):
        place = (env.phase, env.subgoal, env.subgoal_index, env.blueprint_done)
        told["the place in the blueprint"] = list(place)
    return told


def _offered(env: Any) -> list[str]:
    if isinstance(env, HierarchicalEnv):
        return env._offer(env.task._admissible())
    return list(env._admissible())


def _steps(env: Any) -> int:
    return int((env.task if isinstance(env, HierarchicalEnv) else env)._steps)
