"""verl's own agent loop worker, tools and losses over the environments, without Ray and GPU."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from adapters.tiny import make_model, texts_of

pytest.importorskip("verl", reason="verl is not installed: pip install verl")

import numpy as np
import torch
import verl
from hydra import compose, initialize_config_dir
from transformers import AutoModelForCausalLM
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.protocol import DataProto
from verl.trainer.ppo import core_algos
from verl.utils.import_utils import load_extern_object
from verl.workers.config import FSDPActorConfig
from verl.workers.rollout.replica import TokenOutput

from himac_envs.adapters import Session
from himac_envs.adapters.errors import NoTaskError
from himac_envs.adapters.rows import read_kwargs
from himac_envs.adapters.verl import rows
from himac_envs.adapters.verl_tools import tool_rows
from himac_envs.errors import UnknownTaskError

#: ChatML, with tools as Qwen2.5 writes them.
TEMPLATE = (
    "{%- if tools %}<|im_start|>system\n{{ messages[0]['content'] }}\n{% for t in tools %}"
    "{{ t | tojson }}\n{% endfor %}<|im_end|>\n{%- endif %}"
    "{%- for m in messages %}{% if not (tools and loop.first) %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] }}{% for c in m['tool_calls'] or [] %}<tool_call>\n"
    "{{ c['function'] | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Server:
    """What verl's agent loop asks: an expert's answers, with a model's log-probabilities."""

    def __init__(self, worker: Any, found: list[dict[str, Any]], tools: bool = False) -> None:
        self.tokenizer = worker.tokenizer
        self.tools = tools
        self.quitters: set[int] = set()
        self.answers: dict[str, list[str]] = {}
        self.asked: dict[str, list[str]] = {}
        for row in found:
            with Session(row["env_id"], **read_kwargs(row["env_kwargs"])) as session:
                first = session.reset(row["task_id"])
                key = str(session.observation["text"])
                assert key in first
                self.answers[key] = []
                while not session.done:
                    self.answers[key].append(self.write(session))
                    session.step(session.expert())

    def write(self, session: Session) -> str:
        said = session.expert()
        if not self.tools:
            return f"<action>{said}</action>" if not session.planning else said
        name, arguments = "act", {"command": said}
        if session.planning:
            subgoals = [line.split(". ", 1)[1] for line in said.splitlines()]
            name, arguments = "blueprint", {"subgoals": subgoals}
        elif said == "<sub_done>":
            name, arguments = "sub_done", {}
        call = json.dumps({"name": name, "arguments": arguments})
        return f"<tool_call>\n{call}\n</tool_call>"

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> TokenOutput:
        if request_id not in self.asked:
            prompt = self.tokenizer.decode(prompt_ids)
            said = next(found for key, found in self.answers.items() if key in prompt)
            quits = len(self.asked) in self.quitters
            self.asked[request_id] = ["I give up"] * 99 if quits else [*said, "Done."]
        text = self.asked[request_id].pop(0)
        ids = [*self.tokenizer.encode(text), self.tokenizer.eos_token_id]
        return TokenOutput(token_ids=ids, log_probs=[-1.0] * len(ids), stop_reason="completed")


def make_worker(model: str, **overrides: Any) -> AgentLoopWorker:
    """verl's worker with verl's own configuration, outside of Ray."""
    told = {
        "actor_rollout_ref.model.path": model,
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.prompt_length": 4_096,
        "actor_rollout_ref.rollout.response_length": 12_000,
        "actor_rollout_ref.rollout.calculate_log_probs": True,
        "actor_rollout_ref.rollout.multi_turn.max_tool_response_length": 65_536,
        **overrides,
    }
    folder = Path(verl.__file__).parent / "trainer" / "config"
    with initialize_config_dir(str(folder), version_base=None):
        config = compose("ppo_trainer", [f"{k}={v}" for k, v in told.items()])
    return AgentLoopWorker(config, None)


