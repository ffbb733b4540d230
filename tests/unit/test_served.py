"""Rollouts from servers: requests, syncs and their check, over a stand-in for vLLM."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_vllm import FakeVLLM, Faults, wait_for
from tinymodels import CHATML, save_text_model

from himac_agents import distributed
from himac_agents.agents.asking import Question, submit
from himac_agents.config import TrainConfig
from himac_agents.policies.base import Message, Prompt, Sampling, narrow
from himac_agents.policies.hf import HFPolicy
from himac_agents.policies.lora import Lora
from himac_agents.policies.served import server as servers
from himac_agents.policies.served import weights
from himac_agents.policies.served.plugin.walk import Walk
from himac_agents.policies.served.policy import ServedPolicy
from himac_agents.policies.served.rollouts import ServedRollouts, make_rollouts
from himac_agents.policies.served.server import RolloutError
from himac_agents.policies.served.weights import FileTransfer, Weights
from himac_envs.errors import HiMACError

COMMANDS = ("go to cabinet 1", "go to cabinet 12", "take mug 1 from cabinet 1", "look", "go")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_model(tmp_path_factory.mktemp("served") / "tiny", CHATML, layers=2)


@pytest.fixture
def learner(folder: Path) -> Any:
    return HFPolicy.load(folder, device="cpu", dtype="float32")


def _config(folder: Path, *urls: str, **settings: Any) -> TrainConfig:
    told = {"dtype": "float32", "sync_timeout": 20.0, **settings}
    return TrainConfig(policy="hf", model=str(folder), rollout="server", servers=urls, **told)


def _serve(folder: Path, learner: Any, *urls: str, **settings: Any) -> ServedPolicy:
    rollouts = make_rollouts(_config(folder, *urls, **settings), {"policy": learner})
    return rollouts.serve({"policy": learner})["policy"]


def _ask(policy: Any, prompts: list[Prompt], how: Sampling) -> list[Any]:
    return [f.result(60) for f in [submit(Question(policy, p, how)) for p in prompts]]


def _move(learner: Any, by: float = 0.2) -> None:
    """Other weights, as an update makes them."""
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise) * by)
    learner.forget()


def _rollouts(policy: ServedPolicy) -> ServedRollouts:
    assert isinstance(policy.rollouts, ServedRollouts)
    return policy.rollouts


# -- requests and answers --------------------------------------------------------------------------


def test_choices_are_walked_as_they_are_narrowed(learner: Any) -> None:
    choices = [learner.encode_reply(c) for c in COMMANDS]
    for choice in choices:
        written: list[int] = []
        walk = Walk(choices, written)
        seen = []
        for token in choice:
            seen.append(tuple(walk.options()))
            written.append(token)
        assert tuple(seen) == narrow(choices, choice)
        assert walk.options() == []


def test_the_same_tokens_come_back_as_the_model_would_write(folder: Path, learner: Any) -> None:
    ids = learner.encode([Message("user", "What do you do?")])
    choices = [learner.encode_reply(c) for c in COMMANDS]
    free = [Prompt((), ids, noise=7**20 + 2 * i) for i in range(6)]
    constrained = [Prompt((), ids, choices=choices, noise=3**30 + 2 * i) for i in range(12)]
    with FakeVLLM(folder) as fake:
        policy = _serve(folder, learner, fake.url)
        policy.forget()
        for asked, most in ((free, 6), *((constrained, most) for most in (12, 3, 2, 1))):
            how = Sampling(1.0, most)
            # Half the noise is the request's seed.
            same = [Prompt((), p.token_ids, choices=p.choices, noise=p.noise >> 1) for p in asked]
            told, own = _ask(policy, asked, how), learner.generate(same, how)
            for one, other in zip(told, own, strict=True):
                assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
                assert replace(one, logprobs=()) == replace(other, logprobs=())
        assert {type(body["seed"]) for body in fake.asked} == {int}
        assert all(0 <= body["seed"] < 2**63 for body in fake.asked)
        assert fake.asked[-1]["stop_token_ids"] == list(learner.end_ids)
        assert fake.asked[-1]["ignore_eos"] and fake.asked[-1]["logprobs"] == 0


def test_an_answer_that_is_none_of_the_choices_is_refused(folder: Path, learner: Any) -> None:
    ids = learner.encode([Message("user", "What do you do?")])
    prompt = Prompt((), ids, choices=[learner.encode_reply("look")], noise=4)
    with FakeVLLM(folder, Faults(unconstrained=True)) as fake:
        policy = _serve(folder, learner, fake.url)
        with pytest.raises(RolloutError, match="none of the 1 choices"):
            _ask(policy, [prompt], Sampling(1.0, 4))


def test_what_neither_model_nor_server_can_read_is_an_error_of_its_episode(
    folder: Path, learner: Any
) -> None:
    with FakeVLLM(folder) as fake:
        policy = _serve(folder, learner, fake.url)
        _rollouts(policy).context = 30
        long, short = Prompt((), [5] * 25, noise=1), Prompt((), [5] * 10, noise=1)
        found = _ask(policy, [long, short], Sampling(1.0, 8))
        assert "the 30 that the server reads" in str(found[0].error) and found[1].error is None
        assert len(fake.asked) == 1


# -- weights ---------------------------------------------------------------------------------------


def test_a_shared_embedding_is_sent_as_output_layer_too(learner: Any) -> None:
    sent = dict(Weights(learner.model, torch.float32))
    embedding = learner.model.get_input_embeddings().weight
    assert torch.equal(sent["lm_head.weight"], embedding)
    assert set(sent) == {*(n for n, _ in learner.model.named_parameters()), "lm_head.weight"}
    learner.model.config.tie_word_embeddings = False
    assert "lm_head.weight" not in dict(Weights(learner.model, torch.float32))
    halved = dict(Weights(learner.model, torch.bfloat16))
    assert {tensor.dtype for tensor in halved.values()} == {torch.bfloat16}


def test_each_update_is_sent_once_and_checked(folder: Path, learner: Any, tmp_path: Path) -> None:
    with FakeVLLM(folder) as one, FakeVLLM(folder) as two:
        policy = _serve(folder, learner, one.url, two.url, sync_folder=str(tmp_path / "weights"))
        for _ in range(2):
            _move(learner)
            policy.forget()
            policy.forget()
        for fake in (one, two):
            assert fake.calls.count(("POST", "/update_weights")) == 2
            order = [path for _, path in fake.calls if path in ("/pause", "/resume")]
            assert order == ["/pause", "/resume"] * 2
            for name, parameter in fake.policy.model.named_parameters():
                assert torch.equal(parameter, dict(learner.model.named_parameters())[name])
        assert one.version == two.version is not None
        found = _rollouts(policy).take()
        assert found["syncs"] == 2 and 0 < found["sync_gap_max"] < 1e-4
        assert _rollouts(policy).take()["syncs"] == 0
        assert list((tmp_path / "weights").iterdir()) == []
        # One that was started anew has the old model, and no version: it alone is sent the weights.
        two.version = None
        policy.forget()
        assert one.calls.count(("POST", "/update_weights")) == 2
        assert two.calls.count(("POST", "/update_weights")) == 3


def test_a_sync_that_changes_nothing_stops_the_run(folder: Path, learner: Any) -> None:
    with FakeVLLM(folder) as fake:
        policy = _serve(folder, learner, fake.url)
        policy.forget()
        fake.faults.withhold = True
        told = r"nats per token apart .* does not sample with the"
        with pytest.raises(RolloutError, match=told):
            _move(learner)
        with pytest.raises(RolloutError, match=told):
            policy.forget()
        fake.faults.withhold = False
        policy.forget()
        assert fake.asked and _rollouts(policy).take()["syncs"] == 2


def test_the_bound_is_the_settings(folder: Path, learner: Any) -> None:
    with FakeVLLM(folder, Faults(shift=0.01)) as fake:
        with pytest.raises(RolloutError, match=r"0\.01 nats .* 0\.001 are allowed"):
            _serve(folder, learner, fake.url).forget()
        policy = _serve(folder, learner, fake.url, sync_bound=0.02)
        policy.forget()
        assert _rollouts(policy).take()["sync_gap"] == pytest.approx(0.01, abs=1e-4)
    with FakeVLLM(folder, Faults(shift=float("nan"))) as fake, pytest.raises(RolloutError):
        _serve(folder, learner, fake.url, sync_bound=9.0).forget()


def test_adapters_of_two_roles_have_a_name_for_each_version(folder: Path) -> None:
    made = {
        name: HFPolicy.load(folder, device="cpu", dtype="float32", lora=Lora(4, 8), seed=seed)
        for seed, name in enumerate(("planner", "executor"))
    }
    settings = {"lora_rank": 4, "separate_adapters": True}
    with FakeVLLM(folder, loras=2) as fake:
        rollouts = make_rollouts(_config(folder, fake.url, **settings), made)
        served = rollouts.serve(made)
        served["planner"].forget()
        before = set(fake.adapters)
        _move(made["executor"])
        assert len(before) == 2 == len(fake.adapters) and len(before & set(fake.adapters)) == 1
        ids = served["planner"].encode([Message("user", "What next?")])
        for name, policy in served.items():
            (found,) = _ask(policy, [Prompt((), ids, noise=8)], Sampling(1.0, 8))
            (own,) = made[name].generate([Prompt((), ids, noise=4)], Sampling(1.0, 8))
            assert found.token_ids == own.token_ids
            assert found.logprobs == pytest.approx(own.logprobs, abs=1e-5)
        assert {body["model"] for body in fake.asked} >= set(fake.adapters)
    with (
        FakeVLLM(folder, loras=1) as fake,
        pytest.raises(RolloutError, match=r"--lora-rank 4 --loras 2"),
    ):
        make_rollouts(_config(folder, fake.url, **settings), made).serve(made)
    with FakeVLLM(folder, loras=2, rank=2) as fake, pytest.raises(RolloutError, match="rank 2 at"):
        make_rollouts(_config(folder, fake.url, **settings), made).serve(made)


def test_two_whole_models_do_not_share_a_server(folder: Path, learner: Any) -> None:
    with FakeVLLM(folder) as fake:
        two = {"planner": learner, "executor": learner}
        with pytest.raises(ValueError, match="separate_adapters"):
            make_rollouts(_config(folder, fake.url), two).serve(two)


# -- who is asked, and who is not ------------------------------------------------------------------


def test_requests_go_to_the_least_busy(folder: Path, learner: Any) -> None:
    ids = learner.encode([Message("user", "What do you do?")])
    path = ("POST", "/v1/completions")
    with FakeVLLM(folder) as quick, FakeVLLM(folder) as stuck:
        policy = _serve(folder, learner, quick.url, stuck.url)
        policy.forget()
        before = {id(fake): fake.calls.count(path) for fake in (quick, stuck)}
        stuck.faults = Faults(slow={"/v1/completions": 60.0})
        waiting = []
        for noise in range(8):
            coming = submit(Question(policy, Prompt((), ids, noise=noise), Sampling(1.0, 2)))
            # One that went to the stuck server is waited for no longer than until it is there.
            wait_for(lambda c=coming: c.done() or stuck.calls.count(path) > before[id(stuck)])  # type: ignore[misc]
            if len(waiting) == 0 and not coming.done():
                waiting.append(coming)
            else:
                coming.result(20)
        assert len(waiting) == 1
        assert quick.calls.count(path) - before[id(quick)] == 7
        assert stuck.calls.count(path) - before[id(stuck)] == 1


@pytest.mark.parametrize(
    ("made", "settings", "told"),
    [
        ({"processors": ()}, {}, "without this project's logits processor"),
        ({"dtype": "bfloat16"}, {}, "computes in bfloat16, the trained model in float32"),
        ({"loras": 2}, {}, "cannot be sent weights"),
        ({}, {"transfer": "nccl"}, "take weights by himac_file"),
    ],
)
def test_servers_that_do_not_fit_are_refused(
    folder: Path, learner: Any, made: Any, settings: Any, told: str
) -> None:
    with FakeVLLM(folder, **made) as fake, pytest.raises(RolloutError, match=told):
        _serve(folder, learner, fake.url, **settings).forget()


def test_another_model_is_refused_before_it_is_sent_anything(
    folder: Path, learner: Any, tmp_path: Path
) -> None:
    other = save_text_model(tmp_path / "other", CHATML, layers=3)
    with FakeVLLM(other) as fake:
        with pytest.raises(RolloutError, match=r"num_hidden_layers is 3, that of .* 2"):
            _serve(folder, learner, fake.url)
        assert all(method == "GET" for method, _ in fake.calls)


def test_no_server_and_none_of_vllm(folder: Path, learner: Any) -> None:
    with FakeVLLM(folder) as fake:
        url = fake.url
    with pytest.raises(RolloutError, match="is the server running"):
        _serve(folder, learner, url)
    with FakeVLLM(folder) as fake:
        fake.faults.broken["/server_info"] = 404
        with pytest.raises(RolloutError, match=r"has no /server_info.*himac serve MODEL"):
            _serve(folder, learner, fake.url)
    with pytest.raises(ValueError, match="is not an address"):
        _serve(folder, learner, "127.0.0.1:8000")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Silence is asked about at once."""
    monkeypatch.setattr(servers, "_PATIENCE", 0.1)
    monkeypatch.setattr(servers, "_PROBE", 0.3)
    yield


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_gone_is_told_from_one_that_is_slow(folder: Path, learner: Any) -> None:
    ids = learner.encode([Message("user", "What do you do?")])
    prompt, how = Prompt((), ids, noise=1), Sampling(1.0, 2)
    with FakeVLLM(folder) as fake:
        policy = _serve(folder, learner, fake.url)
        fake.faults = Faults(slow={"/v1/completions": 0.6})
        assert _ask(policy, [prompt], how)[0].token_ids
        assert ("GET", "/health") in fake.calls
        fake.faults = Faults(slow={"/v1/completions": 30.0, "/health": 30.0})
        with pytest.raises(RolloutError, match="does not answer"):
            _ask(policy, [prompt], how)
        fake.faults = Faults(slow={"/v1/completions": 30.0}, broken={"/health": 503})
        with pytest.raises(RolloutError, match="its engine has failed"):
            _ask(policy, [prompt], how)
        policy = _serve(folder, learner, fake.url, answer_timeout=0.3)
        fake.faults = Faults(slow={"/v1/completions": 30.0})
        with pytest.raises(RolloutError, match=r"is alive, but gave no answer within 0.3 s"):
            _ask(policy, [prompt], how)


