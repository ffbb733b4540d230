"""``himac list``: the environments, the presets and the data sets."""

from __future__ import annotations

from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from himac_envs import data, registry


def run(
    benchmark: Annotated[str | None, tyro.conf.arg(aliases=["-b"])] = None,
) -> int:
    """List environments, training presets and installed data.

    Args:
        benchmark: Only this benchmark's: alfworld, webshop or sokoban.
    """
    console = Console()
    table = Table(title="Environments", title_justify="left", box=None, pad_edge=False)
    for column in ("id", "kind", "what it is"):
        table.add_column(column, no_wrap=column != "what it is")
    cards = registry.env_cards().values()
    names = sorted({c.benchmark for c in cards})
    if benchmark is not None and benchmark not in names:
        raise ValueError(f"no benchmark {benchmark!r}: there are {', '.join(names)}")
    for card in cards:
        if benchmark in (None, card.benchmark):
            table.add_row(card.id, card.kind, card.summary)
    console.print(table)
    presets = registry.names("presets")
    console.print(f"\nTraining presets (himac train NAME): {', '.join(presets) or 'none'}")
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
