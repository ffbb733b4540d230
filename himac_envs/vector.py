"""Batches of environments: one call that picks the right way for each id.

``gym.make_vec`` builds the same batches: each id of the suite names ``himac_envs.vector:ID`` as its
vector entry point. A `TaskEnv` of your own joins with
``gym.register("Own-v0", ..., vector_entry_point="himac_envs.vector:Own-v0")``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv

import himac_envs.registry
from himac_envs.hierarchy import load_entry_point
from himac_envs.lanes import LaneVectorEnv, lane_count
from himac_envs.workers import WorkerVectorEnv, asynchronous

#: What `gym.make` takes for itself: a batch engine, which is no single environment, does not.
_OF_MAKE = ("max_episode_steps", "disable_env_checker")


def make(
    env_id: str,
    num_envs: int,
    *,
    workers: bool = False,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    copy: bool = True,
    wrappers: Sequence[Callable[[Any], Any]] = (),
    vector_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> VectorEnv[Any, Any, Any]:
    """Build a batch of environments of one id.

    Uses the id's batch engine where it has one, else copies in this process; the engines here
    are faster in one process than across several, so worker processes are only for executors and
    tasks of your own that are slow. All keep to the rules of `himac_envs.lanes`.

    Args:
        env_id: A registered id, or another name of `himac_envs.registry.find_id`.
        num_envs: How many.
        workers: One process an environment; see `himac_envs.workers`.
        autoreset_mode: When a finished environment begins anew.
        copy: Whether observations that are arrays are new at each step; with False the next step
            changes them in place.
        wrappers: Put around each environment, in this order; an id with a batch engine is then
            played in copies.
        vector_kwargs: ``autoreset_mode`` and ``copy`` once more, as ``gym.make_vec`` takes them;
            with ``workers`` whatever ``AsyncVectorEnv`` takes.
        **kwargs: For each environment.

    Raises:
        ValueError: An argument is not known, or there is no such environment.
    """
    lane_count(num_envs)
    env_id = himac_envs.registry.find_id(env_id)
    batch = {"autoreset_mode": autoreset_mode, "copy": copy, **dict(vector_kwargs or {})}
    one = partial(_make_lane, env_id, tuple(wrappers), kwargs)
    known = asynchronous() if workers else {"autoreset_mode", "copy"}
    unknown = sorted(set(batch) - known)
    if unknown and workers:
        raise ValueError(
            f"vector_kwargs {', '.join(map(repr, unknown))}: AsyncVectorEnv takes "
            f"{', '.join(map(repr, sorted(known)))}"
        )
    if unknown:
        raise ValueError(
            f"vector_kwargs {', '.join(map(repr, unknown))}: a batch in one process takes "
            "'autoreset_mode' and 'copy'; what AsyncVectorEnv takes goes with workers=True"
        )
    if workers:
        return WorkerVectorEnv(one, num_envs, **batch)
    card = himac_envs.registry.env_cards().get(env_id)
    engine = None if card is None else card.vector_entry_point
    if engine is not None and not wrappers and not set(kwargs) & set(_OF_MAKE):
        made: VectorEnv[Any, Any, Any] = load_entry_point(engine)(num_envs, **batch, **kwargs)
        return made
    return LaneVectorEnv(one, num_envs, **batch)


def _make_lane(
    env_id: str, wrappers: Sequence[Callable[[Any], Any]], kwargs: Mapping[str, Any]
) -> gym.Env[Any, Any]:
    # Gymnasium's checker is for tests: it would look at every step of every lane.
    env = gym.make(env_id, **{"disable_env_checker": True, **kwargs})
    try:
        for wrapper in wrappers:
            env = wrapper(env)
    except BaseException:
        env.close()
        raise
    return env


def __getattr__(name: str) -> Any:
    """Return what builds batches of an id: the vector entry point of "himac_envs.vector:ID"."""
    if name.startswith("_") or name not in gym.registry:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(make, name)
