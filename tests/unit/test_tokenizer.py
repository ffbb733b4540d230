"""The tiny model's vocabulary: frequent phrases are found quickly, and once for all policies."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from himac_agents.config import TrainConfig
from himac_agents.policies import loading, tiny


def _phrases(lines: list[str], most: int) -> list[str]:
    """The definition: pairs are counted anew in each round, over all lines."""
    split = Counter(tuple(tiny._WORD.findall(line)) for line in lines)
    number = tiny._NUMBER
    barred = {a for words in split for a, b in pairwise(words) if number.fullmatch(b)}
    barred |= {w for words in split for w in words if number.fullmatch(w) or set("<>") & set(w)}
    found: list[str] = []
    for _ in range(most):
        pairs: Counter[tuple[str, str]] = Counter()
        for words, n in split.items():
            for pair in pairwise(words):
                if not barred & set(pair):
                    pairs[pair] += n
        if not pairs:
            break
        (a, b), n = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        if n < max(8, len(lines) // 200):
            break
        found.append(a + b)
        merged: Counter[tuple[str, ...]] = Counter()
        for words, n in split.items():
            merged[tiny._join(words, a, b)] += n
        split = merged
    return found


_LINES = st.lists(
    st.lists(st.sampled_from(["a", "a", "b", "c", "go to", "mug 2", "<x>", ",", "\n"]), max_size=9)
    .map(" ".join)
    .map(tiny._normal),
    max_size=60,
)


@hypothesis_settings(max_examples=150, deadline=None)
@given(lines=_LINES, times=st.integers(1, 12))
def test_phrases_are_those_of_the_definition(lines: list[str], times: int) -> None:
    assert tiny._mine_phrases(lines * times, 20) == _phrases(lines * times, 20)


def test_a_vocabulary_is_built_once_for_all_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    built, real = [], tiny.build_tokenizer

    def build(*args: object, **kwargs: object) -> object:
        built.append(args)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(tiny, "build_tokenizer", build)
    config = TrainConfig(share_parameters=False, hidden=16, heads=2, layers=1)
    made = loading.make_policies(config, True, None, lambda: ["go to the mug 1"] * 9)
    assert sorted(made) == ["executor", "planner"] and len(built) == 1
    assert made["planner"].model is not made["executor"].model
