"""WebShop's analysis, ranking, index and stores, piece by piece."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from himac_envs.webshop import bm25, index, indexing
from himac_envs.webshop.analysis import analyze
from himac_envs.webshop.blobs import Rows, RowsWriter, SortedKeys, write_sorted_keys
from himac_envs.webshop.index import Index
from himac_envs.webshop.indexing import IndexWriter
from himac_envs.webshop.porter import stem
from himac_envs.webshop.words import split_words

# Pairs of the algorithm's published examples.
STEMS = str.split(
    "caresses caress ponies poni cats cat feed feed agreed agre plastered plaster bled bled "
    "motoring motor sing sing conflated conflat troubled troubl sized size hopping hop tanned tan "
    "falling fall hissing hiss fizzed fizz failing fail filing file happy happi sky sky "
    "relational relat conditional condit rational ration valenci valenc digitizer digit "
    "conformabli conform radicalli radic differentli differ vileli vile analogousli analog "
    "vietnamization vietnam predication predic operator oper feudalism feudal decisiveness decis "
    "hopefulness hope callousness callous formaliti formal sensitiviti sensit sensibiliti sensibl "
    "triplicate triplic formative form formalize formal electriciti electr electrical electr "
    "hopeful hope goodness good revival reviv allowance allow inference infer airliner airlin "
    "gyroscopic gyroscop adjustable adjust defensible defens irritant irrit replacement replac "
    "adjustment adjust dependent depend adoption adopt homologou homolog communism commun "
    "activate activ angulariti angular homologous homolog effective effect bowdlerize bowdler "
    "probate probat rate rate cease ceas controll control roll roll as as is is a a"
)


@pytest.mark.parametrize(("word", "expected"), list(zip(STEMS[::2], STEMS[1::2], strict=True)))
def test_stemmer(word: str, expected: str) -> None:
    assert stem(word) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "can't 3.5mm x-ray, a_b 1,000.5 v1.2",
            ["can't", "3.5mm", "x", "ray", "a_b", "1,000.5", "v1.2"],
        ),
        ('19.7"x31.5"', ["19.7", "x31.5"]),
        ("naïve café·au lait", ["naïve", "café·au", "lait"]),
        ("中文字 ひら カタカナ 한국어", ["中", "文", "字", "ひ", "ら", "カタカナ", "한국어"]),
        ("I ❤️ NY 👍🏽 👨‍👩‍👧 🇩🇪🇫🇷 1️⃣ ©", ["I", "❤️", "NY", "👍🏽", "👨‍👩‍👧", "🇩🇪", "🇫🇷", "1️⃣", "©"]),
        ("ש\"ם צ'", ['ש"ם', "צ'"]),
        ("", []),
        ("-- ... !!", []),
        ("a" * 300, ["a" * 255, "a" * 45]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_analysis_drops_stop_words_and_possessives() -> None:
    assert analyze("The women’s SHOES of John's, and 'S") == ["women", "shoe", "john", "s"]


@settings(deadline=None)
@given(st.text(max_size=80))
def test_analysis_never_fails(text: str) -> None:
    assert all(isinstance(term, str) for term in analyze(text))


@settings(deadline=None)
@given(st.text(alphabet="aZ09_.,:;'\"-é ", max_size=40))
def test_ascii_and_unicode_rules_agree(text: str) -> None:
    # An ideograph behind a blank sends the same text through the other expression.
    plain = text.replace("é", "e")
    assert split_words(plain) == split_words(plain + " 中")[:-1]


def test_length_bytes_are_exact_up_to_40_and_round_down() -> None:
    decoded = [bm25.decode_length(bm25.encode_length(n)) for n in range(5000)]
    assert decoded[:41] == list(range(41))
    assert all(d <= n for n, d in enumerate(decoded)) and decoded == sorted(decoded)
    assert bm25.encode_length(2**31 - 1) == 255


def _corpus(documents: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    ranks = [int(math.exp(rng.uniform(0, math.log(4000)))) for _ in range(documents * 30)]
    words = iter(f"w{rank:x}" for rank in ranks)
    return [" ".join(next(words) for _ in range(rng.randint(1, 29))) for _ in range(documents)]


def _build(folder: Path, texts: list[str], order: np.ndarray | None = None) -> Index:
    writer = IndexWriter(folder)
    for text in texts:
        writer.add(text)
    writer.finish(np.arange(len(texts), dtype=np.int32) if order is None else order)
    return Index(folder)


def _reference(texts: list[str], query: str, k: int) -> list[tuple[float, int]]:
    """Score every document the slow way."""
    counts = [Counter(analyze(text)) for text in texts]
    held = sum(bool(c) for c in counts)
    average = np.float32(sum(sum(c.values()) for c in counts) / held)
    norms = bm25.inverse_norms(average)
    totals: dict[int, float] = {}
    for term, times in Counter(analyze(query)).items():
        having = [n for n, c in enumerate(counts) if term in c]
        if not having:
            continue
        weight = np.float32(times) * bm25.idf(held, len(having))
        for n in having:
            norm = norms[bm25.encode_length(sum(counts[n].values()))]
            saturation = np.float32(counts[n][term]) * norm
            part = weight - weight / (np.float32(1) + saturation)
            totals[n] = totals.get(n, 0.0) + float(part)
    ranked = sorted((-np.float32(score), n) for n, score in totals.items())
    return [(float(-score), n) for score, n in ranked[:k]]


def test_search_equals_scoring_every_document_the_slow_way(tmp_path: Path) -> None:
    texts = _corpus(250)
    built = _build(tmp_path, texts)
    rng = random.Random(1)
    for _ in range(25):
        query = " ".join(rng.choice(texts).split()[: rng.randint(1, 8)])
        expected = _reference(texts, query, 50)
        numbers, scores = built.search_scores(query)
        assert list(zip(scores, numbers, strict=True)) == expected


@pytest.mark.parametrize("compiled", [True, False])
def test_pruned_search_equals_unpruned_on_1000_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    if compiled:
        pytest.importorskip("numba")
    monkeypatch.setattr(index, "have_numba", lambda: compiled)
    texts = _corpus(2500)
    built = _build(tmp_path, texts)
    rng = random.Random(2)
    for number in range(1000):
        words = [w for _ in range(3) for w in rng.choice(texts).split()]
        query = " ".join(rng.choices(words, k=1 + number % 15))
        k = (50, 1, 10, 3000)[number % 4]
        assert built.search_scores(query, k, prune=True) == built.search_scores(
            query, k, prune=False
        )


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sets(st.integers(0, 40)), min_size=1, max_size=6), st.integers(1, 9), st.data())
def test_the_compiled_pass_finds_the_best_of_any_lists(
    lists: list[set[int]], k: int, data: st.DataObject
) -> None:
    from himac_envs.webshop.top import top_documents

    # Scores from few values, so that many documents tie.
    tables = np.array(
        [
            data.draw(st.lists(st.sampled_from([0.25, 1.0, 3.5]), min_size=2, max_size=2))
            for _ in lists
        ],
        np.float32,
    )
    tables = tables[np.argsort(tables.max(axis=1), kind="stable")]
    documents = np.array([d for found in lists for d in sorted(found)], np.int32)
    codes = np.array([d * 7 % 5 % 2 for d in documents], np.uint16)
    stops = np.cumsum([len(found) for found in lists])
    at = stops - [len(found) for found in lists]
    totals: Counter[int] = Counter()
    for table, start, stop in zip(tables, at.tolist(), stops.tolist(), strict=True):
        for place in range(start, stop):
            totals[int(documents[place])] += float(table[codes[place]])
    best = sorted(totals, key=lambda d: (-totals[d], d))[:k]
    scores, found = np.empty(k, np.float32), np.empty(k, np.int32)
    bounds = np.cumsum([0.0, *tables.max(axis=1)])
    count = top_documents(
        documents, codes, at, stops, tables, bounds, np.empty(1, np.float32), scores, found
    )
    assert sorted(zip(found[:count].tolist(), scores[:count].tolist(), strict=True)) == sorted(
        (d, totals[d]) for d in best
    )


def test_runs_and_merges_do_not_change_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = _corpus(500)
    order = np.random.default_rng(0).permutation(500).astype(np.int32)
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    _build(tmp_path / "one", texts, order)
    monkeypatch.setattr(indexing, "_RUN_TOKENS", 300)
    monkeypatch.setattr(indexing, "_MERGE_POSTINGS", 500)
    monkeypatch.setattr(indexing, "_KNOWN_WORDS", 50)
    _build(tmp_path / "many", texts, order)
    for name in index.ARRAYS:
        one, many = (np.load(tmp_path / f / f"{name}.npy") for f in ("one", "many"))
        assert np.array_equal(one, many), name


def test_empty_and_unknown_queries(tmp_path: Path) -> None:
    built = _build(tmp_path, ["red lamp", "", "the of", "blue lamp lamp"])
    for query in ("", "the", "zebra", "[] \x00", "\ud800"):
        assert built.search(query) == []
    assert built.search("lamp") == [3, 0]
    assert built.search("lamp", 0) == []


def test_an_index_of_nothing(tmp_path: Path) -> None:
    built = _build(tmp_path, ["", "the"])
    assert built.search("lamp") == []


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=6), unique=True, max_size=30), st.text(max_size=6))
def test_sorted_keys(tmp_path_factory: pytest.TempPathFactory, keys: list[str], other: str) -> None:
    folder = tmp_path_factory.mktemp("keys")
    order = write_sorted_keys(folder, "k", keys)
    found = SortedKeys(folder, "k")
    for place, number in enumerate(order):
        assert found.find(keys[number]) == place
    assert (found.find(other) is None) == (other not in keys)


def test_rows_under_keys_keep_their_order(tmp_path: Path) -> None:
    writer = RowsWriter(tmp_path, "g")
    for row, key in enumerate(["b", "a", "é", "b", "b", "a"]):
        writer.add(key, row)
    writer.finish()
    rows = Rows(tmp_path, "g")
    assert (rows["b"], rows["a"], rows["é"], rows["c"]) == ([0, 3, 4], [1, 5], [2], [])


def test_class_table_has_no_python_version_in_it() -> None:
    """The classes are data: letters of later Unicode versions separate words everywhere."""
    assert split_words("a\U0001e290b") == ["a", "b"]  # Toto letter PA, Unicode 14
    assert split_words("a\u0870b") == ["a", "b"]  # Arabic letter alef with fatha, Unicode 14
    # Lucene reserves the pictographs' block whole: emoji that came later are words already.
    assert split_words("a\U0001fae0b") == ["a", "\U0001fae0", "b"]  # melting face, Unicode 14
    assert re.match(r"\w", "é") and split_words("é") == ["é"]
