"""What the reference shows: the packages' own names, and what else is meant to be used."""

from __future__ import annotations

import importlib
from typing import Any

import himac_agents
import himac_envs
from himac_envs import registry
from himac_envs.hierarchy import load_entry_point

#: Beside what the packages themselves export: module -> names.
MORE: dict[str, tuple[str, ...]] = {
    "himac_envs.vector": ("make",),
    "himac_envs.testing": ("check_task_env",),
    "himac_envs.multiagent": ("HierarchicalAEC", "env"),
    "himac_envs.registry": ("make", "find_id", "env_cards", "EnvCard"),
    "himac_envs.errors": ("UnknownTaskError", "UnknownSplitError", "MissingDependencyError"),
    "himac_envs.sokoban.solver": ("solve", "Solution"),
    "himac_agents.policies.base": ("Message", "Prompt", "Completion", "TokenBatch", "Learnable"),
    "himac_agents.policies.tiny": ("TinyPolicy", "TinySize"),
    "himac_agents.policies.hf": ("HFPolicy",),
    "himac_agents.policies.noise": ("uniforms",),
    "himac_agents.prompts": ("CompactPrompts", "read_command", "read_blueprint"),
    "himac_agents.rollouts.types": ("EpisodeRequest", "Episode", "Segment", "Turn"),
    "himac_agents.algorithms.methods": ("Method",),
    "himac_agents.algorithms.advantages": ("group_relative", "dead_groups"),
    "himac_agents.training.loggers": ("register_logger",),
    "himac_agents.evaluation.evaluate": ("EvalResult",),
    "himac_agents.evaluation.intervals": (
        "Interval", "paired_difference", "success_over_seeds", "difference_over_seeds",
    ),
}  # fmt: skip


def names(package: str) -> dict[str, list[str]]:
    """Module -> its names in the reference, those of the package itself first."""
    own = himac_envs.__all__ if package == "himac_envs" else himac_agents.__all__
    found = {package: [name for name in own if not name.startswith("__")]}
    found |= {m: list(n) for m, n in MORE.items() if m.split(".")[0] == package}
    return found


def env_class(env_id: str) -> type[Any]:
    """The class whose docstring is an id's page: the task's, where a hierarchy stands above."""
    card = registry.env_cards()[env_id]
    found = load_entry_point(card.kwargs.get("task", card.entry_point))
    assert isinstance(found, type)
    return found


def load(module: str, name: str) -> Any:
    """The object of a name."""
    return getattr(importlib.import_module(module), name)