@pytest.mark.usefixtures("impatient")
def test_an_answer_that_was_cut_off_is_asked_for_again(folder: Path, learner: Any) -> None:
    ids = learner.encode([Message("user", "What do you do?")])
    prompt, how = Prompt((), ids, noise=2), Sampling(1.0, 4)
    with FakeVLLM(folder) as fake:
        policy = _serve(folder, learner, fake.url)
        (whole,) = _ask(policy, [prompt], how)
        fake.faults.cuts = 2
        assert _ask(policy, [prompt], how) == [whole]
        fake.faults.cuts = 3
        with pytest.raises(RolloutError, match="cut off an answer 3 times"):
            _ask(policy, [prompt], how)


def test_a_sync_that_takes_too_long_or_fails_says_so(folder: Path, learner: Any) -> None:
    with FakeVLLM(folder) as fake:
        policy = _serve(folder, learner, fake.url, sync_timeout=0.3)
        fake.faults.slow["/update_weights"] = 30.0
        with pytest.raises(RolloutError, match=r"/update_weights did not finish within 0.3 s"):
            policy.forget()
        assert fake.calls[-1] == ("POST", "/resume")
        fake.faults.slow.clear()
        fake.faults.broken["/update_weights"] = 500
        with pytest.raises(RolloutError, match=r"a sync failed: .*the engine has failed"):
            policy.forget()
        fake.faults.broken.clear()
        policy.forget()
        assert _rollouts(policy).take()["sync_gap_max"] < 1e-4


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, learner: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RolloutError, match="cannot be written into"):
        weights_ = Weights(learner.model, torch.float32)
        FileTransfer(str(tmp_path / "file")).send(weights_, [], "v")


