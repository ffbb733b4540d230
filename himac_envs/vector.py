"""Batches of environments: one call that picks the right way for each id."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

import himac_envs.registry


def make(
    env_id: str,
    num_envs: int,
    *,
    workers: bool = False,
    autoreset: AutoresetMode = AutoresetMode.NEXT_STEP,
    **kwargs: Any,
) -> VectorEnv[Any, Any, Any]:
    """Build a batch of environments of one id.

    Uses the id's batch engine where it has one, else copies in this process; the engines here
    are faster in one process than across several, so worker processes are only for executors and
    tasks of your own that are slow.

    Args:
        env_id: A registered id.
        num_envs: How many.
        workers: One process an environment (never with shared memory, which cannot hold text).
        autoreset: When a finished environment begins anew.
        **kwargs: For each environment.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs={num_envs}: a batch needs at least one environment")
    if workers:
        make_one = partial(gym.make, env_id, **kwargs)
        return AsyncVectorEnv([make_one] * num_envs, shared_memory=False, autoreset_mode=autoreset)
    card = himac_envs.registry.env_cards().get(env_id)
    if card is not None and card.vector_entry_point is not None:
        # A batch engine takes the mode as a keyword: Gymnasium refuses vector_kwargs beside a
        # vector_entry_point.
        return gym.make_vec(env_id, num_envs=num_envs, autoreset_mode=autoreset, **kwargs)
    return SyncVectorEnv([partial(gym.make, env_id, **kwargs)] * num_envs, autoreset_mode=autoreset)
