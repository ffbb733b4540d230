"""Environments whose texts are scripted: every turn is as long as every other.

A comparison of training engines wants the same number of tokens on both sides, whatever a model
writes. So what is observed depends on the task and the turn alone, the answers' lengths are fixed
by the sampler, and the reward is any function of the answer that differs within a group.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from himac_envs import FreeText

#: The words of the observations; each is one token.
WORDS = tuple(f"word{a}{b}" for a in "abcdefghijklmnopqrst" for b in "abcdefghijklmnop")


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is read and written.

    Attributes:
        prompts: Different tasks.
        generations: Episodes of each.
        turns: Turns of an episode.
        first: Words of the first observation.
        observed: Words of every other observation.
        written: Tokens of an answer.
    """

    prompts: int = 16
    generations: int = 8
    turns: int = 1
    first: int = 32
    observed: int = 16
    written: int = 48

    @property
    def sequences(self) -> int:
        """Episodes in all."""
        return self.prompts * self.generations

    @property
    def tokens(self) -> int:
        """Tokens that the model writes in all."""
        return self.sequences * self.turns * self.written


class ScriptedEnv(gym.Env[dict[str, Any], str]):
    """Says what its script says, `turns` times, and pays for the last answer.

    Args:
        shape: Lengths and turns.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.observation_space = spaces.Dict({"text": FreeText(4096)})
        self.action_space = FreeText(4096)
        self._task, self._turn = "0", 0

    def task_ids(self, split: str | None = None) -> list[str]:
        """The tasks; there are no splits."""
        return [str(number) for number in range(self.shape.prompts)]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begins the task `options["task_id"]`."""
        super().reset(seed=seed)
        self._task, self._turn = str((options or {}).get("task_id", "0")), 0
        return {"text": script(self.shape, self._task, 0)}, self._info()

    def step(self, action: str) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Reads on in the script."""
        self._turn += 1
        done = self._turn >= self.shape.turns
        reward = worth(action) if done else 0.0
        return (
            {"text": script(self.shape, self._task, self._turn)},
            reward,
            done,
            False,
            self._info(),
        )

    def _info(self) -> dict[str, Any]:
        return {
            "task_id": self._task, "goal": GOAL, "admissible": [], "won": False, "score": 0.0,
            "invalid": False, "step": self._turn,
        }  # fmt: skip


#: The tasks' instruction.
GOAL = "go on"


def script(shape: Shape, task: str, turn: int) -> str:
    """What is observed after `turn` turns."""
    count = shape.observed if turn else shape.first
    index = np.random.default_rng([int(task), turn]).integers(len(WORDS), size=count)
    return " ".join(WORDS[i] for i in index)


def worth(answer: str) -> float:
    """A reward in [0, 1) that depends on the whole answer."""
    return zlib.crc32(answer.encode()) / 2**32
