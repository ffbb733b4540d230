"""Episodes as JSON and back, with their tokens, their pictures and their credit.

So that who plays and who learns may be elsewhere. Everything comes back as it was: floating-point
numbers to the bit, pictures to the pixel. (`himac_agents.rollouts.trace` writes what a reader looks
at, bounded in size; this here is whole.)
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from himac_agents.policies.base import Message
from himac_agents.rollouts.types import Episode, EpisodeRequest, Segment, Turn
from himac_envs.blueprint import Blueprint, Subgoal

_ARRAY = "array"


def to_json(episode: Episode) -> dict[str, Any]:
    """An episode as JSON values; `from_json` reads them back."""
    found = _fields(episode)
    found["request"] = request_to_json(episode.request)
    found["blueprint"] = _blueprint(episode.blueprint)
    found["offers"] = sorted(episode.offers)
    found["segments"] = []
    for segment in episode.segments:
        row = _fields(segment)
        row["messages"] = [_fields(message) for message in segment.messages]
        row["turns"] = [_fields(turn) for turn in segment.turns]
        found["segments"].append(row)
    plain: dict[str, Any] = _plain(found)
    return plain


def from_json(values: Mapping[str, Any]) -> Episode:
    """The episode that `to_json` wrote.

    Raises:
        ValueError: The values are of another form; the message names what is wrong.
    """
    try:
        content = _arrays(values)
        made = {
            **content,
            "request": request_from_json(content["request"]),
            "blueprint": _read_blueprint(content["blueprint"]),
            "segments": [_segment(row) for row in content["segments"]],
            "transcript": [(action, seen) for action, seen in content["transcript"]],
            "offers": set(content["offers"]),
        }
        return Episode(**made)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not an episode: {type(error).__name__}: {error}") from error


def request_to_json(request: EpisodeRequest) -> dict[str, Any]:
    """What is to be played, as JSON values; `request_from_json` reads them back."""
    return {**_fields(request), "blueprint": _blueprint(request.blueprint)}


def request_from_json(values: Mapping[str, Any]) -> EpisodeRequest:
    """What `request_to_json` wrote."""
    return EpisodeRequest(**{**values, "blueprint": _read_blueprint(values["blueprint"])})


def _segment(row: Mapping[str, Any]) -> Segment:
    messages = [
        Message(**{**message, "images": tuple(message["images"])}) for message in row["messages"]
    ]
    turns = []
    for turn in row["turns"]:
        made = dict(turn)
        made["output_ids"] = tuple(turn["output_ids"])
        made["old_logprobs"] = tuple(turn["old_logprobs"])
        made["lines"] = tuple(turn.get("lines", ()))
        made["token_advantages"] = tuple(turn.get("token_advantages", ()))
        made["allowed"] = tuple(tuple(ids) for ids in turn["allowed"])
        turns.append(Turn(**made))
    return Segment(**{**row, "messages": messages, "turns": turns})


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _blueprint(blueprint: Blueprint | None) -> dict[str, Any] | None:
    if blueprint is None:
        return None
    return {**_fields(blueprint), "subgoals": blueprint.texts()}


def _read_blueprint(values: Mapping[str, Any] | None) -> Blueprint | None:
    if values is None:
        return None
    return Blueprint(**{**values, "subgoals": tuple(map(Subgoal, values["subgoals"]))})


def _plain(value: Any) -> Any:
    """JSON values, pictures as text."""
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
        return {_ARRAY: data, "dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _arrays(value: Any) -> Any:
    """The inverse of `_plain`."""
    if isinstance(value, Mapping):
        if set(value) == {_ARRAY, "dtype", "shape"}:
            data = np.frombuffer(base64.b64decode(value[_ARRAY]), dtype=value["dtype"])
            return data.reshape(value["shape"]).copy()
        return {key: _arrays(item) for key, item in value.items()}
    return [_arrays(item) for item in value] if isinstance(value, list) else value
