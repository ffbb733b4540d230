"""Which catalogue an environment plays on."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from himac_envs.data import installed
from himac_envs.webshop.catalogue import (
    Catalogue,
    SourceFiles,
    compile_catalogue,
    open_catalogue,
)
from himac_envs.webshop.errors import CatalogueError
from himac_envs.webshop.store import MANIFEST


def catalogue_for(data: str | None, num_products: int | None = None) -> Catalogue:
    """Return the catalogue that ``data`` names, compiling it first where needed.

    Args:
        data: A folder with the published files or with a compiled catalogue, "generated", or None:
            the official set where it is installed, else the generated shop.
        num_products: Only so many products.

    Raises:
        CatalogueError: The folder holds no such data.
    """
    if data is None:
        official = installed("webshop")
        data = "generated" if official is None else str(official)
    if data == "generated":
        from himac_envs.webshop.generate import compile_generated

        return open_catalogue(compile_generated(num_products))
    folder = Path(data).expanduser()
    if not folder.is_dir():
        raise CatalogueError(
            f"data={data!r}: there is no such folder; give a folder with WebShop's files, "
            "'generated', or None for what `himac data get webshop` installed"
        )
    if (folder / MANIFEST).is_file():
        if num_products is not None:
            raise CatalogueError(
                f"num_products={num_products}: {folder} is compiled already; give the folder of "
                "its source files"
            )
        return open_catalogue(folder)
    return open_catalogue(_compiled(SourceFiles.find(folder), num_products))


@lru_cache(maxsize=32)
def _remembered(files: SourceFiles, num_products: int | None, stamp: tuple[int, ...]) -> Path:
    return compile_catalogue(files, num_products=num_products)


def _compiled(files: SourceFiles, num_products: int | None) -> Path:
    # Fingerprints take milliseconds; within a process, times and sizes of the files are enough.
    paths = [files.products, files.mined] + ([files.human] if files.human else [])
    stamp = tuple(n for p in paths for n in (p.stat().st_mtime_ns, p.stat().st_size))
    folder = _remembered(files, num_products, stamp)
    if not (folder / MANIFEST).is_file():  # deleted since
        _remembered.cache_clear()
        folder = _remembered(files, num_products, stamp)
    return folder
