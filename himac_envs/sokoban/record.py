"""Films of episodes: GIF or MP4, for any environment with ``render_mode="rgb_array"``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from himac_envs.errors import MissingDependencyError

__all__ = ["Recorder", "save_film"]


def save_film(
    path: str | os.PathLike[str], frames: Sequence[NDArray[np.uint8]], fps: float = 4.0
) -> Path:
    """Write frames as a film.

    Args:
        path: Ends in ``.gif`` (Pillow) or ``.mp4`` (imageio with its ffmpeg).
        frames: uint8, each (height, width, 3), all of one size.
        fps: Frames a second.

    Returns:
        The path. The film is written beside it and renamed, so an old one stays until then.

    Raises:
        ValueError: No frames, frames of several sizes, or another ending.
        MissingDependencyError: The library that writes this format is not installed.
    """
    path = Path(path)
    if not frames:
        raise ValueError(f"no frames to write to {path}")
    if len({frame.shape for frame in frames}) != 1:
        raise ValueError(f"the frames for {path} differ in size")
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise ValueError(f"{path}: films end in .gif or .mp4")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        if path.suffix.lower() == ".gif":
            _write_gif(beside, frames, fps)
        else:
            _write_mp4(beside, frames, fps)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def _write_gif(path: Path, frames: Sequence[NDArray[np.uint8]], fps: float) -> None:
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependencyError("Pillow", "writing a GIF", "sokoban") from None
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0
    )


def _write_mp4(path: Path, frames: Sequence[NDArray[np.uint8]], fps: float) -> None:
    try:
        import imageio_ffmpeg
    except ImportError:
        raise MissingDependencyError("imageio-ffmpeg", "writing an MP4", "sokoban") from None
    # The codec wants even sides; the last line and column are repeated where they are odd.
    odd = [(0, n % 2) for n in frames[0].shape[:2]]
    even = [np.ascontiguousarray(np.pad(frame, [*odd, (0, 0)], mode="edge")) for frame in frames]
    height, width = even[0].shape[:2]
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=fps, macro_block_size=2, ffmpeg_log_level="error"
    )
    writer.send(None)
    for frame in even:
        writer.send(frame)
    writer.close()


class Recorder(gym.Wrapper[Any, Any, Any, Any]):
    """Keep the frames of each episode and write a film when it ends.

    Args:
        env: An environment with ``render_mode="rgb_array"``.
        path: Where the film goes (.gif or .mp4); later episodes get ``-2``, ``-3``, ... before the
            ending.
        fps: Frames a second.
        least: Films have at least so many lines: smaller frames are enlarged by a whole factor.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        path: str | os.PathLike[str],
        fps: float = 4.0,
        least: int = 240,
    ) -> None:
        super().__init__(env)
        if env.render_mode != "rgb_array":
            raise ValueError(
                f"recording needs frames: build the environment with render_mode='rgb_array' "
                f"(it has {env.render_mode!r})"
            )
        self.path, self.fps, self.least = Path(path), fps, least
        self.frames: list[NDArray[np.uint8]] = []
        self.written: list[Path] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; what was recorded of the last one is written first."""
        self.flush()
        answer = self.env.reset(seed=seed, options=options)
        self._keep()
        return answer

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Play one action and keep the frame; at the end of the episode the film is written."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._keep()
        if terminated or truncated:
            self.flush()
        return observation, reward, terminated, truncated, info

    def _keep(self) -> None:
        frame: Any = self.env.render()
        pixels = np.asarray(frame, np.uint8)
        factor = -(-self.least // pixels.shape[0])
        self.frames.append(pixels.repeat(factor, axis=0).repeat(factor, axis=1))

    def flush(self) -> None:
        """Write what was recorded so far as a film."""
        if len(self.frames) > 1:
            number = len(self.written) + 1
            name = self.path if number == 1 else self.path.with_stem(f"{self.path.stem}-{number}")
            # The last picture stays a moment longer before a GIF starts again.
            frames = [*self.frames, *self.frames[-1:] * 3]
            self.written.append(save_film(name, frames, self.fps))
        self.frames = []

    def close(self) -> None:
        """Write what was recorded and close the environment."""
        self.flush()
        super().close()
