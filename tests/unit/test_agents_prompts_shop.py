"""WebShop in few words: pages, commands and shorthand, exactly; and odd text, totally."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from himac_agents.prompts import CompactPrompts
from himac_agents.prompts.compact.shop import ShopForm, Wanted
from himac_agents.prompts.compact.shorthand import instruction
from himac_envs.blueprint import Blueprint

GOAL = (
    "Find me eco friendly, space saving storage baskets with color: ivory, and size: pack of 3, "
    "and price lower than 60.00 dollars"
)
START = f"WebShop [SEP] Instruction: [SEP] {GOAL} [SEP] Search"
RESULTS = (
    f"Instruction: [SEP] {GOAL} [SEP] Back to Search [SEP] Page 1 (Total results: 50) [SEP] Next > "
    "[SEP] B0G1LK4XEV [SEP] Marport Woven Storage Basket GE917, Storage Space, Eco Friendly [SEP] "
    "$15.95 [SEP] B0G1TP32BR [SEP] Wesrako Basket, Space Saving [SEP] $24.49 to $64.00"
)
ITEM = (
    f"Instruction: [SEP] {GOAL} [SEP] Back to Search [SEP] < Prev [SEP] color [SEP] black [SEP] "
    "ivory [SEP] size [SEP] pack of 3 [SEP] pack of 6 [SEP] Insiko Woven Storage Basket, Eco "
    "Friendly [SEP] Price: $24.95 [SEP] Rating: N.A. [SEP] Description [SEP] Features [SEP] "
    "Reviews [SEP] Buy Now"
)
BUTTONS = ["back to search", "< prev", "description", "features", "reviews", "buy now"]
ON_ITEM = {
    "available_actions": {"clickables": [*BUTTONS, "black", "ivory", "pack of 3", "pack of 6"]}
}
ON_RESULTS = {
    "available_actions": {"clickables": ["back to search", "next >", "b0g1lk4xev", "b0g1tp32br"]},
    "admissible": ["click[back to search]", "click[next >]", "click[b0g1lk4xev]"],
}
OPEN = "open a product with eco friendly, space saving storage baskets, ivory under $60.00"
STYLE = CompactPrompts()


def test_pages_say_what_concerns_the_task_and_never_the_instruction() -> None:
    assert STYLE.observe(START, OPEN, {}).text == "start"
    thanks = "Thank you for shopping with us! [SEP] Your code: [SEP] None"
    assert STYLE.observe(thanks, OPEN, {}).text == "bought"
    assert STYLE.observe(RESULTS, OPEN, ON_RESULTS).text == ("results 1 two cheap 2 one dear")
    assert STYLE.observe(RESULTS, "search for storage baskets", ON_RESULTS).text == "results"
    assert STYLE.observe(RESULTS, "buy the product", {}).text == "results 1 none 2 none"
    assert STYLE.observe(ITEM, OPEN, ON_ITEM).text == ("item two cheap * 2 ivory")
    assert STYLE.observe(ITEM, "choose size pack of 3", ON_ITEM).text == ("item none * 3 pack of 3")
    chosen = {**ON_ITEM, "url": 'http://127.0.0.1:3000/item_page/1/B0/a+b/1/{"color": "ivory"}'}
    assert STYLE.observe(ITEM, OPEN, chosen).text == "chosen ivory"
    text = f"Instruction: [SEP] {GOAL} [SEP] Back to Search [SEP] < Prev [SEP] An eco friendly one."
    assert STYLE.observe(text, OPEN, {}).text == "text one"


def test_unmarked_pages_hide_what_the_task_names() -> None:
    style = CompactPrompts(mark=False)
    assert style.observe(RESULTS, OPEN, {}).text == "results 1 none 2 none"


def test_a_segment_begins_with_the_open_page_alone() -> None:
    (message,) = STYLE.segment(START, "choose color ivory", [RESULTS, ITEM], ON_ITEM)
    assert message.text == ("<act> item none * 2 ivory\nchoose color ivory")
    (message,) = STYLE.segment(START, "search for baskets", [])
    assert message.text == "<act> start\nsearch for baskets"


def test_flat_agents_read_the_same_words() -> None:
    (message,) = STYLE.play(START, GOAL)
    assert message.text == (
        "<play> start\neco friendly, space saving storage baskets, color ivory, size pack of 3 "
        "under $60.00"
    )
    past = [(START, "search"), (RESULTS, "1")]
    (message,) = STYLE.recall(START, GOAL, past, ITEM, ON_ITEM)
    assert message.text.splitlines()[2:] == [
        "> search",
        "results 1 two cheap 2 one dear",
        "> 1",
        "item two cheap * 2 ivory * 3 pack of 3",
    ]


def test_commands_are_written_as_the_page_names_them() -> None:
    written = [STYLE.phrase(c, ON_RESULTS) for c in ON_RESULTS["admissible"]]
    assert written == ["back", "next", "1"]
    assert STYLE.phrase("click[b0g1tp32br]", ON_RESULTS) == "2"
    assert STYLE.phrase("click[pack of 3]", ON_ITEM) == "3"
    assert STYLE.phrase("click[buy now]", ON_ITEM) == "buy"
    assert STYLE.phrase("search[any words]", {"available_actions": {}}) == "search"
    assert STYLE.phrase("<sub_done>", ON_ITEM) == "<sub_done>"
    assert STYLE.phrase("click[b0g1tp32br]", {}) == "click[b0g1tp32br]"  # no shop: as it stands


def test_what_is_searched_for_is_what_the_subgoal_says() -> None:
    info = {"available_actions": {}, "admissible": ["search[the instruction]", "<sub_done>"]}
    assert STYLE.commands("search for red [x] socks", info) == [
        "search[red x socks]",
        "<sub_done>",
    ]
    assert STYLE.commands("buy the product", info) == info["admissible"]
    assert STYLE.commands(GOAL, info) == info["admissible"]


def test_hits_are_runs_of_the_tasks_own_words() -> None:
    aim = Wanted("open a product with tempered glass, waterproof screen protectors under $20.00")
    assert aim.hits("Screen Protector Tempered Glass, Waterproof") == (
        "screen protectors",
        "tempered glass",
        "waterproof",
    )
    assert aim.hits("a glass of water, open") == ("open",)
    assert aim.price("$19.00 to $20.01") == ["dear"] and aim.price("no price") == []
    assert Wanted("choose color red").price("$5.00") == []


def test_shorthand_there_and_back() -> None:
    blueprint = Blueprint.of(
        [
            "search for storage baskets eco friendly space saving ivory",
            "open a product with eco friendly, space saving, ivory, pack of 3 under $60.00",
            "choose color ivory",
            "choose size pack of 3",
            "buy the product",
        ]
    )
    written = STYLE.draft(blueprint, START, GOAL)
    assert written.splitlines() == [
        "- search 1 2 3",
        "- open 1 2 3 4 under",
        "- choose 3",
        "- choose 4",
        "- buy",
    ]
    read = STYLE.read_plan(written, START, GOAL)
    assert read.valid and read.texts() == [
        "search for eco friendly space saving storage baskets ivory",
        "open a product with eco friendly, space saving storage baskets, ivory, pack of 3 "
        "under $60.00",
        *blueprint.texts()[2:],
    ]
    assert STYLE.draft(read, START, GOAL) == written
    assert STYLE.read_plan("- search 9\n- open\n- dance", START, GOAL).texts() == [
        "search 9",
        "open a product",
        "dance",
    ]
    assert not STYLE.read_plan("no list", START, GOAL).valid
    assert STYLE.draft(blueprint, "a room", GOAL).startswith("- search for")  # no shop


_PIECES = st.sampled_from(
    [
        " [SEP] ", "WebShop", "Instruction:", "Page 1 (Total results: 5)", "Page -2", "Next >",
        "B0G1LK4XEV", "$", "$1,0", "Buy Now", "Price: ", "under $", "search for ", "search[", "]",
        "click[", ", and ", " with ", ": ", "- ", "open 1", "choose 0", "\n", "{", '"',
        "/item_page/", "\ud800",
    ]
)  # fmt: skip
_ODD = st.lists(st.one_of(_PIECES, st.text(max_size=8)), max_size=16).map("".join)


@settings(max_examples=1_000, deadline=None)
@given(_ODD, _ODD, _ODD)
def test_odd_text_raises_nothing(text: str, task: str, other: str) -> None:
    form = ShopForm()
    page = f"Instruction: [SEP] {text} [SEP] Back to Search [SEP] {other}"
    infos: list[dict[str, Any]] = [{}, {"url": other}, {"available_actions": {}, "url": text}]
    for info in infos:
        for seen in (page, text):
            assert isinstance(form.observation(seen, task, info), str)
            assert form.opening(seen, task, [other, page], info)
        assert isinstance(form.phrase(other, info), str)
        assert list(form.commands(task, {**info, "admissible": [other]}))
    assert len(STYLE.read_plan(text, START, other)) >= 1
    assert STYLE.draft(Blueprint.parse(text), START, other)
    assert isinstance(instruction(text).numbered(), str) and form.brief(text) is not None


@pytest.fixture(scope="module")
def env() -> Any:
    return gym.make("HiMAC-WebShop-v0", data="generated").unwrapped


def test_shorthand_plans_win_and_items_are_numbered_as_they_are_clicked(env: Any) -> None:
    for task_id in list(env.task_ids("valid"))[:12]:
        observation, info = env.reset(options={"task_id": task_id})
        first, goal = observation["text"], info["goal"]
        written = STYLE.draft(env.oracle_blueprint(), first, goal)
        observation, *_, info = env.step(STYLE.read_plan(written, first, goal).render())
        reward, over = 0.0, False
        while not over:
            command = next(iter(env.oracle(env.subgoal)), "<sub_done>")
            if command.startswith("click[b0") and "next >" in str(info["admissible"]):
                place = int(STYLE.phrase(command, info))
                text = STYLE.observe(observation["text"], env.subgoal, info).text
                assert f" {place} " in text and " 11 " not in text
            observation, reward, terminated, truncated, info = env.step(command)
            over = terminated or truncated
        assert reward == 1.0


def test_the_explorer_is_honest_and_mostly_wins(env: Any) -> None:
    won = 0
    for task_id in list(env.task_ids("valid"))[:40]:
        _, info = env.reset(options={"task_id": task_id})
        env.step(f"1. {info['goal']}")
        for command in env.task.explorer():
            offered = env.task._admissible()
            assert command in offered or command.startswith("search[")
            *_, terminated, truncated, info = env.step(command)
            if terminated or truncated:
                break
        won += info["won"]
    assert won >= 36
    with pytest.raises(ValueError, match="not understood"):
        env.task.explorer("dance")
    with pytest.raises(ValueError, match="no option"):
        env.reset(options={"task_id": task_id})
        next(env.task.explorer("choose color invisible"))
