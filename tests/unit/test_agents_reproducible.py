"""Noise belongs to the request: episodes do not depend on what plays beside them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from launching import ROOT, launch
from tinymodels import save_text_model
from toy import FruitEnv

from himac_agents.agents.agent import HiMACAgent
from himac_agents.evaluation.evaluate import evaluate_tasks
from himac_agents.policies import noise
from himac_agents.policies.base import Sampling
from himac_agents.policies.hf import HFPolicy
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.prompts import ChatPrompts, CompactPrompts
from himac_agents.rollouts import serial
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import Episode, EpisodeRequest
from himac_agents.training.demonstrations import demonstrate, texts_of
from himac_envs.hierarchy import HierarchicalEnv

PROMPTS = CompactPrompts()


class Orchard(FruitEnv):
    """Fruit rooms, 140 of them held out."""

    COUNTS: ClassVar[dict[str, int]] = {**FruitEnv.COUNTS, "test": 140}


def _pool(size: int, flat: bool = False) -> EnvPool:
    return EnvPool(
        lambda: FruitEnv(max_steps=9) if flat else HierarchicalEnv(FruitEnv(max_steps=9)), size
    )


def _tiny() -> HiMACAgent:
    pool = _pool(8)
    ids = pool.task_ids("train")
    shown = demonstrate(pool, ids, prompts=PROMPTS, expert="oracle", transcripts=True)
    policy = TinyPolicy.build(texts_of(shown, PROMPTS), TinySize(32, 2, 2, 64), seed=0)
    agent = HiMACAgent.shared(policy, PROMPTS)
    agent.executor.constrained = True
    return agent


def _chat(folder: Path) -> HiMACAgent:
    policy = HFPolicy.load(save_text_model(folder), device="cpu", dtype="float32")
    agent = HiMACAgent.shared(policy, ChatPrompts())
    agent.executor.constrained = True
    assert agent.planner is not None
    agent.planner.sampling = Sampling(1.0, 6)
    return agent


@pytest.fixture(scope="module", params=["tiny", "a 4-layer Qwen2"])
def agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HiMACAgent:
    return _tiny() if request.param == "tiny" else _chat(tmp_path_factory.mktemp("model"))


def _requests(count: int) -> list[EpisodeRequest]:
    ids = _pool(1).task_ids("train")
    return [EpisodeRequest(ids[i % 6], i % 6, i // 6) for i in range(count)]


def _play(
    agent: HiMACAgent, requests: Sequence[EpisodeRequest], places: int, **how: Any
) -> list[Episode]:
    for policy in agent.policies():
        policy.forget()  # type: ignore[union-attr]
    return collect(agent, _pool(places, agent.planner is None), requests, **how)


def _same(one: Episode, other: Episode) -> None:
    assert one.request == other.request and one.error is None and other.error is None
    assert [s.token_ids for s in one.segments] == [s.token_ids for s in other.segments]
    for a, b in zip(one.turns(), other.turns(), strict=True):
        assert a.output_ids == b.output_ids and a.action == b.action and a.allowed == b.allowed
        assert np.allclose(a.old_logprobs, b.old_logprobs, rtol=0, atol=1e-5)
    assert one.options == other.options and one.reward == other.reward


def test_one_seven_or_all_at_a_time_and_shuffled(agent: HiMACAgent) -> None:
    requests = _requests(24)
    alone = _play(agent, requests, 1, seed=5)
    assert len({tuple(s.token_ids[-1] for s in e.segments) for e in alone}) > 1
    order = np.random.default_rng(0).permutation(len(requests))
    mixed = _play(agent, [requests[i] for i in order], 5, seed=5)
    for several in (
        _play(agent, requests, 7, seed=5),
        _play(agent, requests, 128, seed=5),
        [mixed[i] for i in np.argsort(order)],
    ):
        for one, other in zip(alone, several, strict=True):
            _same(one, other)
    other = _play(agent, requests, 7, seed=6)
    assert any(
        [s.token_ids for s in a.segments] != [s.token_ids for s in b.segments]
        for a, b in zip(alone, other, strict=True)
    ), "another seed is another noise"


def test_episodes_of_one_task_differ_by_their_number(agent: HiMACAgent) -> None:
    task = _requests(1)[0].task_id
    played = _play(agent, [EpisodeRequest(task, 0, n) for n in (0, 0, 1, 2, 3, 4)], 6)
    _same(played[0], played[1])
    said = [tuple(t.output_ids for t in e.turns()) for e in played]
    assert len(set(said[1:])) > 1


def test_flat_agents_too() -> None:
    flat = HiMACAgent.flat(_tiny().executor.policy, PROMPTS)
    flat.executor.history = 2
    requests = _requests(14)
    for one, other in zip(_play(flat, requests, 3), _play(flat, requests, 14), strict=True):
        _same(one, other)


def test_an_evaluation_gives_one_number_whatever_the_lanes(agent: HiMACAgent) -> None:
    ids = list(_pool(1).task_ids("train"))[:12]
    found = [evaluate_tasks(agent, _pool(lanes), ids, seeds=(0, 3)) for lanes in (1, 3, 12, 17)]
    for result in found[1:]:
        assert result.records == found[0].records
    again = evaluate_tasks(agent, _pool(5), ids, seeds=(3,))
    assert again.records == found[0].records[12:], "and each seed by itself"


def test_a_panel_of_140_tasks_is_one_number_with_1_7_128_or_140_lanes() -> None:
    agent = HiMACAgent.flat(_tiny().executor.policy, PROMPTS)
    agent.executor.constrained = True
    pools = [EnvPool(lambda: Orchard(max_steps=2), lanes) for lanes in (1, 7, 128, 140)]
    tasks = pools[0].task_ids("test")
    found = [evaluate_tasks(agent, pool, tasks) for pool in pools]
    assert len({r.task_id for r in found[0].records}) == 140 and found[0].env_steps > 140
    for result in found[1:]:
        assert result.records == found[0].records and result.manifest == found[0].manifest


def test_two_processes_play_what_one_plays(tmp_path: Path) -> None:
    script = str(ROOT / "tests" / "reproducible_runs.py")
    for count in (1, 2):
        launch(count, script, str(tmp_path / str(count)))
    one, two = ((tmp_path / n / "episodes.json").read_bytes() for n in ("1", "2"))
    for a, b in zip(json.loads(one), json.loads(two), strict=True):
        _same(serial.from_json(a), serial.from_json(b))


def test_rollouts_pickle_and_go_through_json(agent: HiMACAgent) -> None:
    pool = EnvPool(
        lambda: gym.make("HiMAC-Sokoban-v0", image=True, max_steps=3, disable_env_checker=True), 2
    )
    oracle = HiMACAgent.shared(_oracle())
    seen = collect(
        oracle, pool, [EpisodeRequest(t) for t in pool.task_ids("train")[:2]], transcripts=True
    )
    assert all(segment.images for episode in seen for segment in episode.segments)
    for episode in [*_play(agent, _requests(4), 4), *seen]:
        for place, turn in enumerate(episode.turns()):
            turn.advantage = 0.1 * place
        through = json.loads(json.dumps(serial.to_json(episode), allow_nan=False))
        for back in (serial.from_json(through), pickle.loads(pickle.dumps(episode))):
            assert serial.to_json(back) == serial.to_json(episode)
            assert [t.advantage for t in back.turns()] == [t.advantage for t in episode.turns()]
            assert back.blueprint == episode.blueprint and back.request == episode.request
            for a, b in zip(back.segments, episode.segments, strict=True):
                assert a.messages == b.messages and a.token_ids == b.token_ids
                assert all(map(np.array_equal, a.images, b.images))
    with pytest.raises(ValueError, match="not an episode"):
        serial.from_json({"request": {}})


def _oracle() -> Any:
    from himac_agents.agents.expert import Expert

    return Expert("oracle")


def test_noise_is_even_and_knows_what_it_is_for() -> None:
    keys = [noise.key("run", 3, f"task {i}") for i in range(20_000)]
    drawn = noise.uniforms(keys, [0] * len(keys))
    assert len(set(keys)) == len(keys) and len(set(drawn.tolist())) == len(keys)
    assert drawn.min() >= 0.0 and drawn.max() < 1.0
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()
    along = noise.uniforms([keys[0]] * 20_000, range(20_000))
    assert abs(np.corrcoef(along[:-1], along[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(drawn, along)[0, 1]) < 0.03
    assert noise.key("1") != noise.key(1) and noise.key("a", "b") != noise.key("b", "a")
    assert noise.key("a\0str:b") != noise.key("a", "b")
