"""What chat models read of each environment, and verl-agent's protocol."""

from __future__ import annotations

import itertools
import re
from typing import Any

import gymnasium as gym
import pytest

from himac_agents.agents.agent import Executor, HiMACAgent, Planner
from himac_agents.agents.expert import Expert
from himac_agents.policies.base import Sampling
from himac_agents.prompts import ChatPrompts, Prompts, VerlAgentPrompts, make, visible
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import EpisodeRequest
from himac_envs.alfworld.subgoals import parse_aim
from himac_envs.blueprint import SUB_DONE
from himac_envs.wording import wording

BENCHMARKS = {"alfworld": "ALFWorld", "webshop": "WebShop", "sokoban": "Sokoban"}


def _play(prompts: Prompts, name: str, flat: bool = False, **executor: Any) -> Any:
    policy = Expert("oracle", prompts=prompts)
    planner = None if flat else Planner(policy, prompts)
    agent = HiMACAgent(planner, Executor(policy, prompts, **executor))
    pool = EnvPool(lambda: gym.make(f"HiMAC-{name}-{'Flat-' * flat}v0", data="generated"), 1)
    (episode,) = collect(agent, pool, [EpisodeRequest(pool.task_ids("train")[5])])
    assert episode.success and episode.error is None
    return episode


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_forms_that_planners_are_told_are_understood(benchmark: str) -> None:
    """Each sub-goal that the rules name as an example means something to the environment."""
    env: Any = gym.make(f"HiMAC-{BENCHMARKS[benchmark]}-v0", data="generated").unwrapped
    env.reset(options={"task_id": env.task_ids("train")[5]})
    forms = re.findall(r"`([^`]+)`", wording(benchmark).subgoals)
    assert forms
    if benchmark == "alfworld":  # a game may lack the things, so the grammar is asked itself
        assert all(parse_aim(form) is not None for form in forms)
        return
    cells = re.findall(r"\(\d, \d\)", env.oracle_blueprint().texts()[0])
    values = {"KEYWORDS": "red shirt", "FEATURES": "cotton", "PRICE": "20.00", "OPTION": "size",
              "VALUE": "large", "(row, column) to (row, column)": " to ".join(cells)}  # fmt: skip
    for form in forms:
        for name, value in values.items():
            form = form.replace(name, value)
        assert env.achieved(form) is not None, form


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_what_each_level_is_shown(benchmark: str) -> None:
    prompts = ChatPrompts(benchmark=benchmark)
    episode = _play(prompts, BENCHMARKS[benchmark])
    planner, *executors = episode.segments
    rules, question = planner.messages[:2]
    assert wording(benchmark).world in rules.text and episode.goal in question.text
    for segment in executors:
        rules, question = segment.messages[:2]
        assert wording(benchmark).commands in rules.text and SUB_DONE in rules.text
        assert segment.subgoal in question.text and "Possible commands" in question.text
        if benchmark == "alfworld":  # the only one whose observations do not repeat the task
            assert episode.goal not in question.text
        if benchmark == "webshop":
            assert question.text.count("Instruction:") == 1, "one page: the present one"
            assert "search[Find me" not in question.text, "the model chooses its own keywords"
        if benchmark == "sokoban":
            rows = [line for line in question.text.splitlines() if line.startswith(" # \t")]
            assert len(rows) == 6, "one grid: the present one"
    later = executors[-1].messages[1].text
    if benchmark == "webshop":
        assert later.startswith("Observation:\nInstruction:"), "where the sub-goal before ended"


def test_an_executor_that_sees_the_episode() -> None:
    prompts = ChatPrompts(benchmark="alfworld")
    masked = _play(prompts, "ALFWorld").segments[1:]
    whole = _play(prompts, "ALFWorld", sees="episode").segments[1:]
    assert [[t.action for t in s.turns] for s in masked] == [
        [t.action for t in s.turns] for s in whole
    ]
    assert len(whole) >= 2
    for before, after in itertools.pairwise(whole):
        shared = len(before.messages)
        assert after.messages[:shared] == before.messages
        assert f"Next sub-goal: {after.subgoal}" in after.messages[shared].text
    for segment in masked[1:]:
        assert len(segment.messages) == 2 * len(segment.turns) + 1, "its own turns only"


