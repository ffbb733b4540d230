"""Episodes for the site, played by the environments themselves: a transcript, and frames."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any

import numpy as np

from himac_envs import HierarchicalEnv, OracleExecutor, OraclePlanner, registry
from himac_envs.registry import EnvCard

#: Characters of one answer that are shown, and the steps at either end of a long episode.
SHOWN, HEAD, TAIL = 900, 12, 3
#: Characters of a line.
WIDTH = 76
#: Frames in the row of pictures, and the pixels that one of them is high.
FRAMES, HEIGHT = 8, 160


@dataclass
class Played:
    """One episode, as it is shown.

    Attributes:
        lines: What was said and answered, in order.
        verdict: How it ended.
        frames: [rows, columns, 3] uint8, where the environment draws.
        note: What a reader should know of how it was played.
    """

    lines: list[str] = field(default_factory=list)
    verdict: str = ""
    frames: list[Any] = field(default_factory=list)
    note: str = ""


def play(card: EnvCard) -> Played:
    """Play one episode of an id with its expert: task 0 of seed 0, generated data."""
    kwargs: dict[str, Any] = {}
    if card.benchmark != "sokoban":
        kwargs["data"] = "generated"
    if card.benchmark == "sokoban":
        kwargs |= {"render_mode": "rgb_array", "room": (6, 6), "boxes": 1}
    note, env_id = "", card.id
    if card.kind == "browser":
        env_id, note, more = _browser_or_text(card.id)
        kwargs |= more
    env = registry.make(env_id, split="test", **kwargs)
    try:
        played = _pixels(env) if card.kind == "pixels" else _text(env)
    finally:
        env.close()
    played.note = note
    return played


def _browser_or_text(env_id: str) -> tuple[str, str, dict[str, Any]]:
    """The shop in Chromium where there is one, else the same shop without it."""
    from himac_envs.webshop.browser import find_browser
    from himac_envs.webshop.errors import BrowserError

    try:
        find_browser()
    except BrowserError:
        text = "HiMAC-WebShop-Flat-v0"
        return text, f"Played in `{text}`, which answers the same: no Chromium was at hand.", {}
    return env_id, "Played in headless Chromium; the pictures are its screenshots.", {
        "render_mode": "rgb_array"
    }  # fmt: skip


def _text(env: Any) -> Played:
    """An episode of a text environment, flat or hierarchical."""
    played = Played()
    observation, info = env.reset(seed=0)
    steps: list[list[str]] = [_indented(observation["text"])]
    choose, ended, total = _expert(env), False, 0.0
    draws = env.render_mode == "rgb_array"
    played.frames += [env.render()] if draws else []
    while not ended:
        planning = observation.get("phase") == 0
        action = choose(observation, info)
        observation, reward, terminated, truncated, info = env.step(action)
        ended, total = terminated or truncated, total + float(reward)
        step = ["", "BLUEPRINT", *_indented(action), ""] if planning else [f"> {action}"]
        if "option" in info:
            option = info["option"]
            step.append(f"  -- sub-goal ended: {option['reason']}, {option['steps']} steps")
        if planning or action == "<sub_done>":
            step += [f"  [sub-goal {observation['subgoal_index'] + 1}: {observation['subgoal']}]"]
        else:
            step += _indented(observation["text"])
            played.frames += [env.render()] if draws else []
        steps.append(step)
    for step in _shortened(steps):
        played.lines += step
    won = "won" if info["won"] else "not won"
    played.verdict = f"{won} after {info['step']} steps, return {total:g}"
    return played


def _pixels(env: Any) -> Played:
    """An episode of the pixel environment: the actions' names, and the frames."""
    played = Played()
    frame, info = env.reset(seed=0)
    played.frames.append(frame)
    names, total, ended = env.unwrapped.get_action_lookup(), 0.0, False
    commands: Iterator[int] = env.unwrapped.oracle()
    steps: list[list[str]] = []
    while not ended:
        action = next(commands)
        frame, reward, terminated, truncated, info = env.step(action)
        played.frames.append(frame)
        ended, total = terminated or truncated, total + float(reward)
        steps.append([f"> {action} ({names[action]})   reward {float(reward):+.1f}"])
    for step in _shortened(steps):
        played.lines += step
    won = "won" if info["won"] else "not won"
    played.verdict = f"{won} after {info['step']} steps, return {total:g}"
    return played


def _expert(env: Any) -> Callable[[dict[str, Any], dict[str, Any]], str]:
    inner = env.unwrapped
    if not isinstance(inner, HierarchicalEnv):
        commands = inner.oracle()
        return lambda observation, info: next(commands)
    planner, executor = OraclePlanner(inner), OracleExecutor(inner)
    return lambda o, info: planner(o, info) if o["phase"] == 0 else executor(o, info)


def _indented(text: str) -> list[str]:
    """An answer, cut to what is read: each line set in."""
    text = text.replace(" [SEP] ", "\n")
    if len(text) > SHOWN:
        text = text[:SHOWN].rsplit(" ", 1)[0] + " ..."
    # Blanks at the beginning of a line are part of a grid.
    lines = [wrap(line, WIDTH) if len(line) > WIDTH else [line] for line in text.split("\n")]
    flat = [f"  {part}".rstrip() for line in lines for part in line]
    while flat and not flat[-1]:
        flat.pop()
    return flat


def _shortened(steps: list[list[str]]) -> list[list[str]]:
    """All steps, or the first and the last of many with their number between."""
    left = len(steps) - HEAD - TAIL
    if left <= 1:
        return steps
    return [*steps[:HEAD], ["", f"  ... {left} more decisions ...", ""], *steps[-TAIL:]]


def strip(frames: list[Any]) -> bytes:
    """Some frames side by side, evenly chosen, the first and the last among them, as a PNG."""
    from PIL import Image

    count = min(FRAMES, len(frames))
    chosen = [frames[round(k * (len(frames) - 1) / max(1, count - 1))] for k in range(count)]
    pictures = []
    for frame in chosen:
        image = Image.fromarray(np.asarray(frame, np.uint8))
        width = round(image.width * HEIGHT / image.height)
        small = image.height <= HEIGHT
        way = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
        pictures.append(image.resize((width, HEIGHT), way))
    row = Image.new("RGB", (sum(p.width + 8 for p in pictures) - 8, HEIGHT), "white")
    at = 0
    for picture in pictures:
        row.paste(picture, (at, 0))
        at += picture.width + 8
    file = io.BytesIO()
    row.save(file, "PNG", optimize=True)
    return file.getvalue()
