"""WebShop against what the original answered: traces, rewards, search results, goals."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import himac_envs
from himac_envs.webshop.data import catalogue_for
from himac_envs.webshop.goals import Goals

assert himac_envs


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


@pytest.fixture(scope="module")
def data(real_data: Path) -> str:
    return str(real_data / "webshop")


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> Path:
    return golden_dir / "webshop"


def _make(data: str, golden: Path, kind: str, **kwargs: Any) -> Any:
    return gym.make(
        "HiMAC-WebShop-Flat-v0",
        data=data,
        goals=kind,
        split="all",
        load_seed=0,
        title_nouns=golden / "title_nouns.json.gz",
        **kwargs,
    ).unwrapped


@pytest.mark.parametrize("kind", ["synthetic", "human"])
def test_traces_replay_without_a_difference(
    data: str, golden: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = _make(data, golden, kind)
    rich = _make(data, golden, kind, observation="text_rich")
    steps = wins = purchases = 0
    for episode in _lines(golden / f"{kind}.jsonl.gz"):
        info: dict[str, Any] = {}
        for number, step in enumerate(episode["steps"]):
            if step["a"] is None:
                options = {"task_id": str(episode["goal"])}
                observation, info = text.reset(options=options)
                rich_observation, _ = rich.reset(options=options)
                reward, terminated = 0.0, False
            else:
                observation, reward, terminated, _, info = text.step(step["a"])
                rich_observation, *_ = rich.step(step["a"])
            where = f"{kind} goal {episode['goal']} step {number} {step['a']!r}"
            if "err" in step:  # the original crashed here: any answer will do, an exception not
                continue
            assert observation["text"] == step["obs"], where
            assert rich_observation["text"] == step["rich"], where
            assert info["url"] == step["url"], where
            assert info["available_actions"] == step["avail"], where
            assert reward == pytest.approx(step["r"], abs=1e-9), where
            assert terminated == step["d"], where
            steps += 1
            wins += info["won"]
        if episode["reward_info"] is not None:
            assert info["reward_info"] == pytest.approx(episode["reward_info"], abs=1e-9)
            purchases += 1
    with capsys.disabled():
        print(f"\nWebShop {kind}: {steps} steps replayed, {purchases} purchases, 0 differences")
    assert steps > 900 and purchases > 1


def test_recorded_rewards_are_equal_part_by_part(data: str, golden: Path) -> None:
    envs = {kind: _make(data, golden, kind) for kind in ("synthetic", "human")}
    compared = 0
    for record in _lines(golden / "rewards.jsonl.gz"):
        env = envs[record["goals"]]
        if env.task_id != str(record["goal"]):
            env.reset(options={"task_id": str(record["goal"])})
        reward, parts = env.reward_of(record["asin"], record["options"])
        assert reward == pytest.approx(record["reward"], abs=1e-9)
        assert parts.keys() == record["info"].keys()
        assert parts == pytest.approx(record["info"], abs=1e-9)
        compared += 1
    assert compared == 3750


def test_recorded_searches_give_the_same_fifty_in_order(data: str, golden: Path) -> None:
    catalogue = catalogue_for(data)
    compared = 0
    for record in _lines(golden / "lucene_top50.jsonl.gz"):
        rows = catalogue.ranked(record["q"])
        assert [catalogue.card(row).asin for row in rows] == record["ids"], record["q"]
        _, scores = catalogue.index.search_scores(record["q"])
        # The recorded scores were rounded apart where they tied, by up to 1e-4.
        assert scores == pytest.approx(record["scores"], abs=1e-4)
        assert catalogue.index.search(record["q"], prune=True) == catalogue.index.search(
            record["q"], prune=False
        )
        compared += 1
    assert compared == 600


@pytest.mark.parametrize(("kind", "count"), [("synthetic", 6910), ("human", 13)])
def test_a_seeded_load_has_the_recorded_goals_and_prices(
    data: str, golden: Path, kind: Any, count: int
) -> None:
    catalogue = catalogue_for(data)
    goals = Goals(catalogue, kind, load_seed=0)
    with gzip.open(golden / f"{kind}.jsonl.gz.goals.json.gz", "rt", encoding="utf-8") as file:
        recorded = json.load(file)
    assert len(goals) == len(recorded["goals"]) == count
    for goal, expected in zip(goals, recorded["goals"], strict=True):
        options = goal.goal_options
        assert {
            "asin": goal.asin,
            "category": goal.category,
            "query": goal.query,
            "name": goal.name,
            "product_category": goal.product_category,
            "instruction_text": goal.instruction_text,
            "attributes": list(goal.attributes),
            "price_upper": goal.price_upper,
            "goal_options": dict(options) if kind == "synthetic" else list(options),
            "weight": goal.weight,
        } == expected
    for asin, price in recorded["prices"].items():
        row = catalogue.row_of(asin)
        assert row is not None and goals.price(row) == price


def test_another_load_seed_draws_other_prices_but_keeps_the_order(data: str) -> None:
    catalogue = catalogue_for(data)
    one, other = Goals(catalogue, load_seed=0), Goals(catalogue, load_seed=1)
    assert [g.asin for g in one] == [g.asin for g in other]
    differing = sum(
        a.instruction_text != b.instruction_text for a, b in zip(one, other, strict=True)
    )
    assert differing > 1000
    assert (one.prices != other.prices).sum() > 50


def test_indexed_documents_are_the_published_ones(data: str, real_data: Path) -> None:
    catalogue = catalogue_for(data)
    documents = list(_lines(real_data / "webshop" / "documents.jsonl.gz"))
    assert len(documents) == catalogue.size == 1000
    for row, document in enumerate(documents):
        product = catalogue.product(row)
        assert (product.asin, product.document()) == (document["id"], document["contents"])


def test_agreement_of_the_builtin_tagger(
    data: str, golden: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How often the built-in nouns give the same reward as the recordings' table of nouns."""
    table = {kind: _make(data, golden, kind) for kind in ("synthetic", "human")}
    builtin = {
        kind: gym.make(
            "HiMAC-WebShop-Flat-v0", data=data, goals=kind, split="all", load_seed=0
        ).unwrapped
        for kind in table
    }
    for env in builtin.values():
        assert env.reset(seed=0)[1]["nouns"] in ("builtin", "spacy:en_core_web_sm")
    records = list(_lines(golden / "rewards.jsonl.gz"))
    random.Random(0).shuffle(records)
    same = 0
    for record in records[:2000]:
        rewards = []
        for env in (table[record["goals"]], builtin[record["goals"]]):
            env.reset(options={"task_id": str(record["goal"])})
            rewards.append(env.reward_of(record["asin"], record["options"])[0])
        same += abs(rewards[0] - rewards[1]) < 1e-9
    with capsys.disabled():
        print(f"\nWebShop nouns: {same} of 2,000 rewards are the same with the built-in tagger")
    assert same > 1900
