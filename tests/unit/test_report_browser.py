"""The report in a real browser: no errors, episodes step by key, hostile text stays text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_pages import write_run

from himac_agents.reports.page import write_report
from himac_envs.webshop.browser import Browser, find_browser
from himac_envs.webshop.errors import BrowserError

try:
    find_browser()
except BrowserError as error:
    pytest.skip(f"no browser here: {error}", allow_module_level=True)

HOSTILE = "</script><script>window.broken=1</script><img src=x onerror='window.broken=1'>\x1b\u202e"
ROOM = "#####\n#@$.#\n#####"
DONE = "#####\n# @*#\n#####"


def _turn(action: str, **more: Any) -> dict[str, Any]:
    return {"action": action, "reward": 0.0, "invalid": False, **more}


#: A prompt whose every character counts.
MESSAGES = [
    {"role": "system", "content": 'Rules:\u202e\x07 "push" </pre> 100%\n'},
    {"role": "user", "content": "You see a room."},
    {"role": "assistant", "content": "<think>hm</think> look"},
    {"role": "user", "content": "A box."},
    {"role": "assistant", "content": "right"},
]
EPISODES: list[dict[str, Any]] = [
    {
        "phase": "train", "step": 1, "task_id": "t/1", "goal": HOSTILE, "success": False,
        "task_type": "hostile_tasks",
        "return": 0.0, "env_steps": 1, "blueprint": [HOSTILE], "options": [], "first": HOSTILE,
        "segments": [{"role": "executor", "subgoal": HOSTILE, "index": 0, "turns": [
            _turn(HOSTILE, text=HOSTILE + "!", observation=HOSTILE, frame="javascript:1")]}],
        "error": HOSTILE,
    },
    {
        "phase": "train", "step": 2, "task_id": "t/2", "goal": "push the box", "success": True,
        "task_type": "pushes",
        "return": 10.9, "env_steps": 1, "first": "You see a room.", "frame": ROOM,
        "blueprint": ["push the box right", "rest"],
        "options": [{"index": 0, "subgoal": "push the box right", "steps": 1, "reward": 10.9,
                     "reason": "terminated", "achieved": True}],
        "candidates": [
            {"text": "a", "subgoals": ["push the box right", "rest"], "valid": True,
             "return": 10.9, "advantage": 1.0, "chosen": True},
            {"text": "b", "subgoals": ["rest"], "valid": False, "return": -1.0,
             "advantage": -1.0, "chosen": False}],
        "segments": [{"role": "executor", "subgoal": "push the box right", "index": 0,
                      "messages": MESSAGES, "turns": [
            _turn("look", text="<think>hm</think> look", observation="A box.", frame=ROOM),
            _turn("right", reward=10.9, advantage=0.75, logprob=-0.25, observation="Solved.",
                  frame=DONE)]}],
        "error": None,
    },
]  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs") / "r"
    folder.mkdir()
    (folder / "config.toml").write_text('method = "himac"\nenv = "HiMAC-Sokoban-v0"\nseed = 0\n')
    rows = [
        {"phase": "executor", "step": k, "success": 0.1 * k, "entropy": 1.0 / k,
         "env_steps_total": 100 * k, "tokens_total": 900 * k}
        for k in range(1, 6)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "episodes.jsonl").write_text("".join(json.dumps(e) + "\n" for e in EPISODES))
    path, *_ = write_report([folder], Path(folder) / "report.html")
    return path.as_uri()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of fifteen runs that differ in more than their seed."""
    folder = tmp_path_factory.mktemp("many")
    for k in range(15):
        long_name = f"a-rather-long-name-of-a-model-{k}"
        write_run(folder / f"run-{k}", method="himac", tasks=k + 1, model=long_name)
    path, *_ = write_report([folder], folder / "report.html")
    return path.as_uri()


@pytest.fixture(scope="module")
def driver(report: str) -> Iterator[Any]:
    browser = Browser(1400, 1000)
    browser.driver.get(report)
    yield browser.driver
    browser.close()


