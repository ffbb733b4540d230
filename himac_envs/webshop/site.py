"""The shop as a web site, for people and for agents that drive a browser.

The whole state of a shopper stands in the address, as in the original; the server keeps nothing of
anyone. Every asset is local.
"""

from __future__ import annotations

import ast
import errno
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from himac_envs.errors import MissingDependencyError
from himac_envs.webshop import nouns as titles
from himac_envs.webshop.catalogue import Catalogue
from himac_envs.webshop.data import catalogue_for
from himac_envs.webshop.errors import BrowserError, CatalogueError
from himac_envs.webshop.goals import Goal, GoalKind, Goals, shared_goals
from himac_envs.webshop.html import Links, Person, drawing, from_segment, render
from himac_envs.webshop.pages import SUB_PAGES
from himac_envs.webshop.reward import purchase_reward
from himac_envs.webshop.session import Session, Shop, State, shared_shop

if TYPE_CHECKING:
    from flask import Flask

Score = Callable[[Goal, int, Mapping[str, str]], tuple[float, dict[str, Any]]]
Search = Callable[[str, list[str]], tuple[int, ...]]


def _flask() -> Any:
    try:
        import flask
    except ImportError as error:
        raise MissingDependencyError("flask", "WebShop's site", "webshop") from error
    return flask


@dataclass(frozen=True)
class Site:
    """What the site shows.

    Attributes:
        shop: The pages.
        goals: The goals.
        score: Goal, row and options -> reward and its parts.
        search: Session id and keywords -> rows.
        people: Whether a person shops: a bar leads from one instruction to the next, and the last
            page tells how it went. Else all pages are those that agents of the benchmark read.
        remote: Whether products' own pictures are shown, else drawn ones.
        seed: Chooses the goals of sessions whose id names none.
    """

    shop: Shop
    goals: Goals
    score: Score
    search: Search
    people: bool = True
    remote: bool = True
    seed: int = 0

    def goal(self, name: str) -> Goal:
        """Return a session's goal.

        "fixed_7", as in the original, and "7" are the goal of that index; any other id draws one
        by weight, always the same for the same id.
        """
        number = name.rpartition("_")[2] if "fixed" in name else name
        if number.isascii() and number.isdecimal() and int(number) < len(self.goals):
            return self.goals[int(number)]
        seed = random.Random(f"{self.seed}:{name}").getrandbits(64)
        return self.goals[self.goals.draw(np.random.default_rng(seed))]

    def session(self, name: str, state: State) -> Session:
        """Return a session in a state."""
        goal = self.goal(name)
        session = Session(self.shop, goal.instruction_text, name, np.random.default_rng(0))
        session.state = state
        return session

    def show(self, name: str, state: State, parts: Mapping[str, Any] | None = None) -> str:
        """Return a page; after a purchase with the parts of its reward."""
        person = None
        if self.people:
            goal = self.goal(name)
            person = Person(goal.index, len(self.goals), goal if parts is not None else None, parts)
        return render(self.session(name, state), person, self.remote)


def make_site(
    *,
    data: str | None = None,
    goals: GoalKind | None = None,
    num_products: int | None = None,
    load_seed: int = 0,
    show_attrs: bool = False,
    seed: int = 0,
    people: bool = True,
) -> Site:
    """Return the site over a data set.

    Args:
        data: As the environment's.
        goals: "human" or "synthetic"; None: human ones, as the original's site, where the data has
            any.
        num_products: Only so many products.
        load_seed: Fixes prices and price limits.
        show_attrs: Whether products have an Attributes page.
        seed: Chooses the goals of sessions whose id names none.
        people: See `Site`.
    """
    catalogue = catalogue_for(data, num_products)
    if goals is None:
        goals = "human" if len(catalogue.columns["human_row"]) else "synthetic"
    drawn = shared_goals(catalogue, goals, load_seed, 233)
    rng, lock = np.random.default_rng(seed), threading.Lock()

    def score(goal: Goal, row: int, options: Mapping[str, str]) -> tuple[float, dict[str, Any]]:
        return purchase_reward(
            catalogue.product(row),
            goal,
            drawn.price(row),
            options,
            bought_nouns=_nouns(catalogue, row),
            goal_nouns=_nouns(catalogue, drawn.row(goal.index)),
        )

    def search(name: str, keywords: list[str]) -> tuple[int, ...]:
        with lock:
            return catalogue.search(keywords, rng)

    return Site(shared_shop(catalogue, show_attrs), drawn, score, search, people, seed=seed)


def _nouns(catalogue: Catalogue, row: int) -> tuple[str, ...]:
    stored = catalogue.nouns(row)
    return titles.builtin_nouns(catalogue.product(row).title) if stored is None else stored


class _BadAddress(ValueError):
    """An address that no link of the site has."""


def _keywords(text: str) -> tuple[str, ...]:
    """Read a query from an address: a Python list, as the original writes it, or plain words."""
    text = from_segment(text)
    if not text.startswith("["):
        return (text,)
    found = _literal(text)
    if not isinstance(found, list) or not found or not all(isinstance(w, str) for w in found):
        raise _BadAddress(f"not a list of words: {text[:80]!r}")
    return tuple(found)


def _options(text: str) -> dict[str, str]:
    found = _literal(from_segment(text))
    if not isinstance(found, dict) or not all(
        isinstance(x, str) for kv in found.items() for x in kv
    ):
        raise _BadAddress(f"not a table of options: {text[:80]!r}")
    return found


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise _BadAddress(f"unreadable: {text[:80]!r}") from error


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise _BadAddress(f"not a page number: {text[:80]!r}") from error


