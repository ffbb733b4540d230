"""Protocols of evaluation: which tasks, how many steps, how answers are drawn.

A protocol is a TOML file in `registry/presets/eval`; its keys are the fields below. It fixes what
must be equal for figures to be compared; who plays is not part of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from himac_agents.config import check_seeds
from himac_agents.prompts import resolve
from himac_agents.register import did_you_mean
from himac_envs import registry

FOLDER = "presets/eval"


@dataclass(frozen=True)
class Protocol:
    """How agents are evaluated.

    Attributes:
        env: The hierarchical environment.
        flat_env: The same tasks without a hierarchy.
        flat: Which of the two is played where the agent can play both.
        split: Which tasks.
        episodes: How many of them, spread evenly over the split.
        seeds: Each task is played once for each.
        resampled: Tasks are drawn anew at each draw, with repeats, as `evaluation.resampled` tells;
            `episodes` is then the number of workers.
        draws: How many draws of that kind.
        temperature: Of sampling; 0 is greedy.
        prompt: The style of prompts, for models that read any ("auto": the agent's own).
        max_command_tokens: The longest command that a model may write, thoughts included; 0: the
            agent's own limit.
        max_blueprint_tokens: The longest blueprint, likewise.
        env_kwargs: Further keyword arguments of the environment.
        official: Whether the protocol is about the benchmark's published data.
        about: What the protocol is and where it comes from.
    """

    env: str = ""
    flat_env: str = ""
    flat: bool = False
    split: str = "test"
    episodes: int = 100
    seeds: tuple[int, ...] = (0,)
    resampled: bool = False
    draws: int = 1
    temperature: float = 1.0
    prompt: str = "auto"
    max_command_tokens: int = 0
    max_blueprint_tokens: int = 0
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    official: bool = False
    about: str = ""

    def __post_init__(self) -> None:
        for name in filter(None, (self.env, self.flat_env)):
            registry.find_id(name)
        resolve(self.prompt)
        if self.episodes < 1:
            raise ValueError(f"episodes={self.episodes}: must be at least 1")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)}: give different ones, at least one")
        check_seeds(*self.seeds)
        if self.draws < 1 or (self.draws > 1 and not self.resampled):
            raise ValueError(
                f"draws={self.draws}: only a protocol that resamples its tasks (verl-agent-legacy) "
                "has several; to play the same tasks again, give more --seeds"
            )
        if self.resampled and len(self.seeds) > 1:
            raise ValueError(
                f"seeds={list(self.seeds)}: a protocol that resamples its tasks takes one seed and "
                "several draws (--draws 20)"
            )
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature}: must be 0 or more")

    @classmethod
    def preset(cls, name: str) -> Protocol:
        """A protocol of the registry.

        Raises:
            FileNotFoundError: There is none of this name; the message lists those that exist.
            ValueError: Its file holds an unknown key or a wrong value.
        """
        values = registry.read(FOLDER, name)
        known = [f.name for f in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                hint = did_you_mean(key, known)
                raise ValueError(f"protocol {name!r}: unknown key {key!r}.{hint}")
        if isinstance(values.get("seeds"), Sequence):
            values["seeds"] = tuple(values["seeds"])
        return cls(**values)

    def replace(self, **changes: Any) -> Protocol:
        """A copy with some fields changed; those that are None stay."""
        return dataclasses.replace(self, **{k: v for k, v in changes.items() if v is not None})

    def env_id(self, flat: bool) -> str:
        """The environment to play."""
        found = self.flat_env if flat else self.env
        if not found:
            kind = "flat" if flat else "hierarchical"
            raise ValueError(f"this protocol has no {kind} environment: name one, or another agent")
        return found


def names() -> list[str]:
    """The protocols of the registry."""
    return registry.names(FOLDER)
