"""``himac doctor``: what is here, what is missing, and the command that mends it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

import himac_envs
from himac_envs import data, registry

#: Package -> the extra that brings it.
_PACKAGES = {
    "gymnasium": "",
    "numpy": "",
    "torch": "agents",
    "transformers": "agents",
    "tensorboard": "agents",
    "peft": "hf",
    "accelerate": "hf",
    "numba": "sokoban",
    "pillow": "sokoban",
    "rapidfuzz": "webshop",
    "flask": "webshop",
    "selenium": "browser",
    "pettingzoo": "multiagent",
    "httpx": "api",
}


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
        "make clean-venv train TORCH_INDEX=<index of a CUDA build of torch>",
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
    """Report versions, data, browser and GPU, each with the command that mends it.

    Optional pieces that are missing are no failure: the status is 0 unless a required package is
    absent.
    """
    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "state", "mend"):
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
