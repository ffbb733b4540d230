"""Your own task behind the same hierarchy: subclass TaskEnv, check it, and register it.

The rules: a counter starts at 0; "up" and "down" change it; reach the goal's number.

Once registered it is like any other: `himac play own_env:Counter-v0`, and eval, demos and
`himac train --env own_env:Counter-v0`. A package of yours is found without "own_env:" where its
pyproject.toml names the module: [project.entry-points."himac.envs"] counter = "own_env"
"""

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym

from himac_envs import Blueprint, HierarchicalEnv, OracleExecutor, Outcome, PlannerView, TaskEnv
from himac_envs.errors import UnknownSplitError, UnknownTaskError
from himac_envs.testing import check_task_env


class CounterEnv(TaskEnv):
    """Count to a number. Every other one is for training."""

    data_name = "counter"

    def task_ids(self, split: str | None = None) -> Sequence[str]:
        numbers = {"train": range(2, 41, 2), "valid": range(3, 41, 4), "test": range(5, 41, 4)}
        split = split or self.split
        if split not in numbers:
            counts = {k: len(v) for k, v in numbers.items()}
            raise UnknownSplitError(split, counts, "the counter")
        return [f"count:{n}" for n in numbers[split]]

    def _start(self, task_id: str) -> Outcome:
        if not task_id.startswith("count:") or not task_id[6:].isdigit():
            raise UnknownTaskError(task_id, self.task_ids(), "the counter")
        self.target, self.value = int(task_id[6:]), 0
        return Outcome(f"The counter shows 0. {self._goal()}.")

    def _act(self, command: str) -> Outcome:
        change = {"up": 1, "down": -1}.get(command)
        self.value += change or 0
        won = self.value == self.target
        text = f"The counter shows {self.value}."
        return Outcome(
            text,
            reward=float(won),
            terminated=won,
            won=won,
            score=float(won),
            invalid=change is None,
        )

    @property
    def task_type(self) -> str:
        """The kind of the task: tables then tell small numbers from large ones."""
        return "small" if self.target < 20 else "large"

    def _admissible(self) -> list[str]:
        return ["down", "up"]

    def _goal(self) -> str:
        return f"count to {self.target}"

    def _save(self) -> Any:
        return self.value

    def _load(self, state: Any) -> None:
        self.value = state

    def oracle(self, subgoal: str | None = None) -> Iterator[str]:
        number = self.target if subgoal is None else self._number(subgoal)
        if number is None:
            raise ValueError(f"not understood: {subgoal!r}")
        while self.value != number:
            yield "up" if self.value < number else "down"

    def oracle_blueprint(self) -> Blueprint:
        return Blueprint.of([f"reach {self.target // 2}", f"reach {self.target}"])

    def achieved(self, subgoal: str) -> bool | None:
        number = self._number(subgoal)
        return None if number is None else self.value == number

    def _number(self, subgoal: str) -> int | None:
        word = subgoal.removeprefix("reach ")
        return int(word) if word.isdigit() else None


OVER = "himac_envs.hierarchy:make_hierarchical"
gym.register("Counter-v0", OVER, kwargs={"task": "own_env:CounterEnv"})
gym.register("Counter-Flat-v0", "own_env:CounterEnv")

if __name__ == "__main__":
    check_task_env(CounterEnv())
    env = HierarchicalEnv(CounterEnv())
    view = PlannerView(env, OracleExecutor(env))
    view.reset(seed=0)
    _, reward, *_, info = view.step("1. reach 1\n2. " + f"reach {env.task_id[6:]}")
    print(f"reward {reward}, options {[o['steps'] for o in info['options']]}")
