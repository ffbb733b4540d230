"""Methods from outside: by a credit, as a whole, through an entry point, and one with a critic."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fruit_runs
import pytest
import torch
from torch import Tensor, nn

from himac_agents.algorithms.batching import segments_of
from himac_agents.algorithms.credit import Credit, executor_credit
from himac_agents.algorithms.critic import Tokens
from himac_agents.algorithms.himac import CoEvolution, Joint
from himac_agents.algorithms.iteration import Draw, Iteration, Setting, update
from himac_agents.algorithms.methods import (
    METHODS,
    Method,
    method_of,
    register_method,
    resolve,
)
from himac_agents.config import TrainConfig
from himac_agents.files import latest_checkpoint
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.types import Episode
from himac_agents.training.trainer import Trainer

CONFIG = fruit_runs.CONFIG.replace(
    warm_steps=10, iterations=2, eval_episodes=2, least_minibatch=1, stop_at_failure=False
)


@pytest.fixture(autouse=True)
def _own_register(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(METHODS, "_known", dict(METHODS._known))


def _centred(config: TrainConfig, episodes: Sequence[Episode]) -> list[float]:
    mean = sum(e.reward for e in episodes) / len(episodes)
    return [e.reward - mean for e in episodes]


def _by_turn(config: TrainConfig, episodes: Sequence[Episode]) -> Iterator[list[float]]:
    for episode in episodes:
        yield [turn.reward - 0.01 for turn in episode.turns()]


def _weights(trainer: Trainer) -> Tensor:
    return torch.cat(
        [p.detach().flatten().clone() for x in trainer.policies.values() for p in x.parameters()]
    )


@pytest.mark.parametrize("advantage", [_centred, _by_turn])
def test_a_flat_method_by_its_advantage(advantage: Any, tmp_path: Path) -> None:
    register_method("mine", advantage=advantage, defaults={"clip_high": 0.3})
    trainer = Trainer(CONFIG.replace(method="mine"), tmp_path, console=fruit_runs.QUIET)
    trainer.begin()
    before = _weights(trainer)
    result = trainer.run()
    assert not torch.equal(before, _weights(trainer))
    assert result["method"] == "mine" and result["env"] == CONFIG.flat_env
    saved = TrainConfig.from_toml(tmp_path / "config.toml")
    assert (saved.method, saved.clip_high, saved.kl) == ("mine", 0.3, 0.0)


def test_a_hierarchical_method_by_a_credit(tmp_path: Path) -> None:
    seen = []

    def only_winners(config: TrainConfig, episodes: Sequence[Episode]) -> Credit:
        seen.append(len(episodes))
        credit = Credit()
        for episode in episodes:
            for segment in segments_of([episode], "executor"):
                credit.give(segment, float(episode.success))
        return credit

    made = register_method("winners", executor_credit=only_winners, title="Winners")
    assert made.hierarchical and METHODS["winners"] is made
    result = Trainer(CONFIG.replace(method="winners"), tmp_path, console=fruit_runs.QUIET).run()
    assert result["method"] == "winners" and len(seen) >= 2


def test_names_are_taken_once_and_unknown_ones_are_near_others() -> None:
    register_method("mine", advantage=_centred)
    with pytest.raises(ValueError, match="replace=True"):
        register_method("mine", advantage=_by_turn)
    with pytest.raises(ValueError, match="replace=True"):
        register_method("grpo", advantage=_by_turn)
    register_method("mine", advantage=_by_turn, replace=True)
    with pytest.raises(ValueError, match=r"Did you mean .*himac-joint.*himac-option"):
        method_of(TrainConfig(method="himac-jiont"))
    with pytest.raises(ValueError, match="give a Method"):
        register_method("nothing")
    with pytest.raises(ValueError, match="give a Method"):
        register_method("both", advantage=_centred, executor_credit=executor_credit)
    with pytest.raises(ValueError, match="no further arguments"):
        register_method("more", METHODS["grpo"], title="More")
    with pytest.raises(ValueError, match="no values of its own for lr"):
        register_method("fast", advantage=_centred, defaults={"lr": 1.0})
    with pytest.raises(TypeError):
        METHODS["mine"] = METHODS["grpo"]  # type: ignore[index]


def test_the_papers_method_and_ours_differ_by_their_own_values() -> None:
    def own(method: str, **given: Any) -> tuple[Any, ...]:
        c = resolve(TrainConfig(method=method, **given))
        return c.executor_advantage, c.stop_at_failure, c.kl, c.clip, c.clip_high

    paper, ours = ("trajectory", False, 0.01, 0.2, 0.2), ("option", True, 0.0, 0.2, 0.28)
    assert own("himac") == paper and own("himac-option") == ours
    for ablation in ("himac-joint", "himac-no-subdone", "himac-random-blueprint"):
        assert own(ablation) == paper
        given = dict(zip(("executor_advantage", "stop_at_failure", "kl", "clip", "clip_high"), ours,
                         strict=True))  # fmt: skip
        assert own(ablation, **given) == ours, "any ablation can be run with our credit"
    assert own("grpo") == ("trajectory", False, 0.0, 0.2, 0.28)
    assert isinstance(METHODS["himac"].iterate, CoEvolution)
    assert isinstance(METHODS["himac-joint"].iterate, Joint)
    once = resolve(TrainConfig(method="himac"))
    assert resolve(once) == once
    assert TrainConfig.from_dict({}).kl is None
    assert "kl" not in TrainConfig().to_toml() and "kl = 0.01" in once.to_toml()
    with pytest.raises(ValueError, match="kl='much' should be of type float"):
        TrainConfig.from_dict({"kl": "much"})
    with pytest.raises(ValueError, match="stop_at_failure=1 should be of type bool"):
        TrainConfig.from_dict({"stop_at_failure": 1})


def test_names_and_titles_need_no_torch() -> None:
    told = "import sys, himac_agents.algorithms.methods; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


# -- a critic ------------------------------------------------------------------------------------


class ValueHead(nn.Module):
    """What a state is worth: one linear layer on what the policy knows before it writes."""

    lr = 0.02

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(policy.width, 1)

    def forward(self, states: Tensor) -> Tensor:
        return self.linear(states)[:, 0]

    def loss(self, states: Tensor, tokens: Tokens) -> Tensor:
        error = (self(states.detach()) - tokens.target) ** 2
        return (error * tokens.turn_weight).sum()


def actor_critic(at: Setting, task_ids: Sequence[str], number: int = 0) -> Iteration:
    """A2C: each turn's return against what the critic said of the state before it."""
    done = Iteration()
    asked = at.drawn(task_ids).requests(at.config.executions)
    episodes = list(done.book(collect(at.sampling(), at.pool, asked, seed=at.key("episodes"))))
    credit = Credit()
    segments = segments_of(episodes, "executor")
    for segment, values in zip(segments, at.executor.values(segments), strict=True):
        to_go = 0.0
        for turn in reversed(segment.turns):
            to_go += turn.reward
            turn.target = to_go
        credit.give(
            segment, [(t.target or 0.0) - v for t, v in zip(segment.turns, values, strict=True)]
        )
    update(at.executor, credit, episodes, "flat", at, done)
    return done


