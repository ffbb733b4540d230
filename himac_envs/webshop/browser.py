"""The shop through a real browser: headless Chromium on a site of its own."""

from __future__ import annotations

import io
import os
import shutil
import signal
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from himac_envs.errors import MissingDependencyError
from himac_envs.task import Outcome
from himac_envs.webshop.env import WebShopEnv
from himac_envs.webshop.errors import BrowserError
from himac_envs.webshop.goals import Goal
from himac_envs.webshop.html import Links, ReadPage, read_page
from himac_envs.webshop.pages import plain_text, rich_text
from himac_envs.webshop.session import Session, parse_action
from himac_envs.webshop.site import Site, SiteThread

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_INSTALL = (
    "install Chromium and its driver (Debian and Ubuntu: `apt-get install chromium "
    "chromium-driver`), or set HIMAC_CHROME and HIMAC_CHROMEDRIVER to their paths"
)
#: Seconds that a page may take to load.
_PATIENCE = 30


def find_browser() -> tuple[str, str]:
    """Return the paths of Chromium and of its driver.

    Raises:
        BrowserError: One of them is not installed; the message tells how to get it.
    """
    browser = os.environ.get("HIMAC_CHROME") or next(filter(None, map(shutil.which, _BROWSERS)), "")
    driver = os.environ.get("HIMAC_CHROMEDRIVER") or shutil.which("chromedriver") or ""
    for what, path in (("no Chromium", browser), ("no chromedriver", driver)):
        if not path or not os.path.isfile(path):
            raise BrowserError(f"{what} found: {_INSTALL}")
    return browser, driver


class Browser:
    """A headless Chromium, closed for certain: with its driver and every process of both.

    Args:
        width: Width of the pages and their screenshots, in pixels.
        height: Their height.

    Raises:
        BrowserError: It is not installed or does not start.
        MissingDependencyError: selenium is not installed.
    """

    def __init__(self, width: int, height: int) -> None:
        try:
            from selenium import webdriver
            from selenium.common.exceptions import WebDriverException
            from selenium.webdriver.chrome.service import Service
        except ImportError as error:
            raise MissingDependencyError(
                "selenium", "the browser environment", "browser"
            ) from error
        binary, driver = find_browser()
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for argument in (
            "--headless=new",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-breakpad",
            "--no-first-run",
            "--mute-audio",
            "--renderer-process-limit=1",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            f"--window-size={width},{height}",
        ):
            options.add_argument(argument)
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # Chromium refuses to start as root with it
        # A session of its own: everything that the driver starts can be ended together.
        service = Service(executable_path=driver, popen_kw={"start_new_session": True})
        try:
            self.driver = webdriver.Chrome(options=options, service=service)
            self.driver.set_page_load_timeout(_PATIENCE)
            self.driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
            )
        except WebDriverException as error:
            _end(service.process)
            raise BrowserError(f"Chromium does not start: {error.msg}; {_INSTALL}") from error
        self.failure: type[Exception] = WebDriverException
        self._finalizer = weakref.finalize(self, _close, self.driver, service.process)

    def close(self) -> None:
        """End the browser; harmless when called again, or after it was killed."""
        self._finalizer()


def _close(driver: Any, process: Any) -> None:
    with suppress(Exception):  # a killed browser answers in many ways; what counts is below
        driver.quit()
    _end(process)


def _end(process: Any) -> None:
    """Kill what is left of the driver's session and reap the driver."""
    if process is None:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(Exception):
        process.wait(timeout=10)


