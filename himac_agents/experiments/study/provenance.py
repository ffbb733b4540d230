"""Where figures come from: the settings, the version, the commit and the machine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Literal

from himac_agents.config import LEARNING_FIELDS, TrainConfig
from himac_agents.config.tree import EXTENT, KEPT
from himac_agents.evaluation.metrics import digest
from himac_agents.training.result import versions
from himac_envs import registry
from himac_envs.machine import processor

#: What a run's figures follow from, and what its warm start's do: but for the seed.
_LEARNING = (KEPT | EXTENT) - {"seed"}
_STARTING = _LEARNING - LEARNING_FIELDS


def settings_digest(config: TrainConfig, kind: Literal["warm", "learn"] = "learn") -> str:
    """Twelve hexadecimal digits: where they are equal, figures may stand in one table.

    Settings that are as they are by default are left out, so that one which a later version adds
    changes nothing.

    Args:
        config: The settings.
        kind: Of what the figures are: warm starts, or runs from them.
    """
    default, names = TrainConfig(), sorted(_STARTING if kind == "warm" else _LEARNING)
    found = {k: v for k in names if (v := getattr(config, k)) != getattr(default, k)}
    return digest(json.dumps(item, sort_keys=True) for item in found.items())[:12]


def checkout() -> Path | None:
    """The source checkout that this code runs from; None in an installed wheel."""
    root = registry.root().parent
    return root if (root / "pyproject.toml").is_file() else None


def provenance() -> dict[str, Any]:
    """What a reader needs to run the same again: plain values."""
    known = versions()
    return {
        "version": known["himac"],
        "commit": commit(),
        "machine": machine(),
        "python": known["python"],
        "torch": known.get("torch", ""),
        "transformers": known.get("transformers", ""),
        **({"gpu": gpu} if (gpu := accelerator()) else {}),
    }


def commit() -> str:
    """The checkout's commit, with "+" behind it where tracked files differ; "" without one."""
    root = checkout()
    if root is None:
        return ""
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "himac_agents",
                       "himac_envs", "registry/presets", "registry/studies")  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed else "")


def machine() -> str:
    """The processor and the number of cores."""
    return f"{processor()}, {os.cpu_count()} cores"


def accelerator() -> str:
    """The GPU that torch sees; "" without one."""
    try:
        import torch
    except ImportError:
        return ""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def _git(root: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *args], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
