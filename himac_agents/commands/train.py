"""``himac train [PRESET]``: train an agent; every setting of the preset is an option."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import tyro

from himac_agents.config import TrainConfig
from himac_envs import registry
from himac_envs.task import MissingDependencyError


@dataclass(frozen=True)
class Options:
    """Train an agent: a preset's settings, any of them replaced by an option."""

    preset: Annotated[str, tyro.conf.Positional] = "quickstart"
    """A preset of the registry (himac list shows them), or a TOML file of settings. Without one:
    "quickstart", or "hf" with --policy hf."""
    out: Path | None = None
    """Folder of the run (default: runs/PRESET-seedN)."""
    resume: Path | None = None
    """Continue this run instead; its own settings hold."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


def main(args: Sequence[str]) -> int:
    """Run the command from its arguments.

    The preset is looked for first, because its values are the defaults of the other options.
    """
    usual = "hf" if _wants_hf(args) else "quickstart"
    preset = next((a for a in args[:1] if not a.startswith("-")), usual)
    default = Options(preset=preset, config=_settings(preset))
    options = tyro.cli(Options, args=list(args), default=default, prog="himac train")
    return run(options)


def _wants_hf(args: Sequence[str]) -> bool:
    """Whether the options ask for a model of Hugging Face."""
    return "--policy=hf" in args or ("--policy", "hf") in pairwise(args)


def _settings(preset: str) -> TrainConfig:
    if preset.endswith(".toml"):
        return TrainConfig.from_toml(preset)
    known = {p.stem for p in (registry.root() / "presets").glob("*.toml")}
    if preset not in known:
        raise ValueError(
            f"no preset {preset!r}: there are {', '.join(sorted(known))}; "
            "a file of settings ends in .toml"
        )
    return TrainConfig.preset(preset)


def run(options: Options) -> int:
    """Train to the end, or continue; print the table of results."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("torch", "training", "agents") from error
    from himac_agents import parallel
    from himac_agents.trainer import Trainer

    if options.resume is not None:
        settings = options.resume / "config.toml"
        if not settings.is_file():
            raise FileNotFoundError(f"{options.resume} holds no run: there is no {settings.name}")
        trainer = Trainer(TrainConfig.from_toml(settings), options.resume, resume=True)
    else:
        name = Path(options.preset).stem
        folder = options.out or Path("runs") / f"{name}-seed{options.config.seed}"
        trainer = Trainer(options.config, folder)
    try:
        trainer.run()
    except KeyboardInterrupt:
        folder = trainer.run_folder.folder
        print(f"stopped; `himac train --resume {folder}` goes on", file=sys.stderr)
        raise
    finally:
        parallel.leave()
    return 0
