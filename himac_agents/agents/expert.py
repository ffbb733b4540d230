"""Experts, who ask the environment itself: the oracle, the explorer, a random player.

They read no prompt: they look at the live environment. The oracle knows where everything is; the
explorer searches as a person would, without looking into what it has not opened, so that its play
can be imitated by an agent that sees only the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from himac_agents.agents.conversation import Memory
from himac_agents.policies import noise as randomness
from himac_agents.policies.base import Completion, Role
from himac_agents.prompts import CompactPrompts, Prompts
from himac_envs.blueprint import SUB_DONE, clean

ExpertKind = Literal["oracle", "explorer", "random"]


class Expert:
    """Stands in a policy's place and plays by the environment's own expert, with mistakes if asked.

    What it draws at random in an episode depends on its seed and on the episode alone.

    Args:
        kind: "oracle" (clairvoyant), "explorer" (honest search; the oracle where an environment
            has none) or "random" (any admissible command).
        seed: Seeds the mistakes, the explorer's choices and the random player.
        noise: Chance that a command is replaced by a random admissible one. The expert recovers.
        plan_noise: Chance that a blueprint has one sub-goal dropped, doubled or swapped.
        prompts: The style in which answers are written.
    """

    def __init__(
        self,
        kind: ExpertKind = "oracle",
        *,
        seed: int = 0,
        noise: float = 0.0,
        plan_noise: float = 0.0,
        prompts: Prompts | None = None,
    ) -> None:
        self.kind, self.seed = kind, seed
        self.noise, self.plan_noise = noise, plan_noise
        self.prompts = prompts or CompactPrompts()

    def answer(self, role: Role, memory: Memory) -> Completion:
        """What the expert writes at this moment of an episode.

        Args:
            role: The level that is asked.
            memory: The episode's, with the live environment.
        """
        if memory.env is None:
            raise ValueError(
                "an expert reads the environment itself, so it plays in rollouts only: for a "
                "single environment use himac_envs.OraclePlanner and OracleExecutor"
            )
        env = memory.env.unwrapped
        if (rng := memory.expert.get(self)) is None:
            rng = memory.expert[self] = randomness.generator("expert", self.seed, memory.noise)
        if role == "planner":
            return Completion(self._plan(env, rng))
        return Completion(self.prompts.write_command(self._command(env, memory, rng)))

    def _plan(self, env: Any, rng: np.random.Generator) -> str:
        blueprint = env.oracle_blueprint()
        if rng.random() < self.plan_noise:
            texts = blueprint.texts()
            spot = int(rng.integers(len(texts)))
            kind = int(rng.integers(3))
            if kind == 0 and len(texts) > 1:
                del texts[spot]
            elif kind == 1:
                texts.insert(spot, texts[int(rng.integers(len(texts)))])
            else:
                other = int(rng.integers(len(texts)))
                texts[spot], texts[other] = texts[other], texts[spot]
            blueprint = type(blueprint).of(texts)
        return self.prompts.write_blueprint(blueprint)

    def _command(self, env: Any, memory: Memory, rng: np.random.Generator) -> str:
        option = getattr(env, "option", None)
        choices = [c for c in memory.info["admissible"] if c != SUB_DONE]
        if self.kind == "random" or rng.random() < self.noise:
            return str(choices[int(rng.integers(len(choices)))]) if choices else "look"
        # Where the executor cannot end its sub-goal, it waits for the end of the budget; where the
        # blueprint is used up, of the episode: <sub_done> would be an invalid command.
        ends = option is not None and getattr(env, "sub_done", True)
        ends = ends and not getattr(env, "blueprint_done", False)
        over = SUB_DONE if ends else _idle(choices)
        now = (memory.info["task_id"], getattr(env, "options_begun", 0))
        kept = memory.expert
        running = kept.get("running")
        try:
            if running is None or running[0] != now or (option is not None and option.steps == 0):
                subgoal = None if option is None else option.subgoal
                whole = subgoal == clean(memory.info["goal"])
                commands = self._expert(getattr(env, "task", env), None if whole else subgoal, rng)
                running = kept["running"] = (now, commands)
            return str(next(running[1], over))
        except ValueError:
            # The expert does not know this sub-goal, or it cannot be reached from here.
            return over

    def _expert(self, task: Any, subgoal: str | None, rng: np.random.Generator) -> Iterator[str]:
        if self.kind == "explorer" and hasattr(task, "explorer"):
            return iter(task.explorer(subgoal, rng))
        return iter(task.oracle(subgoal))


def _idle(choices: Sequence[str]) -> str:
    """A command that does little: "look" where it is understood, else the first possible."""
    return "look" if "look" in choices or not choices else choices[0]