def play(worker: Any, server: Server, found: list[dict[str, Any]]) -> DataProto:
    """A batch of rows through the worker, as verl's data set hands them over."""
    fields: dict[str, Any] = {}
    lines = []
    for row in found:
        line = {**row, "raw_prompt": row["prompt"], "index": row["extra_info"]["index"]}
        line["tools_kwargs"] = row["extra_info"].get("tools_kwargs", {})
        del line["prompt"]
        lines.append(line)
    for key in lines[0]:
        fields[key] = np.empty(len(lines), dtype=object)
        fields[key][:] = [line[key] for line in lines]
    batch = DataProto(non_tensor_batch=fields, meta_info={"global_steps": 0})
    worker.llm_client = server
    return asyncio.run(asyncio.wait_for(worker.generate_sequences(batch), 120))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    texts = [t for name in ("ALFWorld", "WebShop", "Sokoban") for t in texts_of(f"HiMAC-{name}-v0")]
    return make_model(tmp_path_factory.mktemp("verl") / "model", texts, TEMPLATE)


@pytest.fixture(scope="module")
def worker(model: str) -> Any:
    return make_worker(model)


def test_an_expert_wins_through_the_agent_loop(env_id: str, worker: Any) -> None:
    found = rows(env_id, count=2, seed=1, data="generated")
    server = Server(worker, found)
    out = play(worker, server, found)
    assert out.non_tensor_batch["success"].tolist() == [1.0, 1.0]
    for i, row in enumerate(found):
        with Session(env_id, data="generated") as session:
            session.reset(row["task_id"])
            said = []
            while not session.done:
                said.append(session.expert())
                session.step(said[-1])
            assert float(out.batch["rm_scores"][i].sum()) == pytest.approx(session.episode_return)
        assert sum(out.non_tensor_batch["turn_scores"][i]) == session.episode_return
        mask, ids = out.batch["response_mask"][i], out.batch["responses"][i]
        # The model's tokens are those that it wrote, and no others; the last one ends the episode.
        wrote = server.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)
        assert all(answer in wrote for answer in said)
        logprobs = out.batch["rollout_log_probs"][i]
        assert set(logprobs[mask.bool()].tolist()) == {-1.0} and not logprobs[~mask.bool()].any()
        shown = server.tokenizer.decode(ids[~mask.bool()], skip_special_tokens=True)
        assert ("Current sub-goal: " in shown) == ("Flat" not in env_id)
        assert out.non_tensor_batch["__num_turns__"][i] == 2 * len(said)


def test_the_tool_form_wins(env_id: str, model: str, tmp_path: Path) -> None:
    named = ["Act"] if "Flat" in env_id else ["Act", "BlueprintTool", "SubDone"]
    made = [
        {"class_name": f"himac_envs.adapters.verl_tools.{n}", "config": {"type": "native"}}
        for n in named
    ]
    config = tmp_path / "tools.yaml"
    config.write_text(json.dumps({"tools": made}), encoding="utf-8")
    told = {"actor_rollout_ref.rollout.multi_turn.tool_config_path": str(config)}
    worker = make_worker(model, **told)
    found = tool_rows(env_id, count=1, seed=1, data="generated")
    out = play(worker, Server(worker, found, tools=True), found * 2)
    score = load_extern_object("pkg://himac_envs.adapters.verl_tools", "compute_score")
    for earned in out.non_tensor_batch["tool_rewards"]:
        with Session(env_id, data="generated") as session:
            session.reset(found[0]["task_id"])
            while not session.done:
                session.step(session.expert())
        assert len(earned) == session.decisions
        assert score(extra_info={"tool_rewards": earned}) == pytest.approx(session.episode_return)
    assert score() == 0.0


def test_a_group_shares_its_task_and_an_optimiser_step_is_taken(model: str, worker: Any) -> None:
    """Everything of verl's but the sharded engine, which is registered for CUDA and NPU only."""
    one = rows("HiMAC-Sokoban-v0", count=1, seed=2, max_steps=6)[0]
    server = Server(worker, [one])
    server.quitters = {1, 2, 5}
    out = play(worker, server, [one] * 8)
    scores = out.batch["rm_scores"].sum(-1)
    won = out.non_tensor_batch["success"]
    assert sorted(won.tolist()) == [0.0] * 3 + [1.0] * 5
    assert len(server.answers) == 1, "one task for all eight"
    mask = out.batch["response_mask"].float()
    advantages, _ = core_algos.compute_grpo_outcome_advantage(
        out.batch["rm_scores"], mask, np.array(["one task"] * 8)
    )
    assert all((advantages[i][mask[i] > 0] > 0).all() == (won[i] > 0) for i in range(8)), scores
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    before = [p.detach().clone() for p in policy.parameters()]

    longest = int(mask.sum(-1).new_tensor([int(m.nonzero().max()) for m in mask]).max()) + 1
    prompt = out.batch["prompts"].shape[1]
    ids = out.batch["input_ids"][:, : prompt + longest]
    seen = out.batch["attention_mask"][:, : prompt + longest]
    left = int(seen.argmax(-1).min())
    logits = policy(ids[:, left:], attention_mask=seen[:, left:]).logits[:, -longest - 1 : -1]
    chosen = torch.log_softmax(logits, -1).gather(-1, ids[:, prompt:, None])[..., 0]
    folder = {"strategy": "fsdp", "rollout_n": 8, "ppo_micro_batch_size_per_gpu": 8}
    loss, about = core_algos.compute_policy_loss_vanilla(
        chosen.detach(),
        chosen,
        advantages[:, :longest],
        mask[:, :longest],
        config=FSDPActorConfig(**folder),
    )
    loss.backward()
    optimiser.step()
    moved = [
        float((a - b).detach().abs().max())
        for a, b in zip(before, policy.parameters(), strict=True)
    ]
    assert max(moved) > 0 and torch.isfinite(loss) and about["actor/ppo_kl"] == 0


