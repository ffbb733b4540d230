"""Sokoban's environments against the suite's contract and gym-sokoban's interface."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import himac_envs
from himac_envs.sokoban.env import SokobanEnv
from himac_envs.sokoban.pixels import SokobanPixelsEnv
from himac_envs.sokoban.render import picture
from himac_envs.testing import check_task_env

PIXELS = "HiMAC-Sokoban-Pixels-v0"


@pytest.mark.parametrize(
    "settings",
    [
        {"boxes": 2, "image": True, "deadlock": True, "text": "sentences"},
        {"room": (10, 10), "boxes": 4, "max_steps": 300, "text": "coordinates"},
        {"generator": "verl-agent", "symbols": "xsb", "split": "valid"},
        {"generator": "gym-sokoban", "boxes": 2, "split": "test", "max_steps": 60},
        {"data": "puzzles", "max_steps": 400, "image": True, "tiles": "tiny"},
    ],
)
def test_conformance(settings: dict[str, Any]) -> None:
    check_task_env(SokobanEnv(**settings), tasks=5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"observation": "grid"},
        {"observation": "tiny", "pull": True},
        {"room": (6, 6), "boxes": 1, "tile_size": 32},
    ],
)
def test_pixels_pass_gymnasiums_checker(settings: dict[str, Any]) -> None:
    env = gym.make(PIXELS, render_mode="rgb_array", **settings).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)


def test_pixels_are_gym_sokobans_interface() -> None:
    env = gym.make(PIXELS).unwrapped
    assert isinstance(env, SokobanPixelsEnv)
    assert env.action_space == gym.spaces.Discrete(9) and env.max_steps == 200
    frame, info = env.reset(seed=4)
    assert frame.shape == (160, 160, 3) and frame.dtype == np.uint8
    assert env.room_fixed.dtype == env.room_state.dtype == np.int64
    assert (env.room_state == 4).sum() == (env.room_fixed == 2).sum() == 3 == env.num_boxes
    assert env.room_state[tuple(env.player_position)] == 5
    assert env.get_action_lookup()[8] == "move right" == env.get_action_meanings()[8]
    assert info["data"] == "generated" and info["step"] == 0
    total = 0.0
    for action in env.oracle():
        frame, reward, terminated, truncated, info = env.step(action)
        total += reward
        assert info["action.name"] == f"push {('up', 'down', 'left', 'right')[action - 1]}"
    assert terminated and not truncated and info["all_boxes_on_target"]
    assert total == pytest.approx(10 + 3 - 0.1 * info["step"])
    assert np.array_equal(frame, picture(env.board.grid(), env.settings.tiles))  # type: ignore[union-attr]
    for bad in (-1, 9, 1.5, "up", None):
        with pytest.raises(ValueError, match="0 to 8"):
            env.step(bad)  # type: ignore[arg-type]


def test_the_limit_is_met_once_as_in_the_original() -> None:
    env = gym.make(PIXELS, max_steps=3).unwrapped
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(5)]
    assert ends == [(False, t == 2) for t in range(5)]


def test_frames_are_the_callers_own() -> None:
    env = gym.make(PIXELS, room=(6, 6), boxes=1).unwrapped
    first, _ = env.reset(seed=0)
    kept = first.copy()
    second = env.step(1)[0]
    second[:] = 0
    assert np.array_equal(first, kept)
    assert env.step(0)[0].any()


@pytest.mark.parametrize(
    ("preset", "shape", "boxes", "steps"),
    [
        ("v0", (10, 10), 3, 200), ("v1", (10, 10), 4, 120), ("v2", (10, 10), 5, 200),
        ("small-v0", (7, 7), 2, 200), ("small-v1", (7, 7), 3, 200), ("large-v0", (13, 11), 3, 300),
        ("large-v1", (13, 11), 5, 300), ("huge-v0", (13, 13), 5, 300),
    ],
)  # fmt: skip
def test_presets(preset: str, shape: tuple[int, int], boxes: int, steps: int) -> None:
    env = gym.make(PIXELS, preset=preset).unwrapped
    env.reset(seed=0)
    assert (env.dim_room, env.num_boxes, env.max_steps) == (shape, boxes, steps)
    assert env.room_fixed.shape == shape
    flat = SokobanEnv(preset=preset, max_steps=99)
    assert flat.max_steps == 99 and flat.source.rows == shape[0]


def test_wrong_settings_teach() -> None:
    for settings, why in (
        ({"preset": "v9"}, "huge-v0"),
        ({"text": "prose"}, "coordinates"),
        ({"symbols": "ascii"}, "ragen"),
        ({"generator": "slow"}, "gym-sokoban"),
        ({"room": (6,)}, "rows, columns"),
        ({"room": (6, 6), "boxes": 40}, "holds 1 to"),
        ({"actions_per_step": 0}, "at least one"),
        ({"tiles": "nice", "image": True}, "drawn"),
        ({"split": "dev"}, "train"),
    ):
        with pytest.raises(ValueError, match=why):
            SokobanEnv(**settings).reset(seed=0)  # type: ignore[arg-type]
    for settings, why in (
        ({"observation": "text"}, "grid"),
        ({"reward": "dense"}, "sparse"),
        ({"max_steps": 0}, "at least one"),
        ({"render_mode": "human"}, "rgb_array"),
    ):
        with pytest.raises(ValueError, match=why):
            SokobanPixelsEnv(**settings)  # type: ignore[arg-type]
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        SokobanPixelsEnv().step(0)
    with pytest.raises(FileNotFoundError, match="no level files"):
        SokobanEnv(data="no/such/folder")
    with pytest.raises(himac_envs.HiMACError, match="himac data get boxoban"):
        SokobanEnv(data="boxoban")


def test_pixels_pickle_copy_and_snapshot_in_mid_episode() -> None:
    env = SokobanPixelsEnv(room=(7, 7), boxes=2)
    env.reset(seed=1)
    rng = np.random.default_rng(0)
    for action in rng.integers(0, 9, 10).tolist():
        env.step(action)
    others = [pickle.loads(pickle.dumps(env)), copy.deepcopy(env)]
    state = env.snapshot()
    tail = rng.integers(0, 9, 20).tolist()
    played = [env.step(a) for a in tail]
    env.restore(state)
    for other in (*others, env):
        for (frame, *rest), action in zip(played, tail, strict=True):
            again = other.step(action)
            assert np.array_equal(frame, again[0]) and rest == list(again[1:])


def test_images_follow_the_game() -> None:
    env = SokobanEnv(image=True, tile_size=8, render_mode="rgb_array")
    observation, _ = env.reset(seed=5)
    for command in env.oracle():
        observation, *_ = env.step(command)
        assert env.board is not None
        drawn = picture(env.board.grid(), env._tile_set())
        assert np.array_equal(observation["image"], drawn)
        assert np.array_equal(env.render(), drawn)


def test_deadlock_is_told_on_request() -> None:
    env = SokobanEnv(deadlock=True, max_steps=60, boxes=2)
    told = 0
    for seed in range(20):
        _, info = env.reset(seed=seed)
        assert info["deadlock"] is False
        rng = np.random.default_rng(seed)
        for _ in range(40):
            *_, info = env.step(("up", "down", "left", "right")[int(rng.integers(4))])
            if info["deadlock"]:
                told += 1
                with pytest.raises(ValueError, match="cannot be"):
                    env.oracle_blueprint()
                with pytest.raises(ValueError, match="cannot be"):
                    env.oracle()
                break
    assert told > 5


def test_gym_sokobans_tiles(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow: pip install 'himac[sokoban]'")
    from himac_envs.sokoban.tiles import drawn_tiles, tile_set

    names = ("wall", "floor", "box_target", "box_on_target", "box", "player", "player_on_target")
    for name, tile in zip(names, drawn_tiles(16), strict=True):
        image.fromarray(tile).save(tmp_path / f"{name}.png")
    assert np.array_equal(tile_set(str(tmp_path), 16), drawn_tiles(16))
    with pytest.raises(ValueError, match="16 pixels"):
        tile_set(str(tmp_path), 32)
    partial = tmp_path / "partial"
    partial.mkdir()
    image.fromarray(drawn_tiles(16)[0]).save(partial / "wall.png")
    with pytest.raises(ValueError, match=r"floor\.png"):
        tile_set(str(partial), 16)


def test_films(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow: pip install 'himac[sokoban]'")
    from himac_envs.sokoban.record import Recorder, save_film

    env = Recorder(gym.make("HiMAC-Sokoban-v0", render_mode="rgb_array"), tmp_path / "film.gif")
    hierarchy: Any = env.unwrapped
    for _ in range(2):
        env.reset(seed=0)
        env.step(hierarchy.oracle_blueprint().render())
        for command in list(hierarchy.oracle()):
            env.step(command)
    env.close()
    assert [p.name for p in env.written] == ["film.gif", "film-2.gif"]
    with image.open(env.written[0]) as film:
        assert film.n_frames >= 2 and film.size == (288, 288)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["film-2.gif", "film.gif"]
    with pytest.raises(ValueError, match="rgb_array"):
        Recorder(gym.make("HiMAC-Sokoban-v0"), tmp_path / "x.gif")
    with pytest.raises(ValueError, match=r"\.gif or \.mp4"):
        save_film(tmp_path / "x.png", [np.zeros((4, 4, 3), np.uint8)])
    if pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg"):
        frames = [np.full((33, 35, 3), k * 20, np.uint8) for k in range(8)]
        assert save_film(tmp_path / "x.mp4", frames).stat().st_size > 500
