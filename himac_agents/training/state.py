"""How far a run is: what a checkpoint knows beside weights and moments."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from himac_agents.agents.agent import HiMACAgent
from himac_agents.config import TrainConfig
from himac_agents.distributed import Team
from himac_agents.policies.base import TokenBatch
from himac_agents.prompts import Prompts
from himac_agents.rollouts.pool import EnvPool
from himac_agents.training.progress import Display


@dataclass
class Progressed:
    """How far a run is; saved with every checkpoint.

    Attributes:
        warm: Supervised steps done.
        iteration: Co-evolution iterations done.
        env_steps: Steps of tasks taken while learning (evaluation not counted).
        tokens: Tokens written while learning.
        demo_steps: Steps of tasks in the demonstrations.
        warm_seconds: Wall time of supervision.
        warm_cpu_seconds: CPU time of supervision, all threads together.
        learn_seconds: Wall time of reinforcement learning, rollouts included.
        learn_cpu_seconds: CPU time of the same.
        lines: Lines of `metrics.jsonl`.
        rng: State of the trainer's generator.
        evaluations: Results so far, by name, with what a paired comparison needs.
        former: Final evaluations of a run that then went further, by name, with their work.
        looks: Success on the panel, one entry a look.
    """

    warm: int = 0
    iteration: int = 0
    env_steps: int = 0
    tokens: int = 0
    demo_steps: int = 0
    warm_seconds: float = 0.0
    learn_seconds: float = 0.0
    warm_cpu_seconds: float = 0.0
    learn_cpu_seconds: float = 0.0
    lines: int = 0
    rng: dict[str, Any] = field(default_factory=dict)
    evaluations: dict[str, Any] = field(default_factory=dict)
    former: dict[str, Any] = field(default_factory=dict)
    looks: list[dict[str, Any]] = field(default_factory=list)

    def go_on(self) -> str:
        """The end that was measured becomes one on the way; its name.

        What was compared with the former end is to be done again for the new one.
        """
        name = f"iteration_{self.iteration}"
        work = {"iterations": self.iteration, "env_steps": self.env_steps, "tokens": self.tokens}
        self.former[name] = {**self.evaluations.pop("final"), "work": work}
        for baseline in ("supervised", "grpo"):
            self.evaluations.pop(baseline, None)
        return name


def spent(config: TrainConfig, at: Progressed) -> str:
    """Why learning is over, by the settings that say so; "" where it is not."""
    used = (
        ("iterations", at.iteration, config.iterations),
        ("max_env_steps", at.env_steps, config.max_env_steps),
        ("max_tokens", at.tokens, config.max_tokens),
    )
    return ", ".join(
        f"{name}={most} ({done:,} done)"
        for name, done, most in used
        if done >= most and (most or name == "iterations")
    )


class Running(Protocol):
    """What the parts of a run use of its `Trainer`; see there."""

    config: TrainConfig
    agent: HiMACAgent
    at: Progressed
    mark: Any
    run_folder: Any
    team: Team
    stop: ClassVar[threading.Event]
    display: Display
    pool: EnvPool
    prompts: Prompts
    demonstrations: Any
    learners: Any
    eval_ids: list[str]
    flat: bool
    rng: np.random.Generator

    def save(self) -> None:
        """Writes a checkpoint."""
        ...

    def supervision(self, seed: int, start: int) -> dict[str, Iterator[TokenBatch]]:
        """Each policy's batches of demonstrations."""
        ...

    def evaluate(self, agent: HiMACAgent, *, greedy: bool = True) -> dict[str, Any]:
        """Held-out success."""
        ...

    def beside(self, config: TrainConfig, folder: Path, *, resume: bool) -> Any:
        """Another run."""
        ...
