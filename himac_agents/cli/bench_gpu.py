"""``himac bench gpu``: what one GPU does, in one table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from himac_agents import files
from himac_agents.config.setting import MOST_MINUTES, setting, settle


@dataclass(frozen=True)
class Options:
    """Check and measure one GPU in at most eight minutes: a table, with each part's command."""

    device: str = "cuda"
    """The model's device: "cuda", "cuda:1"; "cpu" with --small to try the command."""
    small: bool = False
    """A model of two layers, few lanes and few tokens: to try the command, not for figures."""
    model: str = ""
    """A model's name or folder (default: random weights in the shape of SmolLM2-135M)."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of computation; "auto": bfloat16 on a GPU."""
    parts: tuple[str, ...] = ()
    """Only these parts: checks, local, update, vllm."""
    lanes: int = setting(128, least=1)
    """Episodes played at the same time."""
    steps: int = setting(10, least=1)
    """Most environment steps in an episode."""
    minutes: float = setting(8.0, least=0.5, most=MOST_MINUTES)
    """Time limit; parts not finished by then are left out."""
    output: Annotated[Path | None, tyro.conf.arg(name="json")] = None
    """Also write the figures to this file."""

    def __post_init__(self) -> None:
        settle(self)


def run(options: Options) -> int:
    """Measure, and print the table; 1 if a check or a part failed."""
    from himac_agents.experiments.bench import gpu
    from himac_agents.experiments.bench.gpu_parts import Setup

    setup = Setup(**{item.name: getattr(options, item.name) for item in fields(Setup)})
    report = gpu.run(setup, options.parts, options.minutes)
    if options.output is not None:
        files.write_atomically(options.output, json.dumps(asdict(report), indent=2) + "\n")
    gpu.show(report, setup)
    return int(report.failed)
