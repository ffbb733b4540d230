"""A small study of the fruit task: its card, and how it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fruit_runs

from himac_agents.cli import study as command

CONFIG = fruit_runs.CONFIG.replace(
    warm_steps=10, iterations=3, checkpoint_every=1, note="a toy", eval_at_tokens=60
)

CARD = """
summary = "A toy."
seeds = [0]
[cells.fruit]
preset = "{preset}"
flat = {{ warm_steps = 14 }}
[[runs]]
cells = ["fruit"]
methods = ["himac", "himac-joint", "grpo"]
[methods.himac]
baselines = ["supervised"]
"""


def written(folder: Path) -> Path:
    """The card, in a folder with its preset."""
    preset = folder / "preset.toml"
    preset.write_text(CONFIG.to_toml())
    path = folder / "toy.toml"
    path.write_text(CARD.format(preset=preset))
    return path


def options(card: Path, out: Path, **more: Any) -> command.Options:
    """What the command is asked, with everything it writes below `out`."""
    return command.Options(
        setting=str(card), out=out, jobs=2, results=out / "results", page=out / "page.md", **more
    )
