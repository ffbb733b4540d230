"""One matrix over the families of instruction-tuned models: what holds for each of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, Family, build_model, build_tokenizer
from toy import FruitEnv

from himac_agents.agents.agent import HiMACAgent
from himac_agents.agents.conversation import Context
from himac_agents.algorithms.batching import token_batch
from himac_agents.policies.base import Completion, Message, Prompt, Sampling, fold_system
from himac_agents.policies.hf import HFPolicy, Loading
from himac_agents.policies.template import TemplateError
from himac_agents.prompts import ChatPrompts
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import EpisodeRequest
from himac_agents.training.demo_files import Demo, demos_of, segments_of_demos
from himac_agents.training.demonstrations import demonstrate
from himac_envs.hierarchy import HierarchicalEnv

OPENING = [Message("system", "Rules of the game."), Message("user", "You see a desk 1.\n\n> look")]
TURNS = [
    ("<action>go to desk 1</action>", "On the desk 1, you see: a mug 2 and\n a cd 3."),
    ("take mug 2 from desk 1", "You pick up the mug 2."),
    ("<sub_done>", "Next sub-goal: look at the cd."),
]


@cache
def load(name: str) -> HFPolicy:
    family = FAMILIES[name]
    tokenizer = build_tokenizer(family)
    how = Loading(device="cpu", template_options=family.options)
    return HFPolicy(build_model(family, tokenizer), tokenizer, loading=how)


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def whole(policy: HFPolicy, messages: list[Message]) -> list[int]:
    """What the template itself makes of a conversation."""
    shown = fold_system(messages) if policy.template.folds else messages
    turns = [{"role": m.role, "content": m.text} for m in shown]
    ids = policy.tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=False, **policy.loading.template_options
    )
    return list(ids)


def test_pieces_equal_the_whole_over_three_turns(name: str) -> None:
    policy = load(name)
    context = Context("executor", OPENING, policy)
    assert context.token_ids == whole(policy, OPENING)
    for said, heard in TURNS:
        context.say(Completion(said))
        context.drop_thought()
        context.hear(Message("user", heard))
        assert context.token_ids == whole(policy, context.messages)


def test_thoughts_vanish_as_the_template_would_have_it(name: str) -> None:
    policy = load(name)
    context = Context("executor", OPENING, policy)
    for said, heard in TURNS:
        context.say(Completion(f"<think>\nWhere is it?\n</think>\n\n{said}"))
        context.drop_thought()
        context.hear(Message("user", heard))
    shown = whole(policy, [*OPENING, *(m for s, h in TURNS for m in (
        Message("assistant", s), Message("user", h)))])  # fmt: skip
    assert context.token_ids == shown


def test_the_end_is_what_the_template_writes(name: str) -> None:
    family, policy = FAMILIES[name], load(name)
    names = policy.tokenizer.convert_ids_to_tokens(policy.end_ids)
    assert names[0] == family.end and policy.encode_reply("wait")[-1] == policy.end_ids[0]
    assert {family.end, family.eos, *family.named} == set(names)


def test_generation_stops_at_the_turns_end(name: str) -> None:
    """At whichever end is written; and what is read holds none of it."""
    policy = load(name)
    word = policy.encode_reply("go")[-2]
    every = set(range(policy.vocabulary))
    barred, asked = policy.barred, policy.encode(OPENING)
    try:
        for end in policy.end_ids:
            policy.barred = None
            policy.bar(every - {word, end})
            for noise in range(4):
                (found,) = policy.generate([Prompt((), asked, noise=noise)], Sampling(1.0, 512))
                assert found.token_ids[-1] == end and not found.cut
                assert set(found.token_ids[:-1]) <= {word}
                assert policy.tokenizer.convert_ids_to_tokens(end) not in found.text
        policy.barred = None
        policy.bar(every - {word})
        (found,) = policy.generate([Prompt((), asked)], Sampling(1.0, 5))
        assert found.cut and found.token_ids == (word,) * 5
    finally:
        policy.barred = barred


def test_demonstrations_are_what_would_have_been_sampled(name: str) -> None:
    """The same words, written by the model token by token, give the same sequences."""
    policy = load(name)
    shown, sampled = (Context("executor", OPENING, policy) for _ in range(2))
    for said, heard in TURNS:
        asked = Prompt((), sampled.token_ids, choices=[policy.encode_reply(said)])
        (written,) = policy.generate([asked], Sampling(1.0, 64))
        assert written.text == said and not written.cut
        assert sampled.say(written) == shown.say(Completion(said))
        for context in (shown, sampled):
            context.drop_thought()
            context.hear(Message("user", heard))
        assert shown.token_ids == sampled.token_ids
        assert shown.messages == sampled.messages


def _pool() -> EnvPool:
    return EnvPool(lambda: HierarchicalEnv(FruitEnv(max_steps=6)), 2)


def test_old_and_new_log_probabilities_agree(name: str) -> None:
    policy, pool = load(name), _pool()
    agent = HiMACAgent.shared(policy, ChatPrompts())
    assert agent.planner is not None
    agent.planner.sampling = agent.executor.sampling = Sampling(1.0, 7)
    episodes = collect(agent, pool, [EpisodeRequest(t) for t in pool.task_ids("train")[:2]])
    assert not any(e.error for e in episodes)
    segments = [s for e in episodes for s in e.segments]
    batch = token_batch(segments, pad=policy.pad_id)
    assert batch.mask.sum() == sum(len(t.output_ids) for s in segments for t in s.turns) > 50
    with torch.no_grad():
        assert np.abs(policy.logprobs(batch).numpy() - batch.old_logprobs).max() < 1e-4
    # An answer that was cut is ended, without loss, before anything is read.
    cut = [(s, t) for s in segments for t in s.turns[:-1] if t.cut and t.sequence is None]
    assert cut or policy.template.rewrites
    for segment, turn in cut:
        assert segment.token_ids[turn.start + len(turn.output_ids)] == policy.end_ids[0]


def test_demonstrations_from_a_file_are_those_of_the_play(name: str) -> None:
    policy, pool = load(name), _pool()
    tasks = pool.task_ids("train")[:3]
    played = demonstrate(pool, tasks, prompts=ChatPrompts(), codec=policy, expert="oracle")
    texts = demonstrate(pool, tasks, prompts=ChatPrompts(), expert="oracle")
    read = segments_of_demos(demos_of(texts, "toy", "chat"), policy)
    assert _rows(read) == _rows([s for e in played for s in e.segments])


def _rows(segments: list[Any]) -> list[tuple[tuple[int, ...], tuple[tuple[int, int], ...]]]:
    """Training sequences and the stretches of them that are learned."""
    batch, found = token_batch(segments, imitate=True), []
    for ids, mask, length in zip(batch.token_ids, batch.mask, batch.lengths, strict=True):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]])))
        found.append((tuple(ids[:length].tolist()), tuple(edges.tolist())))
    return sorted(found)


@pytest.mark.parametrize("name", ["ChatML, SmolLM2", "Phi-3", "QwQ"])
def test_two_messages_in_a_row_are_heard_before_one_answer(name: str) -> None:
    """As a demonstration of somebody else may have it: one cue to speak, behind both."""
    policy = load(name)
    said = [Message("assistant", "go"), Message("user", "You go."), Message("user", "It rains.")]
    demo = Demo((*OPENING, *said, Message("assistant", "look")), "executor", "", "", "")
    (segment,) = segments_of_demos([demo], policy)
    asked = whole(policy, [*OPENING, *said])
    assert segment.token_ids[: len(asked)] == asked
    assert segment.turns[-1].start == len(asked)


def test_control_tokens_in_words_are_words(name: str) -> None:
    policy = load(name)
    tokenizer = policy.tokenizer
    control = [t.content for t in tokenizer.added_tokens_decoder.values()]
    control = [t for t in control if "think" not in t]
    assert control
    page = f"a {control[-1]}b{control[0]}\n{''.join(control)} c <{control[-1]}>"
    for messages, continues in (([Message("user", page)], False), ([Message("user", page)], True),
                                ([Message("system", page), OPENING[1]], False)):  # fmt: skip
        ids = policy.encode(messages, continues=continues)
        plain = [Message(m.role, "a b") if m.text == page else m for m in messages]
        known = policy.encode(plain, continues=continues)
        for token in tokenizer.convert_tokens_to_ids(control):
            assert ids.count(token) == known.count(token), tokenizer.convert_ids_to_tokens(token)
        assert page in tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    reply = policy.encode_reply(f"click[{page}]")
    assert not set(reply[:-1]) & set(policy.end_ids)
    assert policy.decode(reply) == f"click[{page}]"


def test_ids_beyond_the_tokenizer_are_never_written(name: str) -> None:
    policy = load(name)
    assert policy.vocabulary > len(policy.tokenizer) and policy.barred is not None
    if name == "Qwen3":
        asked = [Prompt((), policy.encode(OPENING), noise=i) for i in range(50)]
        found = policy.generate(asked, Sampling(50.0, 8))
        assert max(max(answer.token_ids) for answer in found) < len(policy.tokenizer)
    assert policy.barred.tolist() == list(range(len(policy.tokenizer), policy.vocabulary))


THINKERS = ["R1-Distill", "QwQ"]


@pytest.mark.parametrize("name", THINKERS)
def test_a_thought_that_the_template_opens(name: str) -> None:
    policy = load(name)
    assert policy.tokenizer.decode(policy.encode(OPENING)).endswith("<think>\n")
    ids = [*policy.tokenizer.encode("hm\n</think>\n\ntake mug 2"), policy.end_ids[0]]
    text = policy.decode(ids)
    assert text == "<think>\nhm\n</think>\n\ntake mug 2"
    assert policy.encode_reply(text) == tuple(ids)
    assert policy.decode(ids[:4]).startswith("<think>\nhm"), "cut while it thought"
    assert policy.decode(policy.encode_reply("<think></think>wait")) == "wait"
    assert policy.decode([*policy.tokenizer.encode("wait"), policy.end_ids[0]]) == "wait"


def test_what_cannot_be_mended_is_named() -> None:
    family = FAMILIES["ChatML, SmolLM2"]
    numbered = "{% for m in messages %}<|im_start|>{{ m.role }} {{ loop.length }}\n{{ m.content }}"
    broken = {
        numbered + "<|im_end|>\n{% endfor %}": "changes earlier turns|turn by turn",
        "{{ raise_exception('never') }}": "refuses.*never",
        "{% for m in messages %}{{ m.role }}{% endfor %}": "does not show",
        # It forgets what is older than two turns.
        "{% for m in messages[-3:] %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{% endfor %}": "turn by turn.*stands for",
    }
    for template, words in broken.items():
        tokenizer = build_tokenizer(family)
        tokenizer.chat_template = template
        with pytest.raises(TemplateError, match=f"(?s){words}"):
            HFPolicy(build_model(family, tokenizer), tokenizer)
    tokenizer = build_tokenizer(Family("{% for m in messages %}{{ m.content }}\n{% endfor %}",
                                       "bytes", ""))  # fmt: skip
    model = build_model(family, tokenizer)
    ended = HFPolicy(model, tokenizer)
    assert "writes no end of a turn" in ended.template.notes[0]
    assert ended.encode_reply("go")[-1] == tokenizer.eos_token_id
    tokenizer.eos_token = None
    with pytest.raises(TemplateError, match="the tokenizer names an end token"):
        HFPolicy(model, tokenizer)
