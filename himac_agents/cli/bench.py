"""``himac bench NAME``: the figures of docs/proofs.md, measured here and now."""

from __future__ import annotations

import importlib
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from himac_agents.cli.helped import helped
from himac_envs import registry

#: Benchmark -> the module whose ``run(quick)`` measures it and prints a table.
BENCHES = {
    "alfworld": "himac_envs.alfworld.bench",
    "webshop": "himac_envs.webshop.bench",
    "sokoban": "himac_envs.sokoban.bench",
    "train": "himac_agents.experiments.bench.train",
}

Options = TypeVar("Options")


def with_options(
    name: str, options: type[Options], action: Callable[[Options], int], args: Sequence[str]
) -> int:
    """Runs a benchmark that has options and processes of its own.

    Ended from outside, it ends its processes too, as after Ctrl-C.
    """
    asked = tyro.cli(helped(options), args=list(args), prog=f"himac bench {name}")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return action(asked)
    finally:
        signal.signal(signal.SIGTERM, before)


def run(
    name: Annotated[str, tyro.conf.Positional],
    quick: bool = False,
    output: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> int:
    """Measure speed against the original, interleaved in one run (CPU time, median of 5).

    Four more benchmarks have options of their own (`himac bench methods --help`): methods compares
    what methods learn, credit measures how far their credit is from the truth, llm what a
    pretrained language model learns, and gpu checks and measures one GPU.

    Args:
        name: alfworld, webshop, sokoban (or an id of theirs), or train (beside TRL).
        quick: Fewer repetitions.
        output: Also write the figures to this file.
    """
    name = registry.benchmark_of(name) or name
    if name not in BENCHES:
        raise ValueError(
            f"no benchmark {name!r}: choose one of {', '.join(BENCHES)}, methods, credit, gpu, llm"
        )
    # Nothing more is told until the end: what tells would be measured, too.
    print(f"measuring {name}{' briefly' if quick else ''}: this takes minutes", file=sys.stderr)
    figures = importlib.import_module(BENCHES[name]).run(quick=quick)
    if output is not None:
        output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0
