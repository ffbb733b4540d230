"""WebShop's site, without a browser: pages, addresses, people's last page."""

from __future__ import annotations

import random
import re
import socket
from typing import Any

import gymnasium as gym
import pytest

import himac_envs
from himac_envs.webshop.errors import BrowserError
from himac_envs.webshop.html import Links, from_segment, read_page, segment
from himac_envs.webshop.pages import plain_text, rich_text
from himac_envs.webshop.session import parse_action
from himac_envs.webshop.site import SiteThread, create_app, make_site, serve

assert himac_envs


@pytest.fixture(scope="module")
def site() -> Any:
    return make_site(data="generated")


@pytest.fixture
def client(site: Any) -> Any:
    return create_app(site).test_client()


@pytest.mark.parametrize("show_attrs", [False, True])
def test_html_pages_hold_the_same_strings_as_the_text(show_attrs: bool, real_data: Any) -> None:
    """What a parser finds in the HTML is the text observation, on every kind of page."""
    env = gym.make(
        "HiMAC-WebShop-Flat-v0",
        data=str(real_data / "webshop"),
        split="all",
        show_attrs=show_attrs,
        max_steps=10_000,
    ).unwrapped
    rng = random.Random(0)
    seen = set()
    for _ in range(25):
        _, info = env.reset(options={"task_id": str(rng.randrange(len(env.goals)))})
        for number in range(16):
            if number % 6 == 0:
                action = f"search[{rng.choice([env._goal()[:50], '<r>', 'mat <b> & é'])}]"
            else:
                action = f"click[{rng.choice(info['available_actions']['clickables'])}]"
            observation, _, terminated, _, info = env.step(action)
            page, session = read_page(env.html()), env._session
            assert plain_text(page.nodes) == observation["text"], action
            assert rich_text(page.nodes, session.url, session.state.visited) == session.rich()
            assert page.clickables == info["available_actions"]["clickables"]
            assert page.has_search_bar == info["available_actions"]["has_search_bar"]
            seen.add(session.state.page + session.state.sub)
            if terminated:
                break
    assert {"index", "search_results", "item_page", "done"} <= seen
    assert ("item_sub_pageAttributes" in seen) == show_attrs


def test_a_person_shops(client: Any, site: Any) -> None:
    goal = site.goals[3]
    assert client.get("/").headers["Location"] == "/0"
    page = client.get("/fixed_3").text
    assert 'id="search_input"' in page and goal.attributes[0] in page
    found = client.post("/fixed_3", data={"search_query": goal.name}, follow_redirects=True).text
    link = re.search(rf'href="([^"]*/{goal.asin}/[^"]*)"', found)
    assert link is not None
    item = client.get(link[1]).text
    assert 'class="btn btn-lg purchase"' in item and "/static/style.css" in item
    bought = client.post(f"/done/fixed_3/{goal.asin}/{segment(repr(dict(goal.goal_options)))}").text
    score = re.search(r"Score <strong>([0-9.]+)</strong>", bought)
    assert score is not None and float(score[1]) == 1.0
    # The purchase is no dead end, and nothing of crowd work is left.
    assert 'href="/4">Next instruction' in bought and 'href="/3">Try this one again' in bought
    assert "MTurk" not in bought and "code" not in bought and "None" not in bought
    assert goal.attributes[0] in bought and "within it" in bought
    assert client.get("/static/style.css").status_code == 200
    assert client.get(f"/drawing/{goal.asin}.svg").mimetype == "image/svg+xml"
    assert "http" not in re.sub(r"www\.w3\.org|m\.media-amazon\.com", "", item)


def test_a_person_gets_from_one_instruction_to_the_next(client: Any, site: Any) -> None:
    count = len(site.goals)
    for number, following in ((0, 1), (3, 4), (count - 1, 0)):
        page = client.get(f"/{number}").text
        assert f"Instruction {number + 1:,} of {count:,}" in page and f'href="/{following}"' in page
        assert site.goals[number].instruction_text.split()[-1] in page
    lost = client.get("/3").text
    assert "Instruction 4 of" in client.get("/search_results/3/lamp/1").text and "Search" in lost


def test_agents_of_the_site_see_the_pages_without_a_bar() -> None:
    from dataclasses import replace

    plain = create_app(replace(make_site(data="generated"), people=False)).test_client()
    assert plain.get("/").headers["Location"] == "/abc"
    page = plain.get("/3").text
    assert "<nav" not in page and 'id="search_input"' in page
    goal = make_site(data="generated").goals[3]
    bought = plain.get(f"/done/3/{goal.asin}/%7B%7D").text
    assert "Your code: " in bought and 'id="reward"' in bought


def test_the_same_name_keeps_its_goal(site: Any) -> None:
    assert site.goal("abc") == site.goal("abc")
    assert len({site.goal(f"visitor{n}").index for n in range(40)}) > 20
    assert site.goal("17").index == site.goal("fixed_17").index == 17


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/search_results/a/%5B1%5D/1", 400),
        ("/search_results/a/%5B%5D/1", 400),
        ("/search_results/a/__import__('os')/x", 400),
        ("/search_results/a/lamp/1", 200),
        ("/item_page/a/NOSUCH/lamp/1/%7B%7D", 404),
        ("/item_page/a/{asin}/lamp/1/[]", 400),
        ("/item_page/a/{asin}/lamp/1/" + "(" * 300, 400),
        ("/item_sub_page/a/{asin}/lamp/1/Nothing/%7B%7D", 404),
        ("/done/a/{asin}/{{}}", 200),
        ("/static/../env.py", 404),
        ("/drawing/NOSUCH.svg", 404),
    ],
)
def test_addresses_of_no_page_are_refused(
    client: Any, site: Any, address: str, status: int
) -> None:
    asin = site.goals[0].asin
    assert client.get(address.format(asin=asin)).status_code == status


@pytest.mark.parametrize("text", ["a/b", "100%", "%2F", "'\"", "é 🙂", "..", "a\\b", "[x]", "?#&"])
def test_any_query_survives_its_address(client: Any, text: str) -> None:
    from urllib.parse import unquote

    assert from_segment(unquote(segment(text))) == text
    answer = client.get(Links("5", (text, "lamp")).results(1))
    assert answer.status_code == 200 and "Page 1" in answer.text


def test_a_port_in_use_is_a_clear_error(site: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrowserError, match=f"port {port} .* is in use"):
            SiteThread(site, port)
        with pytest.raises(BrowserError, match=f"port {port} .* is in use"):
            serve(port=port, data="generated")


def test_a_site_thread_frees_its_port(site: Any) -> None:
    first = SiteThread(site)
    port = int(first.url.rpartition(":")[2])
    first.close()
    first.close()
    second = SiteThread(site, port)
    second.close()


def test_actions_are_parsed_as_the_original_pattern_does() -> None:
    pattern = re.compile(r"(.+)\[(.+)\]")
    rng = random.Random(0)
    for _ in range(50_000):
        text = "".join(rng.choices("[]a\n", k=rng.randint(0, 9)))
        match = pattern.match(text)
        assert parse_action(text) == ((match[1], match[2]) if match else (text, None))
    parse_action("[" * 1_000_000)  # linear: the pattern would take hours
