"""The registry: TOML cards that say what exists, and how environments are found by name.

Cards are looked for in ``himac_envs/_registry`` (a wheel) and else in ``registry/`` beside the
package (a checkout or an editable install). No Python lives there.

Environments of others have no card. They are what somebody registers with Gymnasium: a module that
is named with the id ("module:Id-v0"), code that ran before, or an installed package that names a
module or a function in the entry-point group ``himac.envs``, which is loaded when an id is asked
for that nobody here knows::

    [project.entry-points."himac.envs"]
    orchard = "orchard"  # imported: it calls gym.register
"""

from __future__ import annotations

import difflib
import importlib
import re
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, VectorizeMode

from himac_envs.contract import kind_of
from himac_envs.errors import HiMACError

#: The entry-point group of packages that bring environments of their own.
GROUP = "himac.envs"

_HERE = Path(__file__).resolve().parent


def root() -> Path:
    """Return the folder of cards.

    Raises:
        FileNotFoundError: The installation holds none.
    """
    for folder in (_HERE / "_registry", _HERE.parent / "registry"):
        if (folder / "envs").is_dir():
            return folder
    raise FileNotFoundError(
        f"no registry cards at {_HERE / '_registry'} nor {_HERE.parent / 'registry'}: "
        "the installation is incomplete; reinstall with `pip install --force-reinstall himac`"
    )


def names(kind: str) -> list[str]:
    """Return the names of a kind's cards, sorted, e.g. ``names("presets")``."""
    return sorted(path.stem for path in (root() / kind).glob("*.toml"))


def read(kind: str, name: str) -> dict[str, Any]:
    """Return one card, e.g. ``read("worlds", "alfworld")``.

    Raises:
        FileNotFoundError: There is no such card; the message lists those that exist.
        ValueError: The card is not valid TOML.
    """
    path = root() / kind / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(names(kind)) or "none"
        raise FileNotFoundError(f"no card {name!r} in registry/{kind} (there are: {known})")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error


@dataclass(frozen=True)
class EnvCard:
    """One registered environment.

    Attributes:
        id: Its Gymnasium id.
        entry_point: "module:attribute" of what builds it.
        summary: One line for ``himac list``.
        benchmark: "alfworld", "webshop" or "sokoban".
        kind: "hierarchical", "flat", "pixels" or "browser".
        kwargs: Default keyword arguments.
        vector_entry_point: "module:attribute" of a batch engine, if any; without one
            `himac_envs.vector` plays the environment in lanes.
        extra: The optional dependency group that it needs, if any.
    """

    id: str
    entry_point: str
    summary: str
    benchmark: str
    kind: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    vector_entry_point: str | None = None
    extra: str | None = None


@lru_cache(maxsize=1)
def env_cards() -> dict[str, EnvCard]:
    """Return the cards of every environment by id, sorted by file, then as written."""
    return {card.id: card for card in _read_env_cards()}


def _read_env_cards() -> Iterator[EnvCard]:
    for path in sorted((root() / "envs").glob("*.toml")):
        for row in read("envs", path.stem).get("env", []):
            try:
                yield EnvCard(**row)
            except TypeError as error:
                raise ValueError(f"{path}: a card with wrong keys: {error}") from error


class _Settings(dict[str, Any]):
    """An id's keyword arguments, from which ``gym.make_vec`` takes its own.

    Beside a vector entry point Gymnasium refuses ``vector_kwargs`` and ``wrappers``, since it does
    not know whether the entry point has a use for them. `himac_envs.vector.make` has: they become
    its keywords, so that they work for every id alike. What it has no use for is refused still.
    """

    _ours = True

    def pop(self, key: str, *default: Any) -> Any:
        value = super().pop(key, *default)
        if key == "vectorization_mode":
            mode = getattr(value, "value", value)
            self._ours = mode in (None, VectorizeMode.VECTOR_ENTRY_POINT.value)
        elif self._ours and key == "vector_kwargs" and set(value) <= {"autoreset_mode", "copy"}:
            self.update(value)
            return {}
        elif self._ours and key == "wrappers" and value:
            self[key] = value
            return []
        return value

    def copy(self) -> _Settings:
        return _Settings(self)


@dataclass(frozen=True)
class Change:
    """A change of a benchmark's tasks: figures from before are of other tasks.

    Attributes:
        version: The first version of the package that has it.
        what: What has changed, in a sentence.
    """

    version: str
    what: str


