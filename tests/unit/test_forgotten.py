"""What nobody holds any more closes its connections and removes its folders by itself."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest
from chat_server import ChatServer
from fake_vllm import FakeVLLM, wait_for
from tinymodels import CHATML, save_text_model

from himac_agents.agents.asking import Question, submit
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Message, Prompt, Sampling
from himac_agents.policies.endpoint import Endpoint
from himac_agents.policies.hf import HFPolicy
from himac_agents.policies.remote import APIPolicy
from himac_agents.policies.served.rollouts import ServedRollouts, make_rollouts
from himac_agents.policies.served.server import Server
from himac_agents.policies.served.weights import FileTransfer

pytest.importorskip("httpx")


def test_a_remote_policy() -> None:
    with ChatServer(lambda request: "look") as server:
        policy = APIPolicy(Endpoint("tester", server.url))
        asyncio.run(policy.sample(Prompt((Message("user", "What now?"),)), Sampling(0.7, 64)))
        client = policy._client
        assert not client.is_closed
        del policy
        gc.collect()
        wait_for(lambda: client.is_closed)  # its thread lets go of the question a moment later


def test_rollouts_from_a_server(tmp_path: Path) -> None:
    folder = save_text_model(tmp_path / "tiny", CHATML, layers=2)
    learner = HFPolicy.load(folder, device="cpu", dtype="float32")
    with FakeVLLM(folder) as fake:
        config = TrainConfig(
            policy="hf", model=str(folder), dtype="float32", rollout="server", servers=(fake.url,)
        )
        rollouts = make_rollouts(config, {"policy": learner})
        assert isinstance(rollouts, ServedRollouts)
        policy = rollouts.serve({"policy": learner})["policy"]
        policy.forget()
        ids = policy.encode([Message("user", "Hello")])
        submit(Question(policy, Prompt((), ids), Sampling(1.0, 2))).result(60)
        server, sender = rollouts.receivers[0], rollouts._sender
        assert isinstance(server, Server) and isinstance(sender, FileTransfer)
        clients, scratch = (server._control, server._asking), (sender.folder, rollouts._adapters)
        assert all(place.is_dir() for place in scratch)
        assert not any(client.is_closed for client in clients)
        del learner, policy, rollouts, server, sender
        gc.collect()
        wait_for(lambda: all(client.is_closed for client in clients))
        assert not any(place.exists() for place in scratch)
