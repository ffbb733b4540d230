"""The reward of a purchase, part by part.

Source: ``get_reward`` of the original's ``web_agent_site/engine/goal.py`` and its
``engine/normalize.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from himac_envs.errors import MissingDependencyError
from himac_envs.webshop.goals import Goal
from himac_envs.webshop.products import Product

try:
    from rapidfuzz import fuzz, utils
except ImportError as error:  # pragma: no cover - depends on the installation
    raise MissingDependencyError("rapidfuzz", "WebShop's reward", "webshop") from error

#: Fuzzy matches above this ratio count.
_SIMILAR = 85
#: Words that stand for a value's colour; the first of them that occurs in a value wins.
COLOURS = str.split(
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown "
    "burgundy camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee "
    "cognac copper coral cranberry cream crystal dark denim eggplant elephant espresso fuchsia "
    "gold granite grape graphite grass gray green grey heather indigo ivory ivy khaki lavender "
    "lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor "
    "mushroom mustard natural navy nude olive orange peach pewter pink plum purple rainbow red "
    "rose royal rust sand sapphire seashell silver skull slate steel stone stonewash sunflower "
    "tan taupe teal tiger turquoise violet walnut wheat white wine yellow"
)


@lru_cache(maxsize=1 << 15)
def similar(one: str, other: str) -> bool:
    """Return whether two texts match fuzzily: thefuzz's token_set_ratio above 85."""
    ratio = fuzz.token_set_ratio(one, other, processor=utils.default_process)
    return round(ratio) > _SIMILAR


def normalize_colour(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """Return the first colour of the list that the value contains, else the value.

    A synthetic goal's option reaches the original's function as a (name, value) pair, on which
    "contains" means that the name or the value *is* the colour: "dark red" stays as it is.
    """
    return next((colour for colour in COLOURS if colour in value), value)


def type_reward(
    product: Product,
    goal: Goal,
    bought_nouns: Sequence[str],
    goal_nouns: Sequence[str],
) -> dict[str, Any]:
    """Return whether the purchase is the kind of thing that was asked for.

    Args:
        product: What was bought.
        goal: What was asked for.
        bought_nouns: The nouns of the bought product's title.
        goal_nouns: The nouns of the goal's title.
    """
    query_match = product.query == goal.query
    mine = {part.strip() for part in product.product_category.split("›")}
    wanted = {part.strip() for part in goal.product_category.split("›")}
    category_match = len(mine & wanted) >= 2
    # The nouns in common are counted once, the goal's nouns with repetitions.
    common = len(set(bought_nouns) & set(goal_nouns))
    title_score = common / len(goal_nouns) if goal_nouns else 0.2
    r_type = 1.0 if query_match or category_match or title_score > 0.2 else 0.5
    # A title without a word in common outweighs the same query and category.
    if title_score < 0.1:
        r_type = 0.1
    if title_score == 0.0:
        r_type = 0.0
    return {
        "r_type": r_type,
        "query_match": query_match,
        "category_match": category_match,
        "title_score": title_score,
    }


def has_attribute(product: Product, attribute: str) -> bool:
    """Return whether a product has an attribute: one like it, or the words in its texts."""
    return (
        any(similar(own, attribute) for own in product.attributes)
        or attribute in product.title.lower()
        or attribute in " ".join(product.bullets).lower()
        or attribute in product.description.lower()
    )


def option_matches(chosen: Sequence[str], goal: Goal) -> int:
    """Return how many of a goal's options were chosen."""
    options = goal.goal_options
    wanted: Sequence[str | tuple[str, ...]] = (
        tuple(options.items()) if isinstance(options, Mapping) else options
    )
    mine = [str(normalize_colour(value)) for value in chosen]
    found = 0
    for option in wanted:
        normal = normalize_colour(option)
        # thefuzz reads a pair as its Python text: "('color', 'red')", whose marks it strips.
        text = normal if isinstance(normal, str) else str(normal)
        found += any(similar(value, text) for value in mine)
    return found


def purchase_reward(
    product: Product,
    goal: Goal,
    price: float,
    options: Mapping[str, str],
    *,
    bought_nouns: Sequence[str],
    goal_nouns: Sequence[str],
) -> tuple[float, dict[str, Any]]:
    """Return the reward of a purchase and its parts.

    Args:
        product: What was bought.
        goal: What was asked for.
        price: What it costs.
        options: The options chosen, name -> value.
        bought_nouns: The nouns of the bought product's title.
        goal_nouns: The nouns of the goal's title.

    Returns:
        The reward in [0, 1] and the parts under the original's names: r_type, r_att, w_att,
        query_match, category_match, title_score, r_option and w_option (where the goal has
        options), r_price, w_price.
    """
    kind = type_reward(product, goal, bought_nouns, goal_nouns)
    attributes = sum(has_attribute(product, attribute) for attribute in goal.attributes)
    chosen = option_matches(tuple(options.values()), goal)
    cheap = price <= goal.price_upper
    parts = len(goal.attributes) + len(goal.goal_options) + 1
    reward = (attributes + chosen + cheap) / parts * kind["r_type"]
    info: dict[str, Any] = {
        "r_type": kind["r_type"],
        "r_att": attributes / len(goal.attributes),
        "w_att": len(goal.attributes) / parts,
        "query_match": kind["query_match"],
        "category_match": kind["category_match"],
        "title_score": kind["title_score"],
    }
    if goal.goal_options:
        info["r_option"] = chosen / len(goal.goal_options)
        info["w_option"] = len(goal.goal_options) / parts
    info["r_price"] = cheap
    info["w_price"] = 1 / parts
    return reward, info