def changes_since(benchmark: str, version: str) -> list[Change]:
    """Return what has changed in a benchmark's tasks after a version of the package.

    Args:
        benchmark: "alfworld", "webshop" or "sokoban".
        version: Such as "0.1.0".
    """
    found: list[Change] = []
    for name in names("envs"):
        card = read("envs", name)
        if any(row["benchmark"] == benchmark for row in card.get("env", [])):
            found += [Change(**row) for row in card.get("changed", [])]
    return [change for change in found if _numbers(version) < _numbers(change.version)]


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def register_all() -> None:
    """Register every card's id with Gymnasium; ids already registered are left alone."""
    for card in env_cards().values():
        if card.id not in gym.registry:
            gym.register(
                id=card.id,
                entry_point=card.entry_point,
                vector_entry_point=f"himac_envs.vector:{card.id}",
                kwargs=_Settings(card.kwargs),
                order_enforce=True,
                disable_env_checker=False,
            )


def benchmarks() -> list[str]:
    """Return the benchmarks' names, sorted."""
    return sorted({card.benchmark for card in env_cards().values()})


def benchmark_of(name: str) -> str:
    """Return the benchmark that an id, or its own name, belongs to ("" for all others)."""
    if name.lower() in benchmarks():
        return name.lower()
    card = env_cards().get(bare(name))
    return "" if card is None else card.benchmark


# -- environments by name ------------------------------------------------------------------------


class UnknownEnvError(HiMACError, ValueError):
    """No environment has this name; the message names near ones."""


class PluginWarning(UserWarning):
    """An installed package that brings environments could not be loaded."""


@dataclass(frozen=True)
class EnvEntry:
    """An environment that was found by a name.

    Attributes:
        id: What `gym.make` takes; "module:Id-v0" keeps its module, so that any process can make it.
        kind: "hierarchical", "flat", "pixels" or "browser".
        benchmark: "alfworld", "webshop" or "sokoban"; "" for environments of others.
        partner: The flat environment of the same tasks, or of a flat one the hierarchical; "" where
            there is none. Partners are known by their ids: "Name-v0" and "Name-Flat-v0".
    """

    id: str
    kind: str
    benchmark: str = ""
    partner: str = ""

    @property
    def hierarchical(self) -> bool:
        """Whether a blueprint comes first."""
        return self.kind == "hierarchical"

    @property
    def flat(self) -> bool:
        """Whether it is played command by command, in text."""
        return self.kind in ("flat", "browser")


def find_env(name: str, *, flat: bool | None = None, **kwargs: Any) -> EnvEntry:
    """Return the environment that a name means.

    The kind of an environment without a card is found by making it and looking at it.

    Args:
        name: See `find_id`.
        flat: True: the flat environment of the same tasks; False: the hierarchical one; None: as
            the name says.
        **kwargs: What the environment is made with.

    Raises:
        UnknownEnvError: There is none of this name.
        ContractError: It lacks what playing needs.
        ValueError: It is not of the kind that `flat` asks for, and has no partner that is.
    """
    env_id = find_id(name)
    card = env_cards().get(env_id)
    kind = _look_at(env_id, kwargs) if card is None else card.kind
    found = EnvEntry(env_id, kind, benchmark_of(env_id), partner_of(env_id))
    if flat is None or (found.flat if flat else found.hierarchical):
        return found
    if found.partner:
        other = find_env(found.partner, **kwargs)
        if other.flat if flat else other.hierarchical:
            return other
    if flat:
        raise ValueError(
            f"{env_id} is {kind}, and no flat environment of its tasks is registered: it would be "
            f"called {partner_name(env_id)}"
        )
    raise ValueError(
        f"{env_id} is {kind}, and no hierarchical environment of its tasks is registered: "
        "gym.register(id='Name-v0', entry_point='himac_envs.hierarchy:make_hierarchical', "
        "kwargs={'task': 'module:Class'}) puts the hierarchy over the TaskEnv of Name-Flat-v0"
    )


def find_id(name: str) -> str:
    """Return the registered id that a name means; nothing is made for it.

    Args:
        name: An id of a card; a benchmark's name ("webshop"): its hierarchical environment;
            "module:Id-v0": the module is imported and registers the id; an id that somebody has
            registered with Gymnasium, or that an installed package does (see `load_plugins`).

    Raises:
        UnknownEnvError: There is none of this name; the message names near ones.
    """
    cards = env_cards()
    if name in cards:
        return name
    if name.lower() in benchmarks():
        wanted = (name.lower(), "hierarchical")
        return next(card.id for card in cards.values() if (card.benchmark, card.kind) == wanted)
    module, _, env_id = name.rpartition(":")
    if module:
        import_named(module, "environment", name, UnknownEnvError)
        if env_id in cards:
            return env_id
    elif name not in gym.registry:
        load_plugins()
    if env_id not in gym.registry:
        raise UnknownEnvError(_unknown(name))
    return name