@pytest.fixture
def config() -> TrainConfig:
    register_method("a2c", Method("A2C", actor_critic, hierarchical=False, critic=ValueHead))
    return CONFIG.replace(method="a2c", checkpoint_every=1, epochs=2)


def test_a_critic_learns_beside_its_policy_and_resumes_exactly(
    config: TrainConfig, tmp_path: Path
) -> None:
    straight = Trainer(config, tmp_path / "straight", console=fruit_runs.QUIET)
    head = straight.learners["policy"].critic
    first = [p.detach().clone() for p in head.parameters()]
    straight.run()
    rows = [p.detach().clone() for p in head.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(first, rows, strict=True))
    groups = straight.learners["policy"].optimizer.param_groups
    assert [group["lr"] for group in groups] == [config.lr, ValueHead.lr]
    lines = (tmp_path / "straight" / "metrics.jsonl").read_text()
    assert '"critic_loss"' in lines

    part = Trainer(config.replace(iterations=1), tmp_path / "part", console=fruit_runs.QUIET)
    part.run()
    (tmp_path / "part" / "config.toml").write_text(config.to_toml())
    newest = latest_checkpoint(tmp_path / "part" / "checkpoints")
    assert (newest / "policy.critic.safetensors").is_file()
    again = Trainer(config, tmp_path / "part", resume=True, console=fruit_runs.QUIET)
    again.run()
    assert torch.equal(_weights(straight), _weights(again))
    ends = again.learners["policy"].critic.parameters()
    assert all(torch.equal(a, b) for a, b in zip(rows, ends, strict=True))
    states = [x.learners["policy"].optimizer.state_dict()["state"] for x in (straight, again)]
    assert (
        len(states[0]) == len(states[1]) == len(list(straight.policies["policy"].parameters())) + 2
    )


def test_a_critic_comes_to_know_what_it_is_taught(config: TrainConfig, tmp_path: Path) -> None:
    """It learns from groups that are dead for the policy, too, and then the policy stays."""
    trainer = Trainer(config.replace(epochs=60, kl=0.0), tmp_path, console=fruit_runs.QUIET)
    trainer.warm_start()
    learner = trainer.learners["policy"]
    learner.begin_reinforcement()
    played = collect(
        trainer.agent, trainer.pool, Draw(tuple(trainer.train_ids[:4]), (0, 1, 2, 3)).requests(3)
    )
    segments = segments_of(played, "executor")
    credit = Credit()
    for segment in segments:
        credit.give(segment, 0.0)
        for turn in segment.turns:
            turn.target = 0.7
    before = _weights(trainer)
    untaught = [abs(v - 0.7) for values in learner.values(segments) for v in values]
    metrics = learner.reinforce(credit.segments, trainer.rng)
    taught = [abs(v - 0.7) for values in learner.values(segments) for v in values]
    assert len(taught) == sum(len(s.turns) for s in segments)
    assert metrics["live"] == 0 and torch.equal(before, _weights(trainer))
    assert sum(taught) < 0.3 * sum(untaught)


def test_without_a_critic_there_are_no_values(tmp_path: Path) -> None:
    trainer = Trainer(CONFIG, tmp_path, console=fruit_runs.QUIET)
    with pytest.raises(ValueError, match="no critic"):
        trainer.learners["policy"].values([])
    register_method("bad", Method("Bad", actor_critic, hierarchical=False, critic=lambda p: 3))
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        Trainer(CONFIG.replace(method="bad"), tmp_path / "bad", console=fruit_runs.QUIET)
