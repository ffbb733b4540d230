"""What an instruction-tuned model has to be told of each environment: our words, one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Wording:
    """An environment in words.

    Attributes:
        world: Where the agent is.
        commands: How commands are written.
        subgoals: How sub-goals are written, so that the environment can tell when one is achieved.
        endings: How many of the last observations of ended sub-goals a new one shows. None: all;
            1 where one observation says everything there is to know.
        scene: Whether the first observation stays in view in every segment. Where each observation
            shows everything, the last one replaces it.
    """

    world: str = "a text environment"
    commands: str = "one command"
    subgoals: str = "Each is one short sentence that makes sense by itself."
    endings: int | None = None
    scene: bool = True


ALFWORLD = Wording(
    world="a household, in text. You see what is at the place where you are; closed receptacles "
    "show their contents once they are open; you can hold one object",
    commands="for example `go to fridge 1`, `open drawer 2`, `take mug 1 from desk 1`, "
    "`move mug 1 to shelf 1` or `put mug 1 in/on shelf 1`, `clean mug 1 with sinkbasin 1`, `heat "
    "egg 1 with microwave 1`, `cool apple 1 with fridge 1`, `use desklamp 1`",
    subgoals="Write sub-goals in these forms: `find and take a mug`, `find and take another mug`, "
    "`clean the mug`, `heat the egg`, `cool the apple`, `slice the apple`, `put the mug in/on the "
    "shelf`, `put the mug in/on the same shelf`, `turn on the desklamp`. Name kinds of things, "
    "without numbers: it is not known yet where they are.",
)

WEBSHOP = Wording(
    world="an online shop, in text. Each observation is a page, its parts separated by [SEP]",
    commands="`search[keywords]` on a page with a search bar, or `click[what]` with the name of a "
    "button, product or option on the page, for example `click[b0abc12345]`, `click[large]`, "
    "`click[next >]`, `click[back to search]` or `click[buy now]`",
    subgoals="Write sub-goals in these forms and order: `search for KEYWORDS`, `open a product "
    "with FEATURES under $PRICE`, one `choose OPTION VALUE` for each option that the instruction "
    "names, `buy the product`. The page shows the instruction, but say in each sub-goal what "
    "matters for it.",
    endings=1,
    scene=False,
)

SOKOBAN = Wording(
    world="a Sokoban room. You walk up, down, left and right, and push a box by walking into it "
    "when the cell behind it is free; boxes cannot be pulled, so a box in a corner stays there",
    commands="`up`, `down`, `left` or `right`",
    subgoals="Write sub-goals as `push the box at (row, column) to (row, column)`; both count from "
    "0 at the top left. A box is pushed along one straight line or a few, and each sub-goal begins "
    "where the one before ended.",
    endings=1,
    scene=False,
)

_BY_BENCHMARK = {"alfworld": ALFWORLD, "webshop": WEBSHOP, "sokoban": SOKOBAN}


def wording(benchmark: str) -> Wording:
    """The words for a benchmark; general ones for an environment of one's own."""
    return _BY_BENCHMARK.get(benchmark, Wording())


def offered(info: dict[str, Any] | None) -> Sequence[str]:
    """The commands to list for a model that writes freely.

    Where the shop has a search bar, the environment offers a search for the whole instruction; a
    model is to choose its own keywords, so the form is shown instead.
    """
    found = [] if info is None else list(info.get("admissible", ()))
    return ["search[your keywords]" if c.startswith("search[") else c for c in found]
