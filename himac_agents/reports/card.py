"""A trained run as a model repository: which files it needs, and its model card.

The repository is a run's folder with its newest checkpoint and without what only training needs, so
`load_agent` and ``himac eval`` take a copy of it as they take the run. Its ``README.md`` is a model
card: what was trained on what, the evaluation with its intervals, and the evaluation's manifest,
which says what another figure must share to be comparable. The card's metadata follow the model
cards of the Hugging Face Hub (``model-index``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from himac_agents.files import latest_checkpoint
from himac_agents.reports.runs import Evaluation, RunData

#: Of a run's folder, what a copy holds beside the checkpoint.
KEPT = ("config.toml", "begun.toml", "result.json", "metrics.jsonl")


def files(run: Path) -> dict[str, Path]:
    """What a repository holds of a run: files by their place in it.

    Raises:
        CheckpointError: The run has no whole checkpoint.
    """
    newest = latest_checkpoint(run / "checkpoints")
    found = {name: run / name for name in KEPT if (run / name).is_file()}
    for path in sorted(newest.rglob("*")):
        # Moments of optimisers are three times the model, and of no use without its run.
        if path.is_file() and ".optimizer" not in path.name:
            found[path.relative_to(run).as_posix()] = path
    return found


def policies(run: Path) -> list[str]:
    """The places of the policies, as `from_pretrained(subfolder=...)` takes them."""
    names = ("config.json", "adapter_config.json")
    return sorted({Path(f).parent.as_posix() for f in files(run) if Path(f).name in names})


def card(run: RunData, name: str, *, licence: str = "", base: str = "") -> str:
    """A model card in Markdown, with its metadata.

    Args:
        run: The run.
        name: The repository ("me/alfworld-himac").
        licence: The Hub's short name of one ("apache-2.0"); "": none is stated.
        base: The model that was trained further, by its name on the Hub; "": its settings' `model`,
            where that is a name and no folder of this machine.
    """
    settings = run.settings
    model = str(settings.get("model", ""))
    if not base and model.count("/") == 1 and not Path(model).exists():
        base = model
    lines = [
        "---",
        *_metadata(run, name, licence, base),
        "---",
        "",
        f"# {name.rpartition('/')[2]}",
        "",
        f"{run.title} on `{run.env}`, trained with [HiMAC](https://arxiv.org/abs/2603.00977)'s "
        f"suite, `himac` {_manifest(run).get('himac', '')}. "
        + (f"Trained from `{base}`." if base else f"Policy: `{settings.get('policy', 'tiny')}`."),
        "",
        "## Evaluation",
        "",
        *_evaluation(run),
        "",
        "## Use",
        "",
        "```python",
        "from huggingface_hub import snapshot_download",
        "from himac_agents import load_agent",
        "",
        f'agent = load_agent(snapshot_download("{name}"))',
        "```",
        "",
        "The same evaluation again:",
        "",
        "```sh",
        f"hf download {name} --local-dir {name.rpartition('/')[2]}",
        f"himac eval {run.env} --agent {name.rpartition('/')[2]}",
        "```",
        "",
        "The policies, where they are models of transformers, load without `himac` too:",
        "",
        *(f'- `from_pretrained("{name}", subfolder="{p}")`' for p in policies(run.path)),
        "",
        "## Training",
        "",
        *_training(run),
    ]
    return "\n".join(lines) + "\n"


def _metadata(run: RunData, name: str, licence: str, base: str) -> Iterator[str]:
    from huggingface_hub import EvalResult, ModelCardData

    final = _final(run)
    results = []
    if final is not None:
        asked = {
            "task_type": "reinforcement-learning",
            "dataset_type": run.env,
            "dataset_name": run.env,
            "dataset_split": str((run.result or {}).get("split", "")),
            "metric_type": "success",
        }
        results.append(
            EvalResult(**asked, metric_name="success at temperature 1", metric_value=final.success)
        )
        if final.greedy is not None:
            told = {"metric_name": "success, greedy", "metric_value": final.greedy}
            results.append(EvalResult(**asked, **told))
    data = ModelCardData(
        library_name="himac",
        license=licence or None,
        base_model=base or None,
        tags=["himac", "reinforcement-learning", "llm-agent", run.method],
        model_name=name.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )
    yield data.to_yaml()


def _final(run: RunData) -> Evaluation | None:
    return next((e for e in run.evaluations if e.name == "final"), None) if run.finished else None


def _manifest(run: RunData) -> Mapping[str, Any]:
    final = (run.result or {}).get("final") or {}
    found = final.get("manifest") or {}
    return found if isinstance(found, dict) else {}


def _evaluation(run: RunData) -> Iterator[str]:
    final = _final(run)
    if final is None:
        done = run.work.get("iterations", 0)
        yield f"None: the run is not finished ({done} iterations)."
        return
    split = (run.result or {}).get("split", "?")
    yield (
        f"Tasks of the split `{split}`; intervals are of 95% over tasks. One training seed "
        f"({run.seed}): they say nothing of other seeds."
    )
    yield ""
    yield "| agent | episodes | success, temperature 1 | success, greedy |"
    yield "|---|---|---|---|"
    for row in [*(e for e in run.evaluations if e.name in ("warm_start", "final")), *run.baselines]:
        shown = {"warm_start": "warm start", "final": f"**{run.title}**"}.get(row.name, row.name)
        sampled = _percent(row.success, row.ci95)
        greedy = "-" if row.greedy is None else _percent(row.greedy, row.greedy_ci95)
        yield f"| {shown} | {row.episodes} | {sampled} | {greedy} |"
    gain = run.gain()
    if gain is not None and gain[1] is not None and gain[2] is not None:
        mean, low, high = (100 * float(x) for x in gain if x is not None)
        told = f"[{low:+.1f}, {high:+.1f}], paired over tasks"
        if low == high:
            told = "(each task changed alike: too few for an interval)"
        yield ""
        yield f"Gain over the warm start at temperature 1: {mean:+.1f} points {told}."
    if run.settings.get("note"):
        yield ""
        yield f"Note: {run.settings['note']}"
    manifest = _manifest(run)
    if manifest:
        yield ""
        yield "What it was of (figures may be compared where this agrees):"
        yield ""
        yield "```json"
        yield json.dumps(manifest, indent=2)
        yield "```"


def _percent(mean: float, interval: tuple[float, float] | None) -> str:
    told = f"{100 * mean:.1f}%"
    if interval is None:
        return told
    low, high = interval
    return f"{told} [{100 * low:.1f}, {100 * high:.1f}]"


def _training(run: RunData) -> Iterator[str]:
    work = run.work
    yield f"- method: `{run.method}`, seed {run.seed}"
    names = {
        "iterations": "iterations",
        "env_steps": "environment steps",
        "tokens": "tokens written",
        "demonstrated_steps": "demonstrated steps",
        "supervised_steps": "supervised steps",
    }
    for key, told in names.items():
        if key in work:
            yield f"- {told}: {int(work[key]):,}"
    yield "- all settings: `config.toml`"
