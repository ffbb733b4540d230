"""``himac doctor``: what is here, what is missing, and the command that mends it."""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

import himac_envs
from himac_envs import data, registry
from himac_envs.errors import OPTIONAL

#: Package -> the extra that brings it.
_PACKAGES = {"gymnasium": "", "numpy": "", **dict(OPTIONAL.values())}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        name: What was looked for.
        state: What was found.
        ok: Whether it is there.
        mend: The command that brings it ("" where nothing is missing).
    """

    name: str
    state: str
    ok: bool
    mend: str = ""


def examine() -> Iterator[Finding]:
    """Look at this machine and yield what is found."""
    yield Finding("himac", himac_envs.__version__, True)
    yield Finding("python", platform.python_version(), True)
    for package, extra in _PACKAGES.items():
        try:
            yield Finding(package, metadata.version(package), True)
        except metadata.PackageNotFoundError:
            target = f"himac[{extra}]" if extra else "himac"
            yield Finding(package, "missing", False, f"pip install '{target}'")
    yield _gpu()
    yield _browser()
    yield Finding("environments", str(len(registry.env_cards())), True)
    yield from _plugins()
    for name in sorted({c.benchmark for c in registry.env_cards().values()} - {"sokoban"}):
        folder = data.installed(name)
        yield Finding(
            f"data: {name}",
            str(folder or "not installed: generated tasks are used"),
            folder is not None,
            "" if folder else f"himac data get {name}",
        )
    root = os.environ.get("HIMAC_DATA")
    if root is not None:
        there = Path(root).is_dir()
        mend = "" if there else "set HIMAC_DATA to a folder that exists"
        yield Finding("HIMAC_DATA", root if there else f"{root} (no such folder)", there, mend)


def _plugins() -> Iterator[Finding]:
    """What other packages bring: entry points of the groups "himac.envs", "himac.methods", ..."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", registry.PluginWarning)
        registry.load_plugins()
    found = metadata.entry_points()
    groups = sorted(group for group in found.groups if group.startswith("himac."))
    for point in (p for group in groups for p in metadata.entry_points(group=group)):
        wrong = registry.plugin_error(point.name, point.value)
        if point.group != registry.GROUP:
            try:
                point.load()
            except Exception as error:
                wrong = f"{type(error).__name__}: {error}"
        package = "the package that brings it" if point.dist is None else point.dist.name
        yield Finding(
            f"{point.group}: {point.name}",
            f"{point.value} cannot be loaded: {wrong}" if wrong else point.value,
            not wrong,
            f"pip install --upgrade {package}, or pip uninstall {package}" if wrong else "",
        )


def _gpu() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("GPU", "unknown without torch", False, "pip install 'himac[agents]'")
    if torch.cuda.is_available():
        return Finding("GPU", torch.cuda.get_device_name(0), True)
    return Finding(
        "GPU",
        "none that torch can use: training runs on the CPU",
        False,
        "pip install --force-reinstall torch --index-url URL, with the URL that "
        "https://pytorch.org/get-started/locally names for your driver",
    )


def _browser() -> Finding:
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser and driver:
        return Finding("browser", f"{browser}, {driver}", True)
    lacking = " and ".join(
        n for n, p in (("a Chromium", browser), ("chromedriver", driver)) if not p
    )
    return Finding("browser", f"no {lacking}", False, "apt-get install chromium chromium-driver")


def run() -> int:
    """Report versions, data, browser and GPU; for what is missing, the command that installs it.

    Missing optional parts are no failure: the exit status is 0 unless a required package is
    missing.
    """
    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "state", "fix"):
        table.add_column(column, overflow="fold")
    broken = False
    for finding in examine():
        table.add_row(
            "[green]ok[/]" if finding.ok else "[yellow]--[/]",
            finding.name,
            finding.state,
            finding.mend.replace("[", r"\["),
        )
        broken |= not finding.ok and not _PACKAGES.get(finding.name, "optional")
    Console().print(table)
    return int(broken)
