"""The environment manager that verl-agent's rollout loop drives."""

from __future__ import annotations

import subprocess
import sys
import types
from typing import Any

import numpy as np
import pytest

from himac_envs.adapters import EpisodeOverError
from himac_envs.adapters.errors import MissingStackError
from himac_envs.adapters.verl_agent import (
    EnvironmentManager,
    Templates,
    family_templates,
    make_envs,
)
from himac_envs.adapters.verl_agent.answers import project
from himac_envs.errors import UnknownTaskError


def manager(env_id: str, groups: int = 2, size: int = 8, **kwargs: Any) -> EnvironmentManager:
    return EnvironmentManager(env_id, groups=groups, group_size=size, data="generated", **kwargs)


def expert(envs: EnvironmentManager, lane: int) -> str:
    """The expert's answer as a model that keeps to the protocol writes it."""
    session = envs.sessions[lane]
    if session.done:
        return ""
    answer = session.expert()
    tag = "blueprint" if session.planning else "action"
    return f"<think>so</think><{tag}>{answer}</{tag}>"


def rollout(envs: EnvironmentManager, quitters: set[int]) -> dict[str, Any]:
    """The loop of verl-agent's rollout: all lanes in step, the finished ones masked out."""
    obs, infos = envs.reset()
    n = len(obs["text"])
    done = np.zeros(n, dtype=bool)
    rewards = np.zeros(n, dtype=np.float32)
    rows: list[list[dict[str, Any]]] = [[] for _ in range(n)]
    seen: list[list[dict[str, Any]]] = [[] for _ in range(n)]
    while not done.all():
        active = ~done
        answers = ["no" if i in quitters else expert(envs, i) for i in range(n)]
        obs, reward, dones, infos = envs.step(answers)
        assert reward.dtype == np.float32 and dones.dtype == np.bool_
        rewards += reward * active
        for i in range(n):
            rows[i].append({"active_masks": active[i]})
            seen[i].append(infos[i])
        done |= dones
    success = envs.success_evaluator(
        total_infos=seen, total_batch_list=rows, episode_rewards=rewards
    )
    return {"rewards": rewards, "success": success, "infos": infos, "rows": rows}


def test_groups_of_eight_play_one_task_and_win(env_id: str) -> None:
    envs = manager(env_id, max_steps=30)
    quitters = {3, 9}
    found = rollout(envs, quitters)
    tasks = [info["task_id"] for info in found["infos"]]
    assert len(set(tasks[:8])) == len(set(tasks[8:])) == 1 and tasks[0] != tasks[8]
    wins = [0.0 if i in quitters else 1.0 for i in range(16)]
    assert found["success"]["success_rate"].tolist() == wins
    assert found["rewards"].tolist() == [10.0 * won for won in wins]
    if "ALFWorld" in env_id:
        kinds = {k for k in found["success"] if k.endswith("_success_rate")}
        assert kinds == {f"{s.env.unwrapped.task_type}_success_rate" for s in envs.sessions}
    if "WebShop" in env_id:
        assert len(found["success"]["webshop_task_score (not success_rate)"]) == 16
    envs.close()


def test_a_finished_lane_is_left_alone() -> None:
    envs = manager("HiMAC-Sokoban-Flat-v0", groups=1, size=2)
    with pytest.raises(EpisodeOverError):
        envs.step(["up", "up"])
    envs.reset()
    while not envs.sessions[0].done:
        obs, rewards, _, infos = envs.step([expert(envs, 0), ""])
    assert rewards[0] == 10 and infos[0]["won"]
    after, rewards, dones, again = envs.step(["<think></think><action>up</action>", ""])
    assert rewards[0] == 0 and dones[0] and after["text"][0] == obs["text"][0]
    assert again[0]["won"] and again[0]["step"] == infos[0]["step"]
    assert again[1]["step"] == infos[1]["step"] + 1


