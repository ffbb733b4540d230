"""Which two ids are one benchmark: the tasks with a hierarchy above them, and without."""

from __future__ import annotations

import importlib
import re

import gymnasium as gym

from himac_envs import registry
from himac_envs.registry import EnvCard

#: Played where no environment is named.
DEFAULT = "HiMAC-ALFWorld-v0"

#: "module:Name-v0" in its parts.
_ID = re.compile(r"^(?P<module>[\w.]+:)?(?P<name>.+?)(?P<version>-v\d+)?$")


def paired(env: str, flat_env: str) -> tuple[str, str]:
    """Two ids of one benchmark, where one or none of them is given.

    Args:
        env: The hierarchical id, or "".
        flat_env: The flat one, or "".

    Returns:
        Both; "" for one that only an environment outside the registry's cards could tell.

    Raises:
        ValueError: The two are not the same tasks.
    """
    env, flat_env = _named(env, "hierarchical"), _named(flat_env, "flat")
    if not env and not flat_env:
        env = DEFAULT
    cards = registry.env_cards()
    if not (env and flat_env):
        other = counterpart(env or flat_env, flat=bool(env))
        other = other if other in cards else ""
        return (env, other) if env else (other, flat_env)
    above, below = cards.get(env), cards.get(flat_env)
    if above and below and (above.kind, below.kind) == ("hierarchical", "flat"):
        fits = _task(above) == _task(below)
    elif above and below:
        # An id of the wrong kind is a mistake of its own: the pool of environments tells it.
        fits = above.benchmark == below.benchmark
    else:
        # Outside the cards, whoever names both ids knows them.
        fits = above is None and below is None
    if not fits:
        raise ValueError(
            f"env={env!r} and flat_env={flat_env!r} are not the same tasks: leave one of the two "
            "out, and it follows from the other"
        )
    return env, flat_env


def resolved(env: str, flat_env: str, *, flat: bool) -> str:
    """The id that is played, asked for when it is needed.

    Args:
        env: The hierarchical id, or "".
        flat_env: The flat one, or "".
        flat: Which of the two is wanted.

    Raises:
        ValueError: It is not named, and does not follow from the other.
    """
    wanted, other = (flat_env, env) if flat else (env, flat_env)
    if wanted:
        return wanted
    name = counterpart(other, flat=flat)
    if _registered(name):
        return name
    setting, option = ("flat_env", "--flat-env") if flat else ("env", "--env")
    raise ValueError(
        f"{setting} is not named, and {name!r}, which would belong to {other!r}, is not "
        f"registered: name it with {option}, or register that id"
    )


def counterpart(name: str, *, flat: bool) -> str:
    """The id of the same tasks of the other kind: "X-v0" and "X-Flat-v0"."""
    found = _ID.match(name)
    assert found is not None  # the pattern matches every text but the empty one
    stem, version = found["name"], found["version"] or ""
    stem = f"{stem}-Flat" if flat else stem.removesuffix("-Flat")
    return f"{found['module'] or ''}{stem}{version}"


def _named(name: str, kind: str) -> str:
    """The id that a benchmark's short name means; any other name as it is."""
    for card in registry.env_cards().values():
        if card.benchmark == name.lower() and card.kind == kind:
            return card.id
    return name


def _registered(name: str) -> bool:
    module, _, rest = name.rpartition(":")
    if module:
        importlib.import_module(module)
    return rest in gym.registry


def _task(card: EnvCard) -> tuple[str, str]:
    """What is played under an id, with or without a hierarchy above it."""
    return card.benchmark, str(card.kwargs.get("task", card.entry_point))
