"""What models write is read by rules: tags whole, thoughts dropped, dress taken off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from himac_agents.agents.agent import Executor
from himac_agents.policies.base import Completion, Prompt, Sampling
from himac_agents.prompts import (
    ChatPrompts,
    CompactPrompts,
    Prompts,
    VerlAgentPrompts,
    make,
    read_blueprint,
    read_command,
    visible,
)
from himac_envs.answers import tag, tagged, unwrap
from himac_envs.blueprint import SUB_DONE, Blueprint, clean
from himac_envs.reading import undress
from himac_envs.sokoban.text import parse_actions

ENVS = {"alfworld": "ALFWorld", "webshop": "WebShop", "sokoban": "Sokoban"}
STYLES = ("compact", "compact-gather", "chat", "verl-agent")
OPEN = "open drawer 3"

#: Each thought names a command in tags: whoever reads it there has read a thought.
_WRONG = "or <action>wait</action>, "
THOUGHTS = {
    "think": f"<think>{_WRONG}</think>",
    "capitals": f"<THINK>{_WRONG}</Think >",
    "thinking": f"<thinking>\n{_WRONG}\n</thinking>\n\n",
    "thought": f"<thought>{_WRONG}</thought>",
    "thoughts": f"<thoughts>{_WRONG}</thoughts>",
    "reasoning": f"<reasoning>{_WRONG}</reasoning>",
    "name space": f"<seed:think>{_WRONG}</seed:think>",
    "attributes": f'<think effort="low" n=3>{_WRONG}</think>',
    "brackets": f"[THINK]hm{_WRONG}so[/THINK]",
    "bars": f"<|begin_of_thought|>{_WRONG}<|end_of_thought|>",
    "capital bars": f"<|START_THINKING|>{_WRONG}<|END_THINKING|>",
    "triangles": f"\u25c1think\u25b7{_WRONG}\u25c1/think\u25b7",
    "half channel": f"<|channel>thought\n{_WRONG}<channel|>",
    "harmony": f"<|channel|>analysis<|message|>{_WRONG}<|end|><|start|>assistant"
    "<|channel|>final<|message|>",
    "harmony with a call": f"<|channel|>analysis<|message|>{_WRONG}<|end|><|start|>assistant"
    f"<|channel|>commentary to=f <|constrain|>json<|message|>{_WRONG}<|end|><|start|>assistant"
    "<|channel|>final <|constrain|>text<|message|>",
    "nested": f"<think>a <think>b</think> {_WRONG}</think>",
    "nested in another name": f"<think>a <reasoning>b</reasoning> {_WRONG}</think>",
    "its own tag mentioned": f"<think>I am to write <think> first. {_WRONG}</think>",
    "opened by the template": f"{_WRONG}</think>",
    "opened by the template, nested": f"a <think>b</think> {_WRONG}</think>",
    "two": f"<think>{_WRONG}</think> <think>{_WRONG}</think>",
    "an empty one": "<think/>",
    "an empty pair": "<think></think>",
}


@pytest.mark.parametrize("thought", THOUGHTS.values(), ids=THOUGHTS)
def test_thoughts_are_dropped_in_every_dialect(thought: str) -> None:
    assert visible(f"{thought}{OPEN}").strip() == OPEN
    assert read_command(f"{thought}<action>{OPEN}</action>") == OPEN
    assert read_command(f"{thought}{OPEN}") == OPEN
    assert read_command(f"{thought}{SUB_DONE}") == SUB_DONE
    listed = thought.replace("<action>wait</action>", "<blueprint>1. wait</blueprint>")
    assert read_blueprint(f"{listed}1. {OPEN}\n2. wait", "goal").texts() == [OPEN, "wait"]


@pytest.mark.parametrize(
    "thought",
    ["<think>", "<reasoning>", "[THINK]", "<|channel|>analysis<|message|>",
     "<think>a</think><think>", "<|begin_of_thought|>"],
)  # fmt: skip
def test_a_thought_without_an_end_is_no_answer(thought: str) -> None:
    assert read_command(f"{thought}I could <action>{OPEN}</action>") == ""
    assert not read_blueprint(f"{thought}\n1. {OPEN}", "goal").valid


def test_words_that_look_like_thoughts_are_none() -> None:
    for command in ("click[think]", "click[reasoning]", "search[thought experiments]"):
        assert read_command(f"<action>{command}</action>") == command
    # Closed without having been opened: the template did, and all of it was thought.
    assert read_command(f"<action>{OPEN}</action></think>") == ""
    assert read_command(f"<think>a</think><action>{OPEN}</action></think>\n</think>") == OPEN


COMMANDS = {
    "text before and behind": (f"So: <action> {OPEN} </action> That is it.", OPEN),
    "our words, echoed": (f"Between <action> and </action>, then: <action>{OPEN}</action>", OPEN),
    "tags in backticks, mentioned": (f"`<action>` and `</action>`: <action>{OPEN}</action>", OPEN),
    "an empty pair, mentioned": (f"<action>{OPEN}</action> (I used <action></action>.)", OPEN),
    "a tag mentioned at the end": (f"<action>{OPEN}</action> in <action> tags", OPEN),
    "an opening tag twice": (f"<action>I say <action>{OPEN}</action>", OPEN),
    "an opening tag at the end": (f"<action>{OPEN}<action>", OPEN),
    "closed twice": (f"<action>{OPEN}</action></action>", OPEN),
    "three": ("<action>a</action><action>b</action> <action>c</action>", "c"),
    "a pair behind an open one": ("<action>a <action>b</action> <action>c", "b"),
    "blanks in tags": (f"< action >{OPEN}</ action >", OPEN),
    "a cut closing tag": (f"<action>{OPEN}</act", OPEN),
    "opened by the prompt": (f"{OPEN}</action>", OPEN),
    "nested names": (f"<answer><action>{OPEN}</action></answer>", OPEN),
    "nested names, the other way": (f"<action><answer>{OPEN}</answer></action>", OPEN),
    "an answer and a final": (f"<answer>a</answer> <answer>{OPEN}</answer>", OPEN),
    "signs": ("<action>search[a < b > c </b> [d]]</action>", "search[a < b > c </b> [d]]"),
    "an arrow": ("<action>click[next >]</action>", "click[next >]"),
    "an arrow, no end": ("<action>click[< prev]", "click[< prev]"),
    "quotes": (f'<action>"{OPEN}"</action>', OPEN),
    "single quotes": (f"'{OPEN}'", OPEN),
    "curly quotes": (f"\u201c{OPEN}\u201d", OPEN),
    "bold": (f"**{OPEN}**", OPEN),
    "bold in tags, a stop in it": (f"<action>**{OPEN}.**</action>", OPEN),
    "a stop behind quotes": (f'"{OPEN}".', OPEN),
    "a fence with a language": (f"```text\n{OPEN}\n```", OPEN),
    "a fence behind words": (f"This is my command:\n\n```\n{OPEN}\n```\nDone.", OPEN),
    "a fence in tags": (f"<action>\n```\n{OPEN}\n```\n</action>", OPEN),
    "an open fence": (f"```\n{OPEN}", OPEN),
    "a fence on one line": (f"```{OPEN}```", OPEN),
    "a label": (f"Action: {OPEN}", OPEN),
    "a label in tags": (f"<action>Action: {OPEN}</action>", OPEN),
    "a bold label": (f"**Action:** {OPEN}", OPEN),
    "a bold label, another way": (f"**Action**: `{OPEN}`.", OPEN),
    "a numbered label": (f"Thought 3: hm\nAction 3: {OPEN}", OPEN),
    "a label above": (f"My next action:\n\n{OPEN}", OPEN),
    "a label at the end": (f"Action: {OPEN}\nAction:", OPEN),
    "the last label": (f"Action: wait\nObservation: nothing\nAction: {OPEN}", OPEN),
    "a thought by label": (f"Thought: well.\n{OPEN}", OPEN),
    "a quoted line": (f"> {OPEN}", OPEN),
    "a bullet": (f"- {OPEN}", OPEN),
    "quotes within": ('say "a" or "b"', 'say "a" or "b"'),
    "quotes at both ends": ('"a" or "b"', '"a" or "b"'),
    "dots": ("wait ...", "wait ..."),
    "a number": ("12", "12"),
    "several lines, told": (f"{OPEN}\nbecause it is near", OPEN),
    "several lines in tags": ("<action>Right\nUp\n</action>", "Right\nUp"),
    "nothing": ("<action></action>", ""),
    "only a thought by label": ("Thought: well.", ""),
    "done": ("  <sub_done>\n", SUB_DONE),
    "done in backticks": ("`<sub_done>`", SUB_DONE),
    "done, with a stop": ("<Sub_Done>.", SUB_DONE),
    "done, closed": ("<sub_done></sub_done>", SUB_DONE),
    "done, a closing tag": ("</sub_done>", SUB_DONE),
    "done in tags": ("all is well <action> <SUB_DONE/> </action>", SUB_DONE),
    "done behind a label": ("Thought: I have it.\nAction: <sub_done>", SUB_DONE),
    "done behind a thought": ("Thought: I have it.\n<sub_done>", SUB_DONE),
    "done, and the turn's end": ("<sub_done><|im_end|>\n", SUB_DONE),
    "the turn's end, twice": (f"{OPEN}<end_of_turn> </s>", OPEN),
    "done, mentioned": (f"<action>{OPEN}</action> then <sub_done>", OPEN),
    "done, mentioned without tags": (f"{OPEN}\n<sub_done>", OPEN),
    "done, mentioned first": (f"<sub_done>\n{OPEN}", OPEN),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "command"), COMMANDS.values(), ids=COMMANDS)
def test_commands_are_read(answer: str, command: str) -> None:
    assert read_command(answer) == command


MUG, SHELF = "find and take a mug", "put the mug in/on the shelf"
BLUEPRINTS = {
    "our words, echoed": f"<blueprint> and </blueprint>:<blueprint>- {MUG}\n- {SHELF}</blueprint>",
    "twice": f"<blueprint>1. wait</blueprint> No: <Blueprint>1. {MUG}\n2. {SHELF}</blueprint>",
    "attributes": f"<blueprint n='2'>1. {MUG}\n2. {SHELF}</blueprint> Good luck.\n1. wait",
    "plain lines in a fence": f"<blueprint>\n```\n{MUG}\n{SHELF}\n```\n</blueprint>",
    "opened by the prompt": f"\n1. {MUG}\n2. {SHELF}\n</blueprint>\n3. wait",
    "no blank, brackets": f"(1){MUG}\n(2){SHELF}",
    "bold numbers, the stop outside": f"**1**. {MUG}\n**2**. {SHELF}",
    "bold lines": f"**1. {MUG}**\n**2. {SHELF}**",
    "underlines": f"__1.__ {MUG}\n__2.__ {SHELF}",
    "bold Step": f"**Step 1:** {MUG}\n**Step 2**: {SHELF}",
    "Step with a dash": f"Step 1 - {MUG}\nSTEP 2 \u2013 {SHELF}",
    "Sub-goal": f"Sub-goal 1: {MUG}\nSubgoal 2: {SHELF}",
    "headings of steps": f"## Step 1: {MUG}\n\n## Step 2: {SHELF}",
    "dashes": f"1 - {MUG}\n2 \u2014 {SHELF}",
    "escaped": f"1\\. {MUG}\n2\\. {SHELF}",
    "colons": f"1: {MUG}\n2: {SHELF}",
    "boxes to tick": f"- [ ] {MUG}\n- [x] {SHELF}",
    "bold bullets": f"* **{MUG}**\n* **{SHELF}**",
    "quotes": f'1. "{MUG}"\n2. `{SHELF}`',
    "quoted lines": f"> 1. {MUG}\n> 2. {SHELF}",
    "words around": f"Here is my plan [2 steps]:\n\n1. {MUG}\n2. {SHELF}\n\nThat's 100% of it.",
    "a decimal is no number": f"It weighs\n1.5 kg.\n1. {MUG}\n2. {SHELF}",
    "JSON in a fence": f'```json\n[\n "{MUG}",\n "{SHELF}"\n]\n```',
    "JSON in an object": f'{{"note": "x", "subgoals": ["{MUG}", "{SHELF}"], "n": [1]}}',
    "JSON of objects": f'Plan [1-2]: [{{"sub_goal": "{MUG}"}}, {{"text": "{SHELF}"}}] (as [asked])',
    "JSON, the last": f'["wait"] or rather ["{MUG}", "{SHELF}"]',
    "JSON of steps": f'["1. {MUG}", "Step 2: {SHELF}"]',
    "steps above their text": f"### Step 1\n{MUG}\n\n### Step 2\n{SHELF}\n",
    "bold steps above their text": f"**Step 1:**\n\n{MUG}\n**Step 2:**\n{SHELF}",
    "numbers above their text": f"1.\n{MUG}\n2.\n{SHELF}",
    "steps above bullets": f"### Step 1\n- {MUG}\n### Step 2\n- {SHELF}",
    "Python's list": f"subgoals = ['{MUG}', \"{SHELF}\"]",
    "a comma behind the last": f'["{MUG}", "{SHELF}",]',
    "letters": f"a) {MUG}\nb) {SHELF}",
    "capital letters": f"(A) {MUG}\n(B) {SHELF}",
    "counts without a stop": f"The plan:\n1 {MUG}\n2 {SHELF}",
    "a table": f"| # | Sub-goal | Why |\n|---|:--|---|\n| 1 | {MUG} | it |\n| 2 | `{SHELF}` | |",
    "a table of one column": f"Plan:\n\n| Plan |\n| --- |\n| {MUG} |\n| {SHELF} |\n\nDone.",
    "sub-goals' tags": f"<subgoal>{MUG}</subgoal>\n<SUB_GOAL n=2>{SHELF}",
}


@pytest.mark.parametrize("answer", BLUEPRINTS.values(), ids=BLUEPRINTS)
def test_blueprints_are_read(answer: str) -> None:
    found = read_blueprint(answer, "goal")
    assert found.texts() == [MUG, SHELF] and found.valid


def test_what_belongs_to_a_sub_goal_stays() -> None:
    query = 'search for shoes < 50 ["red"] > 3'
    for text in (f"1. {query}\n2. buy", f"<subgoal>{query}</subgoal><subgoal>buy</subgoal>",
                 f"- {query}\n- buy", f"<subgoal>{query}\n<subgoal>buy"):  # fmt: skip
        assert read_blueprint(text, "goal").texts() == [query, "buy"]
    assert read_blueprint(f"- {MUG}.\n- 3:30 wait", "goal").texts() == [f"{MUG}.", "3:30 wait"]
    assert read_blueprint("1. 5 mugs\n2. (1, 2)", "goal").texts() == ["5 mugs", "(1, 2)"]
    assert not read_blueprint(f"I would {MUG}, of 3 that there are.", "goal").valid


def test_the_tag_reader() -> None:
    box = tag("box")
    assert tagged("none", box) is None and tagged("<boxes>x</boxes>", box) is None
    assert tagged("<box>a</box> <BOX x=1>b</box >", box) == "b"
    assert tagged("<box>a", box) == "a" and tagged("<box>a", box, closed=True) is None
    assert tagged("a</box>b", box) == "a" and tagged("a</box>", box, closed=True) is None
    assert tagged("<box>a</box> <box>b", box, closed=True) == "a"
    assert tagged("<box> </box>", box) == ""


def test_admissible_commands_are_not_undressed() -> None:
    known = ["Look around.", '"Hello"', "wait", "say 'no.'", "- 3"]
    for command in known:
        for answer in (command, f"<action>{command}</action>", f"Action: {command}",
                       f"<action>`{command}`</action>", f"**{command}**"):  # fmt: skip
            assert read_command(answer, known) == command
    assert read_command("Look around.") == "Look around"
    assert read_command("think: hm\nwait", ["think: hm", "wait now"]) == "think: hm"
    assert read_command("`wait`.", known) == "wait"
    # Environments understand more than they list: what none of them is, is read as without them.
    assert read_command("`search[shoes]`.", known) == "search[shoes]"
    assert read_command("<action>wait\nas there is time</action>", known) == "wait"


def test_several_moves_on_lines() -> None:
    moves = ["up", "down", "left", "right", SUB_DONE]
    for answer in ("Right\nUp", "<action>Right\nUp</action>", "```\nRight\nUp\n```",
                   "Action: Right\nUp", "1. Right.\n2. Up.", "Right\n\nUp\n"):  # fmt: skip
        assert read_command(answer, moves) == "Right\nUp"
    assert read_command("push right, up\nmove up", moves) == "push right, up\nmove up"
    assert read_command("right\nThe box is there.", moves) == "right"
    for answer in ("up\nnoop", "still\nno operation || Up", "<action>up\nStill</action>"):
        assert parse_actions(read_command(answer, moves), limit=3) is not None
        assert read_command(answer, moves).count("\n") == 1
    assert read_command("<action>right\nThe box is there.</action>", moves) == "right"
    # Where commands are sentences, one is played at a time.
    assert read_command("go north\ngo south", ["go north", "go south"]) == "go north"


# -- whole environments ---------------------------------------------------------------------------


def _walk(
    benchmark: str, tasks: int, steps: int
) -> Iterator[tuple[str, dict[str, Any], Blueprint]]:
    """First observation, info and plan at the places of random walks through generated tasks."""
    env: Any = gym.make(f"HiMAC-{ENVS[benchmark]}-Flat-v0", data="generated").unwrapped
    rng = np.random.default_rng(5)
    for task_id in env.task_ids("train")[:tasks]:
        observation, info = env.reset(options={"task_id": task_id})
        first, blueprint = observation["text"], env.oracle_blueprint()
        for _ in range(steps):
            yield first, info, blueprint
            command = info["admissible"][rng.integers(len(info["admissible"]))]
            _, _, terminated, truncated, info = env.step(command)
            if terminated or truncated:
                break
    env.close()


@pytest.mark.parametrize(
    ("benchmark", "tasks", "steps", "least"),
    [("alfworld", 60, 8, 10_000), ("webshop", 60, 12, 4_000), ("sokoban", 4, 10, 100)],
)
def test_what_a_style_writes_it_reads_back(
    benchmark: str, tasks: int, steps: int, least: int
) -> None:
    styles = {name: make(name, f"HiMAC-{ENVS[benchmark]}-v0") for name in STYLES}
    count, plans = 0, 0
    distinct: dict[str, None] = {}
    last = None
    for first, info, blueprint in _walk(benchmark, tasks, steps):
        known = [*info["admissible"], SUB_DONE]
        count += len(known)
        distinct.update(dict.fromkeys(known))
        _offers_are_read_back(styles["compact"], known, info)
        if blueprint is last:
            continue
        last = blueprint
        for style in styles.values():
            plans += 1
            assert (
                style.read_plan(style.write_blueprint(blueprint), first, info["goal"]) == blueprint
            )
            thought = "<think>1. no</think>" + style.write_blueprint(blueprint)
            assert style.read_plan(thought, first, info["goal"]) == blueprint
    assert count >= least and plans >= 4 * tasks
    admissible = set(distinct)
    for name, style in styles.items():
        for command in distinct:
            # verl-agent reads in lower case, as the original does.
            expected = command.lower() if name == "verl-agent" else command
            written = style.write_command(command)
            assert style.read(written) == expected, "without knowing what is admissible"
            assert style.read(written, admissible) == expected
            assert style.read(f"<think>hm</think>\n{written}\n", admissible) == expected


def _offers_are_read_back(style: Prompts, known: Sequence[str], info: dict[str, Any]) -> None:
    """The short forms that a place gives to its commands."""
    for command in known:
        written = style.phrase(command, info)
        assert style.read(written, known) == written


class Says:
    """A policy that says one thing."""

    def __init__(self, text: str) -> None:
        self.text = text

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        return [Completion(self.text) for _ in prompts]


@pytest.mark.parametrize("prompts", [CompactPrompts(), ChatPrompts(benchmark="sokoban")])
@pytest.mark.parametrize("dress", ["{}", "<action>{}</action>", "```\n{}\n```"])
def test_the_environment_hears_several_moves(prompts: Prompts, dress: str) -> None:
    env: Any = gym.make("HiMAC-Sokoban-Flat-v0", data="generated", actions_per_step=3)
    observation, info = env.reset(seed=3)
    played = [("Right\nUp", 2), ("push left\nup", 2), ("up\ndown\nup\nup", 3)]
    played.append(("no operation\nup; noop", 3))
    for moves, taken in played:
        before = info["step"]
        action = Executor(Says(dress.format(moves)), prompts).act(observation, info)
        observation, *_, info = env.step(action)
        assert not info["invalid"], action
        assert info["step"] - before == taken


def test_the_executor_leaves_admissible_commands_alone() -> None:
    observation = {"text": "a room"}
    info = {"goal": "look", "step": 0, "task_id": "t", "admissible": ["Look around.", "wait"]}
    for prompts in (CompactPrompts(), ChatPrompts()):
        for said in ("Look around.", "<action>Look around.</action>", '"Look around."'):
            assert Executor(Says(said), prompts).act(observation, info) == "Look around."
        assert Executor(Says("`wait`."), prompts).act(observation, info) == "wait"


def test_verl_agents_protocol_stays_strict() -> None:
    read = VerlAgentPrompts().read
    assert read("<think>a</think><action>Search[Shoes < 50]</action>") == "search[shoes < 50]"
    assert read("<think><action>a</action></think><action>b</action><action>c</action>") == "c"
    assert read("<think>x</think><action><SUB_DONE/></action>") == SUB_DONE
    assert read("<think>x</think><action>`look`.</action>") == "`look`.", "nothing is mended"
    for lacking in ("<action>look</action><think>x</think>", "<think>x</think><action>look",
                    "<thinking>x</thinking><action>look</action>", "<think>x</think>look</action>",
                    "<think>x</think> a <sub_done>", "x</think><action>look</action>"):  # fmt: skip
        assert read(lacking) == ""


# -- properties -----------------------------------------------------------------------------------

_WORDS = st.lists(
    st.sampled_from(["go", "to", "desk", "1", "<", ">", "[", "]", "5", "'", '"', "in/on", "(1,",
                     "a.b", "$3", "*", "_", "</b>", "#", "`", "é", "- ", "a:"]),
    min_size=1, max_size=8,
).map(" ".join)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(_WORDS.map(str.strip).filter(lambda text: undress(text) == text))
def test_any_undressed_command_is_read_back(command: str) -> None:
    for style in (ChatPrompts(), VerlAgentPrompts()):
        assert style.read(style.write_command(command)) == command
    assert undress(undress(f"**Action:** `{command}`.")) == undress(f"**Action:** `{command}`.")


@settings(max_examples=200, deadline=None)
@given(_WORDS.map(str.strip))
def test_any_admissible_command_is_read_back(command: str) -> None:
    for style in (CompactPrompts(), ChatPrompts(), VerlAgentPrompts()):
        assert style.read(style.write_command(command), [command, "wait"]) == command


def _is_bare(text: str) -> bool:
    text = clean(text)
    # Not a box to tick: it is part of a list's mark.
    return unwrap(text) == text and not text.startswith("[ ]")


@settings(max_examples=300, deadline=None)
@given(st.lists(_WORDS.filter(_is_bare), min_size=1, max_size=8))
@example(["5 - go", "1. go"])
@example(["1. go"])
@example(["Step 1: go", "Step 3: stop"])
def test_any_blueprint_is_read_back(texts: list[str]) -> None:
    blueprint = Blueprint.of(texts)
    for style in (CompactPrompts(), ChatPrompts()):
        written = style.write_blueprint(blueprint)
        assert read_blueprint(written, "goal") == blueprint
        assert Blueprint.parse(written) == blueprint