def test_prompts_have_the_protocols_fields(env_id: str) -> None:
    envs = manager(env_id, groups=1, size=1, history=2)
    obs, _ = envs.reset()
    first = obs["text"][0]
    session = envs.sessions[0]
    assert session.goal in first and "This is step 1." in first
    assert obs["image"] is None and obs["anchor"] == [session.observation["text"]]
    if session.hierarchical:
        assert "<blueprint>" in first and "admissible" not in first
        obs = envs.step([expert(envs, 0)])[0]
        first = obs["text"][0]
        assert f"Your current sub-goal is: {session.subgoal}" in first
        assert "'<sub_done>'" in first and obs["anchor"][0].endswith(session.subgoal)
    assert "<think>" in first and "<action>" in first and "Steps taken" not in first
    said = []
    for taken in (1, 2, 3):
        said.append(expert(envs, 0).split("<action>")[1].split("</action>")[0])
        obs, _, dones, _ = envs.step([f"<think></think><action>{said[-1]}</action>"])
        shown = obs["text"][0]
        assert f"Steps taken so far: {taken}. The last {min(taken, 2)}" in shown
        assert all(f"Action: '{word.lower()}'" in shown for word in said[-2:])
        if dones[0]:
            break
    assert f"[Observation {taken}:" in shown and f"[Observation {taken - 2}:" not in shown


def test_the_familys_own_templates_are_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingStackError, match="put a checkout of verl-agent on PYTHONPATH"):
        family_templates("alfworld")
    prompts: Any = types.ModuleType("agent_system.environments.prompts")
    prompts.ALFWORLD_TEMPLATE_NO_HIS = "O {current_observation} A [{admissible_actions}]"
    prompts.ALFWORLD_TEMPLATE = (
        "T {task_description} N {step_count} {history_length} {current_step} H {action_history}"
    )
    for name in ("agent_system", "agent_system.environments"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "agent_system.environments.prompts", prompts)
    templates = family_templates("alfworld")
    assert isinstance(templates, Templates)
    envs = manager("HiMAC-ALFWorld-Flat-v0", groups=1, size=1, templates=templates)
    obs, infos = envs.reset()
    assert obs["text"][0].startswith("O -= Welcome") and "'go to " in obs["text"][0]
    obs = envs.step(["<think></think><action>look</action>"])[0]
    assert obs["text"][0].startswith(f"T {infos[0]['goal']} N 1 1 2 H [Observation 1: '-= Welc")


@pytest.mark.parametrize(
    ("answer", "benchmark", "command", "valid"),
    [
        ("<think>a</think><action>Go To Desk 1</action>", "alfworld", "go to desk 1", True),
        ("<action>look</action>", "alfworld", "look", False),
        ("<THINK>a</THINK><action>look</action>", "alfworld", "look", False),
        ("<think>a</think><action> look </action><action>x</action>", "alfworld", "look", True),
        ("<think>看</think><action>look</action>", "alfworld", "look", False),
        ("<think>a</think>" + "x" * 40, "alfworld", "x" * 30, False),
        ("<think>a</think>" + "x" * 40, "webshop", "x" * 20, False),
        ("<think>a</think> up", "sokoban", "", False),
        ("<think>a</think><action>Up</action>", "sokoban", "up", True),
        ("<think>a</think><action>still</action>", "sokoban", "still", True),
        ("<think>a</think><action>jump</action>", "sokoban", "", False),
        ("<think>a</think><action><sub_done></action>", "sokoban", "<sub_done>", True),
        ("<think>a</think><SUB_DONE>", "alfworld", "<sub_done>", True),
        ("</action><action>", "alfworld", "", False),
        ("", "alfworld", "", False),
        (None, "webshop", "", False),
    ],
)
def test_answers_are_projected_by_the_familys_rules(
    answer: object, benchmark: str, command: str, valid: bool
) -> None:
    assert project(answer, benchmark) == (command, valid)


def test_blueprints_are_projected_too() -> None:
    told = "<think>1. no</think><blueprint>1. find a mug\n2. wash it</blueprint>"
    assert project(told, "alfworld", planning=True) == ("1. find a mug\n2. wash it", True)
    assert project("1. find a mug", "alfworld", planning=True) == ("1. find a mug", False)
    assert project("hm", "alfworld", planning=True, goal="win") == ("", False)


