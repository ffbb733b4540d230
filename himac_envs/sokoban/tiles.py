"""The seven pictures a board is made of: drawn here, read from gym-sokoban, or one pixel each."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from himac_envs.errors import MissingDependencyError

__all__ = ["TINY", "drawn_tiles", "load_tiles", "tile_set"]

Tiles = NDArray[np.uint8]

#: gym-sokoban's colours for wall, floor, target, box on target, box, player, player on target
#: (``render_utils.room_to_tiny_world_rgb``).
TINY: Final = (
    (0, 0, 0),
    (243, 248, 238),
    (254, 126, 125),
    (254, 95, 56),
    (142, 121, 56),
    (160, 212, 56),
    (219, 212, 56),
)

_FILES: Final = (
    "wall.png",
    "floor.png",
    "box_target.png",
    "box_on_target.png",
    "box.png",
    "player.png",
    "player_on_target.png",
)


def tile_set(tiles: str, size: int = 16) -> Tiles:
    """Return a tile set.

    Args:
        tiles: "drawn" (ours), "gym-sokoban" (read from that package's files, which must be
            installed; it is not imported), "tiny" (gym-sokoban's colours, one flat square a cell),
            or a folder with gym-sokoban's seven file names.
        size: Pixels a side: 8 to 64 for "drawn", 16 for "gym-sokoban" and folders, 1 or more for
            "tiny".

    Returns:
        uint8, shape (7, size, size, 3), by picture code (see ``Cell``); read-only.
    """
    if tiles == "drawn":
        return drawn_tiles(size)
    if tiles == "tiny":
        if size < 1:
            raise ValueError(f"tile_size={size}: a cell has at least one pixel")
        flat = np.array(TINY, np.uint8)[:, None, None, :]
        return _frozen(np.ascontiguousarray(np.broadcast_to(flat, (7, size, size, 3))))
    if tiles == "gym-sokoban":
        spec = importlib.util.find_spec("gym_sokoban")
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(
                "tiles='gym-sokoban' reads the pictures of the gym-sokoban package, which is not "
                "installed: pip install --no-deps gym-sokoban, or use tiles='drawn'"
            )
        folder = Path(next(iter(spec.submodule_search_locations))) / "envs" / "surface"
    else:
        folder = Path(tiles)
        if not folder.is_dir():
            raise ValueError(
                f"tiles={tiles!r}: choose 'drawn', 'gym-sokoban', 'tiny' or a folder with "
                f"{', '.join(_FILES)}"
            )
    made = load_tiles(str(folder))
    if size != made.shape[1]:
        raise ValueError(
            f"tile_size={size}: the pictures in {folder} have {made.shape[1]} pixels a side; only "
            "tiles='drawn' and 'tiny' come in other sizes"
        )
    return made


@lru_cache(maxsize=8)
def load_tiles(folder: str) -> Tiles:
    """Read seven square PNG files of one size.

    Raises:
        MissingDependencyError: Pillow is not installed.
        ValueError: A file is missing, no picture or of another size.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependencyError("Pillow", "reading tiles from files", "sokoban") from None
    pictures = []
    for name in _FILES:
        path = Path(folder) / name
        try:
            with Image.open(path) as picture:
                pictures.append(np.asarray(picture.convert("RGB"), np.uint8))
        except OSError as error:
            raise ValueError(f"{path} cannot be read as a picture: {error}") from error
    shapes = {picture.shape for picture in pictures}
    if len(shapes) != 1 or pictures[0].shape[0] != pictures[0].shape[1]:
        raise ValueError(f"the pictures in {folder} must be square and of one size, got {shapes}")
    return _frozen(np.stack(pictures))


def _frozen(tiles: Tiles) -> Tiles:
    tiles.flags.writeable = False
    return tiles


# ---- drawing -------------------------------------------------------------------------------
# Shapes are inequalities over a grid of sample points, four by four a pixel, which are then
# averaged: crisp edges at any size, the same bytes on every machine, and no drawing library.
_SAMPLES: Final = 4
_MORTAR = (58, 66, 82)
_BRICK = (98, 110, 132)
_BRICK_LIGHT = (118, 131, 154)
_GROUND = (236, 229, 214)
_GROUND_LINE = (224, 215, 197)
_RING = (214, 69, 65)
_WOOD = (196, 140, 78)
_WOOD_DARK = (133, 86, 42)
_WOOD_LIGHT = (216, 167, 106)
_DONE = (87, 158, 92)
_DONE_DARK = (43, 96, 54)
_DONE_LIGHT = (122, 187, 122)
_SKIN = (48, 107, 186)
_SKIN_DARK = (26, 62, 117)
_EYE = (255, 255, 255)
_PUPIL = (20, 30, 48)


class _Canvas:
    """One tile at sample resolution; coordinates run from 0 to 1."""

    def __init__(self, size: int, colour: tuple[int, int, int]) -> None:
        n = size * _SAMPLES
        axis = (np.arange(n) + 0.5) / n
        self.x, self.y = np.meshgrid(axis, axis)
        self.size = size
        self.pixels = np.empty((n, n, 3))
        self.pixels[:] = colour

    def fill(self, where: NDArray[np.bool_], colour: tuple[int, int, int]) -> _Canvas:
        self.pixels[where] = colour
        return self

    def rect(
        self, left: float, top: float, right: float, bottom: float, colour: tuple[int, int, int]
    ) -> _Canvas:
        inside = (self.x >= left) & (self.x < right) & (self.y >= top) & (self.y < bottom)
        return self.fill(inside, colour)

    def disc(self, x: float, y: float, radius: float, colour: tuple[int, int, int]) -> _Canvas:
        return self.fill((self.x - x) ** 2 + (self.y - y) ** 2 < radius**2, colour)

    def line(
        self, x0: float, y0: float, x1: float, y1: float, width: float,
        colour: tuple[int, int, int],
    ) -> _Canvas:  # fmt: skip
        dx, dy = x1 - x0, y1 - y0
        along = ((self.x - x0) * dx + (self.y - y0) * dy) / (dx * dx + dy * dy)
        along = np.clip(along, 0.0, 1.0)
        away = (self.x - x0 - along * dx) ** 2 + (self.y - y0 - along * dy) ** 2
        return self.fill(away < (width / 2) ** 2, colour)

    def tile(self) -> Tiles:
        n = self.size
        blocks = self.pixels.reshape(n, _SAMPLES, n, _SAMPLES, 3)
        made: Tiles = np.floor(blocks.mean(axis=(1, 3)) + 0.5).astype(np.uint8)
        return made


@lru_cache(maxsize=16)
def drawn_tiles(size: int = 16) -> Tiles:
    """Our own tiles, ``size`` pixels a side (8 to 64); the same bytes on every machine."""
    if not 8 <= size <= 64:
        raise ValueError(f"tile_size={size}: drawn tiles have 8 to 64 pixels a side")
    return _frozen(
        np.stack(
            [
                _wall(size),
                _ground(size).tile(),
                _target(size).tile(),
                _box(_target(size), _DONE, _DONE_DARK, _DONE_LIGHT, done=True).tile(),
                _box(_ground(size), _WOOD, _WOOD_DARK, _WOOD_LIGHT, done=False).tile(),
                _player(_ground(size)).tile(),
                _player(_ground(size).disc(0.5, 0.5, 0.49, _RING)).tile(),
            ]
        )
    )


def _wall(size: int) -> Tiles:
    canvas = _Canvas(size, _MORTAR)
    gap = 1 / 16
    for row in range(2):
        top = row * 0.5
        for left in (0.0, 0.5) if row == 0 else (-0.25, 0.25, 0.75):
            canvas.rect(left, top, left + 0.5 - gap, top + 0.5 - gap, _BRICK)
            canvas.rect(left, top, left + 0.5 - gap, top + gap, _BRICK_LIGHT)
    return canvas.tile()


def _ground(size: int) -> _Canvas:
    edge = 1 / size  # one pixel, whatever the size: a grid to count cells by
    canvas = _Canvas(size, _GROUND)
    canvas.rect(0, 1 - edge, 1, 1, _GROUND_LINE)
    return canvas.rect(1 - edge, 0, 1, 1, _GROUND_LINE)


def _target(size: int) -> _Canvas:
    canvas = _ground(size).disc(0.5, 0.5, 0.34, _RING)
    canvas.disc(0.5, 0.5, 0.21, _GROUND)
    return canvas.disc(0.5, 0.5, 0.11, _RING)


def _box(
    canvas: _Canvas,
    face: tuple[int, int, int],
    dark: tuple[int, int, int],
    light: tuple[int, int, int],
    done: bool,
) -> _Canvas:
    canvas.rect(1 / 16, 1 / 16, 15 / 16, 15 / 16, dark)
    canvas.rect(2 / 16, 2 / 16, 14 / 16, 14 / 16, face)
    canvas.rect(2 / 16, 2 / 16, 14 / 16, 3 / 16, light)
    if done:
        canvas.line(0.28, 0.54, 0.44, 0.70, 0.13, _EYE)
        return canvas.line(0.44, 0.70, 0.74, 0.32, 0.13, _EYE)
    canvas.line(0.20, 0.22, 0.80, 0.80, 0.11, dark)
    return canvas.line(0.80, 0.22, 0.20, 0.80, 0.11, dark)


def _player(canvas: _Canvas) -> _Canvas:
    canvas.disc(0.5, 0.5, 0.42, _SKIN_DARK).disc(0.5, 0.5, 0.36, _SKIN)
    for x in (0.37, 0.63):
        canvas.disc(x, 0.44, 0.10, _EYE).disc(x, 0.46, 0.05, _PUPIL)
    return canvas.rect(0.36, 0.64, 0.64, 0.70, _EYE)