def make(name: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make an environment, with all wrappers that it was registered with.

    Args:
        name: See `find_id`.
        **kwargs: For the environment. One that does not take ``split`` is made without: its
            ``task_ids(split)`` lists them all.

    Raises:
        ValueError: It does not take one of the arguments, or needs another.
    """
    env_id = find_id(name)
    try:
        try:
            # Gymnasium's checker is for tests: it would look at every step.
            return gym.make(env_id, disable_env_checker=True, **kwargs)
        except TypeError:
            if kwargs.pop("split", None) is None:
                raise
            return gym.make(env_id, disable_env_checker=True, **kwargs)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        what = ", ".join(kwargs) or "no arguments"
        raise ValueError(f"{env_id} cannot be made with {what}: {error}") from error


def partner_of(env_id: str) -> str:
    """Return the id of the same tasks without (or with) the hierarchy; "" where there is none."""
    other = partner_name(env_id)
    return other if bare(other) in gym.registry else ""


def partner_name(env_id: str) -> str:
    """Return what the id of the same tasks of the other kind is called, registered or not."""
    found = re.fullmatch(r"(.+?)(-Flat)?(-v\d+)?", env_id)
    stem, flat, version = ("", "", "") if found is None else found.groups(default="")
    return f"{stem}{'' if flat else '-Flat'}{version}"


def bare(name: str) -> str:
    """Return an id without the module that registers it."""
    return name.rpartition(":")[2]


def own_envs() -> dict[str, EnvSpec]:
    """Return what others than this package and Gymnasium have registered, plugins included."""
    load_plugins()
    found = {}
    for env_id, spec in sorted(gym.registry.items()):
        maker = spec.entry_point or spec.vector_entry_point
        module = maker if isinstance(maker, str) else getattr(maker, "__module__", "")
        if env_id not in env_cards() and module.split(":")[0].split(".")[0] != "gymnasium":
            found[env_id] = spec
    return found


#: Plugins that were loaded, or tried, in this process, and what was wrong with them ("").
_seen: dict[tuple[str, str], str] = {}


def load_plugins() -> None:
    """Load the installed packages' entry points of the group ``himac.envs``, each once.

    An entry point is a module, whose import registers ids with Gymnasium, or a function without
    arguments that does. One that fails is a `PluginWarning`; the others go on.
    """
    for point in metadata.entry_points(group=GROUP):
        if (point.name, point.value) in _seen:
            continue
        _seen[point.name, point.value] = ""
        try:
            found = point.load()
            if callable(found):
                found()
        except Exception as error:
            _seen[point.name, point.value] = f"{type(error).__name__}: {error}"
            package = "" if point.dist is None else f" of the package {point.dist.name}"
            warnings.warn(
                f"the environments {point.name!r}{package} ({point.value}) are left out: "
                f"{type(error).__name__}: {error}",
                PluginWarning,
                stacklevel=2,
            )


def plugin_error(name: str, value: str) -> str:
    """Return what was wrong with a plugin of this name and value ("": nothing, or not loaded)."""
    return _seen.get((name, value), "")


def import_named(
    module: str, what: str, name: str, refused: type[ValueError] = ValueError
) -> ModuleType:
    """Import a module that somebody named on a command line.

    Args:
        module: The module.
        what: What was looked for in it, such as "environment".
        name: How it was named.
        refused: The error where there is no such module; one that it imports itself is another.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise refused(
            f"no {what} {name!r}: there is no module {error.name!r}; install it, or run the "
            "command in the folder that holds it"
        ) from error


def _look_at(env_id: str, kwargs: Mapping[str, Any]) -> str:
    env = make(env_id, **kwargs)
    try:
        return kind_of(env, env_id)
    finally:
        env.close()


def _unknown(name: str) -> str:
    known = {other.lower(): other for other in (*benchmarks(), *env_cards(), *own_envs())}
    near = difflib.get_close_matches(bare(name).lower(), known, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(known[word] for word in near)}?" if near else ""
    return (
        f"no environment {name!r}.{hint} Give a benchmark ({', '.join(benchmarks())}), an id of "
        "`himac list`, or MODULE:ID for one of your own"
    )
