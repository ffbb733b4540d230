"""From an episode to its record to the page: what a run keeps for its readers."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import fruit_runs
import gymnasium as gym
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from toy import FruitEnv

from himac_agents.agents.agent import HiMACAgent
from himac_agents.agents.expert import Expert
from himac_agents.cli import main
from himac_agents.config import TrainConfig
from himac_agents.reports.page import render
from himac_agents.reports.runs import read_run
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.trace import MAX_EPISODE, MAX_TEXT, Sample, describe, picture, png_uri
from himac_agents.rollouts.types import Episode, EpisodeRequest, Segment, Turn
from himac_agents.training import result
from himac_agents.training.run import Run
from himac_envs.hierarchy import HierarchicalEnv

#: The reports of trainings are looked at here (see `conftest`).
DRAWN = True


def _episode(observations: list[str], frames: list[Any] | None = None) -> Episode:
    segment = Segment("executor", 0, "look", 0)
    for k, text in enumerate(observations):
        turn = Turn(segment, 0, (1, 2), (-0.5, 0.0), f"go {k} ", f"go {k}")
        turn.allowed = ((1, 3), (2,))
        turn.observation = text
        turn.frame = None if frames is None else frames[k]
        segment.turns.append(turn)
    return Episode(EpisodeRequest("t", 3), [segment], goal="find it", first="a room")


def test_a_record_holds_what_was_read_written_and_credited() -> None:
    episode = _episode(["a hall", "a yard"])
    episode.segments[0].turns[0].advantage = 0.123456
    found = json.loads(json.dumps(describe(episode, "train", 7)))
    assert (found["first"], found["goal"], found["step"]) == ("a room", "find it", 7)
    first, second = found["segments"][0]["turns"]
    assert first["text"] == "go 0 " and first["action"] == "go 0"
    assert first["observation"] == "a hall" and first["advantage"] == 0.1235
    # The second token was the only one allowed: nothing was decided at it.
    assert first["logprob"] == -0.5 and first["tokens"] == 2
    assert "advantage" not in second and "cut" not in found and "frame" not in found


def test_a_record_is_bounded_and_says_what_is_missing() -> None:
    episode = _episode(["x" * (MAX_TEXT + 1)] * 3 + ["y" * 3_999] * 60)
    found = describe(episode, "train", 1)
    turns = found["segments"][0]["turns"]
    assert turns[0]["observation"].endswith("… [1 more characters]")
    assert found["cut"]["shortened"] == 3
    kept = [t for t in turns if "observation" in t]
    assert len(kept) + found["cut"]["left_out"] == len(turns) == 63
    assert 0 < found["cut"]["left_out"] < 20
    assert len(json.dumps(found)) < MAX_EPISODE + 20_000
    assert turns[-1]["action"] == "go 62"  # what was done is kept, whatever was seen


def test_images_become_small_pngs() -> None:
    image = np.zeros((500, 320, 3), dtype=np.uint8)
    image[:, :, 0] = np.arange(500)[:, None] % 251
    uri = png_uri(image)
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (80, 125))
    assert (np.asarray(picture) == image[::4, ::4]).all()
    frames = [image, None, "##\n@."]
    turns = describe(_episode(["a", "b", "c"], frames), "train", 1)["segments"][0]["turns"]
    assert turns[0]["frame"] == uri and "frame" not in turns[1] and turns[2]["frame"] == "##\n@."


def test_sokoban_is_kept_as_boards() -> None:
    pool = EnvPool(lambda: gym.make("HiMAC-Sokoban-v0", split="test"), 2)
    agent = HiMACAgent.shared(Expert("oracle"))
    tasks = [EpisodeRequest(t) for t in pool.task_ids("test")[:2]]
    for episode in collect(agent, pool, tasks):
        found = describe(episode, "evaluation/final", 0)
        boards = [found["frame"]]
        boards += [t["frame"] for s in found["segments"] for t in s["turns"] if "frame" in t]
        assert all(len(b.split("\n")) == 6 and sum(c in "@+" for c in b) == 1 for b in boards)
        assert "$" in boards[0] and episode.success and "*" in boards[-1]
        moves = [t for s in found["segments"] for t in s["turns"] if s["role"] == "executor"]
        assert len(moves) >= episode.steps > 0


def test_a_player_on_a_target_is_drawn_as_such() -> None:
    class Room(gym.Env[Any, Any]):
        board = object()
        room_fixed = np.array([[0, 2, 1, 2, 2]])
        room_state = np.array([[0, 5, 4, 3, 2]])

    assert picture(Room(), {}) == "#+$*."
    image = np.zeros((2, 2, 3), np.uint8)
    assert picture(gym.Env(), {"image": image}) is image
    assert picture(gym.Env(), {"text": "x"}) is None


def test_candidates_belong_to_their_group_and_one_is_chosen() -> None:
    pool = EnvPool(lambda: HierarchicalEnv(FruitEnv(max_steps=12)), 4)
    agent = HiMACAgent.shared(Expert("oracle"))
    ids = list(pool.task_ids("train"))[:2]
    plans = collect(agent, pool, [EpisodeRequest(ids[g], g) for g in (0, 0, 1)])
    offered = [(plan, 1.0, 0.5) for plan in plans]
    run = collect(agent, pool, [EpisodeRequest(ids[0], blueprint=plans[0].blueprint)])[0]
    found = describe(run, "train", 1, offered)["candidates"]
    assert [c["chosen"] for c in found] == [True, False]
    assert found[0]["subgoals"] == plans[0].blueprint.texts() and found[0]["advantage"] == 0.5
    assert "candidates" not in describe(run, "train", 1)


def test_a_sample_keeps_a_few_of_either_kind() -> None:
    sample = Sample(2)
    for k in range(9):
        episode = Episode(EpisodeRequest(str(k)))
        episode.success = k % 3 == 2
        sample(episode)
    assert [e.request.task_id for e in sample.episodes] == ["0", "1", "2", "5"]


def test_resuming_cuts_the_logs_back_and_mends_a_torn_line(tmp_path: Path) -> None:
    config = TrainConfig()
    run = Run(tmp_path / "r", config)
    for step in (1, 2, 3):
        run.log("executor", step, {"success": 0.5})
        run.show("train", step, [_episode(["a"])])
    run.close()
    with run.episodes_path.open("a") as file:
        file.write('{"phase": "train", "ste')
    again = Run(tmp_path / "r", config, resume=True)
    again.rewind(2)
    again.close()
    assert len(run.metrics_path.read_text().splitlines()) == 2
    shown = [json.loads(x)["step"] for x in run.episodes_path.read_text().splitlines()]
    assert shown == [1, 2]


def test_an_evaluation_that_was_cut_off_is_not_shown_twice(tmp_path: Path) -> None:
    config = TrainConfig()
    run = Run(tmp_path / "r", config)
    for name, step in (("warm_start", 0), ("final", 1)):
        if name == "final":
            run.log("executor", step, {"success": 0.5})
            run.show("train", step, [_episode(["a"])])
            lines = run.lines  # a checkpoint of this iteration; then the run is killed
        run.show(f"evaluation/{name}, temperature 1", step, [_episode(["a"])])
        run.show(f"evaluation/{name}, greedy", step, [_episode(["a"])])
        run.log(f"evaluation/{name}", step, {"greedy": 0.5})
    run.close()
    again = Run(tmp_path / "r", config, resume=True)
    again.rewind(lines)
    again.close()
    shown = [json.loads(x)["phase"] for x in run.episodes_path.read_text().splitlines()]
    before = [f"evaluation/warm_start, {kind}" for kind in ("temperature 1", "greedy")]
    assert shown == [*before, "train"]


def test_one_iteration_of_learning_and_its_report(tmp_path: Path) -> None:
    from himac_agents.training.trainer import Trainer

    config = fruit_runs.CONFIG.replace(
        warm_steps=20, layers=1, feedforward=32, executions=3, iterations=1, checkpoint_every=1
    )
    folder = tmp_path / "run"
    Trainer(config, folder, console=fruit_runs.QUIET).run()
    run = read_run(folder)
    assert run.finished and not run.notes and run.result is not None
    # One run says what its intervals are over, in its file and in its table.
    assert run.result["gain"]["temperature_1"]["over"] == run.result["final"]["over"] == "tasks"
    shown = result.table(run.result)
    assert "95% interval over tasks" in [str(column.header) for column in shown.columns]
    for bounds, says in (([-0.1, 0.2], "over tasks -10.0 to +20.0"), ([0.0, 0.0], "no interval")):
        gain = {**run.result["gain"]["temperature_1"], "ci95": bounds}
        told = {**run.result, "gain": {**run.result["gain"], "temperature_1": gain}}
        assert says in str(result.table(told).caption)
    phases = list(dict.fromkeys(e["phase"] for e in run.episodes))
    assert phases == [
        "evaluation/warm_start, temperature 1", "evaluation/warm_start, greedy", "train",
        "evaluation/final, temperature 1", "evaluation/final, greedy",
    ]  # fmt: skip
    train = [e for e in run.episodes if e["phase"] == "train"]
    assert len({e["task_id"] for e in train}) >= 3
    turns = [t for e in train for s in e["segments"] for t in s["turns"]]
    assert turns and all("advantage" in t and "observation" in t for t in turns)
    for episode in train:
        assert [c["chosen"] for c in episode["candidates"]].count(True) == 1
    planned = [s for e in run.episodes if e["phase"] != "train" for s in e["segments"]]
    assert any(s["role"] == "planner" for s in planned)
    ended = [row for row in run.metrics if "ended_done" in row]
    shares = ("ended_done", "ended_budget", "ended_terminated", "ended_truncated")
    assert ended and all(abs(sum(r[k] for k in shares) - 1) < 1e-5 for r in ended)
    written = (folder / "report.html").read_text()
    text = render([run])
    assert written == text
    assert config.env in text and "Why options ended" in text
    assert len(text) < 2_000_000


def test_a_run_without_the_means_to_draw_ends_without_its_page_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from himac_agents.training.trainer import Trainer

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = io.StringIO()
    config = fruit_runs.CONFIG.replace(
        warm_steps=1, layers=1, feedforward=32, executions=2, iterations=1, eval_episodes=2
    )
    folder = tmp_path / "run"
    Trainer(config, folder, console=Console(file=said, width=999)).run()
    assert (folder / "result.json").is_file() and not (folder / "report.html").exists()
    assert f"no report: `himac report {folder}` tells why" in said.getvalue()
    assert main(["report", str(folder)]) == 1
    assert "a chart needs matplotlib: pip install 'himac[report]'" in capsys.readouterr().err