def _press(driver: Any, key: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    ActionChains(driver).send_keys(getattr(Keys, key)).perform()


def _text(driver: Any, selector: str) -> str:
    found: str = driver.execute_script(
        "return document.querySelector(arguments[0]).textContent", selector
    )
    return found


def _show_viewer(driver: Any) -> None:
    driver.execute_script("document.getElementById('viewer').scrollIntoView({behavior:'instant'})")


def test_the_page_runs_without_errors(driver: Any) -> None:
    errors = [x for x in driver.get_log("browser") if x["level"] == "SEVERE"]
    assert errors == []
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert driver.execute_script("return document.querySelectorAll('svg.hc').length") >= 4
    # The log is really read: an error that happens is seen.
    driver.execute_script("console.error('a deliberate error')")
    assert any("deliberate" in x["message"] for x in driver.get_log("browser"))


def test_hostile_text_is_shown_and_not_run(driver: Any) -> None:
    _show_viewer(driver)
    assert "1 of" in _text(driver, "#f-count") or "2 of" in _text(driver, "#f-count")
    driver.find_element("css selector", "#list .row").click()
    assert HOSTILE[:40] in _text(driver, "#goal")
    _press(driver, "END")
    assert HOSTILE[:40] in _text(driver, "#step")
    assert "\x1b" not in _text(driver, "#step") and "\u241b" in _text(driver, "#step")
    assert driver.execute_script("return window.broken") is None
    assert driver.execute_script("return document.querySelectorAll('img').length") == 0


def test_keys_step_through_an_episode(driver: Any) -> None:
    _show_viewer(driver)
    driver.find_elements("css selector", "#list .row")[1].click()
    assert "push the box" in _text(driver, "#goal")
    assert "compared by" in _text(driver, "#step")
    assert driver.execute_script("return document.querySelectorAll('.plan.star').length") == 1
    _press(driver, "ARROW_RIGHT")
    assert "What it wrote" in _text(driver, "#step")
    assert "<think>hm</think> look" in _text(driver, "#step")
    _press(driver, "ARROW_RIGHT")
    step = _text(driver, "#step")
    assert "advantage +0.75" in step and "reward +10.90" in step and "Solved." in step
    assert "A box." in step  # what was seen before it is the answer to the step before
    boards = driver.execute_script(
        "return [...document.querySelectorAll('#step svg')].map(s => "
        "[s.querySelectorAll('.x-wall').length, s.querySelectorAll('rect.x-home').length])"
    )
    assert boards == [[12, 0], [12, 1]]
    assert "step=2" in driver.current_url
    _press(driver, "ARROW_RIGHT")  # nothing beyond the end
    assert "step=2" in driver.current_url
    _press(driver, "HOME")
    assert "step=0" in driver.current_url
    _press(driver, "ARROW_UP")
    assert "episode=0" in driver.current_url
    tree = _text(driver, "#tree")
    _press(driver, "ARROW_DOWN")
    assert "not reached" in _text(driver, "#tree") and _text(driver, "#tree") != tree


def test_episodes_are_found_by_outcome_and_words(driver: Any) -> None:
    rows = "return document.querySelectorAll('#list .row').length"
    _show_viewer(driver)
    driver.execute_script("document.getElementById('o-solved').click()")
    assert driver.execute_script(rows) == 1 and "push the box" in _text(driver, "#list")
    driver.execute_script("document.getElementById('o-all').click()")
    box = driver.find_element("id", "f-text")
    box.send_keys("THINK look")
    assert driver.execute_script(rows) == 1
    box.send_keys(" nowhere")
    assert driver.execute_script(rows) == 0 and "No episode" in _text(driver, "#list")
    box.clear()
    box.send_keys(" ")
    assert driver.execute_script(rows) == 2


def test_episodes_are_found_by_kind_failures_first(driver: Any) -> None:
    from selenium.webdriver.support.ui import Select

    _show_viewer(driver)
    marks = "return [...document.querySelectorAll('#list .mark')].map(m => m.className)"
    assert driver.execute_script(marks) == ["mark no", "mark yes"]
    kind = Select(driver.find_element("id", "f-kind"))
    assert [o.text for o in kind.options] == ["all", "hostile tasks", "pushes"]
    kind.select_by_value("pushes")
    assert driver.execute_script(marks) == ["mark yes"]
    kind.select_by_value("")
    assert len(driver.execute_script(marks)) == 2


def test_a_step_is_a_link_and_its_prompt_is_copied_to_the_letter(driver: Any, report: str) -> None:
    copied = "return window.copied"
    stub = (
        "Object.defineProperty(navigator, 'clipboard', {configurable: true, value: "
        "{writeText: async (text) => { window.copied = text; }}})"
    )
    driver.execute_script(stub)
    _show_viewer(driver)
    driver.find_elements("css selector", "#list .row")[1].click()
    _press(driver, "END")
    driver.execute_script("document.querySelector('details.prompt').open = true")
    driver.execute_script("document.querySelector('details.prompt .copy').click()")
    assert json.loads(driver.execute_script(copied)) == MESSAGES[:4]
    driver.execute_script("document.getElementById('p-link').click()")
    link = driver.execute_script(copied)
    assert link == f"{report}#episode=1&step=2"
    driver.get("about:blank")
    driver.get(link)
    assert "step 3 of 3" in _text(driver, "#step") and "push the box" in _text(driver, "#goal")


def test_the_copy_button_works_where_the_clipboard_is_refused(driver: Any) -> None:
    driver.execute_script(
        "Object.defineProperty(navigator, 'clipboard', {configurable: true, value: "
        "{writeText: async () => { throw new Error('refused'); }}});"
        "document.execCommand = (what) => { window.copied = "
        "document.activeElement.value; return what === 'copy'; };"
        "document.getElementById('p-link').click()"
    )
    from selenium.webdriver.support.ui import WebDriverWait

    said = WebDriverWait(driver, 10).until(
        lambda d: d.execute_script("return window.copied")  # it asks the clipboard first
    )
    assert said.startswith("file:") and "#episode=" in said


@pytest.mark.parametrize("width", [380, 1280])
def test_nothing_is_wider_than_the_window(driver: Any, many: str, report: str, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for page in (report, many):
            driver.get(page)
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            # What charts say is read without a glass: every text is at least 9 pixels high.
            small = driver.execute_script(
                "return [...document.querySelectorAll('svg.hc')].filter(s => "
                "s.getBoundingClientRect().width > 0).map(s => 12 * "
                "s.getBoundingClientRect().width / s.viewBox.baseVal.width)"
            )
            assert small and min(small) >= 9
            # Nor is anything of the filters or of the switch cut off.
            beyond = driver.execute_script(
                "return [...document.querySelectorAll('.filters select, .filters input, "
                ".switch label, .icon, .key, .copy')].filter(e => e.offsetParent && "
                "(e.getBoundingClientRect().right > innerWidth + 0.5 || "
                "e.getBoundingClientRect().left < -0.5)).map(e => e.outerHTML.slice(0, 90))"
            )
            assert beyond == []
            tables = driver.execute_script(
                "return [...document.querySelectorAll(arguments[0])].map(t => "
                "t.getBoundingClientRect().width - t.parentNode.clientWidth)",
                "table.settings" if width < 1280 else "table.settings, table.results",
            )
            assert all(more <= 1 for more in tables)
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.get(report)


def test_axis_theme_and_what_charts_tell_answer(driver: Any) -> None:
    seen = "return getComputedStyle(document.querySelector('.plot[data-by=%s]')).display"
    driver.execute_script("document.getElementById('by-tokens').click()")
    assert driver.execute_script(seen % "env_steps") == "none"
    assert driver.execute_script(seen % "tokens") != "none"
    driver.execute_script("document.getElementById('by-seconds').click()")
    assert driver.execute_script(seen % "tokens") == "none"
    assert driver.execute_script(seen % "seconds") != "none"
    driver.execute_script("document.getElementById('by-env_steps').click()")
    assert driver.execute_script(seen % "tokens") == "none"
    paper = "return getComputedStyle(document.body).backgroundColor"
    before = driver.execute_script(paper)
    driver.execute_script("document.getElementById('theme').click()")
    assert driver.execute_script(paper) != before
    # The charts change with the page.
    ink = "return getComputedStyle(document.querySelector('svg.hc text')).fill"
    dark = driver.execute_script(ink)
    driver.execute_script("document.getElementById('theme').click()")
    assert driver.execute_script(paper) == before and driver.execute_script(ink) != dark
    # What a pointer over the right end of the curve is told, without a script.
    told = driver.execute_script(
        "const svg = document.querySelector('.wide [data-by=env_steps] svg');"
        "svg.scrollIntoView({behavior: 'instant', block: 'center'});"
        "const box = svg.getBoundingClientRect();"
        "return document.elementFromPoint(box.right - 30, box.top + 40).textContent"
    )
    assert told == "500\nHiMAC: 50%"
    # A press on a name hides what is drawn of it.
    line = (
        "return getComputedStyle(document.querySelector('.wide [data-by=env_steps] .hc-series'))"
        ".display"
    )
    assert driver.execute_script(line) != "none"
    driver.execute_script("document.querySelector('.key').click()")
    assert driver.execute_script(line) == "none"
    driver.execute_script("document.querySelector('.key').click()")
    assert driver.execute_script(line) != "none"
    assert [x for x in driver.get_log("browser") if x["level"] == "SEVERE"] == []
