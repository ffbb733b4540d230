"""Environments of others: from an installed package, from a module, registered by anybody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from toy import FruitEnv

from himac_agents.cli import main
from himac_envs import HierarchicalEnv, registry
from himac_envs.contract import INFO, ContractError, expert_of
from himac_envs.registry import PluginWarning, find_env, find_id

ROOT = Path(__file__).resolve().parents[2]

_MODULE = '''
"""Fruit in a row of rooms, as somebody's package: it knows nothing of the project's tests."""

import gymnasium as gym
from toy import FruitEnv


class Orchard(FruitEnv):
    data_name = "orchard"

    def __init__(self, *, label="", **kwargs):
        super().__init__(**kwargs)
        self.label = label

    def _look(self):
        return super()._look() + self.label


class Loud(gym.Wrapper):
    """Somebody's wrapper: it changes what agents read."""

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        return {**observation, "text": observation["text"].upper()}, info

    def step(self, action):
        observation, *rest = self.env.step(action)
        return {**observation, "text": observation["text"].upper()}, *rest


def make_loud(**kwargs):
    return Loud(Orchard(**kwargs))


HIERARCHY = "himac_envs.hierarchy:make_hierarchical"
gym.register("Orchard-v0", HIERARCHY, kwargs={"task": "NAME:Orchard"})
gym.register("Orchard-Flat-v0", "NAME:Orchard")
gym.register("Loud-v0", "NAME:make_loud")
gym.register("Brief-v0", "NAME:Orchard", max_episode_steps=2)
'''


@pytest.fixture
def himac(tmp_path: Path) -> Any:
    """The command line, in a folder outside the checkout."""

    def call(*args: str, path: str = "", status: int = 0) -> tuple[str, str]:
        code = "import sys; from himac_agents.cli import main; sys.exit(main(sys.argv[1:]))"
        where = os.pathsep.join(filter(None, [path, str(ROOT), str(ROOT / "tests")]))
        # -P, as an installed script: the folder where it is called is not importable by itself.
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *args],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": where, "HIMAC_HOME": str(tmp_path), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr[-3000:]
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr

    return call


@pytest.fixture
def package(tmp_path: Path) -> str:
    """An installed package that brings environments, and one that is broken."""
    site = tmp_path / "site"
    for name, value, code in (
        ("orchard", "orchard", _MODULE.replace("NAME", "orchard")),
        ("mildew", "mildew:register", "def register():\n    raise RuntimeError('rotten')\n"),
    ):
        (site / f"{name}_envs-1.0.dist-info").mkdir(parents=True)
        (site / f"{name}.py").write_text(code)
        about = site / f"{name}_envs-1.0.dist-info"
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-envs\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[himac.envs]\n{name} = {value}\n")
    return str(site)


_TRAIN = (
    "--iterations", "1", "--warm-steps", "4", "--demos", "6", "--tasks", "2", "--blueprints", "2",
    "--executions", "2", "--eval-episodes", "2", "--hidden", "16", "--layers", "1", "--heads", "2",
    "--feedforward", "16", "--warm-tokens", "512", "--threads", "1", "--lanes", "8", "--baselines",
)  # fmt: skip


def test_an_installed_package_is_listed_played_evaluated_demonstrated_and_trained(
    himac: Any, package: str, tmp_path: Path
) -> None:
    out, err = himac("list", path=package)
    assert "Orchard-v0" in out and "orchard:Orchard" in out and "CartPole" not in out
    rows = {w[0]: w[1] for w in map(str.split, out.splitlines()) if len(w) > 1}
    assert rows["Orchard-v0"] == "hierarchical" and rows["Orchard-Flat-v0"] == "flat"
    assert "'mildew' of the package mildew-envs" in err and "rotten" in err, "named, and no crash"

    out, _ = himac("doctor", path=package)
    said = " ".join(out.split())
    assert "himac.envs: orchard" in said and "himac.envs: mildew" in said
    assert "RuntimeError: rotten" in said and "pip uninstall mildew-envs" in said

    out, _ = himac("play", "Orchard-v0", "--expert", "--seed", "0", path=package)
    assert "won:" in out and "not won" not in out and "get the" in out
    for agent, flat, success in (("oracle", False, 1.0), ("random", True, None)):
        words = ["--flat"] if flat else []
        himac(
            "eval", "Orchard-v0", "--agent", agent, "--episodes", "4", "--max-steps", "9",
            "--json", f"{agent}.json", *words, path=package,
        )  # fmt: skip
        found = json.loads((tmp_path / f"{agent}.json").read_text())
        assert found["env"] == ("Orchard-Flat-v0" if flat else "Orchard-v0")
        assert found["episodes"] == 4 and found["errors"] == 0 and found["env_steps"] <= 36
        assert success is None or found["success"] == success

    himac("demos", "Orchard-v0", "--episodes", "3", path=package)
    lines = [json.loads(x) for x in (tmp_path / "demos-Orchard-v0.jsonl").read_text().splitlines()]
    assert {x["role"] for x in lines} == {"planner", "executor"} and all(
        x["success"] for x in lines
    )

    _, err = himac("train", "--env", "Orchard-v0", "--out", "run", *_TRAIN, path=package)
    assert "has no explorer; the oracle demonstrates" in err
    settings = (tmp_path / "run" / "config.toml").read_text()
    assert 'env = "Orchard-v0"' in settings
    out, err = himac("eval", "Orchard-v0", "--agent", "run", "--episodes", "2", path=package)
    assert "Orchard-v0 (test, data: orchard)" in out and "was trained on" not in err


def test_a_module_in_this_folder_plays_in_every_command(himac: Any, tmp_path: Path) -> None:
    (tmp_path / "garden.py").write_text(_MODULE.replace("NAME", "garden"))
    out, _ = himac("play", "garden:Orchard-v0", "--expert", "--env-kwargs", "label=(ripe)")
    assert "(ripe)" in out and "not won" not in out
    himac("eval", "garden:Orchard-v0", "--no-flat", "--episodes", "2", "--json", "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["success"] == 1.0
    himac("demos", "garden:Orchard-v0", "--flat", "--episodes", "2")
    lines = (tmp_path / "demos-Orchard-Flat-v0.jsonl").read_text().splitlines()
    assert {json.loads(x)["env"] for x in lines} == {"garden:Orchard-Flat-v0"}
    himac("train", "--env", "garden:Orchard-v0", "--max-steps", "7", "--out", "run", *_TRAIN)
    settings = (tmp_path / "run" / "config.toml").read_text()
    assert "garden:Orchard-v0" in settings and "max_steps = 7" in settings
    himac("eval", "garden:Orchard-v0", "--agent", "run", "--episodes", "2", "--json", "b.json")
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["errors"] == 0 and found["env_steps"] <= 14, "its own arguments are kept"


def test_the_example_is_such_a_module(himac: Any, tmp_path: Path) -> None:
    out, _ = himac("play", "own_env:Counter-v0", "--expert", path=str(ROOT / "examples"))
    assert "reach" in out and "not won" not in out
    words = ["--flat", "--agent", "oracle", "--episodes", "2", "--json", "a.json"]
    himac("eval", "own_env:Counter-v0", *words, path=str(ROOT / "examples"))
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["env"] == "own_env:Counter-Flat-v0" and found["success"] == 1.0


def test_wrappers_of_the_registration_are_kept(himac: Any, tmp_path: Path) -> None:
    (tmp_path / "garden.py").write_text(_MODULE.replace("NAME", "garden"))
    out, _ = himac("play", "garden:Loud-v0", "--expert")
    assert "YOU SEE" in out and "You see" not in out and "not won" not in out
    out, _ = himac("play", "garden:Brief-v0", "--expert", "--task-id", "train:00")
    assert "not won: 2 steps" in out
    himac("demos", "garden:Loud-v0", "--episodes", "2", "--prompt", "compact")
    told = (tmp_path / "demos-Loud-v0.jsonl").read_text()
    assert "YOU SEE" in told and "You see" not in told
    himac("eval", "garden:Brief-v0", "--agent", "random", "--episodes", "4", "--json", "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["errors"] == 0 and found["env_steps"] <= 8, "two steps an episode"


@pytest.fixture
def register() -> Iterator[Any]:
    """Registers environments, for one test."""
    before = dict(gym.registry)

    def add(name: str, maker: Any, **kwargs: Any) -> None:
        gym.register(name, maker, **kwargs)

    yield add
    gym.registry.clear()
    gym.registry.update(before)


class Plain(gym.Env[Any, str]):
    """Keeps the contract without the project's base class: no split, no oracle, no explorer."""

    observation_space = gym.spaces.Dict({"text": gym.spaces.Text(100)})
    action_space = gym.spaces.Text(100)

    def task_ids(self, split: str) -> list[str]:
        return [f"{split}-{n}" for n in range(3)]

    def _info(self, **changes: Any) -> dict[str, Any]:
        same = {"task_id": self.task, "goal": "say please", "admissible": ["please"]}
        rest = {"won": False, "score": 0.0, "invalid": False, "step": 0}
        return {**same, **rest, **changes}

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.task = (options or {}).get("task_id", "train-0")
        return {"text": "Well?"}, self._info()

    def step(self, action: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        won = action == "please"
        done = self._info(won=won, score=float(won), step=1)
        return {"text": "Thanks." if won else "Hm."}, float(won), won, not won, done


def test_any_environment_that_keeps_the_contract_is_found(
    register: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    register("Polite-v0", Plain)
    found = find_env("Polite-v0", flat=True)
    assert (found.id, found.kind, found.benchmark, found.partner) == ("Polite-v0", "flat", "", "")
    monkeypatch.setattr("builtins.input", lambda prompt: "please")
    assert main(["play", "Polite-v0"]) == 0
    assert "won: 1 steps" in capsys.readouterr().out, "it takes no split, and names no data"
    file = tmp_path / "a.json"
    assert main(["eval", "Polite-v0", "--agent", "random", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert result["success"] == 1.0 and result["episodes"] == 3 and result["errors"] == 0
    assert "by_type" not in result or set(result["by_type"]) <= {""}
    capsys.readouterr()
    for command in (
        ["play", "Polite-v0", "--expert"],
        ["eval", "Polite-v0", "--agent", "oracle"],
        ["demos", "Polite-v0"],
    ):
        assert main(command) == 1
        assert "Polite-v0 has no oracle" in capsys.readouterr().err
    assert main(["eval", "Polite-v0", "--no-flat"]) == 1
    assert "make_hierarchical" in capsys.readouterr().err


class _NoIds(Plain):
    task_ids = None  # type: ignore[assignment]


class _NoText(Plain):
    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        return "Well?", super().reset(**kwargs)[1]


class _NoGoal(Plain):
    def _info(self, **changes: Any) -> dict[str, Any]:
        kept = super()._info(**changes)
        del kept["goal"], kept["score"]
        return kept


class _OtherTask(Plain):
    def _info(self, **changes: Any) -> dict[str, Any]:
        return super()._info(**changes) | {"task_id": "another"}


class _NoOptions(Plain):
    def reset(self, *, seed: Any = None) -> tuple[Any, dict[str, Any]]:  # type: ignore[override]
        return super().reset()


class _HalfHierarchical(Plain):
    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(**kwargs)
        return {**observation, "phase": 0}, info


@pytest.mark.parametrize(
    ("broken", "lacks"),
    [
        (_NoIds, "task_ids(split)"),
        (_NoText, "'text' (it is a str)"),
        (_NoGoal, "info with 'goal', 'score'"),
        (_OtherTask, "it plays 'another'"),
        (_NoOptions, "reset(seed=None, options="),
        (_HalfHierarchical, "observation['subgoal'] beside 'phase'"),
    ],
)
def test_what_is_missing_is_named(
    broken: type[Plain], lacks: str, register: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    register("Broken-v0", broken, order_enforce=False)
    for command in (["eval", "Broken-v0"], ["play", "Broken-v0"], ["demos", "Broken-v0"]):
        assert main(command) == 1
        told = capsys.readouterr().err
        assert lacks in told and "check_task_env" in told and "Traceback" not in told
    from himac_agents.config import TrainConfig
    from himac_agents.rollouts.pool import make_pool

    with pytest.raises(ContractError, match="check_task_env"):
        make_pool(TrainConfig(env="Broken-v0"), flat=False)


def test_all_that_is_missing_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "CartPole-v1", "--agent", "random"]) == 1
    told = capsys.readouterr().err
    assert all(f"'{key}'" in told for key in INFO) and "task_ids" in told and "ndarray" in told


class _NoExpert(FruitEnv):
    def oracle(self, subgoal: str | None = None) -> Iterator[str]:
        raise NotImplementedError


def test_who_stands_in_for_a_missing_expert(
    register: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert expert_of(FruitEnv(), "oracle", "Fruit-v0") == "oracle"
    assert expert_of(HierarchicalEnv(FruitEnv()), "explorer", "Fruit-v0") == "oracle"
    for env in (_NoExpert(), HierarchicalEnv(_NoExpert())):
        with pytest.raises(ContractError, match="no explorer"):
            expert_of(env, "explorer", "Fruit-v0")
    register("Fruit-Flat-v0", FruitEnv)
    told = "note: Fruit-Flat-v0 has no explorer; the oracle"
    args = ["--episodes", "2", "--flat"]
    assert main(["eval", "Fruit-Flat-v0", "--agent", "explorer", *args]) == 0
    assert f"{told} plays" in capsys.readouterr().err
    file = str(tmp_path / "demos.jsonl")
    assert main(["demos", "Fruit-Flat-v0", "--expert", "explorer", "--out", file, *args]) == 0
    assert f"{told} demonstrates" in capsys.readouterr().err
    assert main(["eval", "HiMAC-ALFWorld-v0", "--agent", "explorer", "--episodes", "2"]) == 0
    assert "has no explorer" not in capsys.readouterr().err
    register("NoExpert-v0", lambda **kwargs: HierarchicalEnv(_NoExpert(**kwargs)))
    run = tmp_path / "run"
    assert main(["train", "--env", "NoExpert-v0", "--out", str(run), *_TRAIN]) == 1
    assert (
        "NoExpert-v0 has no explorer" in capsys.readouterr().err
        and not (run / "config.toml").exists()
    )


def test_a_module_that_is_broken_itself_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        find_id("needs_more:Id-v0")


def test_importing_the_suite_loads_no_plugin(package: str) -> None:
    code = (
        "import sys, himac_envs; assert 'orchard' not in sys.modules and 'toy' not in sys.modules"
    )
    where = os.pathsep.join([package, str(ROOT), str(ROOT / "tests")])
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": where}, check=True
    )


def test_a_broken_plugin_is_told_once(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(package)
    monkeypatch.setattr(registry, "_seen", {("orchard", "orchard"): ""})
    with pytest.warns(PluginWarning, match=r"mildew.*RuntimeError: rotten"):
        registry.load_plugins()
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.load_plugins()
