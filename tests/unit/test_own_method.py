"""With nothing but the wheel: one's own environment, advantage, prompts and policy are trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from wheels import unpacked_wheel

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_method.py"
OPTIONS = (
    "--env own_method:Count-v0 --flat-env own_method:Count-v0 --method centred --policy narrow "
    "--prompt terse --iterations 2 --warm-steps 20 --demos 6 --tasks 4 --eval-episodes 6 "
    "--max-env-steps 0 --expert oracle --env-kwargs --baselines --flat-warm-steps 0"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked_wheel(tmp_path_factory.mktemp("wheel"))


def _run(wheel: Path, folder: Path, *arguments: str) -> str:
    (folder / "own_method.py").write_bytes(EXAMPLE.read_bytes())
    done = subprocess.run(
        [sys.executable, "-P", *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{wheel}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_it_is_sixty_lines_of_ones_own() -> None:
    code = EXAMPLE.read_text(encoding="utf-8").split('"""', 2)[2].splitlines()
    written = [line for line in code if line.strip() and not line.strip().startswith("#")]
    assert len(written) <= 60


def test_through_the_trainer(wheel: Path, tmp_path: Path) -> None:
    said = _run(wheel, tmp_path, "own_method.py", "run")
    assert "after two iterations" in said
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["method"] == "centred" and result["work"]["iterations"] == 2
    assert result["work"]["env_steps"] > 0
    made = """
from himac_agents.rollouts.types import Episode, EpisodeRequest
from own_method import centred
made = [(0, 3.0), (1, 1.0), (0, 1.0), (1, 1.0)]
print(centred(None, [Episode(EpisodeRequest("5", group=g), reward=r) for g, r in made]))
"""
    said = _run(wheel, tmp_path, "-c", made)
    assert said.strip() == "[1.0, 0.0, -1.0, 0.0]", "each group's mean is zero"
    code = "import himac_agents, himac_envs; print(himac_agents.__file__, himac_envs.__file__)"
    assert _run(wheel, tmp_path, "-c", code).count(str(wheel)) == 2


def test_through_the_command_line(wheel: Path, tmp_path: Path) -> None:
    run = ("-m", "himac_agents", "train", "quickstart", *OPTIONS.split(), "--out", "run")
    _run(wheel, tmp_path, *run)
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["method"] == "centred" and result["work"]["iterations"] == 2
    found = _run(
        wheel, tmp_path, "-m", "himac_agents", "eval", "own_method:Count-v0", "--agent", "run",
        "--split", "valid", "--episodes", "5",
    )  # fmt: skip
    assert "success" in found
    config = (tmp_path / "run" / "config.toml").read_text(encoding="utf-8")
    assert 'policy = "narrow"' in config and 'prompt = "terse"' in config
