"""What a run was begun with, kept beside its settings: a run that goes on is to be the same run.

`begun.toml` is written once. A run whose `config.toml` says something else of what is learned or of
what is evaluated is refused by the name of the setting; how far it goes, how fast, and what is kept
of it may change (see `himac_agents.config.setting.Changes`).
"""

from __future__ import annotations

from pathlib import Path

from himac_agents.config import TrainConfig
from himac_agents.config.tree import KEPT
from himac_agents.files import write_atomically

_NAME = "begun.toml"
_HEAD = (
    "# What this run was begun with, not to be edited: a run that goes on is compared with it.\n\n"
)


def seal(folder: Path, config: TrainConfig, *, goes_on: bool) -> None:
    """Writes what a run is begun with; once, where it goes on."""
    if not (goes_on and (folder / _NAME).exists()):
        write_atomically(folder / _NAME, _HEAD + config.to_toml())


def check_unchanged(folder: Path, config: TrainConfig) -> None:
    """Refuses to go on with other settings than a run was begun with.

    Raises:
        ValueError: The message names the settings, what they are and what they were.
    """
    if not (folder / _NAME).is_file():
        return
    begun = TrainConfig.from_toml(folder / _NAME)
    changed = [
        f"{name}={now!r} (begun with {was!r})"
        for name in begun.__dataclass_fields__
        if name in KEPT and (now := getattr(config, name)) != (was := getattr(begun, name))
    ]
    if changed:
        raise ValueError(
            f"{folder} was begun with other settings: {', '.join(changed)}. Put them back in its "
            f"config.toml, or begin another run with them. How far it goes may be changed: `himac "
            f"train --resume {folder} --iterations N`"
        )
