"""Which two ids are one benchmark: the tasks with a hierarchy above them, and without."""

from __future__ import annotations

from himac_envs import registry
from himac_envs.registry import EnvCard, UnknownEnvError

#: Played where no environment is named.
DEFAULT = "HiMAC-ALFWorld-v0"


def import_modules(*ids: str) -> None:
    """Imports the modules that ids name ("module:Id-v0"): what they register may be named too.

    Raises:
        UnknownEnvError: There is no such module, or it registers no such id.
    """
    for name in ids:
        if ":" in name:
            registry.find_id(name)


def paired(env: str, flat_env: str) -> tuple[str, str]:
    """Two ids of one benchmark, where one or none of them is given.

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
        other = registry.partner_name(env or flat_env)
        fits = other in cards and cards[other].kind == ("flat" if env else "hierarchical")
        other = other if fits else ""
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

    Raises:
        ValueError: It is not named, and does not follow from the other.
    """
    wanted, other = (flat_env, env) if flat else (env, flat_env)
    if wanted:
        return wanted
    name = registry.partner_name(other)
    # The flat one of two partners has the longer name; what else is wrong, the pool tells.
    if (len(name) > len(other)) == flat and _registered(name):
        return name
    setting, option = ("flat_env", "--flat-env") if flat else ("env", "--env")
    raise ValueError(
        f"{setting} is not set, and the id that belongs to {other!r}, {name!r}, is not registered: "
        f"set {option}, or register that id"
    )


def _named(name: str, kind: str) -> str:
    """The id that a benchmark's short name means; any other name as it is."""
    for card in registry.env_cards().values():
        if card.benchmark == name.lower() and card.kind == kind:
            return card.id
    return name


def _registered(name: str) -> bool:
    try:
        registry.find_id(name)
    except UnknownEnvError:
        return False
    return True


def _task(card: EnvCard) -> tuple[str, str]:
    """What is played under an id, with or without a hierarchy above it."""
    return card.benchmark, str(card.kwargs.get("task", card.entry_point))
