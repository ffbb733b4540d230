"""Episodes as JSON values, to be looked at: what was read, written, done and paid.

A training run's record is bounded: single texts are cut, and where an episode's observations and
pictures together exceed a budget the later ones are left out. Whatever was left out is counted in
`cut`. An evaluation's is whole, with the messages that the models read.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from himac_agents.policies.base import Message
from himac_agents.rollouts.types import Episode, Segment, Turn
from himac_envs.blueprint import Blueprint

#: The longest text that is kept whole, in characters.
MAX_TEXT = 4_000
#: Characters of observations, answers and pictures that one episode may hold.
MAX_EPISODE = 200_000
#: The longest side of a picture that is kept, in pixels; larger ones are thinned.
MAX_SIDE = 160

# gym-sokoban's cell codes (wall, floor, target, box on target, box, player) in the XSB notation.
_XSB = np.array(list("# .*$@"))


class Sample:
    """Keeps the first few solved and the first few failed episodes, by number, in any order.

    Args:
        each: How many of either kind.
    """

    def __init__(self, each: int = 2) -> None:
        self.each = each
        self.episodes: list[Episode] = []

    def __call__(self, episode: Episode) -> None:
        """Keeps the episode, or lets it go."""
        self.episodes = sorted([*self.episodes, episode], key=lambda e: e.request.group)
        alike = [e for e in self.episodes if e.success == episode.success]
        for late in alike[self.each :]:
            self.episodes.remove(late)


def picture(env: Any, observation: dict[str, Any]) -> str | NDArray[np.uint8] | None:
    """What an environment shows: a Sokoban board in XSB notation, an image, or None for text."""
    inner = env.unwrapped
    task = getattr(inner, "task", inner)
    if getattr(task, "board", None) is not None and hasattr(task, "room_state"):
        state, fixed = task.room_state, task.room_fixed
        cells = _XSB[state]
        cells[(state == 5) & (fixed == 2)] = "+"
        return "\n".join("".join(row) for row in cells)
    image = observation.get("image")
    return None if image is None else np.asarray(image)


def describe(
    episode: Episode,
    phase: str,
    step: int,
    candidates: Sequence[tuple[Episode, float, float]] = (),
    *,
    whole: bool = False,
) -> dict[str, Any]:
    """An episode as JSON values.

    Args:
        episode: What was played.
        phase: When: "train", "evaluation/final", ...
        step: The iteration.
        candidates: Blueprints proposed in this iteration (episode, return, advantage), of any
            task; those of this episode's group are listed with it.
        whole: Cut nothing, and add `messages` to each segment: the conversation as the model read
            it, answers included. What a turn answered is all that stands before its own answer.

    Returns:
        The form of a line of `episodes.jsonl`. Keys `advantage`, `logprob` and `frame` are there
        where they are known.
    """
    budget = _Budget(whole)
    executed = None if episode.blueprint is None else episode.blueprint.texts()
    found: dict[str, Any] = {
        "phase": phase,
        "step": step,
        "task_id": episode.request.task_id,
        "task_type": episode.task_type or None,
        "goal": budget.text(episode.goal),
        "blueprint": executed,
        "blueprint_valid": episode.blueprint_valid,
        "success": episode.success,
        "score": episode.score,
        "return": episode.reward,
        "env_steps": episode.steps,
        "options": episode.options,
        "first": budget.text(episode.first),
        "frame": budget.frame(episode.frame),
        "segments": [_segment(s, budget) for s in episode.segments],
        "candidates": _candidates(candidates, episode, budget),
        "error": None if episode.error is None else budget.text(episode.error),
    }
    if budget.left_out or budget.shortened:
        found["cut"] = {"left_out": budget.left_out, "shortened": budget.shortened}
    return {key: value for key, value in found.items() if value is not None or key == "error"}


def _segment(segment: Segment, budget: _Budget) -> dict[str, Any]:
    found = {
        "role": segment.role,
        "subgoal": segment.subgoal,
        "index": segment.index,
        "temperature": segment.temperature,
        "option": segment.option,
        "turns": [_turn(turn, budget) for turn in segment.turns],
    }
    if budget.whole:
        found["messages"] = [_message(message) for message in segment.messages]
    return found


def _message(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.images:
        found["images"] = len(message.images)
    return found


def _turn(turn: Turn, budget: _Budget) -> dict[str, Any]:
    found = {
        "action": budget.text(turn.action),
        "text": budget.text(turn.text) if turn.text != turn.action else None,
        "reward": turn.reward,
        "invalid": turn.invalid,
        "cut": turn.cut or None,
        "tokens": turn.tokens or None,
        "logprob": _mean_logprob(turn),
        "advantage": None if turn.advantage is None else round(turn.advantage, 4),
        "token_advantages": [round(a, 4) for a in turn.token_advantages] or None,
        "observation": budget.text(turn.observation) or None,
        "frame": budget.frame(turn.frame),
    }
    return {key: value for key, value in found.items() if value is not None}


def _mean_logprob(turn: Turn) -> float | None:
    """The mean log-probability a token, of the tokens that anything was decided at."""
    known = [
        logp
        for place, logp in enumerate(turn.old_logprobs)
        if not turn.allowed or len(turn.allowed[place]) != 1
    ]
    return round(float(np.mean(known)), 4) if known else None


def _candidates(
    candidates: Sequence[tuple[Episode, float, float]], episode: Episode, budget: _Budget
) -> list[dict[str, Any]] | None:
    mine = [c for c in candidates if c[0].request.group == episode.request.group]
    if not mine:
        return None
    executed = _render(episode.blueprint)
    found, chosen = [], False
    for plan, gained, advantage in mine:
        star = not chosen and _render(plan.blueprint) == executed
        chosen = chosen or star
        text = next((turn.text for turn in plan.turns()), "")
        found.append(
            {
                "text": budget.text(text),
                "subgoals": [] if plan.blueprint is None else plan.blueprint.texts(),
                "valid": plan.blueprint_valid,
                "return": round(float(gained), 4),
                "advantage": round(float(advantage), 4),
                "chosen": star,
            }
        )
    return found


def _render(blueprint: Blueprint | None) -> str:
    return "" if blueprint is None else blueprint.render()


class _Budget:
    """What may still be written of an episode, and what could not; all of it where `whole`."""

    def __init__(self, whole: bool = False) -> None:
        self.whole = whole
        self.left = MAX_EPISODE
        self.left_out = 0
        self.shortened = 0

    def text(self, text: str) -> str:
        """A text, cut to its own bound and to what is left."""
        if self.whole:
            return text
        if len(text) > MAX_TEXT:
            self.shortened += 1
            text = f"{text[:MAX_TEXT]} … [{len(text) - MAX_TEXT:,} more characters]"
        if len(text) > self.left:
            self.left_out += 1
            return ""
        self.left -= len(text)
        return text

    def frame(self, frame: str | NDArray[np.uint8] | None) -> str | None:
        """A picture as text: XSB rows as they are, an image as a PNG's data URI."""
        if frame is None:
            return None
        shown = frame if isinstance(frame, str) else png_uri(frame)
        if self.whole:
            return shown
        if len(shown) > self.left:
            self.left_out += 1
            return None
        self.left -= len(shown)
        return shown


def png_uri(image: NDArray[np.uint8]) -> str:
    """An image [height, width, 3] as a `data:` URI of a PNG, thinned to `MAX_SIDE` pixels.

    Raises:
        ImportError: Pillow is not installed.
    """
    from PIL import Image

    stride = -(-max(image.shape[:2]) // MAX_SIDE)
    small = np.ascontiguousarray(image[::stride, ::stride, :3], dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(small).save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")
