"""Rows of data sets for trainers: which tasks, and the words before the first observation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from himac_envs.adapters.session import Session
from himac_envs.registry import benchmark_of, find_env
from himac_envs.wording import wording

Row = dict[str, Any]


def write_kwargs(kwargs: Mapping[str, Any]) -> str:
    """Return keyword arguments as a row keeps them: JSON, since Parquet would change their types.

    Raises:
        TypeError: One is no plain value.
    """
    return json.dumps(dict(kwargs), sort_keys=True)


def read_kwargs(kept: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the keyword arguments that a row or a configuration keeps.

    Raises:
        ValueError: A text is not JSON of an object.
    """
    if isinstance(kept, str):
        try:
            found = json.loads(kept) if kept else {}
        except json.JSONDecodeError as error:
            raise ValueError(f"env_kwargs={kept!r} is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise ValueError(f"env_kwargs={kept!r} is not a JSON object")
        return found
    return dict(kept or {})


def choose_tasks(
    env_id: str, *, split: str = "train", count: int | None = None, seed: int = 0, **kwargs: Any
) -> list[str]:
    """Return tasks of a split: all of them in their order, or so many drawn without repetition.

    Args:
        env_id: The environment.
        split: Of its tasks.
        count: How many; None is all of them. A split with fewer gives all, in drawn order.
        seed: Of the draw.
        **kwargs: For the environment, ``data`` above all: the ids are those of its data.

    Raises:
        UnknownSplitError: The data has no such split; the message lists those that it has.
    """
    if count is not None and count < 1:
        raise ValueError(f"count={count}: a data set needs at least one row")
    with Session(env_id, **{**kwargs, "split": split}) as session:
        ids = session.task_ids(split)
        if count is None:
            return list(ids)
        places = np.random.default_rng(seed).permutation(len(ids))[:count]
        return [ids[place] for place in places.tolist()]


def instructions(env_id: str, *, hierarchical: bool, tools: Sequence[str] = ()) -> str:
    """Return what a model has to be told before its first observation.

    Args:
        env_id: The environment: its benchmark's own words are used, or general ones.
        hierarchical: Whether a blueprint comes first.
        tools: The tools by which the model acts: "act", "blueprint", "sub_done"; none: it writes.
    """
    words = wording(benchmark_of(env_id))
    said = [f"You are in {words.world}. A command is {words.commands}."]
    if hierarchical and tools:
        said.append(
            "First call blueprint with your sub-goals for the task, in order. Then carry out the "
            "current sub-goal with act, one command a call, and call sub_done when it is achieved: "
            "the next one begins. "
        )
    elif hierarchical:
        said.append(
            "First answer with a blueprint: your sub-goals for the task, numbered, one a line. "
            "Then carry out the current sub-goal, one command an answer, between <action> and "
            "</action>. Answer <sub_done> when it is achieved: the next one begins. "
        )
    elif tools:
        said.append("Call act, one command a call, until the task is done.")
    else:
        said.append("Answer with one command at a time, between <action> and </action>.")
    if hierarchical:
        said[-1] += words.subgoals
    return " ".join(said)


def task_rows(
    env_id: str,
    further: Mapping[str, Any],
    *,
    split: str = "train",
    count: int | None = None,
    seed: int = 0,
    **kwargs: Any,
) -> list[Row]:
    """Return rows of which each names a task and what it is played in, for any trainer.

    A row holds ``prompt`` (the system's message), ``data_source``, ``env_id``, ``env_kwargs`` and
    ``task_id``.

    Args:
        env_id: A flat or a hierarchical id.
        further: What the trainer wants besides, the same in each row.
        split: Of the tasks.
        count: How many, drawn without repetition; None is all, in their order.
        seed: Of the draw.
        **kwargs: For `Session` and the environment; they stand in each row, as JSON.
    """
    hierarchical = find_env(env_id, **kwargs).hierarchical
    shared = {
        "prompt": [{"role": "system", "content": instructions(env_id, hierarchical=hierarchical)}],
        "data_source": env_id,
        "env_id": env_id,
        "env_kwargs": write_kwargs(kwargs),
        **further,
    }
    ids = choose_tasks(env_id, split=split, count=count, seed=seed, **kwargs)
    return [{**shared, "task_id": task_id} for task_id in ids]