def create_app(site: Site) -> Flask:
    """Return the Flask application of a site."""
    flask = _flask()
    from werkzeug.exceptions import NotFound

    app: Flask = flask.Flask("himac_envs.webshop", static_folder="static", template_folder=None)

    def row_of(asin: str) -> int:
        row = site.shop.catalogue.row_of(from_segment(asin))
        if row is None:
            raise NotFound(f"there is no product {from_segment(asin)!r}")
        return row

    def results(name: str, words: str, page: str) -> State:
        keywords, number = _keywords(words), _number(page)
        rows = site.search(name, list(keywords))
        return State(page="search_results", keywords=keywords, number=number, results=rows)

    def item(asin: str, words: str, page: str, chosen: str, sub: str = "") -> State:
        return State(
            page="item_sub_page" if sub else "item_page",
            keywords=_keywords(words),
            number=_number(page),
            row=row_of(asin),
            options=_options(chosen),
            sub=sub,
        )

    @app.route("/")
    def home() -> Any:
        return flask.redirect("/0" if site.people else "/abc")

    @app.route("/<name>", methods=["GET", "POST"])
    def index(name: str) -> Any:
        name = from_segment(name)
        query = flask.request.form.get("search_query")
        if flask.request.method == "POST" and query:
            words = tuple(query.lower().split(" "))
            return flask.redirect(Links(name, words).results(1))
        return site.show(name, State())

    @app.route("/search_results/<name>/<words>/<page>", methods=["GET", "POST"])
    def search_results(name: str, words: str, page: str) -> Any:
        return site.show(from_segment(name), results(name, words, page))

    @app.route("/item_page/<name>/<asin>/<words>/<page>/<chosen>", methods=["GET", "POST"])
    def item_page(name: str, asin: str, words: str, page: str, chosen: str) -> Any:
        return site.show(from_segment(name), item(asin, words, page, chosen))

    @app.route(
        "/item_sub_page/<name>/<asin>/<words>/<page>/<sub>/<chosen>", methods=["GET", "POST"]
    )
    def item_sub_page(name: str, asin: str, words: str, page: str, sub: str, chosen: str) -> Any:
        if sub not in SUB_PAGES:
            raise NotFound(f"no page {sub!r}: there are {', '.join(SUB_PAGES)}")
        return site.show(from_segment(name), item(asin, words, page, chosen, sub))

    @app.route("/done/<name>/<asin>/<chosen>", methods=["GET", "POST"])
    def done(name: str, asin: str, chosen: str) -> Any:
        name, row, options = from_segment(name), row_of(asin), _options(chosen)
        goal = site.goal(name)
        reward, parts = site.score(goal, row, options)
        return site.show(name, State(page="done", row=row, options=options, reward=reward), parts)

    @app.route("/drawing/<asin>.svg")
    def picture(asin: str) -> Any:
        product = site.shop.catalogue.product(row_of(asin))
        response = flask.Response(drawing(product.asin, product.title), mimetype="image/svg+xml")
        response.headers["Cache-Control"] = "max-age=86400"
        return response

    @app.errorhandler(_BadAddress)
    def bad_address(error: _BadAddress) -> Any:
        return flask.Response(
            f"This address is not one of the shop's: {error}", 400, mimetype="text/plain"
        )

    return app


def serve(
    *, host: str = "127.0.0.1", port: int = 3000, threads: int = 4, **site_options: Any
) -> None:
    """Serve the shop until interrupted.

    Args:
        host: The address to listen on.
        port: The port; the original's is 3000.
        threads: Requests served at a time.
        **site_options: As `make_site`.

    Raises:
        BrowserError: The port is in use.
        MissingDependencyError: flask or waitress is not installed.
    """
    try:
        import waitress
    except ImportError as error:
        raise MissingDependencyError("waitress", "WebShop's site", "webshop") from error
    app = create_app(make_site(**site_options))
    try:
        server = waitress.create_server(app, host=host, port=port, threads=threads)
    except OSError as error:
        raise _port_error(host, port, error) from error
    print(f"WebShop at http://{host}:{port}/ (stop with Ctrl-C)", flush=True)
    try:
        server.run()
    finally:
        server.close()


def _port_error(host: str, port: int, error: OSError) -> BrowserError:
    if error.errno == errno.EADDRINUSE:
        why = "is in use: stop the program that has it, or choose another with --port"
    else:
        why = f"cannot be listened on: {error}"
    return BrowserError(f"port {port} of {host} {why}")


class SiteThread:
    """A site on a port of its own, served by a thread of this process until `close`.

    Args:
        site: The site.
        port: The port; 0 takes a free one.
    """

    def __init__(self, site: Site, port: int = 0) -> None:
        _flask()
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, type: str, message: str, *args: Any) -> None:
                """Say nothing: every page of an agent would be a line."""

        host = "127.0.0.1"
        try:
            # Werkzeug's server, unlike waitress's, can be stopped from another thread and frees
            # its port at once.
            self._server = make_server(
                host, port, create_app(site), threaded=True, request_handler=Quiet
            )
        except OSError as error:
            raise _port_error(host, port, error) from error
        except SystemExit as error:  # werkzeug's answer to a port in use
            raise _port_error(host, port, OSError(errno.EADDRINUSE, "in use")) from error
        self.url = f"http://{host}:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="webshop-site", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving and free the port; harmless when called again."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout=10)
        self._server.server_close()


__all__ = ["CatalogueError", "Site", "SiteThread", "create_app", "make_site", "serve"]
