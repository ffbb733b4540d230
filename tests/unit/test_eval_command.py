"""`himac eval`: who plays, what is played, and what is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from chat_server import ChatServer, Reply

from himac_agents.cli import main
from himac_agents.evaluation.loading import Players
from himac_agents.evaluation.protocols import Protocol, names
from himac_agents.prompts import VerlAgentPrompts
from himac_envs.errors import MissingDependencyError
from himac_envs.registry import env_cards, find_env


def _eval(tmp_path: Path, *args: str) -> dict[str, Any]:
    file = tmp_path / "folder" / "result.json"
    assert main(["eval", *args, "--json", str(file)]) == 0
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_planner_and_executor_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = tmp_path / "records.jsonl"
    found = _eval(
        tmp_path, "HiMAC-ALFWorld-v0", "--planner", "oracle", "--executor", "random",
        "--episodes", "4", "--seeds", "0", "1", "--max-steps", "12", "--records", str(lines),
    )  # fmt: skip
    assert found["success"] < 0.5 and found["episodes"] == 8 and found["tasks"] == 4
    assert found["blueprint_valid"] == 1.0 and found["subgoals"] >= 2, "the oracle planned"
    assert found["env_steps"] <= 8 * 12 and found["planner"] == "oracle"
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(records) == 8 and {r["seed"] for r in records} == {0, 1}
    assert sum(r["steps"] for r in records) == found["env_steps"]
    shown = capsys.readouterr().out
    assert "oracle + random" in shown and "95% interval" in shown


def test_every_protocol_is_about_environments_that_exist() -> None:
    found = names()
    assert {"verl-agent-alfworld", "verl-agent-webshop", "verl-agent-sokoban"} <= set(found)
    for name in found:
        protocol = Protocol.preset(name)
        assert env_cards()[protocol.env].kind == "hierarchical" and protocol.about
        assert env_cards()[protocol.flat_env].kind == "flat"
    webshop = Protocol.preset("verl-agent-webshop")
    assert (webshop.episodes, webshop.env_kwargs["max_steps"]) == (500, 15)


def test_a_protocol_is_played_and_options_replace_its_values(tmp_path: Path) -> None:
    found = _eval(tmp_path, "--preset", "verl-agent-sokoban", "--episodes", "3")
    assert found["env"] == "HiMAC-Sokoban-Flat-v0" and found["temperature"] == 0.4
    assert found["success"] == 1.0 and found["return"] == 10.0, "verl-agent's reward"
    found = _eval(tmp_path, "--preset", "verl-agent-sokoban", "--episodes", "3", "--flat", "False")
    assert found["env"] == "HiMAC-Sokoban-v0" and found["sub_done_precision"] in (None, 1.0)
    assert found["subgoals"] >= 1


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "--preset"),
        (["--preset", "verl-agent-chess"], "verl-agent-sokoban"),
        (["HiMAC-WebShop-v0", "--preset", "verl-agent-sokoban"], "HiMAC-Sokoban-v0"),
        (["HiMAC-ALFWorld-Flat-v0", "--planner", "oracle"], "is flat and has no planner"),
        (["HiMAC-ALFWorld-v0", "--policy", "api"], "--model"),
        (["HiMAC-ALFWorld-v0", "--agent", "api", "--model", "m", "--base-url", "here"], "http"),
        (["HiMAC-ALFWorld-v0", "--agent", "api", "--model", "m", "--options", "x"], "JSON"),
        (["HiMAC-ALFWorld-v0", "--seeds", "1", "1"], "different"),
        (["HiMAC-ALFWorld-v0", "--prompt", "haiku"], "verl-agent"),
        (["--preset", "verl-agent-webshop"], "himac data get webshop"),
    ],
)
def test_errors_teach(
    args: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HIMAC_HOME", str(tmp_path))
    assert main(["eval", *args]) == 1
    error = capsys.readouterr().err
    assert says in error.replace("\n", " ") and "Traceback" not in error


def test_a_remote_model_plays_through_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("httpx")

    def answer(request: dict[str, Any]) -> str:
        return "<think>It is near.</think><action>UP</action>"

    with ChatServer(answer) as server:
        found = _eval(
            tmp_path, "--preset", "verl-agent-sokoban", "--policy", "api", "--model", "tiny-chat",
            "--base-url", server.url, "--episodes", "2", "--max-steps", "4", "--price-out", "1",
        )  # fmt: skip
    assert found["errors"] == 0 and found["invalid_actions"] == 0 and found["env_steps"] <= 8
    assert found["cut_answers"] == 0
    assert found["usage"]["tiny-chat"]["answers"] == found["env_steps"] == len(server.requests)
    assert found["usage"]["tiny-chat"]["cost"] > 0
    last = server.requests[-1]
    assert last["temperature"] == 0.4 and last["max_tokens"] == 512
    # One prompt a decision, with a memory of two steps.
    assert len(last["messages"]) == 1
    text = last["messages"][0]["content"]
    assert "Action: 'up'" in text and text.count("[Observation") == 2 and "<think>" in text


def test_an_interrupted_evaluation_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("httpx")
    file = tmp_path / "records.jsonl"
    stopped = Reply("", 401)
    left = [5]

    def answer(request: dict[str, Any]) -> str | Reply:
        left[0] -= 1
        return "<action>up</action>" if left[0] >= 0 else stopped

    with ChatServer(answer) as server:
        args = [
            "HiMAC-Sokoban-Flat-v0", "--agent", "api", "--model", "m", "--base-url", server.url,
            "--episodes", "4", "--max-steps", "2", "--lanes", "1", "--records", str(file),
        ]  # fmt: skip
        assert main(["eval", *args]) == 1
        assert "refused the key" in capsys.readouterr().err
        assert len(file.read_text().splitlines()) == 2, "two of four were played to their end"
        assert main(["eval", *args]) == 1, "nothing is written over"
        assert "--resume" in capsys.readouterr().err
        # One of them had failed, and the last line is torn: both are played again.
        lines = file.read_text().splitlines()
        broken = json.dumps({**json.loads(lines[1]), "error": "busy"})
        file.write_text(lines[0] + "\n" + broken + "\n" + lines[1][:20])
        left[0], before = 1000, len(server.requests)
        found = _eval(tmp_path, *args, "--resume")
        assert len(server.requests) - before == 6
    assert found["episodes"] == 4 and found["errors"] == 0 and found["env_steps"] == 8
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({r["task_id"] for r in records}) == len(records) == 4
    assert main(["eval", "HiMAC-Sokoban-v0", "--resume"]) == 1


def test_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'transformers'):\n"
        "            raise ImportError('blocked: ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from himac_agents.cli import main\n"
        "sys.exit(main(['eval', 'HiMAC-Sokoban-v0', '--episodes', '2', '--agent', sys.argv[1]]))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run([*command, "oracle"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "100.0" in done.stdout, done.stderr
    run = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode == 1 and "himac[agents]" in run.stderr


def test_players_keep_to_what_they_are_told() -> None:
    pytest.importorskip("httpx")
    from himac_agents.policies.endpoint import Endpoint

    players = Players(
        "HiMAC-WebShop-v0", False, endpoint=Endpoint("m"), prompt="verl-agent", sees="episode"
    )
    agent = players.make("oracle", executor="api")
    assert agent.planner is not None and agent.planner.policy is not agent.executor.policy
    assert agent.executor.sees == "episode" and agent.executor.sampling.max_tokens == 512
    assert isinstance(agent.executor.prompts, VerlAgentPrompts)
    assert agent.executor.prompts.benchmark == "webshop"
    assert players.make("api").planner.policy is players.make("api").executor.policy  # type: ignore[union-attr]


def test_saved_models_and_runs(tmp_path: Path) -> None:
    from tinymodels import save_text_model

    from himac_agents.agents.agent import HiMACAgent
    from himac_agents.config import TrainConfig
    from himac_agents.evaluation.loading import trained_hierarchy, trained_with
    from himac_agents.policies.hf import HFPolicy

    folder = save_text_model(tmp_path / "model", layers=1)
    found = _eval(
        tmp_path, "--preset", "verl-agent-sokoban", "--agent", str(folder), "--episodes", "2",
        "--max-steps", "2", "--max-command-tokens", "4",
    )  # fmt: skip
    assert found["env_steps"] == 4 and found["tokens"] <= 16 and found["invalid_actions"] == 1.0
    assert found["cut_answers"] == 1.0
    agent = Players("HiMAC-Sokoban-Flat-v0", True, prompt="verl-agent").make(str(folder))
    assert isinstance(agent, HiMACAgent) and isinstance(agent.executor.policy, HFPolicy)
    assert agent.executor.history == 2 and agent.executor.sampling.max_tokens == 512
    # A run's own arguments: in another environment only those of the hierarchy hold.
    run = tmp_path / "run"
    run.mkdir()
    settings = TrainConfig(
        env="HiMAC-Sokoban-v0", flat_env="HiMAC-Sokoban-Flat-v0", subgoal_budget=4,
        env_kwargs={"data": "generated", "room": [7, 7], "max_steps": 9},
    )  # fmt: skip
    (run / "config.toml").write_text(settings.to_toml())
    own = {"room": [7, 7], "max_steps": 9}
    assert trained_with(str(run), "HiMAC-Sokoban-v0") == own
    assert trained_with(str(run), "HiMAC-Sokoban-Flat-v0") == own
    assert trained_with(str(run), "HiMAC-ALFWorld-v0") == {}
    assert trained_with("oracle", "HiMAC-ALFWorld-v0") == trained_hierarchy("oracle") == {}
    assert trained_hierarchy(str(run)) == {"subgoal_budget": 4}


def test_records_of_another_evaluation_are_not_mixed_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "records.jsonl"
    args = ["eval", "HiMAC-Sokoban-v0", "--episodes", "3", "--records", str(file)]
    assert main([*args, "--agent", "oracle"]) == 0
    line = json.loads(file.read_text().splitlines()[0])["evaluation"]
    assert (line["agent"], line["env"], line["split"]) == ("oracle", "HiMAC-Sokoban-v0", "test")
    before = file.read_text()
    for other in (["--agent", "random"], ["--agent", "oracle", "--temperature", "0"]):
        assert main([*args, *other, "--resume"]) == 1
        assert "another evaluation" in capsys.readouterr().err.replace("\n", " ")
        assert file.read_text() == before
    more = ["--agent", "oracle", "--episodes", "3", "--seeds", "0", "1", "--resume"]
    assert main([*args, *more]) == 0, "more seeds of the same evaluation"
    assert len(file.read_text().splitlines()) == 6


def test_a_server_that_misbehaves_costs_no_episode(tmp_path: Path) -> None:
    """Busy, silent, cut, broken: the command asks again, and says how often."""
    pytest.importorskip("httpx")
    bad = [
        Reply("", 429, {"Retry-After": "0"}),
        Reply(silent=True),
        Reply("{", cut=True),
        Reply("not packed", 200, {"Content-Encoding": "gzip"}),
        Reply("[" * 100_000),
        Reply({"choices": []}),
        Reply("", 503, {"Retry-After": "0"}),
    ]
    left = list(bad)

    def answer(request: dict[str, Any]) -> str | Reply:
        return left.pop(0) if left and len(server.requests) % 2 else "<action>noop</action>"

    with ChatServer(answer) as server:
        found = _eval(
            tmp_path, "HiMAC-Sokoban-Flat-v0", "--policy", "api", "--model", "m", "--base-url",
            server.url, "--episodes", "4", "--max-steps", "3", "--timeout", "0.5", "--lanes", "1",
        )  # fmt: skip
    assert not left and found["errors"] == 0 and found["env_steps"] == 12
    usage = found["usage"]["m"]
    assert usage["retries"] == len(bad) and usage["failed"] == 0 and usage["answers"] == 12


def test_a_run_elsewhere_than_it_was_trained_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from himac_agents.cli.evaluation import _foreign
    from himac_agents.config import TrainConfig

    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text(TrainConfig().to_toml())
    assert _foreign(str(run), find_env("HiMAC-ALFWorld-v0")) == ""
    assert _foreign(str(run), find_env("HiMAC-ALFWorld-Long-v0")) == "", "the same kind of task"
    for other in ("HiMAC-WebShop-v0", "HiMAC-ALFWorld-Flat-v0"):
        assert _foreign(str(run), find_env(other)).endswith(
            f"on HiMAC-ALFWorld-v0 and plays {other}"
        )
    assert _foreign("oracle", find_env("HiMAC-WebShop-v0")) == ""


def test_nothing_but_errors_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from himac_envs.sokoban.env import SokobanEnv

    def broken(self: SokobanEnv, action: str) -> Any:
        raise RuntimeError("the crane is stuck")

    monkeypatch.setattr(SokobanEnv, "_act", broken)
    assert main(["eval", "HiMAC-Sokoban-Flat-v0", "--agent", "random", "--episodes", "2"]) == 1
    told = capsys.readouterr()
    assert "2 episodes were cut off by errors" in told.err and "crane is stuck" in told.err

    def missing(self: SokobanEnv, task_id: str) -> Any:
        raise MissingDependencyError("crane", "Sokoban", "sokoban")

    monkeypatch.setattr(SokobanEnv, "_start", missing)
    assert main(["eval", "HiMAC-Sokoban-Flat-v0", "--agent", "random", "--episodes", "2"]) == 1
    assert "pip install 'himac[sokoban]'" in capsys.readouterr().err


OWN = """
class Curious:
    \"\"\"The command that it has used least; ten times what no environment offers.\"\"\"

    def __init__(self):
        self.used = {}

    def act(self, text, admissible):
        assert text and text == text.strip("\\x00")
        if len(self.used) > 3:
            return "  Dance, then <action>look</action> "
        command = min(admissible, key=lambda c: self.used.get(c, 0))
        self.used[command] = self.used.get(command, 0) + 1
        return command

