"""Guesses of the next tokens: the answer is the same whatever is guessed, passes are saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tinymodels import save_text_model

from himac_agents.policies import noise
from himac_agents.policies.base import Completion, Message, Prompt, Sampling
from himac_agents.policies.causal import CausalPolicy
from himac_agents.policies.generation import draft
from himac_agents.policies.generation.draft import MOST, Draft
from himac_agents.policies.hf import HFPolicy
from himac_agents.policies.tiny import TinyPolicy, TinySize

TEXTS = [
    "You arrive at cabinet 4. The cabinet 4 is closed.",
    "You open the cabinet 4. In it, you see a mug 2, and a plate 1.",
    "Nothing happens.",
    "go to shelf 1",
]
COMMANDS = ["go to cabinet 4", "go to shelf 1", "take mug 2 from cabinet 4", "<sub_done>"]


class _Fixed(Draft):
    """Guesses what it was told, or, without, tokens at random."""

    def __init__(self, told: Sequence[Sequence[int]] = ()) -> None:
        super().__init__()
        self.told = [list(tokens) for tokens in told]
        self._rng = np.random.default_rng(0)

    def guess(
        self,
        context: Sequence[int],
        choices: Sequence[tuple[int, ...]] | None,
        most: int,
        least: float = 0.0,
    ) -> list[int]:
        for tokens in self.told:
            for n in range(len(tokens)):
                if n and list(context[-n:]) == tokens[:n]:
                    return tokens[n : n + most]
        return [int(token) for token in self._rng.integers(1, 20, size=max(most, 0))]


@pytest.fixture(scope="module", params=["tiny", "qwen2"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "tiny":
        return TinyPolicy.build(TEXTS + COMMANDS, TinySize(32, 2, 2, 64), seed=3)
    folder = save_text_model(tmp_path_factory.mktemp("model"))
    return HFPolicy.load(folder, device="cpu", dtype="float32")


def _ask(
    policy: CausalPolicy,
    constrained: bool,
    greedy: bool,
    turns: int = 3,
    guesser: Draft | None = None,
) -> list[Completion]:
    """Three conversations of a few turns each, of unlike lengths."""
    policy.forget()
    if guesser is not None:
        policy.cache.draft = guesser
    choices = tuple(policy.encode_reply(command) for command in COMMANDS) if constrained else None
    talks = [policy.encode([Message("user", " ".join(TEXTS[: n + 1]))]) for n in range(3)]
    answers = []
    for turn in range(turns):
        prompts = [
            Prompt((), tuple(talk), n, choices=choices, noise=noise.key(turn, n))
            for n, talk in enumerate(talks)
        ]
        said = policy.generate(prompts, Sampling(0.0 if greedy else 1.0, 12))
        talks = [[*talk, *answer.token_ids] for talk, answer in zip(talks, said, strict=True)]
        answers += said
    return answers


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("constrained", [True, False])
def test_no_guess_changes_an_answer(
    policy: CausalPolicy, constrained: bool, greedy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Draft, "guess", lambda self, context, choices, most, least: [])
    plain = _ask(policy, constrained, greedy)
    monkeypatch.undo()
    learned = Draft()
    for guesser in (_Fixed(), _Fixed([a.token_ids for a in plain]), learned, learned):
        found = _ask(policy, constrained, greedy, guesser=guesser)
        for one, other in zip(plain, found, strict=True):
            assert one.token_ids == other.token_ids and one.allowed == other.allowed
            assert one.cut == other.cut
            assert np.allclose(one.logprobs, other.logprobs, rtol=0, atol=1e-5)


def test_what_was_written_before_is_read_in_fewer_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = TinyPolicy.build(TEXTS + COMMANDS, TinySize(32, 2, 2, 64), seed=3)
    assert policy.reader is not None
    real, passes = policy.reader.read, [0]

    def counted(*args: Any) -> Any:
        passes[0] += 1
        return real(*args)

    monkeypatch.setattr(policy.reader, "read", counted)
    counts, guesser = [], Draft()
    for _ in range(3):
        passes[0] = 0
        _ask(policy, constrained=False, greedy=True, turns=1, guesser=guesser)
        counts.append(passes[0])
    longest = 12
    assert counts[0] >= longest // 2
    # One pass reads the guess of `MOST` tokens and draws the one behind it.
    assert counts[2] <= -(-longest // (MOST + 1)) + 1


def test_a_guess_keeps_to_the_choices_and_needs_half_of_the_cases() -> None:
    guesser = Draft()
    guesser.learn([1, 2], [5, 6, 9])
    assert guesser.guess([1, 2], None, 8) == [5, 6, 9]
    assert guesser.guess([1, 2], None, 2) == [5, 6]
    assert guesser.guess([3, 4], None, 8) == []
    # Only one way is open.
    assert guesser.guess([3, 4], [(7, 8, 9)], 8) == [7, 8, 9]
    assert guesser.guess([1, 2], [(7, 9), (8, 9)], 8) == []
    assert guesser.guess([1, 2], [(5, 7, 9), (8, 9)], 8) == [5, 7, 9]
    guesser.learn([1, 2], [4, 9])
    assert guesser.guess([1, 2], None, 1) in ([5], [4])
    guesser.learn([1, 2], [3, 9])
    assert guesser.guess([1, 2], None, 1) == []
    assert guesser.guess([1, 2], None, -1) == []


def test_a_guess_ends_where_it_is_too_unlikely_to_pay() -> None:
    guesser = Draft()
    for _ in range(8):
        guesser.learn([1, 2], [5, 6, 9])
    for last in (7, 8):
        guesser.learn([5, 6], [last])
    assert guesser.guess([1, 2], None, 8, 0.5) == [5, 6, 9]
    assert guesser.guess([1, 2], None, 8, 0.8) == [5, 6]
    assert guesser.guess([1, 2], None, 8, 0.95) == []
    # What is forced is certain, once what comes before it is.
    assert guesser.guess([3, 4], [(7, 8, 9)], 8, 0.99) == [7, 8, 9]


def test_guesses_that_would_hardly_ever_have_been_right_are_given_up() -> None:
    """Of answers at random, what followed a pair once says nothing of the next time."""
    rng = np.random.default_rng(0)
    random, regular = Draft(), Draft()
    random.learn([1, 2], [5])
    regular.learn([1, 2], [5])
    assert random.guess([1, 2], None, 1, 0.6) == [5], "nothing speaks against it yet"
    for n in range(60):
        random.learn([1, 2], rng.integers(10, 40, 8).tolist())
        # Every answer is given twice, to something else each time.
        again = 4 * (n // 2)
        regular.learn([1000 + n, 2000 + n], [*range(100 + again, 104 + again)])
    assert random.guess([0, 1, 2], None, 1, 0.6) == []
    # In what repeats itself a pair that was met once is trusted more than before.
    regular.learn([7, 8], [9])
    assert regular.guess([7, 8], None, 1, 0.7) == [9]
    assert Draft().guess([7, 8], None, 1, 0.7) == []
    # One way open needs no guess.
    assert random.guess([1, 2], [(7, 8, 9)], 3, 0.99) == [7, 8, 9]


def test_a_long_run_remembers_only_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft, "_MEMORY", 100)
    guesser = Draft()
    for n in range(500):
        guesser.learn([n, n + 1], [n + 2, n + 3, n + 4])
        assert len(guesser._after) <= 100 + 6
    assert guesser.guess([499, 500], None, 3) == [501, 502, 503]


def test_calls_repeat_to_the_last_bit(policy: CausalPolicy) -> None:
    """Guesses are forgotten with the cache, and a call without slots leaves none."""
    ids = tuple(policy.encode([Message("user", TEXTS[0])]))

    def alone() -> list[Completion]:
        return policy.generate([Prompt((), ids, noise=5)], Sampling(1.0, 12))

    assert alone() == alone() == alone()
    once, again = (_ask(policy, constrained=True, greedy=False) for _ in range(2))
    assert once == again
