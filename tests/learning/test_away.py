"""Methods whose episodes are played elsewhere: they are handed what they would play themselves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import fruit_runs
import numpy as np
import pytest
from tinymodels import save_text_model
from whims import whims

from himac_agents import TrainConfig
from himac_agents.adapters.away import (
    AwayPolicy,
    Stage,
    job_from_json,
    job_to_json,
    settings_from,
    settings_to_text,
    tokens_of,
)
from himac_agents.adapters.handover import Handover, Phase, checked, setting_of
from himac_agents.agents.agent import assemble
from himac_agents.algorithms.batching import token_batch
from himac_agents.algorithms.methods import METHODS, method_of, register_method
from himac_agents.policies.base import Message, Prompt, Sampling
from himac_agents.policies.codec import ChatCodec
from himac_agents.policies.hf import HFPolicy
from himac_agents.prompts import make_prompts
from himac_agents.rollouts import serial
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import AwayPool, EnvPool, Job
from himac_agents.rollouts.types import Episode, EpisodeRequest

SETTINGS = TrainConfig(
    method="whims", env="fruit_runs:Brief-v0", flat_env="fruit_runs:Brief-Flat-v0", policy="hf",
    model="given", tasks=2, blueprints=2, executions=3, max_command_tokens=6, lanes=4,
    max_blueprint_tokens=8, constrained=False, kl=0.0, resample_dead=1, prompt="compact",
)  # fmt: skip
TASKS = ["train:01", "train:07"]


@pytest.fixture(autouse=True)
def method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_known", dict(METHODS._known))
    register_method("whims", planner_credit=whims)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = save_text_model(tmp_path_factory.mktemp("away") / "tiny", layers=1)
    return HFPolicy.load(folder, device="cpu", dtype="float32")


class Home:
    """The model, asked as whoever samples elsewhere is asked."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy
        self.asked: list[dict[str, Any]] = []

    async def ask(self, ids: Sequence[int], how: dict[str, Any]) -> Any:
        self.asked.append(how)
        prompt = Prompt((), ids, noise=how["seed"])
        (said,) = self.policy.generate([prompt], Sampling(how["temperature"], how["max_tokens"]))
        return said.token_ids, said.logprobs


def _phases(policy: Any, settings: TrainConfig, *, away: bool, count: int) -> list[Phase]:
    """The first phases of a method, played here or elsewhere."""
    settings = checked(settings, "the test", "none")
    method, home = method_of(settings), Home(policy)
    prompts = make_prompts(settings, sub_done=method.sub_done)
    known = [f"train:{n:02d}" for n in range(20)]

    def elsewhere(jobs: Sequence[Job]) -> list[Episode]:
        there = [job_from_json(job_to_json(job)) for job in jobs]

        async def all_of_them() -> list[Episode]:
            return await asyncio.gather(*[stage.play(job, home.ask) for job in there])

        made = [serial.to_json(episode) for episode in asyncio.run(all_of_them())]
        return [serial.from_json(one) for one in made]

    codec = ChatCodec(policy.tokenizer)
    stage = Stage(settings, policy.tokenizer)
    agent = assemble(settings, {"policy": AwayPolicy(codec, home.ask)}, prompts, True)
    envs = EnvPool(fruit_runs._brief_hierarchical, 3)
    number = [0]

    def iterate(learner: Handover) -> None:
        pool = AwayPool(learner.play, lambda split: known) if away else envs
        rng = np.random.default_rng(number[0])
        draw = lambda own: known[int(own.integers(len(known)))]  # noqa: E731
        method.iterate(
            setting_of(settings, agent, pool, learner, number[0], draw, rng), TASKS, number[0]
        )
        number[0] += 1

    handover = Handover(iterate, elsewhere)
    try:
        return [handover.next() for _ in range(count)]
    finally:
        handover.close()


def test_a_method_is_handed_what_it_would_play_itself(policy: Any) -> None:
    """Blueprints, trials, executions and groups drawn anew, over two iterations."""
    here, there = (_phases(policy, SETTINGS, away=a, count=4) for a in (False, True))
    assert [phase.name for phase in there] == ["planner", "executor"] * 2
    for one, other in zip(here, there, strict=True):
        assert len(one.segments) > 2
        whole = Episode(EpisodeRequest(""), segments=list(one.segments))
        sent = Episode(EpisodeRequest(""), segments=list(other.segments))
        assert serial.to_json(whole) == serial.to_json(sent)
    written = [turn.output_ids for phase in there for s in phase.segments for turn in s.turns]
    assert len(set(written)) > 4
    # A phase is larger where groups without evidence were drawn anew.
    assert len(there[1].segments) > SETTINGS.tasks