def first():
    return lambda text, admissible: admissible[0]

def wordless():
    return lambda text, admissible: 3

def asks(for_this):
    return None

def nobody():
    return None
"""


def test_an_agent_of_ones_own_is_measured_as_those_that_come_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_agents.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    lines = tmp_path / "records.jsonl"
    told = ["HiMAC-ALFWorld-Flat-v0", "--data", "generated", "--episodes", "3", "--max-steps", "9"]
    found = _eval(tmp_path, *told, "--agent", "my_agents:Curious", "--records", str(lines))
    assert found["agent"] == "my_agents:Curious" and found["env_steps"] == 27
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    own = _eval(tmp_path, *told, "--agent", "random")["manifest"]
    same = {key: found["manifest"][key] for key in ("env", "tasks", "data")}
    assert same == {key: own[key] for key in same}, "the same tasks"
    # Each episode has an agent of its own, and what it says goes to the environment as it is.
    assert {record["invalid"] for record in records} == {5}
    assert _eval(tmp_path, *told, "--agent", "my_agents:first")["env_steps"] == 27


@pytest.mark.parametrize(
    ("env", "agent", "says"),
    [
        ("HiMAC-ALFWorld-Flat-v0", "own_agents:asks", "without arguments"),
        ("HiMAC-ALFWorld-Flat-v0", "own_agents:Curios", "own_agents:Curious"),
        ("HiMAC-ALFWorld-Flat-v0", "no_such_agents:first", "no module"),
        ("HiMAC-ALFWorld-v0", "own_agents:first", "--flat"),
    ],
)
def test_what_is_no_agent_of_ones_own_is_named(
    env: str,
    agent: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "own_agents.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    told = ["eval", env, "--data", "generated", "--episodes", "1", "--agent", agent]
    assert main(told) == 1
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error


@pytest.mark.parametrize(("name", "says"), [("wordless", "must be a string"), ("nobody", "act")])
def test_an_agent_that_does_not_answer_is_an_error_of_its_own(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_agents.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    agent = Players("HiMAC-ALFWorld-Flat-v0", flat=True).make(f"odd_agents:{name}")
    env = gym.make("HiMAC-ALFWorld-Flat-v0", data="generated")
    with pytest.raises(TypeError, match=says):
        agent.executor.act(*env.reset(seed=0))