def test_rollout_and_training_agree_where_the_executor_sees_the_episode() -> None:
    torch = pytest.importorskip("torch")
    from himac_agents.algorithms.batching import segments_of, token_batch
    from himac_agents.policies.tiny import TinyPolicy, TinySize

    pool = EnvPool(lambda: gym.make("HiMAC-ALFWorld-v0", data="generated", max_steps=10), 3)
    prompts = make("compact")
    tasks = []
    for task_id in pool.task_ids("train")[:3]:
        observation, _ = pool[0].reset(options={"task_id": task_id})
        tasks.append(EpisodeRequest(task_id, blueprint=pool[0].unwrapped.oracle_blueprint()))  # type: ignore[attr-defined]
    texts = [str(observation["text"]), "go to take from open move mug 1 2 3 <sub_done> " * 9]
    policy = TinyPolicy.build(texts, TinySize(32, 2, 2, 64), seed=0)
    how = Sampling(1.0, 6)
    agent = HiMACAgent(
        Planner(policy, prompts), Executor(policy, prompts, how, constrained=True, sees="episode")
    )
    episodes = collect(agent, pool, tasks)
    segments = segments_of(episodes, "executor")
    assert len(segments) > len(tasks), "some sub-goals were ended"
    assert all(s.turns[0].start > 0 for s in segments)
    batch = token_batch(segments)
    with torch.no_grad():
        gap = (policy.logprobs(batch) - torch.from_numpy(batch.old_logprobs)).abs().max()
    assert float(gap) < 1e-4
    # What came before is read, and carries no loss.
    written = [sum(len(t.output_ids) for t in s.turns) for s in segments]
    assert all(int(row.sum()) <= count for row, count in zip(batch.mask, written, strict=True))


def test_verl_agents_prompt_one_a_decision_with_two_steps_back() -> None:
    prompts = make("verl-agent", "HiMAC-ALFWorld-Flat-v0")
    assert isinstance(prompts, VerlAgentPrompts)
    episode = _play(prompts, "ALFWorld", flat=True, history=prompts.memory)
    assert len(episode.segments) == episode.steps
    for step, segment in enumerate(episode.segments):
        question, _ = segment.messages
        assert question.role == "user" and episode.goal in question.text
        assert f"This is step {step + 1}." in question.text
        assert question.text.count("[Observation ") == min(step, 2)
        assert "'inventory'" in question.text and "'help'" not in question.text
        assert "<think>" in question.text and "<action>" in question.text
        for turn in (s.turns[0] for s in episode.segments[max(0, step - 2) : step]):
            assert f"Action: '{turn.action}'" in question.text


def test_verl_agents_answers() -> None:
    read = VerlAgentPrompts().read
    assert read("<think>I will.</think><action>Go To Shelf 1</action>") == "go to shelf 1"
    assert read("<think>a\nb</think>\nwell\n<action>\n look \n</action>.") == "look"
    for lacking in ("<action>look</action>", "<think>x</think> look", "<think>x<action>look"):
        assert read(lacking) == "", "both pairs of tags are needed"
    assert read("<think>x</think>" + SUB_DONE) == SUB_DONE
    assert read(None) == ""  # type: ignore[arg-type]
    assert read(VerlAgentPrompts().write_command("open fridge 1")) == "open fridge 1"


def test_thoughts_are_taken_out() -> None:
    assert visible("<think>a</think>b<THINK>c</THINK>d").split() == ["b", "d"]
    assert visible("begun in the template</think> look").strip() == "look"
    assert visible("look <think>for ever").strip() == "look"
    assert visible("no thought at all") == "no thought at all"


def test_a_model_that_sees_reads_no_grid() -> None:
    prompts = ChatPrompts(benchmark="sokoban", pixels=True)
    env: Any = gym.make("HiMAC-Sokoban-v0").unwrapped
    observation, info = env.reset(seed=0)
    text = "".join(m.text for m in prompts.plan(observation["text"], info["goal"]))
    text += "".join(m.text for m in prompts.segment(observation["text"], "go", (), info))
    assert "\t" not in text and "In the grid" not in text and "picture" in text
    assert "Push the box onto the target." in text
