"""WebShop as a Gymnasium environment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from himac_envs.blueprint import Blueprint
from himac_envs.errors import UnknownTaskError
from himac_envs.task import Info, Observation, Outcome, TaskEnv
from himac_envs.webshop import nouns as titles
from himac_envs.webshop.catalogue import Catalogue
from himac_envs.webshop.data import catalogue_for
from himac_envs.webshop.features import ImageFeatures, shared_features
from himac_envs.webshop.goals import SHUFFLE_SEED, Goal, GoalKind, Goals, shared_goals
from himac_envs.webshop.oracle import Expert
from himac_envs.webshop.pages import SEPARATOR
from himac_envs.webshop.reward import purchase_reward
from himac_envs.webshop.session import Session, shared_shop
from himac_envs.webshop.splits import GoalIds, goal_ids

ObservationMode = Literal["text", "text_rich", "html", "url"]
OBSERVATIONS = ("text", "text_rich", "html", "url")


class WebShopEnv(TaskEnv):
    """An online shop: find the product that an instruction describes, choose its options, buy it.

    ## Description
    The benchmark of Yao et al. (2022, arXiv:2207.01206): a shop of real products with a search
    engine, result pages, product pages with options, and one purchase. Observations, clickable
    elements, search ranking and reward are the original's; the search engine and the pages are
    rebuilt in Python and NumPy, without Java, HTML or a web server.

    ## Action Space
    ``FreeText``: ``search[keywords]`` or ``click[what]``, where ``what`` is one of
    ``info["available_actions"]["clickables"]``. Anything else does nothing and costs a step.

    ## Observation Space
    ``Dict(text=FreeText)``. ``observation`` chooses the form: "text" (visible strings, joined by
    " [SEP] "), "text_rich" (one string a line, buttons marked), "html" or "url".

    ## Starting State
    The page with the search bar and the instruction of the goal that ``task_id`` numbers.

    ## Rewards
    0 until a product is bought, then the benchmark's score in [0, 1]: the share of wanted
    attributes, options and price that were met, times how well the kind of product fits.

    ## Episode End
    Terminated by a purchase, truncated after ``max_steps`` (15) actions.

    ## Information
    Besides the suite's keys: ``available_actions`` (``has_search_bar``, ``clickables``), ``url``,
    after a purchase ``reward_info`` with every part of the reward, and at reset ``nouns``, where
    the nouns of titles come from ("builtin" is an approximation of the original's model).
    ``admissible`` lists the clicks that do something, and, where there is a search bar, a search
    for the instruction's words.

    ## Arguments
    Besides those of `TaskEnv`:

    Args:
        split: "train" (goals from 1,500 on), "valid" (500 to 1,499), "test" (0 to 499) or "all". Of
            a generated shop, "train" and "valid" leave out what is told in a held-out goal's words.
        observation: The form of ``text``.
        goals: "synthetic" or "human".
        num_products: Only the first so many rows of the product file (None: all).
        load_seed: Fixes the prices drawn and the price limits.
        shuffle_seed: Fixes the order of the goals; 233 is the original's.
        goal_filter: Keeps the goals for which it returns True (index, goal).
        goal_limit: So many goals, drawn by weight (-1: all).
        splits: "webshop", "verl-agent" or "ragen"; see `himac_envs.webshop.splits.SCHEMES`.
        sampling: How a reset without ``task_id`` draws: "uniform", or "weight" as the original.
        show_attrs: Whether products have an Attributes page.
        num_prev_obs: So many earlier observations stand before the present one.
        num_prev_actions: So many earlier actions stand before it.
        session_prefix: Stands before the task id in addresses.
        title_nouns: A JSON file of title -> nouns, used instead of what the catalogue holds.
        image_features: A folder with ``feat_conv.pt`` and ``feat_ids.pt``; then `get_image` and
            ``info["image_features"]`` give the vector of the product's image.

    ## Version History
    - v0: first version, after princeton-nlp/WebShop 64fa2a5.
    - v0, splits mended: in a generated shop no instruction of `valid` or `test` stands in `train`,
      price limits left out (7% did). Ids name the same goals as before; `train` and `valid` have
      fewer of them.
    """

    default_max_steps: ClassVar[int] = 15

    def __init__(
        self,
        *,
        observation: ObservationMode = "text",
        goals: GoalKind = "synthetic",
        num_products: int | None = None,
        load_seed: int = 0,
        shuffle_seed: int = SHUFFLE_SEED,
        goal_filter: Callable[[int, Goal], bool] | None = None,
        goal_limit: int = -1,
        splits: str = "webshop",
        sampling: Literal["uniform", "weight"] = "uniform",
        show_attrs: bool = False,
        num_prev_obs: int = 0,
        num_prev_actions: int = 0,
        session_prefix: str = "",
        title_nouns: str | Path | None = None,
        image_features: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if observation not in OBSERVATIONS:
            raise ValueError(f"observation={observation!r}: choose one of {OBSERVATIONS}")
        if sampling not in ("uniform", "weight"):
            raise ValueError(f"sampling={sampling!r}: choose 'uniform' or 'weight'")
        self.observation_mode = observation
        self.catalogue: Catalogue = catalogue_for(self.data, num_products)
        self.data_name = self.catalogue.name
        if goal_filter is None and goal_limit == -1:
            self.goals = shared_goals(self.catalogue, goals, load_seed, shuffle_seed)
        else:
            self.goals = Goals(
                self.catalogue,
                goals,
                load_seed=load_seed,
                shuffle_seed=shuffle_seed,
                accept=goal_filter,
                limit=goal_limit,
            )
        self._splits = splits
        self._sampling = sampling
        self._shop = shared_shop(self.catalogue, show_attrs)
        self._prefix = session_prefix
        self._title_nouns = title_nouns
        self._nouns_from = self._find_nouns()
        self._features: ImageFeatures | None = None
        self._features_from = None if image_features is None else Path(image_features).resolve()
        if self._features_from is not None:
            self._features = shared_features(self._features_from)
        self._keep = (max(0, num_prev_obs), max(0, num_prev_actions))
        self._previous: tuple[deque[str], deque[str]] = (
            deque(maxlen=self._keep[0]),
            deque(maxlen=self._keep[1]),
        )
        self._session: Session | None = None
        self._goal_now: Goal | None = None
        self._expert: Expert | None = None
        self._bought: float | None = None
        self.task_ids()  # an unknown or empty split is an error now, not at the first reset

    # ---- tasks -----------------------------------------------------------------------------
    def task_ids(self, split: str | None = None) -> Sequence[str]:
        """Return the indices of a split's goals, as text, in their order."""
        where = f"{self.data_name} ({self.goals.kind} goals)"
        return goal_ids(self._splits, split or self.split, self.goals, where)

    @property
    def data_version(self) -> str:
        """The number of products, and of a generated shop the package's version."""
        return f"{super().data_version} {self.catalogue.size} products".strip()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Begin an episode; see `TaskEnv.reset`."""
        chosen = dict(options or {})
        if chosen.get("task_id") is None and self._splits == "ragen" and seed is not None:
            ids = self.task_ids()
            chosen["task_id"] = ids[seed % len(ids)]
        elif chosen.get("task_id") is None and self._sampling == "weight":
            chosen["task_id"] = self._weighted(seed)
        return super().reset(seed=seed, options=chosen)

    def _weighted(self, seed: int | None) -> str:
        rng = self.np_random if seed is None else np.random.default_rng(seed)
        ids = self.task_ids()
        while True:  # the original draws among all goals; goals of other splits are passed over
            drawn = str(self.goals.draw(rng))
            if drawn in ids:
                return drawn

    def _start(self, task_id: str) -> Outcome:
        everything = GoalIds(range(len(self.goals)))
        if task_id not in everything:
            raise UnknownTaskError(task_id, islice(everything, 2000), self.data_name)
        goal = self.goals[int(task_id)]
        self._goal_now = goal
        self._session = Session(
            self._shop, goal.instruction_text, self._prefix + task_id, self.np_random
        )
        self._expert = None
        self._bought = None
        text = self._look()
        self._previous = (deque([text], self._keep[0]), deque(maxlen=self._keep[1]))
        return Outcome(text=text, extra={**self._extra(), "nouns": self._nouns_from})

    def _act(self, command: str) -> Outcome:
        session = self._now()
        understood = session.act(command)
        extra: dict[str, Any] = {}
        reward, bought = 0.0, False
        if understood and session.state.page == "done":
            assert session.state.row is not None
            reward, parts = self._score(session.state.row, session.state.options)
            session.state = replace(session.state, reward=reward)
            self._bought, bought = reward, True
            extra["reward_info"] = parts
        text = self._look()
        shown = text
        if any(self._keep):
            shown = self._with_history(command, text)
        return Outcome(
            text=shown,
            reward=reward,
            terminated=bought,
            won=self._bought == 1.0,
            score=self._bought or 0.0,
            invalid=not understood,
            extra={**self._extra(), **extra},
        )

    def _with_history(self, command: str, text: str) -> str:
        """Put earlier actions and observations before the present one, oldest first."""
        observations, actions = self._previous
        actions.append(command)
        parts = [text]
        for back in range(1, 1 + max(self._keep)):
            if len(actions) >= back:
                parts.append(actions[-back])
            if len(observations) >= back:
                parts.append(observations[-back])
        observations.append(text)
        return SEPARATOR.join(reversed(parts))

    # ---- what is seen ----------------------------------------------------------------------
    def _look(self) -> str:
        session = self._now()
        if self.observation_mode == "text":
            return session.text()
        if self.observation_mode == "text_rich":
            return session.rich()
        return session.url if self.observation_mode == "url" else self.html()

    def html(self) -> str:
        """Return the page as HTML: the site's page, with the strings of the text observation."""
        from himac_envs.webshop.html import render

        return render(self._now())

    def _extra(self) -> dict[str, Any]:
        session = self._now()
        extra: dict[str, Any] = {
            "available_actions": {
                "has_search_bar": session.has_search_bar,
                "clickables": list(session.clickables()),
            },
            "url": session.url,
        }
        if self._features is not None:
            extra["image_features"] = self.get_image()
        return extra

    def get_available_actions(self) -> dict[str, Any]:
        """Return ``has_search_bar`` and ``clickables``, as the original's method does."""
        actions: dict[str, Any] = self._extra()["available_actions"]
        return actions

    def get_image(self) -> NDArray[np.float32]:
        """Return the vector of the open product's image, [512] float32; zeros where none is shown.

        Raises:
            HiMACError: ``image_features`` was not given.
        """
        if self._features is None:
            from himac_envs.errors import HiMACError

            raise HiMACError("no image features: pass image_features=FOLDER to the environment")
        state = self._now().state
        shown = state.page == "item_page" and state.row is not None
        return self._features.of(self.catalogue.product(state.row or 0).image if shown else None)

    @property
    def instruction_text(self) -> str:
        """The instruction as the original's attribute shows it."""
        return f"Instruction: {self._goal()}"

    @property
    def task_type(self) -> str:
        """The department of the goal's product ("beauty", "fashion", ...)."""
        return "" if self._goal_now is None else self._goal_now.category

    def _admissible(self) -> list[str]:
        session = self._now()
        if session.has_search_bar:
            words = self._goal().partition(", and price lower than")[0]
            return [f"search[{''.join(c for c in words if c not in '[]')}]"]
        return [f"click[{what}]" for what in session.clickables() if what and what != "search"]

    def _goal(self) -> str:
        return self._current().instruction_text

    def _now(self) -> Session:
        if self._session is None:
            raise ResetNeeded("call reset() first")
        return self._session

    def _current(self) -> Goal:
        self._now()
        assert self._goal_now is not None
        return self._goal_now

    # ---- reward ----------------------------------------------------------------------------
    def _find_nouns(self) -> str:
        if self._title_nouns is not None:
            return f"table:{Path(self._title_nouns).name}"
        return self.catalogue.nouns_from or titles.BUILTIN.name

    def _nouns(self, title: str, row: int) -> Sequence[str]:
        if self._title_nouns is not None:
            table = titles.read_table(self._title_nouns)
            if title in table:
                return table[title]
        stored = self.catalogue.nouns(row)
        return titles.builtin_nouns(title) if stored is None else stored

    def _score(self, row: int, options: Mapping[str, str]) -> tuple[float, dict[str, Any]]:
        goal = self._current()
        product = self.catalogue.product(row)
        goal_row = self.goals.row(goal.index)
        return purchase_reward(
            product,
            goal,
            self.goals.price(row),
            options,
            bought_nouns=self._nouns(product.title, row),
            goal_nouns=self._nouns(goal.name, goal_row),
        )

    def reward_of(self, asin: str, options: Mapping[str, str]) -> tuple[float, dict[str, Any]]:
        """Return what a purchase would give for the present goal, and its parts.

        Args:
            asin: A product's id.
            options: Option name -> value.

        Raises:
            ValueError: The shop has no such product.
        """
        row = self.catalogue.row_of(asin)
        if row is None:
            raise ValueError(f"{self.data_name} has no product {asin!r}")
        return self._score(row, options)

    # ---- expert ----------------------------------------------------------------------------
    def _shopper(self) -> Expert:
        if self._expert is None:
            goal = self._current()
            self._expert = Expert(
                self.catalogue,
                goal,
                self.goals.row(goal.index),
                lambda row, options: self._score(row, options)[0],
                self.goals.price,
            )
        return self._expert

    def oracle(self, subgoal: str | None = None) -> Iterator[str]:
        """Yield an expert's commands; see `TaskEnv.oracle`."""
        session = self._now()
        return self._shopper().commands(subgoal, session, lambda: self._bought is not None)

    def explorer(
        self, subgoal: str | None = None, rng: np.random.Generator | None = None
    ) -> Iterator[str]:
        """Yield commands of a shopper who knows only what the pages have shown.

        See `himac_envs.webshop.explorer`. It draws nothing: ``rng`` is there for the suite's form.

        Raises:
            ValueError: The sub-goal is not understood, or nothing on the pages serves it.
        """
        from himac_envs.webshop.explorer import Explorer

        goal, session = self._current(), self._now()
        return Explorer(goal, session, lambda: self._bought is not None).commands(subgoal)

    def oracle_blueprint(self) -> Blueprint:
        """Return an expert's sub-goals; see `TaskEnv.oracle_blueprint`."""
        return self._shopper().blueprint(self._now())

    def achieved(self, subgoal: str) -> bool | None:
        """Return whether a sub-goal holds; see `TaskEnv.achieved`."""
        return self._shopper().achieved(subgoal, self._now(), self._bought is not None)

    # ---- state -----------------------------------------------------------------------------
    def _save(self) -> Any:
        observations, actions = self._previous
        return (self._now().state, self._bought, tuple(observations), tuple(actions))

    def _load(self, state: Any) -> None:
        shown, self._bought, observations, actions = state
        self._now().state = shown
        self._previous = (
            deque(observations, self._keep[0]),
            deque(actions, self._keep[1]),
        )

    def _essence(self) -> Any:
        state = self._now().state
        if state.page != "search_results":  # every other page leads to a new search
            state = replace(state, results=())
        if self.observation_mode == "text":  # addresses and visited links are not shown
            state = replace(state, visited=frozenset())
        # In an address options stand in the order of choosing, and a page as HTML holds addresses.
        ordered = self.observation_mode in ("url", "html") and tuple(state.options)
        return state, self._bought, ordered, tuple(map(tuple, self._previous))

    def __getstate__(self) -> dict[str, Any]:
        # The expert is made of closures and is cheap to make again.
        return {**self.__dict__, "_expert": None}
