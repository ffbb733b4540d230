"""An environment, an advantage, a style of prompts and a kind of policy of one's own, trained.

    python examples/own_method.py [FOLDER]

The same from the command line, in this file's folder: the environment's name brings the module,
and with it all that is registered here.

    himac train --env own_method:Count-v0 --method centred --prompt terse --policy narrow ...
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym

from himac_agents import TrainConfig, Trainer, register_method, register_policy, register_prompts
from himac_agents.algorithms.advantages import group_relative
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.prompts import CompactPrompts
from himac_envs import Blueprint, Outcome, TaskEnv


class CountEnv(TaskEnv):
    """A number is shown; say the next one, three times."""

    data_name, default_max_steps = "numbers", 5

    def task_ids(self, split: str | None = None) -> Sequence[str]:
        first = {"train": range(1, 38, 2), "valid": range(2, 38, 4), "test": range(4, 38, 4)}
        return [str(n) for n in first[split or self.split]]

    def _start(self, task_id: str) -> Outcome:
        self.at, self.left = int(task_id), 3
        return Outcome(f"You have {self.at}.")

    def _act(self, command: str) -> Outcome:
        if right := command == str(self.at + 1):
            self.at, self.left = self.at + 1, self.left - 1
        won, score = self.left == 0, 1 - self.left / 3
        return Outcome(f"You have {self.at}.", float(right), won, won, score, invalid=not right)

    def _admissible(self) -> list[str]:
        return [str(self.at + n) for n in (-1, 1, 2)]

    def _goal(self) -> str:
        return "count on"

    def _save(self) -> Any:
        return self.at, self.left

    def _load(self, state: Any) -> None:
        self.at, self.left = state

    def oracle(self, subgoal: str | None = None) -> Iterator[str]:
        while self.left:
            yield str(self.at + 1)

    def oracle_blueprint(self) -> Blueprint:
        return Blueprint.of(["count on"])

    def achieved(self, subgoal: str) -> bool | None:
        return self.left == 0


class TersePrompts(CompactPrompts):
    def play(self, first: str, goal: str, info: dict[str, Any] | None = None) -> list[Any]:
        return super().play(first.removeprefix("You have "), goal, info)


def centred(config: TrainConfig, episodes: Sequence[Any]) -> list[float]:
    """Every episode against the mean of its group: those that played the same task."""
    groups = [episode.request.group for episode in episodes]
    return group_relative([e.reward for e in episodes], groups, std=False).tolist()


gym.register("Count-v0", entry_point=CountEnv)
register_method("centred", advantage=centred)
register_prompts("terse", lambda about: TersePrompts())
register_policy(
    "narrow",
    make=lambda config, texts: TinyPolicy.build(texts(), TinySize(32, 1, 2, 64), seed=config.seed),
    load=lambda folder, config: TinyPolicy.load(folder),
)

if __name__ == "__main__":
    config = TrainConfig(
        method="centred", flat_env="Count-v0", policy="narrow", prompt="terse", iterations=2,
        warm_steps=20, demos=6, tasks=4, eval_episodes=6, constrained=True, expert="oracle",
    )  # fmt: skip
    result = Trainer(config, *sys.argv[1:2]).run()
    print(f"after two iterations: {result['final']['success']:.2f} of the held-out tasks")