def test_pictures_stand_in_the_observations_place() -> None:
    envs = manager("HiMAC-Sokoban-Flat-v0", groups=1, size=3, image=True)
    obs, _ = envs.reset()
    assert obs["image"].shape[0] == 3 and obs["image"].dtype == np.uint8
    assert "Your observation is: <image>" in obs["text"][0]
    assert "#" in obs["anchor"][0]


def test_tasks_are_named_or_drawn_from_the_seed() -> None:
    first, second = (manager("HiMAC-ALFWorld-Flat-v0", seed=5) for _ in range(2))
    tasks = [info["task_id"] for info in first.reset()[1]]
    assert tasks == [info["task_id"] for info in second.reset()[1]]
    assert tasks != [info["task_id"] for info in first.reset()[1]]
    wanted = first.sessions[0].task_ids()[0]
    rows = [{"task_id": wanted}] * 8 + [{}] * 8
    named = [info["task_id"] for info in second.reset(np.array(rows, dtype=object))[1]]
    assert named[:8] == [wanted] * 8 and len(set(named[8:])) == 1


def test_bad_input_is_answered() -> None:
    envs = manager("HiMAC-Sokoban-Flat-v0", groups=1, size=2, max_steps=2)
    with pytest.raises(ValueError, match="1 rows for 2 lanes"):
        envs.reset([{}])
    with pytest.raises(ValueError, match="are one group"):
        envs.reset([{"task_id": "fast:1"}, {"task_id": "fast:2"}])
    with pytest.raises(UnknownTaskError):
        envs.reset([{"task_id": "no such task"}] * 2)
    envs.reset()
    with pytest.raises(ValueError, match="1 answers for 2 lanes"):
        envs.step(["up"])
    _, _, _, infos = envs.step(["\x00\ud800", None])  # type: ignore[list-item]
    assert not any(info["is_action_valid"] for info in infos)
    assert all(info["invalid"] and info["step"] == 1 for info in infos)
    with pytest.raises(ValueError, match="at least one lane"):
        manager("HiMAC-Sokoban-Flat-v0", groups=0)


@pytest.mark.parametrize("name", ["alfworld/AlfredTWEnv", "Webshop", "Sokoban", "HiMAC-Sokoban-v0"])
def test_the_familys_configuration_makes_both_managers(name: str) -> None:
    config = {
        "env": {
            "env_name": name,
            "seed": 3,
            "max_steps": 7,
            "history_length": 1,
            "rollout": {"n": 8},
            "sokoban": types.SimpleNamespace(dim_room=[7, 7], num_boxes=2, mode="rgb_array"),
            "himac": {"data": "generated"},
        },
        "data": {"train_batch_size": 2, "val_batch_size": 3},
    }
    train, val = make_envs(config)
    assert (len(train), train.group_size, len(val), val.group_size) == (16, 8, 3, 1)
    assert train.history == 1 and train.sessions[0].env.unwrapped.max_steps == 7
    tasks = {info["task_id"] for info in val.reset()[1]}
    assert len(tasks) > 1 and tasks <= set(val.sessions[0].task_ids())
    assert val.sessions[0].env.unwrapped.task_ids() != train.sessions[0].env.unwrapped.task_ids()
    if "Sokoban" in name:
        assert train.sessions[0].hierarchical == (name == "HiMAC-Sokoban-v0")
        assert train.reset()[0]["image"].shape[0] == 16
    with pytest.raises(ValueError, match="gym_cards/Points24"):
        make_envs({"env": {"env_name": "gym_cards/Points24"}})


def test_neither_torch_nor_the_checkout_is_imported() -> None:
    code = (
        "import sys, himac_envs.adapters.verl_agent\n"
        "assert not {'torch', 'agent_system', 'omegaconf', 'ray'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_runs(run_example: Any) -> None:
    assert run_example("verl_agent_rollout.py").startswith("32 lanes, 4 tasks, ")
