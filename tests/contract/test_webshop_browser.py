"""WebShop in a real Chromium: the same pages, actions and rewards as in text."""

from __future__ import annotations

import copy
import pickle
import random
import socket
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest

import himac_envs
from himac_envs.webshop.browser import find_browser
from himac_envs.webshop.errors import BrowserError

assert himac_envs

try:
    find_browser()
except BrowserError as error:
    pytest.skip(f"no browser here: {error}", allow_module_level=True)


def _make(**kwargs: Any) -> Any:
    return gym.make("HiMAC-WebShop-Browser-v0", split="all", max_steps=100, **kwargs).unwrapped


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    env = _make()
    yield env
    env.close()


@pytest.mark.timeout(1800)  # a loaded machine takes seconds a page
def test_thirty_trajectories_are_equal_in_text_and_browser(browser: Any) -> None:
    text = gym.make("HiMAC-WebShop-Flat-v0", split="all", max_steps=100).unwrapped
    rng = random.Random(11)
    steps = purchases = 0
    for _ in range(30):
        options = {"task_id": str(rng.randrange(len(text.goals)))}
        mine, other = text.reset(seed=1, options=options), browser.reset(seed=1, options=options)
        for number in range(7):
            _equal(mine, other)
            clickables = mine[-1]["available_actions"]["clickables"]
            kind = rng.random()
            if number == 0 or kind < 0.12:
                query = rng.choice([text._goal()[:60], "<r>", 'mat / "x" 100% %2F é🙂', "Lamp"])
                action = f"search[{query}]"
            elif kind < 0.2:
                action = rng.choice(["click[nothing]", "foo", "", "CLICK[buy now]"])
            else:
                action = f"click[{rng.choice(clickables or ['none'])}]"
            mine, other = text.step(action), browser.step(action)
            steps += 1
            if mine[2]:
                _equal(mine, other)
                purchases += 1
                break
    assert steps > 100 and purchases > 0


def _equal(mine: Any, other: Any) -> None:
    assert mine[0]["text"] == other[0]["text"]
    assert mine[1:-1] == other[1:-1]
    info = {k: v for k, v in other[-1].items() if k != "browser_url"}
    assert info == mine[-1]


def test_oracle_snapshot_and_restore(browser: Any) -> None:
    _, info = browser.reset(options={"task_id": "42"})
    commands = list(zip(range(2), browser.oracle(), strict=False))
    browser.step(commands[0][1])
    state = browser.snapshot()
    answers = []
    for _ in range(2):
        browser.restore(state)
        tail = []
        for command in browser.oracle():
            *answer, info = browser.step(command)
            tail.append((answer[0]["text"], answer[1], info["url"]))
        answers.append(tail)
        assert info["won"]
    assert answers[0] == answers[1]


def test_screenshots_and_rendering() -> None:
    env = _make(observation="screenshot", width=640, height=480, render_mode="rgb_array")
    try:
        observation, _ = env.reset(seed=0)
        assert observation in env.observation_space
        image = observation["image"]
        assert image.shape == (480, 640, 3) and image.dtype == np.uint8
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20  # a page, not a blank sheet
        other = env.step("search[lamp]")[0]["image"]
        assert not np.array_equal(image, other)
        assert env.render().shape == (480, 640, 3)
    finally:
        env.close()


def test_copies_name_the_text_environment(browser: Any) -> None:
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="HiMAC-WebShop-Flat-v0"):
            attempt(browser)


def test_a_killed_browser_is_an_error_and_reset_recovers() -> None:
    env = _make()
    try:
        env.reset(seed=0)
        for process in psutil.Process(env._browser.driver.service.process.pid).children(True):
            process.kill()
        with pytest.raises(BrowserError, match="has gone"):
            env.step("search[lamp]")
        observation, _ = env.reset(seed=0)
        assert observation["text"].startswith("WebShop")
        assert "Total results" in env.step("search[lamp]")[0]["text"]
    finally:
        env.close()


def test_close_leaves_no_process_and_no_port() -> None:
    env = _make()
    env.reset(seed=0)
    driver = psutil.Process(env._browser.driver.service.process.pid)
    family = [driver, *driver.children(recursive=True)]
    port = int(env._site.url.rpartition(":")[2])
    assert len(family) > 2
    env.close()
    env.close()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past connections may linger
        again.bind(("127.0.0.1", port))


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        env = _make(port=taken.getsockname()[1])
        with pytest.raises(BrowserError, match="is in use"):
            env.reset(seed=0)
        env.close()


def test_a_missing_browser_tells_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIMAC_CHROME", "/nowhere/chromium")
    with pytest.raises(BrowserError, match=r"no Chromium found: install .*apt-get install"):
        find_browser()