def test_sequences_are_the_rows_that_are_learned_from(policy: Any) -> None:
    (phase,) = _phases(policy, SETTINGS, away=True, count=1)
    batch = token_batch(phase.segments)
    for row, segment in enumerate(phase.segments):
        (one,) = tokens_of(segment)
        start, end = len(one.prompt_ids), len(one.prompt_ids) + len(one.response_ids)
        ids = one.prompt_ids + one.response_ids
        assert ids == batch.token_ids[row, :end].tolist()
        assert one.mask == batch.mask[row, start:end].tolist() and not batch.mask[row, end:].any()
        assert one.advantages == batch.advantages[row, start:end].tolist()
        assert one.logprobs == pytest.approx(batch.old_logprobs[row, start:end].tolist())
        assert one.mask[-1] == 1
    segment.turns[-1].old_logprobs = ()
    assert tokens_of(segment)[0].logprobs is None


def test_a_job_is_asked_for_as_it_says(policy: Any) -> None:
    home, stage = Home(policy), Stage(SETTINGS.replace(method="himac"), policy.tokenizer)
    request = EpisodeRequest("train:02")
    episode = asyncio.run(stage.play(Job(request, seed=3, plans=0.0, acts=0.7), home.ask))
    assert [how["temperature"] for how in home.asked[:2]] == [0.0, 0.7]
    assert [how["max_tokens"] for how in home.asked[:2]] == [8, 6]
    assert home.asked[0]["stop_token_ids"] == list(policy.end_ids)
    assert episode.steps == 2 and len({how["seed"] for how in home.asked}) == len(home.asked)
    broken = asyncio.run(stage.play(Job(EpisodeRequest("no such task")), home.ask))
    assert "UnknownTaskError" in str(broken.error)
    drafted = Job(EpisodeRequest("no such task"), proposal=True)
    assert "UnknownTaskError" in str(asyncio.run(stage.play(drafted, home.ask)).error)

    async def silent(ids: Any, how: Any) -> Any:
        return (), ()

    told = asyncio.run(stage.play(Job(request), silent)).error
    assert told == "whoever samples wrote no token"


def test_what_fails_elsewhere_reaches_the_trainer(policy: Any) -> None:
    def fails(jobs: Sequence[Job]) -> list[Episode]:
        raise OSError("the cable is cut")

    def iterate(learner: Handover) -> None:
        learner.play([Job(EpisodeRequest("train:01"))])

    handover = Handover(iterate, fails)
    for _ in range(2):
        with pytest.raises(OSError, match="the cable is cut"):
            handover.next()
    assert not [t for t in threading.enumerate() if t.name == "himac"]


def test_nothing_is_played_at_home_in_a_pool_that_is_away(policy: Any) -> None:
    asked: list[Job] = []

    def note(jobs: Sequence[Job]) -> list[Episode]:
        asked.extend(jobs)
        return []

    pool = AwayPool(note, lambda split: TASKS)
    prompts = make_prompts(SETTINGS, sub_done=True)
    agent = assemble(SETTINGS, {"policy": policy}, prompts, True)
    assert collect(agent, pool, [EpisodeRequest("train:01")], seed=4, stop_at_failure=True) == []
    assert asked == [Job(EpisodeRequest("train:01"), seed=4, stop_at_failure=True)]
    assert list(pool.task_ids("train")) == TASKS
    with pytest.raises(ValueError, match="these environments are elsewhere"):
        pool[0]


def test_a_codec_without_its_model_writes_the_same(policy: Any) -> None:
    codec = ChatCodec(policy.tokenizer)
    talk = [Message("system", "You tidy up."), Message("user", "What now?")]
    assert codec.encode(talk) == policy.encode(talk)
    assert codec.encode(talk[1:], continues=True) == policy.encode(talk[1:], continues=True)
    assert codec.encode_reply("look") == policy.encode_reply("look")
    assert codec.encode_past("look") == policy.encode_past("look")
    assert codec.decode(codec.encode_reply("look")) == "look"
    assert set(codec.end_ids) <= set(policy.end_ids) and codec.pad_id == policy.pad_id


def test_settings_go_there_as_text() -> None:
    text = settings_to_text(SETTINGS)
    assert settings_from(text) == SETTINGS and settings_to_text(settings_from(text)) == text
