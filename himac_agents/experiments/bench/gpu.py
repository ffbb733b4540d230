"""``himac bench gpu``: what one GPU does, in a few minutes, as one table.

Its parts, each of which can be run by itself:

- *checks*: on the GPU the answers and the updates are what they are on a CPU;
- *local*: environment steps a second, sampled by the model that learns;
- *update*: tokens a second that are learned from, and the memory at the peak;
- *vllm*: the same steps sampled by vLLM in the process; a sync's time and its gap.

Each part is a process of its own, so that one that runs out of memory or time ends alone. What was
not run stands in the table, with the reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from himac_agents.experiments.bench import gpu_parts
from himac_agents.experiments.bench.gpu_parts import Row, Setup
from himac_envs.errors import HiMACError
from himac_envs.machine import processor

__all__ = ["PARTS", "Report", "run"]

#: The parts, in the order in which they are run.
PARTS: dict[str, Callable[[Setup], list[Row]]] = {
    "checks": gpu_parts.checks,
    "local": gpu_parts.local,
    "update": gpu_parts.update,
    "vllm": gpu_parts.served,
}
#: A part is not begun with fewer seconds than this.
_LEAST = 20.0


class NoGPUError(HiMACError, RuntimeError):
    """There is no device of the kind that was asked for."""


@dataclass(slots=True)
class Report:
    """What was measured.

    Attributes:
        machine: On what.
        rows: The figures.
        commands: For each part the command that runs it alone.
        skipped: For each part that was not run, or failed, why.
    """

    machine: str
    rows: list[Row] = field(default_factory=list)
    commands: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether a check failed, or a part that could be run."""
        wrong = any(row.passed is False for row in self.rows)
        return wrong or any(not why.startswith("not run") for why in self.skipped.values())


def run(setup: Setup, parts: Sequence[str] = (), minutes: float = 8.0) -> Report:
    """Runs the parts, each in a process of its own; a single one in this.

    Args:
        setup: With what.
        parts: Which; none: all.
        minutes: When all is to be over.

    Raises:
        NoGPUError: The device is not there.
        ValueError: There is no such part.
    """
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"no part {part!r}: choose among {', '.join(PARTS)}")
    report = Report(machine(setup))
    wanted = list(dict.fromkeys(parts)) or list(PARTS)
    report.commands = {part: command(setup, part) for part in wanted}
    if len(wanted) == 1:
        try:
            report.rows += PARTS[wanted[0]](setup)
        except gpu_parts.NotHere as error:
            report.skipped[wanted[0]] = f"not run: {error}"
        return report
    until = time.monotonic() + 60.0 * minutes
    for part in wanted:
        left = until - time.monotonic()
        if left < _LEAST:
            report.skipped[part] = f"not run: the {minutes:g} minutes were over (--minutes)"
        else:
            _apart(setup, part, left, report)
    return report


def _apart(setup: Setup, part: str, seconds: float, report: Report) -> None:
    """Runs a part in another process, for so many seconds at most."""
    with tempfile.TemporaryDirectory(prefix="himac-bench-") as folder:
        path = Path(folder) / "figures.json"
        words = [sys.executable, "-m", "himac_agents", *arguments(setup, part), "--json", str(path)]
        try:
            done = subprocess.run(words, timeout=seconds, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            report.skipped[part] = f"stopped after {seconds:.0f} s: give it more with --minutes"
            return
        if not path.is_file():
            said = [line.strip(" │╭╮╰╯─") for line in done.stderr.splitlines()]
            last = next((line for line in reversed(said) if line), "no message")
            report.skipped[part] = f"failed with status {done.returncode}: {last}"
            return
        found = json.loads(path.read_text(encoding="utf-8"))
    report.rows += [Row(**row) for row in found["rows"]]
    report.skipped |= found["skipped"]


def arguments(setup: Setup, part: str) -> list[str]:
    """What stands behind `himac` to run one part."""
    words = ["bench", "gpu", "--parts", part, "--device", setup.device]
    if setup.small:
        words.append("--small")
    if setup.model:
        words += ["--model", setup.model]
    if setup.dtype != "auto":
        words += ["--dtype", setup.dtype]
    return [*words, "--lanes", str(setup.lanes), "--steps", str(setup.steps)]


def command(setup: Setup, part: str) -> str:
    """The command that runs one part alone."""
    return " ".join(["himac", *arguments(setup, part)])


def machine(setup: Setup) -> str:
    """What is measured on; a NoGPUError where the device is not there."""
    import transformers

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    if torch.device(setup.device).type == "cpu":
        threads = torch.get_num_threads()
        return f"{processor()}, {threads} thread{'s' * (threads > 1)}, {versions}"
    if torch.device(setup.device).type != "cuda" or not torch.cuda.is_available():
        raise NoGPUError(
            f"torch {torch.__version__} finds no device {setup.device!r} here: run this where "
            "`himac doctor` shows a GPU, with a build of torch for CUDA. `himac bench gpu "
            "--device cpu --small` runs the same code without one, to see that it works"
        )
    name = torch.cuda.get_device_name(setup.device)
    memory = torch.cuda.get_device_properties(setup.device).total_memory / 2**30
    return f"{name}, {memory:.0f} GiB, CUDA {torch.version.cuda}, {versions}"


def show(report: Report, setup: Setup) -> None:
    """Prints a report as one table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"himac bench gpu: {setup.told}", show_lines=False)
    for heading, side in (("part", "left"), ("what", "left"), ("figure", "right"), ("", "left")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for part in report.commands:
        for row in [row for row in report.rows if row.part == part]:
            table.add_row(part, row.what, f"{row.figure:,.4g} {row.unit}".strip(), row.verdict)
        if part in report.skipped:
            table.add_row(part, report.skipped[part].partition(":")[0], "", "")
    console = Console(highlight=False)
    console.print(table)
    # Whole lines, to be copied.
    for part, words in report.commands.items():
        console.print(f"{part}: {words}", soft_wrap=True, markup=False)
    for part, why in report.skipped.items():
        console.print(f"{part}: {why}", soft_wrap=True, markup=False)
    console.print(report.machine, soft_wrap=True, markup=False)
