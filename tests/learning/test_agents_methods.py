"""Every method, end to end: one iteration moves weights, budgets end runs, ablations ablate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fruit_runs
import gymnasium as gym
import pytest
import torch
from fruit_runs import QUIET

from himac_agents.agents.agent import Executor, HiMACAgent, Planner
from himac_agents.agents.expert import Expert
from himac_agents.algorithms.methods import METHODS, check
from himac_agents.config import TrainConfig
from himac_agents.evaluation.loading import load_agent
from himac_agents.files import latest_checkpoint
from himac_agents.policies.base import TokenBatch
from himac_agents.training import baselines, checkpoint, supervision
from himac_agents.training.demonstrations import Supervision
from himac_agents.training.result import table
from himac_agents.training.trainer import Trainer
from himac_envs.blueprint import SUB_DONE

CONFIG = fruit_runs.CONFIG.replace(
    warm_steps=10, layers=1, tasks=4, iterations=1, eval_episodes=4, checkpoint_every=1,
    least_minibatch=8, stop_at_failure=False, kl=0.0,
)  # fmt: skip

#: Generated ALFWorld, as small as it goes. Free writing and a price on nonsense, so that returns
#: differ within groups long before anything is solved.
ALFWORLD = CONFIG.replace(
    env="HiMAC-ALFWorld-v0", flat_env="HiMAC-ALFWorld-Flat-v0", tasks=5, blueprints=4,
    env_kwargs={"data": "generated", "max_steps": 6, "reward": "verl-agent"}, warm_steps=120,
    expert="explorer", constrained=False, lanes=32, demos=20, executor_advantage="both",
    executions=6,
)  # fmt: skip


def _config(method: str, base: TrainConfig = CONFIG, **changes: Any) -> TrainConfig:
    if method == "himac-no-subdone":
        changes = {"subgoal_budget": 3, **changes}
    return base.replace(method=method, **changes)


def _begun(config: TrainConfig, folder: Path) -> Trainer:
    trainer = Trainer(config, folder, console=QUIET)
    trainer.warm_start()
    for learner in trainer.learners.values():
        learner.begin_reinforcement()
    return trainer


def _weights(trainer: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for x in trainer.policies.values() for p in x.parameters()]


def _moved(before: list[torch.Tensor], trainer: Trainer) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before, _weights(trainer), strict=True))


@pytest.mark.parametrize("method", list(METHODS))
def test_a_whole_run_of_each_method(method: str, tmp_path: Path) -> None:
    result = Trainer(_config(method), tmp_path, console=QUIET).run()
    assert result["method"] == method
    assert list(table(result).columns[0].cells)[1] == METHODS[method].title
    hierarchical = METHODS[method].hierarchical
    assert result["env"] == (CONFIG.env if hierarchical else CONFIG.flat_env)
    assert result["work"]["env_steps"] > 0 and result["work"]["tokens"] > 0
    assert result["work"]["learning_cpu_seconds"] > 0
    agent = load_agent(tmp_path, flat=not hierarchical)
    assert (agent.planner is None) == (not hierarchical)


@pytest.mark.parametrize("method", [*METHODS, "gigpo, a short memory"])
def test_each_method_moves_weights_on_alfworld(method: str, tmp_path: Path) -> None:
    name, short, _ = method.partition(", a short memory")
    history: int | str = 2 if short else "episode"
    # Nothing is solved here: a graph that counts rewards has something to tell all the same.
    config = _config(name, ALFWORLD, history=history, graph_pays="reward")  # type: ignore[arg-type]
    trainer = _begun(config, tmp_path)
    before = _weights(trainer)
    done = trainer._iteration(trainer.task_pool[:5])
    assert _moved(before, trainer)
    expected = ["flat"] if trainer.flat else ["planner", "executor"]
    assert list(done.metrics) == (["joint"] if name == "himac-joint" else expected)
    for metrics in done.metrics.values():
        assert metrics.get("logprob_gap", 0.0) < 1e-4
    if short:
        for episode in done.episodes:
            assert all(len(s.turns) == 1 for s in episode.segments)
            assert len(episode.segments) == episode.steps


def test_critics_learn_and_are_asked_before_credit_is_given(tmp_path: Path) -> None:
    """HiPER: whoever wrote is judged by the critic of its policy; both critics move."""
    config = _config(
        "hiper", warm_steps=70, share_parameters=False, critic_lr=0.05, greedy_execution=False
    )
    trainer = _begun(config, tmp_path)
    seen: dict[str, list[Any]] = {}
    for name, learner in trainer.learners.items():
        reinforce = learner.reinforce
        learner.reinforce = lambda segments, *rest, n=name, f=reinforce: (  # type: ignore[method-assign]
            seen.setdefault(n, []).extend(segments),
            f(segments, *rest),
        )[1]
    critics = {name: learner.critic.linear.weight for name, learner in trainer.learners.items()}
    assert all(not bool(weight.any()) for weight in critics.values())
    trainer._iteration(trainer.task_pool[:4])
    for name, weight in critics.items():
        assert {s.role for s in seen[name]} == {name} and bool(weight.any())
        rates = [group["lr"] for group in trainer.learners[name].optimizer.param_groups]
        assert rates == [config.lr, 0.05]
        turns = [turn for segment in seen[name] for turn in segment.turns]
        assert all(turn.value == 0.0 and turn.target is not None for turn in turns)
    second = trainer._iteration(trainer.task_pool[:4])
    assert second.metrics["executor"]["values"] != 0.0
    assert any(t.lines for s in seen["planner"] for t in s.turns)


def test_the_executor_practises_on_all_blueprints_in_turns(tmp_path: Path) -> None:
    config = _config("himac-all-blueprints", warm_steps=20, blueprints=3, executions=6)
    trainer = _begun(config, tmp_path)
    done = trainer._iteration(trainer.task_pool[:4])
    proposed: dict[int, list[Any]] = {}
    for plan, _, _ in done.candidates:
        proposed.setdefault(plan.request.group, []).append(plan.blueprint)
    assert len(done.episodes) == 4 * 6
    assert any(len(set(blueprints)) > 1 for blueprints in proposed.values())
    for group, blueprints in proposed.items():
        played = [e.blueprint for e in done.episodes if e.request.group == group]
        assert played == blueprints * 2
        numbers = [e.request.number for e in done.episodes if e.request.group == group]
        assert len(set(numbers)) == 6, "each execution has noise of its own"
    assert done.metrics["planner"]["lead"] >= 0.0


def test_either_level_is_measured_with_the_oracle_in_the_others_place(tmp_path: Path) -> None:
    beside = ("oracle", "oracle-planner", "oracle-executor", "temperature-0.4")
    config = _config("himac", iterations=0, warm_steps=40, baselines=beside)
    found = Trainer(config, tmp_path, console=QUIET).run()["baselines"]
    assert found["oracle"]["success"] == 1.0
    assert found["temperature-0.4"]["temperature"] == 0.4
    # Whoever is not the oracle is the agent itself: both halves lie between it and the oracle.
    again = Trainer(config, tmp_path, resume=True, console=QUIET)
    oracle = Expert("oracle", prompts=again.prompts)
    planned = HiMACAgent(Planner(oracle, again.prompts), again.agent.executor)
    assert again.evaluate(planned)["outcomes"] == found["oracle-planner"]["outcomes"]
    acted = HiMACAgent(again.agent.planner, Executor(oracle, again.prompts))
    assert again.evaluate(acted)["outcomes"] == found["oracle-executor"]["outcomes"]
    assert found["oracle-planner"] != found["oracle-executor"]
    with pytest.raises(ValueError, match="is flat and has no planner or executor"):
        check(_config("grpo", baselines=("oracle-planner",)))


def test_the_graph_tells_a_blueprints_lines_apart(tmp_path: Path) -> None:
    trainer = _begun(
        _config(
            "himac-graph", warm_steps=70, greedy_execution=False, blueprints=6, graph_pays="reward"
        ),
        tmp_path,
    )
    seen: list[Any] = []
    learner = trainer.learners["policy"]
    reinforce = learner.reinforce
    learner.reinforce = lambda segments, *rest: (  # type: ignore[method-assign]
        seen.extend(segments),
        reinforce(segments, *rest),
    )[1]
    trainer._iteration(trainer.task_pool[:4])
    plans = [s.turns[0] for s in seen if s.role == "planner"]
    valid = [t for t in plans if t.lines]
    assert valid and all(len(t.lines) == len(t.output_ids) for t in valid)
    assert any(len(set(t.token_advantages)) > 1 for t in valid)
    for turn in valid:
        worth = {line: a for line, a in zip(turn.lines, turn.token_advantages, strict=True)}
        assert turn.advantage == pytest.approx(sum(worth.values()))
    assert all(t.state for s in seen if s.role == "executor" for t in s.turns)


def _learns(method: str) -> Any:
    return pytest.param(
        method, marks=() if method in ("himac-option", "gigpo") else pytest.mark.slow
    )


@pytest.mark.parametrize("method", [_learns(method) for method in METHODS])
def test_each_method_learns(method: str, tmp_path: Path) -> None:
    """From a poor warm start, returns at temperature 1 rise by a third of what there is to gain."""
    config = _config(
        method, demos=20, warm_steps=60 if METHODS[method].hierarchical else 15, layers=2,
        tasks=8, executions=8, blueprints=8, iterations=8, lr=2e-3, lanes=64,
    )  # fmt: skip
    trainer = _begun(config, tmp_path)
    returns = []
    for _ in range(config.iterations):
        trainer._iterate()
        returns.append(_last_return(trainer))
    first, last = returns[0], sum(returns[-2:]) / 2
    assert first < 0.9 and last > first + (1.0 - first) / 3, returns


def _last_return(trainer: Trainer) -> float:
    line = trainer.run_folder.metrics_path.read_text().splitlines()[-1]
    return float(json.loads(line)["return"])


def test_separate_parameters_are_both_moved_at_once_without_co_evolution(tmp_path: Path) -> None:
    trainer = _begun(_config("himac-joint", share_parameters=False), tmp_path)
    before = {n: [p.detach().clone() for p in x.parameters()] for n, x in trainer.policies.items()}
    done = trainer._iteration(trainer.task_pool[:4])
    assert set(done.metrics) == {"planner", "joint"}
    for name, policy in trainer.policies.items():
        after = policy.parameters()
        assert any(not torch.equal(a, b) for a, b in zip(before[name], after, strict=True)), name


@pytest.mark.parametrize("bound", ["max_env_steps", "max_tokens", "iterations"])
def test_a_run_ends_with_its_budget(bound: str, tmp_path: Path) -> None:
    """With the iteration that used it up: none is begun after that, none is left out before."""
    config = _config("grpo", iterations=50, eval_episodes=1, warm_steps=1).replace(**{bound: 3})
    if bound != "iterations":
        one = config.replace(iterations=1)
        used = Trainer(one, tmp_path / "one", console=QUIET).run()["work"][bound[4:]]
        # One more than the first iteration takes: the second has to be begun, and no third.
        config = config.replace(**{bound: used + 1})
    result = Trainer(config, tmp_path / "run", console=QUIET).run()
    assert result["work"]["iterations"] == (3 if bound == "iterations" else 2)


@pytest.mark.parametrize("last", [True, False])
def test_success_at_a_number_of_tokens(last: bool, tmp_path: Path) -> None:
    """Measured where the tokens are written; by the final evaluation, if that is the end."""
    config = fruit_runs.CONFIG.replace(
        method="grpo", eval_at_tokens=1, iterations=1 if last else 3, checkpoint_every=2
    )
    result = Trainer(config, tmp_path / "run", console=QUIET).run()
    found, final, work = result["at_tokens"], result["final"], result["work"]
    assert found["work"]["tokens"] >= 1 and "greedy" not in found
    assert len(found["outcomes"]) == len(final["outcomes"]) == 5
    phases = _phases(tmp_path / "run", "evaluation/")
    if last:
        assert found["work"] == {key: work[key] for key in ("tokens", "env_steps")}
        assert found["outcomes"] == final["outcomes"]
        assert phases == ["evaluation/warm_start", "evaluation/final"]
    else:
        assert found["work"]["tokens"] < work["tokens"]
        assert phases == ["evaluation/warm_start", "evaluation/at_tokens", "evaluation/final"]
    # What was measured is what is kept: the last iteration's weights, whatever the interval.
    newest = checkpoint.read_state(latest_checkpoint(tmp_path / "run" / "checkpoints"))
    assert newest["state"]["iteration"] == config.iterations


def _phases(folder: Path, prefix: str) -> list[str]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["phase"] for row in rows if row["phase"].startswith(prefix)]


def test_without_sub_done_nobody_ever_says_it(tmp_path: Path) -> None:
    config = _config("himac-no-subdone", blueprints=2)
    trainer = _begun(config, tmp_path)
    segments = trainer.demonstrations.segments(trainer.policies["policy"])
    done = trainer._iteration(trainer.task_pool[:4])
    commands = [t for s in segments if s.role == "executor" for t in s.turns]
    commands += [t for e in done.episodes for t in e.turns()]
    assert commands and SUB_DONE not in {turn.action for turn in commands}
    ended = [o for e in done.episodes for o in e.options]
    assert {o["reason"] for o in ended} <= {"budget", "terminated", "truncated"}
    assert all(o["steps"] == 3 for o in ended if o["reason"] == "budget")
    # Not even a policy that writes freely can use it: it is no more than an invalid command.
    env = gym.make(CONFIG.env, sub_done=False, subgoal_budget=3).unwrapped
    env.reset(options={"task_id": "train:00"})
    _, _, _, _, info = env.step("- get the apple\n- get the plum")
    assert SUB_DONE not in info["admissible"]
    observation, _, _, _, info = env.step(SUB_DONE)
    assert info["invalid"] and info["step"] == 1 and observation["subgoal_index"] == 0
    with pytest.raises(ValueError, match="subgoal_budget"):
        check(TrainConfig(method="himac-no-subdone"))


def test_further_supervision_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(_config("himac"), tmp_path, console=QUIET)
    trainer.run()
    trainer.at.learn_cpu_seconds = 0.2
    monkeypatch.setattr(baselines, "SAVE_EVERY", 0.0)
    real, begins = checkpoint.save, []

    def save_and_stop(folder: Path, step: int, *args: Any, **kwargs: Any) -> None:
        real(folder, step, *args, **kwargs)
        if step == 2:
            raise KeyboardInterrupt

    class Watched(Supervision):
        def batches(self, start: int = 0) -> Iterator[TokenBatch]:
            begins.append(start)
            return super().batches(start)

    monkeypatch.setattr(checkpoint, "save", save_and_stop)
    monkeypatch.setattr(supervision, "Supervision", Watched)
    with pytest.raises(KeyboardInterrupt):
        baselines.further_supervision(trainer)
    monkeypatch.setattr(baselines, "SAVE_EVERY", 60.0)
    found = baselines.further_supervision(trainer)
    assert begins == [0, 2] and found["supervised_steps"] > 2
    assert 0.2 <= found["cpu_seconds"] < 5.0
