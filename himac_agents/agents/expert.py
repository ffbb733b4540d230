"""Policies that ask the environment itself: the oracle, the explorer, a random player.

They read no prompt: they look at the live environment. The oracle knows where everything is; the
explorer searches as a person would, without looking into what it has not opened, so that its play
can be imitated by an agent that sees only the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from himac_agents.policies.base import Completion, Prompt, Sampling
from himac_agents.prompts import CompactPrompts, Prompts
from himac_envs.blueprint import SUB_DONE, clean

Expert = Literal["oracle", "explorer", "random"]


class ScriptedPolicy:
    """Plays by the environment's own expert, with optional mistakes.

    Args:
        expert: "oracle" (clairvoyant), "explorer" (honest search; the oracle where an environment
            has none) or "random" (any admissible command).
        seed: Seeds the mistakes, the explorer's choices and the random player.
        noise: Chance that a command is replaced by a random admissible one. The expert recovers.
        plan_noise: Chance that a blueprint has one sub-goal dropped, doubled or swapped.
        prompts: The style in which answers are written.
    """

    def __init__(
        self,
        expert: Expert = "oracle",
        *,
        seed: int = 0,
        noise: float = 0.0,
        plan_noise: float = 0.0,
        prompts: Prompts | None = None,
    ) -> None:
        self.expert = expert
        self.noise, self.plan_noise = noise, plan_noise
        self.prompts = prompts or CompactPrompts()
        self.rng = np.random.default_rng(seed)
        self._running: dict[int, tuple[Any, Iterator[str]]] = {}

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Policy.generate`."""
        return [Completion(self._answer(prompt)) for prompt in prompts]

    def _answer(self, prompt: Prompt) -> str:
        env = prompt.env
        if env is None:
            raise ValueError("a scripted policy needs Prompt.env: it asks the environment")
        env = env.unwrapped
        if prompt.role == "planner":
            return self._plan(env)
        return self.prompts.write_command(self._command(env))

    def _plan(self, env: Any) -> str:
        blueprint = env.oracle_blueprint()
        if self.rng.random() < self.plan_noise:
            texts = blueprint.texts()
            spot = int(self.rng.integers(len(texts)))
            kind = int(self.rng.integers(3))
            if kind == 0 and len(texts) > 1:
                del texts[spot]
            elif kind == 1:
                texts.insert(spot, texts[int(self.rng.integers(len(texts)))])
            else:
                other = int(self.rng.integers(len(texts)))
                texts[spot], texts[other] = texts[other], texts[spot]
            blueprint = type(blueprint).of(texts)
        return self.prompts.write_blueprint(blueprint)

    def _command(self, env: Any) -> str:
        option = getattr(env, "option", None)
        task = getattr(env, "task", env)
        if self.expert == "random" or self.rng.random() < self.noise:
            choices = list(task._admissible())
            return str(choices[int(self.rng.integers(len(choices)))]) if choices else "look"
        # Where the executor cannot end its sub-goal, it waits for the end of the budget.
        ends = option is not None and getattr(env, "sub_done", True)
        over = SUB_DONE if ends else self._idle(task)
        subgoal = None if option is None else option.subgoal
        now = (env.task_id, getattr(env, "options_begun", 0))
        running = self._running.get(id(env))
        try:
            if running is None or running[0] != now or (option is not None and option.steps == 0):
                running = (now, self._expert(task, subgoal))
                self._running[id(env)] = running
            return next(running[1], over)
        except ValueError:
            # The expert does not know this sub-goal, or it cannot be reached from here.
            return over

    def _idle(self, task: Any) -> str:
        """A command that does little: "look" where it is understood, else the first possible."""
        choices = list(task._admissible())
        return "look" if "look" in choices or not choices else str(choices[0])

    def _expert(self, task: Any, subgoal: str | None) -> Iterator[str]:
        if subgoal is not None and subgoal == clean(task._goal()):
            subgoal = None
        if self.expert == "explorer" and hasattr(task, "explorer"):
            return iter(task.explorer(subgoal, self.rng))
        return iter(task.oracle(subgoal))
