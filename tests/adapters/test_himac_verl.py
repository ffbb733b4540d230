"""HiMAC on verl: verl's own trainer and agent loop worker learn what the method says.

In place of servers and sharded workers stands a small model of this process, in place of
TransferQueue's actors a store of this process.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("verl", reason="verl is not installed: pip install verl")
pytest.importorskip("transfer_queue", reason="TransferQueue is not installed: pip install it")

import fruit_runs
import torch
import verl
from hydra import compose, initialize_config_dir
from tensor_store import Store
from tinymodels import save_text_model
from verl.trainer.ppo.v1.trainer_base import get_trainer_cls
from verl.workers.rollout.replica import TokenOutput
from verl_parts import Asked, Data, Loops, Quiet, Workers, worker_of
from whims import Whim, whims

from himac_agents import TrainConfig
from himac_agents.adapters import verl as loops
from himac_agents.adapters import verl_trainer
from himac_agents.adapters.away import AwayPolicy, Stage, job_from_json, job_to_json
from himac_agents.adapters.verl_trainer import HiMACTrainer
from himac_agents.agents.agent import HiMACAgent
from himac_agents.algorithms.batching import token_batch
from himac_agents.algorithms.methods import METHODS, register_method
from himac_agents.policies.base import Sampling
from himac_agents.policies.codec import ChatCodec
from himac_agents.prompts import make_prompts
from himac_agents.rollouts import serial
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool, Job
from himac_agents.rollouts.types import EpisodeRequest

SETTINGS = TrainConfig(
    method="whims", env="fruit_runs:Brief-v0", flat_env="fruit_runs:Brief-Flat-v0", policy="hf",
    model="given", blueprints=3, executions=3, max_command_tokens=6, max_blueprint_tokens=8,
    constrained=False, kl=0.0, greedy_execution=False, prompt="compact", loggers=(),
)  # fmt: skip


@pytest.fixture(autouse=True)
def method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_known", dict(METHODS._known))
    register_method("whims", planner_credit=whims)


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    made.install(monkeypatch)
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_model(tmp_path_factory.mktemp("verl") / "tiny", layers=1)


def _config(model: Path, place: Path, settings: TrainConfig = SETTINGS, **told: Any) -> Any:
    (place / "himac.toml").write_text(settings.to_toml())
    told = {
        "+himac.settings": str(place / "himac.toml"),
        "trainer.v1.trainer_mode": "himac",
        "trainer.default_local_dir": str(place / "checkpoints"),
        "algorithm.adv_estimator": "grpo",
        "data.train_batch_size": 2,
        "actor_rollout_ref.model.path": str(model),
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.n": 1,
        "actor_rollout_ref.rollout.calculate_log_probs": True,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
        **told,
    }
    folder = Path(verl.__file__).parent / "trainer" / "config"
    with initialize_config_dir(str(folder), version_base=None):
        return compose("ppo_trainer", [f"{key}={value}" for key, value in told.items()])


def _trainer(
    model: Path, place: Path, store: Store, monkeypatch: pytest.MonkeyPatch, **told: Any
) -> tuple[Any, Workers]:
    config = _config(model, place, **told)
    asked = Asked(model)
    seeds = itertools.count()
    envs = EnvPool(lambda: Whim(fruit_runs._brief_hierarchical(), next(seeds)), 4)
    worker = worker_of(config, asked)
    settings = loops.settings_in(config)
    stage = Stage(settings, worker.tokenizer, envs)
    monkeypatch.setattr(loops, "stage_for", lambda text, tokenizer: stage)
    trainer = get_trainer_cls("himac")(config)
    assert isinstance(trainer, HiMACTrainer)
    rows = loops.rows(settings, count=6)
    data = Data()
    for first in range(0, 6, 2):
        pair = rows[first : first + 2]
        column = {"raw_prompt": "prompt", "task_id": "task_id"}
        data.append({k: verl_trainer._column([r[v] for r in pair]) for k, v in column.items()})
    trainer.train_dataloader, trainer.train_dataloader_it = data, None
    known = {"task_id": [row["task_id"] for row in rows]}
    trainer.train_dataset = SimpleNamespace(dataframe=known)
    trainer.agent_loop_manager = Loops(worker)
    trainer.reward_loop_manager = trainer.checkpoint_manager = Quiet()
    trainer.curr_step_profile, trainer.tokenizer = False, worker.tokenizer
    trainer.actor_rollout_wg = workers = Workers(asked.policy, store)
    trainer.global_steps, trainer.timing_raw = 1, {}
    return trainer, workers


def _step(trainer: Any) -> tuple[list[str], dict[str, Any]]:
    """One of verl's steps: the keys that were learned from, and what was measured."""
    metrics: dict[str, Any] = {}
    batch = trainer.step(metrics, {})
    trainer.global_steps += 1
    return batch.keys, metrics