class _Follower:
    """Another process than the leading one, which is told what the leading one found."""

    leads, rank, size = False, 1, 2

    def __init__(self, told: str | None) -> None:
        self.told = told

    def agree(self, own: Any) -> Any:
        assert own[0] is None, "a process that does not lead has nothing to say"
        return (self.told, own[1], own[2])


def test_one_process_sends_and_all_fail_together(
    folder: Path, learner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeVLLM(folder) as fake:
        policy = _serve(folder, learner, fake.url)
        before = len(fake.calls)
        monkeypatch.setattr(distributed, "team", lambda: _Follower(None))
        policy.forget()
        monkeypatch.setattr(distributed, "team", lambda: _Follower("the leading one failed"))
        with pytest.raises(RolloutError, match="the leading one failed"):
            policy.forget()
        assert len(fake.calls) == before


class _Recorder:
    """A receiver that writes down what it is told, and works with so many GPUs."""

    def __init__(self, gpus: int, url: str = "vLLM in this process") -> None:
        self.gpus, self.url = gpus, url
        self.told: list[tuple[str, Any]] = []

    def call(self, method: str, path: str, json: Any = None, params: Any = None) -> Any:
        self.told.append((path, json))
        return {"world_size": self.gpus}


def test_servers_follow_each_other_in_a_group_of_gpus() -> None:
    two, four = _Recorder(2), _Recorder(4)
    every = weights._All([two, four])
    every.version = "v1"
    every.init_weight_transfer_engine({"rank_offset": 1, "world_size": 7})
    every.update_weights({"names": []})
    every.finish_weight_update()
    for receiver, offset in ((two, 1), (four, 3)):
        told = dict(receiver.told)
        assert told["/init_weight_transfer_engine"] == {
            "init_info": {"rank_offset": offset, "world_size": 7}
        }
        assert told["/update_weights"] == {"update_info": {"names": []}}
        assert told["/finish_weight_update"] == {"weight_version": "v1"}


def test_gpus_are_sent_weights_by_one_process(
    learner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "team", lambda: _Follower(None))
    with pytest.raises(RolloutError, match="--transfer file"):
        sent = Weights(learner.model, torch.float32)
        weights.DeviceTransfer("nccl").send(sent, [_Recorder(1)], "v")


@pytest.mark.parametrize(
    ("missing", "settings", "told"),
    [
        ("vllm", {"rollout": "vllm", "servers": ()}, "needs vLLM in this environment"),
        ("httpx", {}, "httpx"),
    ],
)
def test_what_is_not_installed_is_named(
    folder: Path, learner: Any, monkeypatch: pytest.MonkeyPatch, missing: str, settings: Any,
    told: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, missing, None)
    config = _config(folder, "http://127.0.0.1:1").replace(**settings)
    with pytest.raises(HiMACError, match=told):
        make_rollouts(config, {"policy": learner})
