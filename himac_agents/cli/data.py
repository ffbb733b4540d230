"""``himac data get | verify | where | build | export``: public data sets and generated games."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from himac_envs import data, download, registry

_CONSOLE = Console(highlight=False)


def get(
    name: Annotated[str, tyro.conf.Positional],
    version: str | None = None,
    base_url: str | None = None,
) -> int:
    """Download, verify and install a data set.

    Args:
        name: The data set (himac data where lists them).
        version: Its version (default: the registry card's).
        base_url: Address of a mirror to fetch the files from, by their names.
    """
    chosen = download.card(name).version(version)
    for file in chosen.files:
        if not file.sha256:
            _CONSOLE.print(
                f"{file.name}: no public record gives its checksum; it is pinned by this download"
            )
    where = download.get(name, version, base_url=base_url, progress=True)
    _CONSOLE.print(f"{name} {chosen.name} is installed in {where}", soft_wrap=True)
    return 0


def verify(name: Annotated[str, tyro.conf.Positional], version: str | None = None) -> int:
    """Check an installed data set's files; the exit status is 1 if one is damaged or missing.

    Args:
        name: The data set.
        version: Its version (default: the registry card's).
    """
    status = 0
    for file, problem in download.verify(name, version):
        _CONSOLE.print(f"{problem or 'ok':12} {file}", soft_wrap=True)
        status |= bool(problem)
    if status:
        _CONSOLE.print(f"`himac data get {name}` repairs it")
    return status


def where() -> int:
    """List data sets and where they are installed."""
    _CONSOLE.print(f"HIMAC_HOME: {data.home()}", soft_wrap=True)
    for name in registry.names("data"):
        folder = data.installed(name)
        state = str(folder) if folder else f"not installed (himac data get {name})"
        _CONSOLE.print(f"{name}: {state}", soft_wrap=True)
    return 0


def build(
    name: Annotated[str, tyro.conf.Positional],
    folder: Annotated[Path, tyro.conf.Positional],
    num_products: int | None = None,
) -> int:
    """Compile WebShop's catalogue now rather than at its first use.

    Args:
        name: The data set: webshop.
        folder: The folder of its published files.
        num_products: Take only this many rows of the product file, from the top.
    """
    if name != "webshop":
        raise ValueError(f"{name!r} needs no building: only 'webshop' does")
    from himac_envs.webshop.catalogue import SourceFiles, compile_catalogue, open_catalogue

    made = compile_catalogue(SourceFiles.find(folder), num_products=num_products)
    catalogue = open_catalogue(made)
    _CONSOLE.print(f"{catalogue.size:,} products are compiled in {made}", soft_wrap=True)
    return 0


def export(
    folder: Annotated[Path, tyro.conf.Positional],
    split: str = "train",
    games: int = 10,
) -> int:
    """Write generated ALFWorld games as files that the original package loads.

    Needs the original package for its rules: pip install 'himac[reference]'.

    Args:
        folder: The folder to write the games to.
        split: The generated split to take them from.
        games: How many games.
    """
    from himac_envs.alfworld.generate import GeneratedLibrary
    from himac_envs.alfworld.generate.export import export_game

    ids = GeneratedLibrary().task_ids(split)
    for index in range(min(games, len(ids))):
        export_game(ids[index], folder)
    _CONSOLE.print(f"{min(games, len(ids))} games are in {folder}", soft_wrap=True)
    return 0


#: What stands behind ``himac data``.
COMMANDS: dict[str, Callable[..., Any]] = {
    "get": get,
    "verify": verify,
    "where": where,
    "build": build,
    "export": export,
}


def run() -> None:
    """Fetch, verify, find and export data sets: himac data --help shows how."""
