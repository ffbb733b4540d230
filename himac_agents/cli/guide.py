"""``himac train --help``: the options that most people want, and where the others are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from himac_agents.config import settings_of
from himac_agents.config.tree import SECTIONS, TrainConfig

#: Under which headings the common settings are shown; all others are named below, by section.
COMMON: dict[str, tuple[str, ...]] = {
    "Task and method": ("method", "env", "flat_env", "env_kwargs", "seed"),
    "Model": ("policy", "model", "lora_rank", "prompt", "dtype"),
    "Samples": ("demos", "warm_steps", "tasks", "blueprints", "executions"),
    "Optimisation": ("lr", "kl", "epochs"),
    "Budget": ("iterations", "max_env_steps", "max_tokens"),
    "Evaluation": ("eval_split", "eval_episodes", "eval_every", "baselines"),
    "This machine": ("lanes", "threads", "checkpoint_every"),
}

_USAGE = "usage: himac train [PRESET] [--OPTION VALUE ...]\n       himac train --resume RUN"


def show(console: Console, preset: str, config: TrainConfig, own: dict[str, str]) -> None:
    """Prints the short help.

    Args:
        console: Where.
        preset: The preset whose values are the defaults.
        config: Its settings.
        own: The command's own options, which are no settings: option and what it does.
    """
    console.print(_USAGE, markup=False)
    opening = f"Train an agent. Every setting is an option; the defaults are those of {preset!r}."
    console.print(f"\n{opening} `himac list` names the presets.\n", markup=False)
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(no_wrap=True)
    rows.add_column()
    for option, told in own.items():
        rows.add_row(option, told)
    known = settings_of(TrainConfig)
    for heading, names in COMMON.items():
        rows.add_row(Text(f"\n{heading}", style="bold"), "")
        for name in names:
            text = Text(_first_sentence(known[name].help))
            rows.add_row(option_of(name), text.append(_default(getattr(config, name)), "cyan"))
    console.print(rows)
    console.print(Text("\nAll other settings, by section (--help-all explains each):", "bold"))
    for section, left in others():
        lines = wrap(", ".join(map(option_of, left)), console.width - 4, break_on_hyphens=False)
        console.print(f"  {section}", markup=False, highlight=False)
        console.print("\n".join(f"    {line}" for line in lines), markup=False, highlight=False)


def others() -> Iterator[tuple[str, list[str]]]:
    """The settings that are not common: section by section, name by name."""
    common = {name for names in COMMON.values() for name in names}
    for section in SECTIONS:
        left = [f.name for f in dataclasses.fields(section) if f.name not in common]
        if left:
            yield str(section.__doc__).strip().rstrip("."), left


def option_of(name: str) -> str:
    """The option of a setting: "--max-env-steps"."""
    return f"--{name.replace('_', '-')}"


def _first_sentence(text: str) -> str:
    """What a setting is, in one sentence; a full stop within quotes or numbers ends none."""
    head, stop, _ = text.partition(". ")
    head = head if stop else text
    return head.split("; ")[0].rstrip(".")


def _default(value: Any) -> str:
    if value is None or value == "" or value == () or value == {}:
        return ""
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f" ({shown})"
