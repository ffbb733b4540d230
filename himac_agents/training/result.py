"""What a run found: the content of `result.json`, and the table a run ends with."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from typing import Any

import numpy as np
from rich.table import Table

from himac_agents import distributed
from himac_agents.algorithms.methods import METHODS, method_of
from himac_agents.config import TrainConfig
from himac_agents.evaluation.evaluate import EvalResult
from himac_agents.evaluation.intervals import Interval, paired_difference
from himac_envs import __version__


def record(result: EvalResult) -> dict[str, Any]:
    """An evaluation as JSON, with each task's outcome for paired comparisons."""
    return {**result.to_json(), "outcomes": [int(x) for x in result.successes]}


def summarise(at: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """The content of `result.json`.

    Args:
        at: The trainer's progress, as a mapping.
        config: The run's settings.

    Returns:
        `warm_start` and `final` (success at temperature 1, with `greedy` inside), `baselines` by
        name, `gain` (paired differences with 95% bootstrap intervals over tasks) and `work`; with
        `eval_at_tokens` also `at_tokens`, the same at that budget, if the run has reached it; of a
        run that was extended `former`, its ends before; with `eval_every` `panel`, what was seen;
        and the `versions` of packages.
    """
    found = at["evaluations"]
    warm, final = found["warm_start"], found["final"]
    own = ("warm_start", "final", "at_tokens")
    baselines = {k: v for k, v in found.items() if k not in own}
    gains = {
        "temperature_1": difference(warm, final),
        "greedy": difference(warm["greedy"], final["greedy"]),
    }
    if "supervised" in baselines:
        gains["over_further_supervision"] = difference(baselines["supervised"], final)
    if "grpo" in baselines:
        gains["over_flat_grpo"] = difference(baselines["grpo"]["final"], final)
    return {
        "method": config.method,
        "env": config.env_id(flat=not method_of(config).hierarchical),
        "split": config.eval_split,
        "seed": config.seed,
        "warm_start": warm,
        "final": final,
        **({"at_tokens": found["at_tokens"]} if "at_tokens" in found else {}),
        **({"former": at["former"]} if at.get("former") else {}),
        "baselines": baselines,
        "gain": gains,
        "work": {
            "iterations": at["iteration"],
            "env_steps": at["env_steps"],
            "tokens": at["tokens"],
            "demonstrated_steps": at["demo_steps"],
            "supervised_steps": at["warm"],
            "warm_start_seconds": round(at["warm_seconds"], 1),
            "warm_start_cpu_seconds": round(at["warm_cpu_seconds"], 3),
            "learning_seconds": round(at["learn_seconds"], 1),
            "learning_cpu_seconds": round(at["learn_cpu_seconds"], 3),
            "processes": distributed.team().size,
        },
        **({"panel": at["looks"]} if at.get("looks") else {}),
        "versions": versions(),
        "note": config.note,
    }


def versions() -> dict[str, str]:
    """What a run is finished with: Python, this package, and those that decide what is computed."""
    found = {"himac": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "numpy"):
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """`after` minus `before` on the same tasks: mean, and a 95% bootstrap interval over tasks."""
    mean, low, high = paired_difference(
        np.asarray(before["outcomes"], dtype=np.float64),
        np.asarray(after["outcomes"], dtype=np.float64),
    )
    return Interval(mean, low, high, "tasks").to_json()


def table(result: Mapping[str, Any]) -> Table:
    """The result as a table: who, success at temperature 1 with its interval over tasks, greedy."""
    warm, final, beside = result["warm_start"], result["final"], result["baselines"]
    shown = Table(title=f"{result['env']}, {warm['episodes']} held-out tasks ({result['split']})")
    for heading in ("agent", "success, temperature 1", "95% interval over tasks", "greedy"):
        shown.add_column(heading, justify="left" if heading == "agent" else "right")
    name = METHODS[result["method"]].title
    _row(shown, "warm start", warm)
    if "at_tokens" in result:
        _row(
            shown, f"{name}, {result['at_tokens']['work']['tokens']:,} tokens", result["at_tokens"]
        )
    _row(shown, name, final)
    if "supervised" in beside:
        _row(shown, "further supervision, same CPU time", beside["supervised"])
    if "grpo" in beside:
        _row(shown, "flat warm start", beside["grpo"]["warm_start"])
        _row(shown, "flat GRPO, same env steps", beside["grpo"]["final"])
    for kind in (k for k in beside if k not in ("supervised", "grpo")):
        _row(shown, kind, beside[kind])
    gain = result["gain"]["temperature_1"]
    low, high = gain["ci95"]
    told = f"paired 95% interval over tasks {100 * low:+.1f} to {100 * high:+.1f}"
    if low == high:
        told = "no interval: each task changed alike"
    shown.caption = (
        f"gain at temperature 1: {100 * gain['mean']:+.1f} points, {told} (one seed says nothing "
        "of others); greedy "
        f"{100 * result['gain']['greedy']['mean']:+.1f}; {result['work']['env_steps']:,} "
        f"environment steps, {result['work']['tokens']:,} tokens; warm start "
        f"{result['work']['warm_start_seconds']:.0f} s, learning "
        f"{result['work']['learning_seconds']:.0f} s"
    )
    if high < 0.0:
        shown.caption += (
            ". Learning made it worse: try a smaller --lr, more tasks to train on, or more of them "
            "an iteration (--tasks)"
        )
    return shown


def _row(shown: Table, name: str, entry: Mapping[str, Any]) -> None:
    low, high = entry["ci95"]
    greedy = entry.get("greedy")
    shown.add_row(
        name,
        f"{100 * entry['success']:.1f}",
        f"{100 * low:.1f} - {100 * high:.1f}",
        "" if greedy is None else f"{100 * greedy['success']:.1f}",
    )
