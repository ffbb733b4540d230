"""The site: built strictly, loads nothing from elsewhere, fits a wide window and a phone."""

from __future__ import annotations

import html.parser
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mkdocs", reason="no mkdocs here: `make docs-test` has an environment for it")
pytest.importorskip("mkdocstrings")

from himac_envs import registry
from himac_envs.webshop.browser import Browser, find_browser
from himac_envs.webshop.errors import BrowserError

ROOT = Path(__file__).resolve().parents[2]


class _Page(html.parser.HTMLParser):
    """Collects what a page loads, where it leads, its anchors, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if "src" in found and tag != "a":
            self.loads.append(str(found["src"]))
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.loads.append(str(found.get("href")))
        if tag == "a":
            self.links.add(str(found.get("href")))
        if found.get("id"):
            self.ids.add(str(found["id"]))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=ROOT,
        env={**os.environ, "HIMAC_HOME": str(target / "no-data-here")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return target


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for path in pages:
        outward = [load for load in _read(path).loads if "//" in load]
        assert not outward, f"{path.name}: {outward}"
    for path in site.rglob("*.css"):
        assert "url(http" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("env_id", registry.env_cards())
def test_an_id_has_a_page_with_an_episode(site: Path, env_id: str) -> None:
    page = _read(site / "environments" / f"{env_id}.html")
    text = "".join(page.text)
    assert "An expert plays a task" in text and "Result: won after" in text
    assert {"an-episode", "description", "rewards", "episode-end"} <= page.ids or (
        # Variants name the class that says the rest.
        "Browser" in env_id and "description" in page.ids
    )
    if registry.env_cards()[env_id].kind == "hierarchical":
        assert "BLUEPRINT" in text and "sub-goal ended: " in text
    if registry.env_cards()[env_id].benchmark == "sokoban":
        assert (site / "environments" / f"{env_id}.png").read_bytes()[1:4] == b"PNG"


def test_the_reference_shows_signatures_and_settings(site: Path) -> None:
    agents = _read(site / "reference" / "himac_agents.html")
    assert {"himac_agents.Trainer", "himac_agents.evaluate"} <= agents.ids
    envs = _read(site / "reference" / "himac_envs.html")
    assert {"himac_envs.TaskEnv", "himac_envs.TaskEnv.snapshot"} <= envs.ids
    text = "".join(_read(site / "reference" / "settings.html").text)
    assert "executor_advantage" in text and "lora_rank" in text
    text = "".join(_read(site / "reference" / "commands.html").text)
    assert "himac eval" in text and "--checkpoint-every" in text


def test_links_to_examples_lead_to_the_sites_copies(site: Path) -> None:
    links = {
        "index": "tutorials/index.html#examples",
        "extending": "examples/own_env.py",
        "tutorials/own-environment": "../examples/own_env.py",
        "tutorials/index": "notebook.html",
    }
    for name, link in links.items():
        page = site / f"{name}.html"
        assert link in _read(page).links
        assert (page.parent / link.partition("#")[0]).is_file()
    copy = (site / "examples" / "own_env.py").read_text(encoding="utf-8")
    assert copy == (ROOT / "examples" / "own_env.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=[1280, 380])
def driver(request: pytest.FixtureRequest) -> Iterator[Any]:
    try:
        find_browser()
    except BrowserError as error:
        pytest.skip(f"no browser here: {error}")
    browser = Browser(request.param, 900)
    # Headless windows are wider than a phone; what is laid out is not.
    browser.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": request.param, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    yield browser.driver
    browser.close()


@pytest.mark.parametrize(
    "page",
    ["index", "learning", "results", "environments/HiMAC-ALFWorld-v0", "reference/himac_agents",
     "reference/settings", "tutorials/own-agent"],
)  # fmt: skip
def test_pages_fit_the_window_and_run_without_errors(driver: Any, site: Path, page: str) -> None:
    driver.get((site / f"{page}.html").as_uri())
    wide, window = driver.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= window
    errors = [x for x in driver.get_log("browser") if x["level"] == "SEVERE"]
    assert errors == []
    loaded = driver.execute_script(
        "return performance.getEntriesByType('resource').map(r => r.name)"
    )
    assert all(name.startswith("file:") for name in loaded)


def test_the_search_finds_without_a_server(driver: Any, site: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get((site / "glossary.html").as_uri())
    # On a phone the field opens with a press on the glass.
    driver.execute_script("document.querySelector('#__search').click()")
    field = driver.find_element("css selector", ".md-search__input")
    wait = WebDriverWait(driver, 60)  # a guard: the index is read first
    wait.until(lambda d: field.is_displayed())
    field.send_keys("snapshot")
    titles = (
        "return [...document.querySelectorAll('.md-search-result__item h1')].map(h => h.innerText)"
    )
    found = wait.until(lambda d: d.execute_script(titles))
    assert any("guarantees" in title or "Python" in title for title in found)
