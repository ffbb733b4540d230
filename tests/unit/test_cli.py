"""The command line, as a user calls it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.envs.registration import EnvSpec
from rich.console import Console

from himac_agents.cli import app, bench, doctor, main
from himac_agents.cli.play import Session
from himac_envs import HierarchicalEnv
from himac_envs.registry import env_cards


def test_list_names_every_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(env_id in shown for env_id in env_cards())
    assert "himac data get webshop" in shown and "Data sokoban: none needed" in shown
    assert main(["list", "--benchmark", "nethack"]) == 1
    assert "alfworld" in capsys.readouterr().err


def test_a_reader_that_has_gone_ends_a_command_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    code = (
        "from himac_agents.cli import app\n"
        "app._run = lambda args: print('line\\n' * 50_000) or 0\n"
        "raise SystemExit(app.main(['list']))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 141 and done.stderr == ""


def test_a_broken_pipe_elsewhere_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(args: list[str]) -> int:
        raise BrokenPipeError(32, "the server has gone")

    monkeypatch.setattr("himac_agents.cli.app._run", broken)
    assert main(["list"]) == 1
    assert "the server has gone" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("himac ")


def test_doctor_names_the_command_that_mends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["doctor"]) == 0
    assert "himac data get alfworld" in capsys.readouterr().out.replace("\n", " ")
    monkeypatch.setattr(doctor, "_PACKAGES", {"no-such-package": "webshop"})
    findings = {f.name: f for f in doctor.examine()}
    assert findings["no-such-package"].mend == "pip install 'himac[webshop]'"
    monkeypatch.setenv("HIMAC_DATA", "/no/such/folder")
    findings = {f.name: f for f in doctor.examine()}
    assert not findings["HIMAC_DATA"].ok and findings["HIMAC_DATA"].mend
    # Whoever installed with pip has no Makefile.
    assert not [f.name for f in doctor.examine() if f.mend.startswith("make ")]


@pytest.mark.parametrize(
    ("env_id", "agent", "success"),
    [
        ("HiMAC-ALFWorld-v0", "oracle", 1.0),
        ("HiMAC-ALFWorld-Flat-v0", "oracle", 1.0),
        ("HiMAC-ALFWorld-v0", "random", 0.0),
        ("HiMAC-ALFWorld-Flat-v0", "random", 0.0),
    ],
)
def test_eval_of_scripted_agents(
    env_id: str, agent: str, success: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "result.json"
    assert main(["eval", env_id, "--agent", agent, "--episodes", "6", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert set(found) >= {"success", "episodes", "seeds", "ci95", "return", "env_steps", "tokens"}
    assert found["success"] == success and found["episodes"] == 6
    low, high = found["ci95"]
    assert 0.0 <= low <= success <= high <= 1.0 and high - low > 0.2
    assert found["env_steps"] >= 6
    assert "success" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["eval", "HiMAC-Nethack-v0"], "himac list"),
        (["eval", "HiMAC-ALFWorld-v0", "--agent", "no/such/run"], "no/such/run"),
        (["eval", "HiMAC-ALFWorld-v0", "--split", "dev"], "train"),
        (["eval", "HiMAC-ALFWorld-v0", "--data", "/no/such/data"], "/no/such/data"),
        (["train", "no-such-preset"], "quickstart"),
        (["train", "--resume", "/no/such/run"], "/no/such/run"),
        (["train", "--resume", "/no/such/run", "--iterations", "3"], "/no/such/run"),
        (["train", "--resume", "/no/such/run", "--lr", "3"], "own settings"),
        (["train", "--lr=3", "--resume=/no/such/run"], "own settings"),
        (["train", "quickstart", "--resume=/no/such/run"], "own settings"),
        (["train", "--lr", "-1"], "--lr=-1.0: must be at least 0"),
        (["train", "--method", "ppo"], "--method='ppo': no method"),
        (
            ["train", "--loggers", "paper"],
            "--loggers='paper': no logger 'paper'. There are tensorboard",
        ),
        (["train", "--env", "webshop", "--flat-env", "HiMAC-ALFWorld-Flat-v0"], "same tasks"),
        (["train", "--env", "toy:Own-v0", "--method", "grpo"], "no environment 'toy:Own-v0'"),
        (["train", "--env", "LonelyFruit-v0", "--method", "grpo"], "set --flat-env"),
        (["eval", "HiMAC-ALFWorld-v0", "--threads", "-1"], "threads=-1"),
        (["train", "--env", "NoSuch-v0"], "NoSuch"),
        (["train", "--env", "HiMAC-NoSuch-v0"], "himac list"),
        (["train", "--env", "HiMAC-ALFWorld-Flat-v0"], "plays a hierarchical one"),
        (["train", "--seed", "-1"], "2^63"),
        (["train", "--seed", "99999999999999999999999"], "2^63"),
        (["train", "--hidden", "63"], "heads"),
        (["train", "--demos", "0"], "demonstrations"),
        (["train", "alfworld-real"], "himac data get alfworld"),
        (["eval", "HiMAC-Sokoban-Pixels-v0", "--agent", "random"], "HiMAC-Sokoban-v0"),
        (["eval", "HiMAC-ALFWorld-v0", "--image"], "pictures"),
        (["eval", "HiMAC-ALFWorld-v0", "--record", "a.gif"], "pictures"),
        (["eval", "HiMAC-ALFWorld-v0", "--lanes", "0"], "lanes=0"),
        (["eval", "HiMAC-ALFWorld-v0", "--seeds", "-1"], "2^63"),
        (["demos", "HiMAC-ALFWorld-v0", "--noise", "5"], "noise=5.0"),
        (["demos", "HiMAC-ALFWorld-v0", "--seed", "-1"], "2^63"),
        (["bench", "nethack"], "alfworld"),
        (["data", "get", "nethack"], "alfworld"),
        (["play", "HiMAC-ALFWorld-v0", "--task-id", "nowhere"], "nowhere"),
        (["play", "webshop", "--task-id", "nowhere"], "nowhere"),
        (["play", "nethack"], "webshop"),
    ],
)
def test_errors_are_one_message_that_teaches(
    args: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HIMAC_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    # An environment of somebody's own, which has no flat partner.
    lonely = EnvSpec(
        "LonelyFruit-v0",
        entry_point="himac_envs.hierarchy:make_hierarchical",
        kwargs={"task": "toy:FruitEnv"},
    )
    monkeypatch.setitem(gym.registry, lonely.id, lonely)
    assert main(args) == 1
    assert not list(tmp_path.rglob("config.toml")), "what cannot be begun leaves no run behind"
    # What was done until then may stand before it, where that took its time.
    _, begins, error = ("\n" + capsys.readouterr().err).partition("\nhimac:")
    assert begins and says in error and "Traceback" not in error


def _session(lines: list[str], env_id: str = "HiMAC-ALFWorld-v0") -> tuple[Session, io.StringIO]:
    shown = io.StringIO()
    answers: Iterator[str] = iter(lines)

    def ask(prompt: str) -> str:
        for line in answers:
            return line
        raise EOFError

    env = gym.make(env_id, data="generated").unwrapped
    assert isinstance(env, HierarchicalEnv)
    return Session(env, Console(file=shown, width=100), ask), shown


def test_a_person_plays_a_whole_episode() -> None:
    env = gym.make("HiMAC-ALFWorld-v0", data="generated").unwrapped
    assert isinstance(env, HierarchicalEnv)
    env.reset(seed=3)
    plan = env.oracle_blueprint().texts()
    moves = ["?", "/goal"]
    for subgoal in plan:
        for command in env.oracle(subgoal):
            moves.append(command)
            env.task.step(command)
        moves.append("/done")
    session, shown = _session([*plan, "", *moves])
    assert session.play(3, None, expert=False) == 0
    text = shown.getvalue()
    assert "won" in text and "not won" not in text and plan[0] in text and "inventory" in text


def test_numbers_may_be_typed_and_ends_are_told_in_words() -> None:
    session, shown = _session(["1. find a mug", "2) go on", "", "look", "/done", "/done", "/quit"])
    assert session.play(0, None, expert=False) == 0
    assert isinstance(session.env, HierarchicalEnv)
    blueprint = session.env._blueprint
    assert blueprint is not None and blueprint.texts() == ["find a mug", "go on"]
    said = shown.getvalue()
    assert "sub-goal 1 ended after 1 step (done), not achieved" in said and "{" not in said
    assert said.index("sub-goal 2 ended after 0 steps") < said.index("no sub-goal is left")


def test_leaving_early_and_watching_the_expert() -> None:
    session, shown = _session(["go somewhere", "", "/quit"])
    assert session.play(0, None, expert=False) == 0
    assert "stopped" in shown.getvalue()
    session, shown = _session([])
    assert session.play(0, None, expert=True) == 0
    assert "won" in shown.getvalue()


@pytest.mark.parametrize("name", [*bench.BENCHES, "methods", "HiMAC-Sokoban-v0"])
def test_every_bench_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", name, "--help"])
    said = capsys.readouterr()
    assert ended.value.code == 0 and "usage: himac bench" in said.out and not said.err
    assert ("Measure speed" in said.out) == (name != "methods")


@pytest.mark.parametrize(
    "command",
    [
        *(name for name in app.COMMANDS if name not in ("train", "data", "model")),
        *("data get", "data build", "model get", "bench methods", "bench credit", "bench llm"),
    ],
)
def test_help_says_each_thing_once(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "usage: himac" in said and "{None}" not in said
    assert "(default: None)" not in said and "(default: )" not in said
    assert ") (default:" not in said
    if command in ("play", "eval", "demos"):
        # A text that its docstring breaks is one text, and its default is told once.
        assert "--no-flat: the hierarchical one (default: as the name says). " in said
        assert "a benchmark's name (alfworld, webshop, sokoban) or module:Id-v0" in said


@pytest.mark.parametrize("setting", ["method", "env", "policy", "prompt"])
def test_a_name_is_refused_before_torch_is_loaded(setting: str) -> None:
    code = (
        "import sys\n"
        "from himac_agents.cli import main\n"
        f"print(main(['train', '--{setting}', 'none-such']), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["1", "False"] and "'none-such'" in done.stderr


def test_commands_are_no_subgoals_and_arrows_no_text() -> None:
    lines = ["?", "/goal", "find a \x1b[Cmug", "/nonsense", "\x1b[A", "/done", "/goal", "look"]
    session, shown = _session(lines)
    assert session.play(0, None, expert=False) == 0
    assert isinstance(session.env, HierarchicalEnv)
    blueprint = session.env._blueprint
    assert blueprint is not None and blueprint.texts() == ["find a mug"]
    said = shown.getvalue()
    assert said.count("Your task is") >= 1 and "forms: `find and take a mug`, " in said
    assert "there is no command /nonsense" in said and "arrow keys mean nothing here" in said
    session, shown = _session(["/quit"])
    assert session.play(0, None, expert=False) == 0 and "stopped" in shown.getvalue()


def test_arrow_keys_move_where_moves_are_offered() -> None:
    session, shown = _session(
        ["go", "", "\x1b[A\x1bOB", "\x1b[C", "\x1b[5~", "/quit"], "HiMAC-Sokoban-v0"
    )
    assert session.play(0, None, expert=False) == 0
    assert isinstance(session.env, HierarchicalEnv)
    assert session.env._task_info["step"] == 3 and not session.env._task_info["invalid"]
    assert shown.getvalue().count("arrow keys mean nothing here") == 1