class WebShopBrowserEnv(WebShopEnv):
    """The same shop through headless Chromium.

    ## Description
    Starts a site on a free port of this machine and a Chromium that shops there. What is observed,
    what can be clicked and the reward are read from the browser's page; one trajectory gives the
    same texts, actions and rewards as `WebShopEnv`.

    ## Observation Space
    As `WebShopEnv`'s; with ``observation="screenshot"`` also ``image``, a picture of the page,
    (height, width, 3) uint8, beside the plain text.

    ## Action Space
    As `WebShopEnv`'s. A search on a page without a search bar goes to the result page's address.

    ## Information
    As `WebShopEnv`'s; ``browser_url`` is the address in the browser, ``url`` the text
    environment's for the same page.

    ## Arguments
    Those of `WebShopEnv`, and:

    Args:
        observation: "text", "text_rich", "html", "url" or "screenshot".
        width: The page's width in pixels.
        height: Its height.
        port: The site's port; 0 takes a free one.

    It can be neither pickled nor copied; `snapshot` and `restore` work.

    ## Version History
    - v0: first version.
    - v0, splits mended: as those of `WebShopEnv`.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": 4,
    }

    def __init__(
        self,
        *,
        observation: str = "text",
        width: int = 1024,
        height: int = 768,
        port: int = 0,
        **kwargs: Any,
    ) -> None:
        pictures = observation == "screenshot"
        super().__init__(observation="text" if pictures else observation, **kwargs)  # type: ignore[arg-type]
        if min(width, height) < 100:
            raise ValueError(f"width={width}, height={height}: a page needs 100 pixels or more")
        self._size = (int(width), int(height))
        self._port = int(port)
        if pictures:
            shape = (int(height), int(width), 3)
            self.observation_space["image"] = spaces.Box(0, 255, shape, np.uint8)
        self._site: SiteThread | None = None
        self._browser: Browser | None = None
        self._page: ReadPage | None = None
        self._source = ""
        self._browser_url = ""

    # ---- the browser -----------------------------------------------------------------------
    def _driver(self) -> Any:
        """Return the driver, starting the site and the browser where they are not running."""
        if self._site is None:
            # Drawn pictures: a page must not wait for other people's servers.
            site = Site(
                self._shop, self.goals, self._score_goal, self._rows, people=False, remote=False
            )
            self._site = SiteThread(site, self._port)
        if self._browser is None:
            self._browser = Browser(*self._size)
        return self._browser.driver

    def _score_goal(
        self, goal: Goal, row: int, options: Mapping[str, str]
    ) -> tuple[float, dict[str, Any]]:
        return self._score(row, options)

    def _rows(self, name: str, keywords: list[str]) -> tuple[int, ...]:
        # The list that the session holds: a search for <r> must not be drawn twice.
        state = self._now().state
        if state.keywords == tuple(keywords) and state.page == "search_results":
            return state.results
        return self.catalogue.search(keywords, self.np_random)

    def _start(self, task_id: str) -> Outcome:
        outcome = super()._start(task_id)
        return self._seen(outcome)

    def _act(self, command: str) -> Outcome:
        name, argument = parse_action(command)
        page = self._page
        target = (argument or "").lower()
        if page is None:
            raise BrowserError("the browser has no page: call reset() first")
        clickable = name == "click" and target != "search" and target in page.clickables
        searched = name == "search" and argument is not None
        before = self._now().state
        outcome = super()._act(command)
        if outcome.invalid == (clickable or searched):
            # The page offers what the session does not, or the reverse: never to be passed over.
            self._now().state = before
            raise BrowserError(f"the page in the browser and the session disagree on {command!r}")
        return self._seen(outcome, target if clickable else None, searched)

    def _seen(
        self, outcome: Outcome, clicked: str | None = None, searched: bool = False
    ) -> Outcome:
        """Bring the browser to the session's page and answer what it shows."""
        session = self._now()
        try:
            driver = self._driver()
            if clicked is not None:
                self._click(driver, clicked)
            elif searched:
                self._search(driver, session)
            elif not outcome.invalid:
                self._go(driver, session)
        except BrowserError:
            raise
        except Exception as error:
            failure = self._browser.failure if self._browser else OSError
            if not isinstance(error, (failure, OSError)):
                raise
            self._drop_browser()
            if not outcome.invalid and clicked is None and not searched:
                return self._seen(outcome)  # a reset: start another browser
            raise BrowserError(
                f"the browser has gone ({type(error).__name__}); reset() starts another"
            ) from error
        return self._answer(outcome)

    def _answer(self, outcome: Outcome) -> Outcome:
        page, session = self._page, self._now()
        assert page is not None
        shown = self._look()
        if any(self._keep) and outcome.text.endswith(self._plain(session)):
            shown = outcome.text
        extra = {
            **outcome.extra,
            "available_actions": {
                "has_search_bar": page.has_search_bar,
                "clickables": list(page.clickables),
            },
            "browser_url": self._browser_url,
        }
        reward = outcome.reward
        if session.state.page == "done" and outcome.terminated:
            reward = self._shown_reward(page)
        return replace(outcome, text=shown, reward=reward, extra=extra)

    def _plain(self, session: Session) -> str:
        return session.text()

    def _shown_reward(self, page: ReadPage) -> float:
        texts = [node.text for node in page.nodes]
        return float(texts[texts.index("Your score (min 0.0, max 1.0)") + 1])

    def _address(self, session: Session) -> str:
        assert self._site is not None
        return self._site.url + Links.of(session).of_state(session)

    def _click(self, driver: Any, what: str) -> None:
        """Click the element whose text, or whose option value, is meant."""
        if not driver.execute_script(_CLICK, what):
            raise BrowserError(f"nothing to click for {what!r} on {driver.current_url}")
        self._read_the_next_page(driver)

    def _search(self, driver: Any, session: Session) -> None:
        assert self._page is not None
        words = " ".join(session.state.keywords or ())
        if not self._page.has_search_bar or not words.isprintable():
            # No bar, or signs that a text field would change.
            self._go(driver, session)
            return
        driver.execute_script(
            "window.himacOld = true;"
            "const bar = document.getElementById('search_input');"
            "bar.value = arguments[0]; bar.form.requestSubmit();",
            words,
        )
        self._read_the_next_page(driver)

    def _go(self, driver: Any, session: Session) -> None:
        driver.execute_script("window.himacOld = true;")
        driver.get(self._address(session))
        self._read_the_next_page(driver)

    def _read_the_next_page(self, driver: Any) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        # Between two pages the browser shows an empty document: only one of the site's own counts.
        self._source, self._browser_url = WebDriverWait(
            driver, _PATIENCE, poll_frequency=0.02
        ).until(lambda d: d.execute_script(_READ), f"the page did not change within {_PATIENCE} s")
        self._page = read_page(self._source)

    def _drop_browser(self) -> None:
        if self._browser is not None:
            self._browser.close()
        self._browser = None
        self._page = None

    # ---- what is seen ----------------------------------------------------------------------
    def _look(self) -> str:
        session = self._now()
        if self._page is None:
            return super()._look()
        if self.observation_mode == "text":
            return plain_text(self._page.nodes)
        if self.observation_mode == "text_rich":
            return rich_text(self._page.nodes, session.url, session.state.visited)
        return session.url if self.observation_mode == "url" else self._source

    def _frame(self) -> NDArray[np.uint8]:
        try:
            from PIL import Image
        except ImportError as error:
            raise MissingDependencyError("pillow", "screenshots", "browser") from error
        png = self._driver().get_screenshot_as_png()
        picture = Image.open(io.BytesIO(png)).convert("RGB")
        if picture.size != self._size:
            picture = picture.crop((0, 0, *self._size))
        return np.asarray(picture, dtype=np.uint8).copy()

    # ---- state -----------------------------------------------------------------------------
    def _load(self, state: Any) -> None:
        super()._load(state)
        self._seen(Outcome(text=""))

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(
            "a browser cannot be pickled or copied: use HiMAC-WebShop-Flat-v0 (the same shop in "
            "text), or snapshot() and restore()"
        )

    def __deepcopy__(self, memo: Any) -> WebShopBrowserEnv:
        self.__getstate__()
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the browser and the site."""
        self._drop_browser()
        if self._site is not None:
            self._site.close()
            self._site = None
        super().close()


#: Clicks what a text means: an option's value (the last one, as in the original), else a product
#: link or the last button.
_CLICK = """
const wanted = arguments[0];
const all = s => [...document.querySelectorAll(s)];
const named = ["buy now", "back to search", "next >", "< prev",
               "description", "features", "reviews", "attributes"].includes(wanted);
const radio = named ? undefined : all("input[type=radio]").filter(r => r.value === wanted).pop();
const found = radio || [...all(".btn"), ...all(".product-link")]
  .filter(e => e.textContent.toLowerCase() === wanted).pop();
if (!found) return false;
window.himacOld = true;
found.click();
return true;
"""

#: The page and its address, once it has taken the place of the one before.
_READ = """
if (window.himacOld !== undefined || document.readyState !== "complete") return null;
if (document.querySelector("main.container") === null) return null;
return [document.documentElement.outerHTML, window.location.href];
"""
