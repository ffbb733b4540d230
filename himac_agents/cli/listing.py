"""``himac list``: the environments, the presets and the data sets."""

from __future__ import annotations

from typing import Annotated

import tyro
from gymnasium.envs.registration import EnvSpec
from rich.console import Console
from rich.table import Table

from himac_agents.algorithms.methods import METHODS
from himac_envs import HierarchicalEnv, TaskEnv, data, registry
from himac_envs.hierarchy import load_entry_point, make_hierarchical


def run(
    benchmark: Annotated[str | None, tyro.conf.arg(aliases=["-b"])] = None,
) -> int:
    """List environments, training presets and installed data.

    Environments of other installed packages are listed too (entry-point group himac.envs).

    Args:
        benchmark: List only this benchmark's environments: alfworld, webshop or sokoban.
    """
    console = Console()
    table = Table(title="Environments", title_justify="left", box=None, pad_edge=False)
    for column in ("id", "kind", "what it is"):
        table.add_column(column, no_wrap=column != "what it is")
    cards = registry.env_cards().values()
    names = registry.benchmarks()
    if benchmark is not None and benchmark not in names:
        raise ValueError(f"no benchmark {benchmark!r}: there are {', '.join(names)}")
    for card in cards:
        if benchmark in (None, card.benchmark):
            table.add_row(card.id, card.kind, card.summary)
    for env_id, spec in registry.own_envs().items() if benchmark is None else ():
        table.add_row(env_id, *_about(spec))
    console.print(table)
    presets = registry.names("presets")
    console.print(f"\nTraining presets (himac train NAME): {', '.join(presets) or 'none'}")
    console.print(f"Methods (himac train --method NAME): {', '.join(METHODS)}")
    protocols = registry.names("presets/eval")
    console.print(f"Evaluation presets (himac eval --preset NAME): {', '.join(protocols)}")
    for name in names:
        folder = data.installed(name)
        if name in registry.names("data"):
            where = str(folder) if folder else f"not installed (himac data get {name})"
        else:
            where = "none needed"
        console.print(f"Data {name}: {where}", soft_wrap=True)
    return 0


def _about(spec: EnvSpec) -> tuple[str, str]:
    """The kind and origin of somebody's environment, as far as they are known without making it."""
    maker = spec.entry_point or spec.vector_entry_point
    where = maker if isinstance(maker, str) else getattr(maker, "__module__", "")
    try:
        made = load_entry_point(maker) if isinstance(maker, str) else maker
    except (ImportError, AttributeError) as error:
        return "broken", f"{where}: {error}"
    if made is make_hierarchical:
        return "hierarchical", str(spec.kwargs.get("task", where))
    if isinstance(made, type) and issubclass(made, TaskEnv | HierarchicalEnv):
        return ("flat" if issubclass(made, TaskEnv) else "hierarchical"), where
    return "own", where
