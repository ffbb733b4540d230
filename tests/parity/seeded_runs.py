"""Short seeded runs of every kind, and a hash of what each left behind.

A change that only moves code must leave every hash as it was. Hashes hold for one machine and one
set of packages, so they are compared there and never recorded:

    python tests/parity/seeded_runs.py before.json
    ... the change ...
    python tests/parity/seeded_runs.py after.json --against before.json

The weights, the result (without times), the metrics (without times) and the shown episodes of each
run are hashed. Runs: HiMAC with a model a role and with a shared one, its ablations, the flat
methods, a KL penalty, a chat model, one that is interrupted and resumed, two processes, generated
ALFWorld, and baselines.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import fruit_runs  # noqa: E402
import torch  # noqa: E402
from launching import launch  # noqa: E402
from tinymodels import save_text_model  # noqa: E402

from himac_agents.training.trainer import Trainer  # noqa: E402

SMALL = fruit_runs.CONFIG.replace(iterations=3, least_minibatch=8, stop_at_failure=False)
ALFWORLD = SMALL.replace(
    env="HiMAC-ALFWorld-v0", flat_env="HiMAC-ALFWorld-Flat-v0", tasks=4, warm_steps=60, demos=20,
    env_kwargs={"data": "generated", "max_steps": 8, "reward": "verl-agent"}, iterations=2,
    expert="explorer", executor_advantage="both", constrained=False, resample_dead=1,
)  # fmt: skip


def play(folder: Path, **changes: Any) -> Path:
    """One run from its beginning to its end."""
    Trainer(SMALL.replace(**changes), folder, console=fruit_runs.QUIET).run()
    return folder


def chat(folder: Path) -> Path:
    """A model of Hugging Face with the chat prompts."""
    model = save_text_model(folder.parent / "model")
    return play(
        folder, policy="hf", model=str(model), max_command_tokens=6, max_blueprint_tokens=10,
        constrained=False, iterations=1, warm_steps=4, warm_tokens=2000,
    )  # fmt: skip


def resumed(folder: Path) -> Path:
    """A run that is stopped after its second iteration, and goes on."""
    trainer = Trainer(SMALL, folder, console=fruit_runs.QUIET)
    log, seen = trainer.run_folder.log, []

    def stopping(phase: str, step: int, values: Any) -> None:
        log(phase, step, values)
        seen.append(phase)
        if seen.count("executor") == 2:
            trainer.stop.set()

    trainer.run_folder.log = stopping  # type: ignore[method-assign]
    try:
        trainer.run()
        raise AssertionError("the run was to be stopped")
    except KeyboardInterrupt:
        trainer.stop.clear()
        trainer.run_folder.close()
    Trainer(SMALL, folder, resume=True, console=fruit_runs.QUIET).run()
    return folder


def two_processes(folder: Path) -> Path:
    """A run on two processes."""
    settings = folder.parent / "two.toml"
    settings.write_text(SMALL.replace(tasks=4).to_toml(), encoding="utf-8")
    launch(2, "-m", "himac_agents", "train", str(settings), "--out", str(folder))
    return folder


RUNS: dict[str, Callable[[Path], Path]] = {
    "himac, a model a role": lambda f: play(f, share_parameters=False),
    "himac, shared": play,
    "himac, trajectory credit, sampled execution": lambda f: play(
        f, executor_advantage="trajectory", greedy_execution=False, planner_every=2
    ),
    "himac-joint": lambda f: play(f, method="himac-joint"),
    "himac-no-subdone": lambda f: play(f, method="himac-no-subdone", subgoal_budget=3),
    "himac-random-blueprint": lambda f: play(f, method="himac-random-blueprint"),
    "grpo": lambda f: play(f, method="grpo", baselines=("demonstrator", "oracle")),
    "rloo": lambda f: play(f, method="rloo"),
    "gigpo, a short memory": lambda f: play(f, method="gigpo", history=2),
    "kl": lambda f: play(f, kl=0.1, loss_mean="token"),
    "replans, a budget, beside grpo": lambda f: play(
        f, replans=1, subgoal_budget=4, baselines=("grpo",), eval_at_tokens=200
    ),
    "chat": chat,
    "resumed": resumed,
    "two processes": two_processes,
    "alfworld": lambda f: play(f, **{
        k: v for k, v in vars(ALFWORLD).items() if v != getattr(SMALL, k)
    }),
}  # fmt: skip


def untimed(value: Any) -> Any:
    """A record without what differs from one time to the next."""
    if isinstance(value, dict):
        return {k: untimed(v) for k, v in value.items() if "seconds" not in k}
    return [untimed(v) for v in value] if isinstance(value, list) else value


def hashes(folder: Path) -> dict[str, str]:
    """What a run left: its last weights, its result, its metrics, its episodes."""

    def digest(*parts: bytes) -> str:
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "weights": digest(*(p.read_bytes() for p in sorted(newest.rglob("*.safetensors")))),
        "result": digest(json.dumps(untimed(result), sort_keys=True).encode()),
        "metrics": digest(json.dumps([untimed(json.loads(x)) for x in lines]).encode()),
        "episodes": digest((folder / "episodes.jsonl").read_bytes()),
    }


def main() -> int:
    """Play, hash, compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name, make in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = hashes(make(Path(folder) / "run"))
        print(name, found[name], flush=True)
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if asked.against is None:
        return 0
    before = json.loads(asked.against.read_text(encoding="utf-8"))
    apart = [f"{n}: {k}" for n, v in before.items() for k in v if found.get(n, {}).get(k) != v[k]]
    print("\n".join(["differ:", *apart]) if apart else f"all {len(found)} runs are the same")
    return 1 if apart else 0


if __name__ == "__main__":
    raise SystemExit(main())