def test_limits_of_tokens_and_turns(model: str) -> None:
    one = rows("HiMAC-ALFWorld-Flat-v0", count=1, data="generated")[0]
    few = {"actor_rollout_ref.rollout.response_length": 60}
    worker = make_worker(model, **few)
    out = play(worker, Server(worker, [one]), [one])
    assert out.batch["responses"].shape[1] == 60 and out.non_tensor_batch["success"][0] == 0
    turns = {"actor_rollout_ref.rollout.multi_turn.max_assistant_turns": 2}
    worker = make_worker(model, **turns)
    out = play(worker, Server(worker, [one]), [one])
    assert out.non_tensor_batch["steps"][0] == 2


def test_bad_input_is_answered(worker: Any, model: str, tmp_path: Path) -> None:
    one = rows("HiMAC-Sokoban-Flat-v0", count=1, max_steps=3)[0]
    server = Server(worker, [one])
    with pytest.raises(UnknownTaskError):
        play(worker, server, [{**one, "task_id": "no such task"}])
    with pytest.raises(NoTaskError, match=r"adapters\.verl\.rows"):
        play(worker, server, [{**one, "task_id": None}])
    server.quitters = {0}
    out = play(worker, server, [one])
    assert out.non_tensor_batch["steps"][0] == 3
    assert out.batch["rm_scores"].sum() == pytest.approx(-0.3)

    config = tmp_path / "tools.yaml"
    made = {"class_name": "himac_envs.adapters.verl_tools.Act", "config": {"type": "native"}}
    config.write_text(json.dumps({"tools": [made]}), encoding="utf-8")
    told = {"actor_rollout_ref.rollout.multi_turn.tool_config_path": str(config)}
    worker = make_worker(model, **told)
    row = tool_rows("HiMAC-Sokoban-Flat-v0", count=1, max_steps=2)[0]
    server = Server(worker, [row], tools=True)
    key = next(iter(server.answers))
    calls = ['{"name": "act", "arguments": {}}', '{"name": "fly", "arguments": {}}']
    calls += ['{"name": "act", "arguments": {"command": [1]}}', '{"name": "act", "arguments": {}}']
    server.answers[key] = [f"<tool_call>\n{call}\n</tool_call>" for call in calls]
    out = play(worker, server, [row])
    shown = server.tokenizer.decode(out.batch["responses"][0])
    assert "Unknown function 'fly'" in shown
    assert "Error executing tool 'act': the episode is over" in shown
    assert out.non_tensor_batch["tool_rewards"][0] == pytest.approx([-0.1, 0.0, -0.1, 0.0])


def test_the_loop_is_found_by_the_environment_variable_of_the_docs() -> None:
    code = (
        "import verl\n"
        "from verl.experimental.agent_loop.agent_loop import _agent_loop_registry as found\n"
        "assert found['himac']['_target_'] == 'himac_envs.adapters.verl.HiMACAgentLoop', found\n"
    )
    env = {**os.environ, "VERL_USE_EXTERNAL_MODULES": "himac_envs.adapters.verl"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_example_runs(run_example: Any, tmp_path: Path) -> None:
    said = run_example("verl_rows.py", str(tmp_path / "train.parquet"))
    assert said == "100 tasks for the agent loop himac\n"