def test_a_phase_is_a_step_with_the_methods_credit(
    model: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, workers = _trainer(model, tmp_path, store, monkeypatch)
    phases, jobs, whole = [], [], trainer._handover.next
    monkeypatch.setattr(trainer._handover, "next", lambda: phases.append(whole()) or phases[-1])
    played = trainer._handover._run
    trainer._handover._run = lambda asked: (jobs.append(list(asked)), played(asked))[1]
    before = {n: p.detach().clone() for n, p in workers.model.named_parameters()}
    keys, metrics = _step(trainer)
    (phase,) = phases
    assert phase.name == "planner" and metrics["himac/planner/live"] == 5.0
    # M blueprints for each of two tasks are asked for, and each is executed.
    asked, tried = jobs
    assert all(job.proposal for job in asked) and len(asked) == 6
    assert not any(job.proposal for job in tried) and {job.acts for job in tried} == {1.0}
    live = [s for s in phase.segments if any(turn.teaches for turn in s.turns)]
    assert {segment.role for segment in live} == {"planner"}
    # What fills up the last mini-batch is verl's.
    filled = [key for key in keys if key.startswith("pad")]
    assert set(keys) - set(filled) == {k for s in live for k in s.kept} and len(filled) == 3
    # verl's rows are HiMAC's, token for token and advantage for advantage.
    batch = token_batch(live)
    total = torch.zeros(())
    count = 0.0
    for row, segment in enumerate(live):
        kept = store.rows["train"][segment.kept[0]]
        start, length = len(kept["prompts"]), len(kept["input_ids"])
        assert kept["input_ids"].tolist() == batch.token_ids[row, :length].tolist()
        assert kept["advantages"].tolist() == batch.advantages[row, start:length].tolist()
        assert kept["response_mask"].tolist() == batch.mask[row, start:length].tolist()
        old = batch.old_logprobs[row, start:length]
        assert kept["rollout_log_probs"].tolist() == pytest.approx(old.tolist())
        assert kept["old_log_probs"].tolist() == pytest.approx(old.tolist(), abs=1e-5)
    # The step is along the formula: the tokens' mean of A log p.
    after = {n: p.detach().clone() for n, p in workers.model.named_parameters()}
    workers.model.load_state_dict({**workers.model.state_dict(), **before})
    for segment in live:
        kept = store.rows["train"][segment.kept[0]]
        logprobs = workers._logprobs(kept)[len(kept["prompts"]) - 1 : -1]
        total = total + (logprobs * kept["advantages"]).sum()
        count += float(kept["response_mask"].sum())
    (total / count).backward()
    moved = 0.0
    for name, parameter in workers.model.named_parameters():
        assert (after[name] - before[name] - parameter.grad).abs().max() < 1e-5, name
        moved = max(moved, float(parameter.grad.abs().max()))
    assert moved > 1e-3
    workers.model.load_state_dict({**workers.model.state_dict(), **after})
    workers.model.zero_grad()
    # The next step is the executor's, on the blueprint that was chosen of those.
    verl_trainer.tq.kv_clear(keys=keys, partition_id="train")
    keys, metrics = _step(trainer)
    assert phases[-1].name == "executor" and metrics["himac/executor/live"] > 0
    practised = jobs[-1]
    assert len(practised) == 6 and not any(job.proposal for job in practised)
    chosen = {job.request.task_id: job.request.blueprint for job in practised}
    written = {(job.request.task_id, str(job.request.blueprint.texts())) for job in tried}
    assert len(chosen) == 2 and {(t, str(b.texts())) for t, b in chosen.items()} <= written
    roles = {s.role for s in phases[-1].segments}
    assert roles == {"executor"}
    # What is not learned from is not kept.
    assert set(store.tags["train"]) == set(keys)
    trainer._handover.close()


def test_a_checkpoint_goes_on_with_the_tasks_under_way(
    model: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = _trainer(model, tmp_path, store, monkeypatch)
    for _ in range(3):
        _step(trainer)
    assert trainer.iterations == 1
    trainer.global_steps -= 1
    tasks = list(trainer._tasks)
    assert len(tasks) == 2
    trainer._save_checkpoint()
    trainer._handover.close()
    held = json.loads((tmp_path / "checkpoints" / "global_step_3" / "himac.json").read_text())
    assert held == {"iterations": 1, "tasks": tasks}
    again, _ = _trainer(model, tmp_path, store, monkeypatch)
    again._load_checkpoint()
    assert (again.global_steps, again.iterations) == (3, 1)
    jobs: list[Any] = []
    played = again._handover._run
    again._handover._run = lambda asked: (jobs.append(list(asked)), played(asked))[1]
    _step(again)
    assert [job.request.task_id for job in jobs[0]][::3] == tasks
    again._handover.close()


def test_the_loop_plays_what_the_method_would_play_at_home(model: Path, tmp_path: Path) -> None:
    """Segments, tokens and rewards are those of a local rollout with the same model."""
    config = _config(model, tmp_path)
    asked = Asked(model)
    worker = worker_of(config, asked)
    settings = loops.settings_in(config)
    codec = ChatCodec(worker.tokenizer)

    async def ask(ids: Any, how: dict[str, Any]) -> Any:
        said = await asked.generate("", prompt_ids=list(ids), sampling_params=how)
        return said.token_ids, said.log_probs

    request = EpisodeRequest("train:03", group=2, number=5)
    policy = AwayPolicy(codec, ask)
    prompts = make_prompts(settings, sub_done=True)
    agent = HiMACAgent.shared(policy, prompts)
    agent.planner.sampling, agent.executor.sampling = Sampling(1.0, 8), Sampling(0.0, 6)
    envs = EnvPool(fruit_runs._brief_hierarchical, 1)
    (own,) = collect(agent, envs, [request], seed=11)
    job = Job(request, seed=11, plans=1.0, acts=0.0)
    assert job_from_json(job_to_json(job)) == job
    asked.params.clear()
    row = {"himac": job_to_json(job), "raw_prompt": [], "uid": "one", "session_id": 0}
    batch = _run_loop(worker, row)
    assert [p["temperature"] for p in asked.params][:2] == [1.0, 0.0]
    assert all(p["top_p"] == 1.0 and p["top_k"] == -1 for p in asked.params)
    assert len(batch) == len(own.segments) >= 2, "one output a segment"
    record = serial.from_json(json.loads(batch[0].extra_fields["himac"]))
    assert serial.to_json(record) == serial.to_json(own)
    for output, segment in zip(batch, own.segments, strict=True):
        ids = output.prompt_ids + output.response_ids
        assert ids == segment.token_ids[: len(ids)]
        written = [i for turn in segment.turns for i in turn.output_ids]
        marked = [i for i, m in zip(output.response_ids, output.response_mask, strict=True) if m]
        assert marked == written and output.reward_score == own.reward
    # A row that nobody made a job of is a whole episode.
    bare = _run_loop(worker, {"task_id": "train:01", "raw_prompt": [], "session_id": 0})
    assert json.loads(bare[0].extra_fields["himac"])["request"]["task_id"] == "train:01"
    with pytest.raises(ValueError, match=r"adapters\.verl\.rows"):
        _run_loop(worker, {"raw_prompt": []})
    worker.rollout_config.response_length = 2
    config.actor_rollout_ref.rollout.response_length = 2
    with pytest.raises(ValueError, match="max_response_length=2 is too short"):
        _run_loop(worker, row)


def _run_loop(worker: Any, row: dict[str, Any]) -> Any:
    """The loop's outputs, by verl's own way to it."""
    found: list[Any] = []

    async def keep(outputs: Any, validate: bool, **_: Any) -> None:
        found.extend(outputs)

    worker._agent_loop_postprocess = keep
    about = {"step": 0, "sample_index": 0, "rollout_n": 0, "validate": False}
    params = {"temperature": 1.0, "top_p": 0.5, "top_k": 3, "logprobs": True}
    asyncio.run(worker._run_agent_loop(params, about, agent_name=loops.NAME, trace=False, **row))
    return found


def test_a_loop_that_fails_is_an_episode_that_crashed(
    model: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = _trainer(model, tmp_path, store, monkeypatch)
    jobs = [Job(EpisodeRequest(f"train:0{n}"), proposal=True) for n in (1, 2)]
    real, asked = Asked.generate, []

    async def failing(self: Any, *args: Any, **how: Any) -> TokenOutput:
        asked.append(1)
        if len(asked) == 1:
            raise OSError("the server is gone")
        return await real(self, *args, **how)

    monkeypatch.setattr(Asked, "generate", failing)
    first, second = trainer._played(jobs)
    assert {bool(first.error), bool(second.error)} == {True, False}
    with pytest.raises(RuntimeError, match="no episode could be played"):
        trainer._played([Job(EpisodeRequest("no such task"), proposal=True)])


@pytest.mark.parametrize(
    ("settings", "told", "said"),
    [
        ({"constrained": True}, {}, "constrained=True: verl"),
        ({"kl": 0.1}, {}, r"kl=0\.1: verl computes a penalty of its own: .*use_kl_loss"),
        ({"temperature": 0.5}, {}, "temperature=1.0 in verl's arguments, 0.5"),
        ({}, {"algorithm.use_kl_in_reward": True}, "use_kl_in_reward=True"),
        ({}, {"algorithm.adv_estimator": "gae"}, "algorithm.adv_estimator=grpo"),
        ({}, {"algorithm.rollout_correction.rollout_is": "token"}, "leave both null"),
        ({}, {"+himac.settings": "nowhere.toml"}, r"\+himac.settings=FILE.toml"),
    ],
)
def test_what_verl_cannot_do_is_refused(
    settings: dict[str, Any], told: dict[str, Any], said: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        HiMACTrainer(_config(model, tmp_path, SETTINGS.replace(**settings), **told))


def test_phases_without_evidence_come_to_an_end(
    model: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = _trainer(model, tmp_path, store, monkeypatch)
    monkeypatch.setattr(verl_trainer, "PATIENCE", 2)
    monkeypatch.setattr(verl_trainer.Handover, "next", lambda self: _nothing())
    with pytest.raises(ValueError, match="2 phases gave no evidence"):
        trainer.prepare_step()


def _nothing() -> Any:
    from himac_agents.adapters.handover import Phase

    return Phase("planner", [])


def test_both_modules_are_found_by_the_environment_variable_of_the_docs() -> None:
    code = (
        "import verl\n"
        "from verl.experimental.agent_loop.agent_loop import _agent_loop_registry as found\n"
        "from verl.trainer.ppo.v1.trainer_base import get_trainer_cls\n"
        "name = 'himac_agents.adapters.verl.HiMACMethodLoop'\n"
        "assert found['himac-agents']['_target_'] == name, found\n"
        "assert get_trainer_cls('himac').__name__ == 'HiMACTrainer'\n"
    )
    named = "himac_agents.adapters.verl,himac_agents.adapters.verl_trainer"
    env = {**os.environ, "VERL_USE_EXTERNAL_MODULES": named}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_rows_of_a_data_set(tmp_path: Path) -> None:
    found = loops.rows(SETTINGS.replace(method="himac"), count=3)
    assert [row["task_id"] for row in found] == ["train:00", "train:01", "train:02"]
    assert {row["agent_name"] for row in found} == {"himac-agents"}
    (flat,) = loops.rows(SETTINGS.replace(method="grpo"), count=1)
    assert {found[0]["data_source"], flat["data_source"]} == {SETTINGS.env, SETTINGS.flat_env}
    assert np.unique([row["extra_info"]["index"] for row in found]).tolist() == [0, 1, 2]
