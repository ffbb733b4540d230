"""How many CPU threads torch works with: as many as the model is worth."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: Models of fewer parameters are quickest with one thread: several mostly wait for each other, on a
#: busy machine ten times as long as they work.
SMALL = 5_000_000

_CGROUPS = Path("/sys/fs/cgroup")


def cores(cgroups: Path = _CGROUPS) -> int:
    """The cores that this process may use: by its affinity, and by its container's quota."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _quota(cgroups)
    return max(1, min(found or 1, math.ceil(quota) if quota else found or 1))


def _quota(cgroups: Path) -> float | None:
    """Cores' worth of time that a container may take; None where that is not bounded."""
    try:
        if (cgroups / "cpu.max").is_file():
            most, period = (cgroups / "cpu.max").read_text().split()[:2]
        else:
            most = (cgroups / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroups / "cpu/cpu.cfs_period_us").read_text().strip()
        return float(most) / float(period) if float(most) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None  # "max", or no such file


def choose_threads(asked: int, parameters: int, free: int) -> int:
    """The threads for a model.

    Args:
        asked: What was asked for; 0 leaves the choice here.
        parameters: The model's.
        free: The cores that may be used.
    """
    if asked:
        return asked
    return 1 if parameters < SMALL else free


def set_threads(asked: int, policies: Iterable[Any]) -> str:
    """Sets torch's threads for local models, and says what was chosen.

    Args:
        asked: How many; 0 chooses by the size of the largest model.
        policies: Those that play or learn.

    Returns:
        A line for the console; "" where no policy is a local model, and nothing was set.
    """
    models = [model for p in policies if (model := getattr(p, "model", None)) is not None]
    models = [model for model in models if hasattr(model, "parameters")]
    if not models:
        return ""
    import torch

    size = max(sum(p.numel() for p in model.parameters()) for model in models)
    # Processes of one machine share its cores, and whoever set a limit meant it.
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    limit = os.environ.get("OMP_NUM_THREADS", "")
    free = max(1, cores() // beside)
    free = min(free, int(limit)) if limit.isdigit() and int(limit) else free
    chosen = choose_threads(asked, size, free)
    torch.set_num_threads(chosen)
    why = "as asked" if asked else f"for a model of {size / 1e6:.1f}M parameters"
    return f"threads: {chosen}, {why}" + ("" if asked else " (--threads N sets others)")
